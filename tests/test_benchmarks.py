"""The benchmarks of long runs, scaling, reading and accelerators, each in its smallest form, which a CPU can do."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HAS_GYMNAX = importlib.util.find_spec("gymnax") is not None


def _found(script, folder, *arguments):
    """What a benchmark has written, and printed."""
    written = folder / "found.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MPLBACKEND": "agg"}
    environment |= {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".cache" / "benchmarks"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments, "--json", str(written)]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(written.read_text()), ended.stdout


def test_an_accelerator(tmp_path):
    found, printed = _found("gpu.py", tmp_path, "--small", "--repeats", "1", "--minutes", "1000")
    rates = {(row["network"], row["what"]): row["seed-steps/s"] for row in found["networks"]}
    assert {name for name, _ in rates} == {"MLP", "CNN", "ResNet"}
    assert all(0 < rate < math.inf for rate in rates.values())
    assert [row["optimizer"] for row in found["adamo"]] == [
        "adam",
        "adamo, every 1",
        "adamo, every 16",
        "adamo, every 64",
    ]
    assert found["adamo"][0]["relative to adam"] == 1
    assert len(found["figure"]) == 4
    assert all(row["hours"] > 0 and row["updates"] > 10_000 for row in found["figure"])
    if HAS_GYMNAX:
        assert found["ppo"][0]["env steps/s"] > 0
    has_torch = any(what.startswith("PyTorch") for _, what in rates)
    assert has_torch != ("PyTorch" in found["left out"])
    assert has_torch or f"without PyTorch: {found['left out']['PyTorch']}" in printed


def test_parts_for_which_there_is_no_time_are_left_out(tmp_path):
    found, printed = _found("gpu.py", tmp_path, "--small", "--minutes", "0")
    assert not {"networks", "adamo", "ppo", "figure"} & set(found)
    assert found["left out"]["networks"] == "0 minutes do not suffice"
    assert "without figure: 0 minutes do not suffice" in printed


def test_a_long_run(tmp_path):
    """Files are merged by tens, and only the newest checkpoint is kept."""
    found, _ = _found("long_run.py", tmp_path, "--tasks", "40", "--seeds", "2", "--rows", "2", "--figure", "curves")
    first, last = found["rows"]
    assert (first["tasks"], last["tasks"]) == (20, 40)
    assert 0 < last["metrics MB"] < last["disk MB"] < 1
    assert last["files"] < 40  # 18 of them belong to a checkpoint
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_reading(tmp_path):
    found, _ = _found("reading.py", tmp_path, "--tasks", "3", "--seeds", "2", "--run", "run")
    assert [row["reader"] for row in found["rows"]][:2] == ["nothing", "pliant show"]
    assert all(row["MB"] > 10 for row in found["rows"])
    assert (tmp_path / "run" / "train_accuracy.png").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes are pinned on Linux alone")
def test_scaling(tmp_path):
    case = "MLP 64-64×3-10, batch 32"
    arguments = ("--cores", "1", "--devices", "2", "--cases", case, "--repeats", "1")
    found, _ = _found("scaling.py", tmp_path, *arguments)
    one, two = found["rows"]
    assert (one["devices"], one["seeds"], one["efficiency"]) == ("1", 4, 1)
    assert (two["devices"], two["seeds"], two["cores"]) == ("2 (simulated)", 8, 1)
    assert two["efficiency"] == pytest.approx(two["seed-steps/s"] / one["seed-steps/s"])


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="a process does not report its memory here")
def test_estimates_of_memory(tmp_path):
    case = "MLP, 2 × 1,024 units, 32 seeds"
    found, _ = _found("estimates.py", tmp_path, "--cases", case)
    (row,) = found["rows"]
    assert row["run"] == case
    assert 0.3 < row["measured, GiB"] / row["estimated, GiB"] < 3


def test_estimates_of_hours(tmp_path):
    """Of the runs that there are."""
    words = "run isometry/strength --scale smoke"
    command = [sys.executable, "-m", "pliant", *words.split(), "--out", str(tmp_path / "isometry-strength-smoke")]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run(command, env=environment, capture_output=True, check=True)
    found, _ = _found("estimates.py", tmp_path, "--experiments", "isometry/strength", "--scale", "smoke", "--runs", ".")
    assert [row["run"] for row in found["rows"]] == ["isometry/strength"]
    assert 0 < found["rows"][0]["median"] < math.inf
