import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from pliant import _xla

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
    monkeypatch.setenv("XLA_FLAGS", f"{_xla.GUARD_FLAG}=+reduce")
    _xla.guard_reductions()
    assert os.environ["XLA_FLAGS"] == f"{_xla.GUARD_FLAG}=+reduce"


def test_the_guard_is_added_to_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr(_xla, "_has_computed", lambda: False)
    _xla.guard_reductions()
    assert os.environ["XLA_FLAGS"] == f"--other=1 {_xla.GUARD_FLAG}=-reduce"


@pytest.mark.parametrize("release", ["0.10.1", "0.13.0"])
def test_the_guard_is_for_releases_that_know_it(monkeypatch, release):
    monkeypatch.setenv("XLA_FLAGS", "--other=1")
    monkeypatch.setattr(_xla, "version", lambda _: release)
    _xla.guard_reductions()
    assert os.environ["XLA_FLAGS"] == "--other=1"


def test_a_guard_that_comes_too_late_warns(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(_xla, "_has_computed", lambda: True)
    with pytest.warns(RuntimeWarning, match="Import pliant first"):
        _xla.guard_reductions()
