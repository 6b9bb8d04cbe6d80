import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import pytest

from pliant.xla import guard

pytestmark = pytest.mark.exact

GRID = Path(__file__).parent / "xla_grid.py"


def _wrong_results(*arguments, flags=""):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"XLA_FLAGS": flags} if flags else {}
    command = [sys.executable, str(GRID), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return int(done.stdout)


def test_reductions_are_right_with_the_guard():
    assert _wrong_results("guard") == 0


@pytest.mark.skipif(version("jaxlib") != "0.10.2", reason="known to be affected: jaxlib 0.10.2")
def test_reductions_are_wrong_without_the_guard():
    assert _wrong_results() > 0


def test_a_users_own_choice_is_kept(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"{guard.GUARD_FLAG}=+reduce")
    guard.guard_reductions()
    assert os.environ["XLA_FLAGS"] == f"{guard.GUARD_FLAG}=+reduce"


def test_the_guard_is_added_to_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr(guard, "_has_computed", lambda: False)
    guard.guard_reductions()
    assert os.environ["XLA_FLAGS"] == f"--other=1 {guard.GUARD_FLAG}=-reduce"


@pytest.mark.parametrize("release", ["0.10.1", "0.4.38", "0.10", "0.13.0", "0.13.0.dev20261129", "1.0"])
def test_the_guard_is_for_releases_that_know_it(monkeypatch, release):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr(guard, "version", lambda _: release)
    monkeypatch.setattr(guard, "_has_computed", lambda: False)
    guard.guard_reductions()
    assert os.environ["XLA_FLAGS"] == "--other=1"


@pytest.mark.parametrize("release", ["0.10.2", "0.10.3.dev1", "0.11", "0.12.0.1"])
def test_releases_that_know_it_get_it(monkeypatch, release):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(guard, "version", lambda _: release)
    monkeypatch.setattr(guard, "_has_computed", lambda: False)
    guard.guard_reductions()
    assert os.environ["XLA_FLAGS"] == f"{guard.GUARD_FLAG}=-reduce"


def test_a_jaxlib_that_is_no_package_is_left_alone(monkeypatch):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(guard, "version", version)
    guard.guard_reductions()
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.parametrize("has_computed", [True, False])
def test_the_guard_is_switched_off(monkeypatch, has_computed):
    """Without a word, also where it would come too late."""
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("PLIANT_XLA_GUARD", "0")
    monkeypatch.setattr(guard, "_has_computed", lambda: has_computed)
    guard.guard_reductions()
    assert "XLA_FLAGS" not in os.environ


def test_flags_in_a_file_are_left_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "/tmp/flags.txt")
    monkeypatch.setattr(guard, "_has_computed", lambda: False)
    with pytest.warns(RuntimeWarning, match=r"/tmp/flags.txt is the name of a file.*Write the flag into the file"):
        guard.guard_reductions()
    assert os.environ["XLA_FLAGS"] == "/tmp/flags.txt"


def test_whether_jax_has_computed(monkeypatch):
    jnp.ones(1).block_until_ready()
    assert guard._has_computed()
    monkeypatch.setitem(sys.modules, "jax._src.xla_bridge", object())  # of a release that tells it elsewhere
    assert not guard._has_computed()


def test_cores_where_the_system_does_not_tell_which(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert guard._num_cores() == 3


def test_a_platform_that_is_not_there_is_the_first_computations_matter():
    """Importing everything computes nothing, so it neither fails nor makes the guard come too late."""
    code = (
        "import importlib, pliant\n"
        "for name in ('networks', 'optimizers', 'penalties', 'interventions', 'methods', 'diagnostics', 'training'):\n"
        "    importlib.import_module('pliant.' + name)\n"
        "from pliant.xla import guard\n"
        "print(guard._has_computed())\n"
    )
    environment = os.environ | {"JAX_PLATFORMS": "nowhere"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.strip() == "False"


def test_a_guard_that_comes_too_late_warns(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(guard, "_has_computed", lambda: True)
    with pytest.warns(RuntimeWarning, match="Import pliant first"):
        guard.guard_reductions()


@pytest.mark.parametrize(
    ("configured", "flags", "chosen"),
    [
        (-1, guard.GUARD_FLAG, 3),
        (8, "", None),
        (-1, "--xla_force_host_platform_device_count=8", None),
    ],
    ids=["nothing-set", "config", "flag"],
)
def test_every_core_is_a_device_unless_the_user_has_set_a_number(monkeypatch, configured, flags, chosen):
    updates = []
    config = SimpleNamespace(
        values={"jax_num_cpu_devices": configured}, update=lambda name, value: updates.append((name, value))
    )
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(guard, "_num_cores", lambda: 3)
    guard.use_every_core()
    assert updates == ([] if chosen is None else [("jax_num_cpu_devices", chosen)])
