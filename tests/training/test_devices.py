"""Seeds that are spread over eight simulated devices have the numbers of one device, and an eighth of its memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from on_devices import RUNS
from pliant.networks import mlp
from pliant.results import RunFolder
from pliant.training import seed_axis

ROOT = Path(__file__).parents[2]
EQUAL = ("wide", "ppo-wide")
"""To the bit: a device trains one seed after another, with the same program."""
CLOSE = ("narrow", "cnn", "ppo")
"""But for rounding: seeds in one batch, and convolutions."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folders of all runs on one device and on eight, from a process each."""
    folders = {number: tmp_path_factory.mktemp(f"on-{number}") for number in (1, 8)}
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "devices"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "on_devices.py"), str(folder), *RUNS],
            env=environment | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={number}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, folder in folders.items()
    ]
    for process in started:
        printed, _ = process.communicate()
        assert process.returncode == 0, printed[-3000:]
    return folders


def _held(folder):
    return json.loads((folder / "held.json").read_text())


def test_the_processes_had_as_many_devices(trained):
    assert [_held(folder)["devices"] for folder in trained.values()] == [1, 8]


@pytest.mark.parametrize("name", EQUAL)
def test_seeds_in_turn_are_equal_to_the_bit(trained, name):
    one, eight = (RunFolder(folder / name).metrics for folder in trained.values())
    pd.testing.assert_frame_equal(eight, one, check_exact=True)
    assert one.groupby("seed")["value"].sum().nunique() == RUNS[name].seeds


@pytest.mark.parametrize("name", CLOSE)
def test_other_programs_are_equal_but_for_rounding(trained, name):
    """Measured: 3e-5 of PPO's loss, a difference of advantages that are nearly 0; 7e-8 with convolutions."""
    one, eight = (RunFolder(folder / name).metrics for folder in trained.values())
    pd.testing.assert_frame_equal(eight.drop(columns="value"), one.drop(columns="value"))
    np.testing.assert_allclose(eight["value"], one["value"], rtol=1e-3, atol=1e-6)
    loss = one[one["metric"] == ("policy_loss" if name == "ppo" else "loss")]
    assert loss.groupby("seed")["value"].sum().std() > 0.01 * abs(loss["value"].mean())  # seeds differ by more


def test_a_device_holds_an_eighth_of_what_one_alone_holds(trained):
    """Parameters, moments, keys; and the environments and rollouts of PPO."""
    one, eight = (_held(folder)["held"] for folder in trained.values())
    for name, ((alone,), each) in {name: (one[name], eight[name]) for name in one}.items():
        assert alone > 100_000, name
        assert each == [alone // 8] * 8, name


@pytest.mark.parametrize(("num_seeds", "slots"), [(1, 1), (2, 2), (3, 4), (5, 6)])
def test_seeds_are_filled_up_by_less_than_a_device(num_seeds, slots):
    """With the two devices of these tests."""
    assert seed_axis(num_seeds, mlp((3,), 2, widths=(8,))).num_slots == slots
