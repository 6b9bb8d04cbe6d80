"""Strict flags for every test: warnings are errors (pyproject), shapes are checked, nothing reaches the network."""

import contextlib
import ctypes
import gc
import importlib.util
import os
import socket
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import compiling
import tiers

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
os.environ["HF_HUB_OFFLINE"] = "1"

_PROGRAMS = Path(__file__).parent / ".cache" / "xla"
compiling.keep_programs(_PROGRAMS)

_ENVIRONMENTS = [f"src/pliant/rl/environments/_{name}.py" for name in ("classic_control", "gymnax", "minatar")]
_OPTIONAL = {
    "torch": ["src/pliant/torch", *map(str, Path(__file__).parent.glob("tests/torch_*.py"))],
    "gymnax": [*_ENVIRONMENTS, "src/pliant/rl/environments/_minatar_games.py"],
}
collect_ignore = [path for name, paths in _OPTIONAL.items() for path in paths if not importlib.util.find_spec(name)]

_DATA = os.environ.get("PLIANT_DATA")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="compile in a third of the time, but for tests marked exact")
    parser.addoption("--note-long", type=float, metavar="S", help="list tests of more CPU seconds in long_tests.txt")
    parser.addoption("--share", metavar="I/N", help="of the tests marked whole, only share I of N, counted from 0")


def pytest_configure(config):
    config.started = time.monotonic()
    config.num_left_out = 0
    if not hasattr(config, "workerinput"):
        compiling.make_room(_PROGRAMS)
        if config.option.note_long:
            config.pluginmanager.register(_LongTests(config.option.note_long))


class _LongTests:
    def __init__(self, most_seconds):
        self.most_seconds, self.found = most_seconds, set()

    def pytest_runtest_logreport(self, report):
        if report.when == "teardown" and dict(report.user_properties)["cpu_seconds"] > self.most_seconds:
            self.found.add(report.nodeid)

    def pytest_sessionfinish(self):
        tiers.note_long(self.found)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    tiers.mark_whole(items)
    tiers.arrange(items)
    if config.option.share:
        items[:], left_out = tiers.of_share(items, config.option.share)
        config.hook.pytest_deselected(items=left_out)


def pytest_deselected(items):
    for item in items:
        item.config.num_left_out += item.get_closest_marker("whole") is not None


def pytest_collection_finish():
    """What has been imported is not searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    item.cpu_seconds_before = _cpu_seconds()
    compiling.compile_quickly(item.config.option.quick and item.get_closest_marker("exact") is None)
    _seed_global_generators()


def _cpu_seconds():
    """Of all threads, and of processes that have ended."""
    return sum(os.times()[:4])


def _seed_global_generators():
    """PyTorch initialises layers from a generator that all share: without this, every run tests other weights."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """Compiled programs of a finished scope are let go: all together they would take tens of gigabytes."""
    item.user_properties.append(("cpu_seconds", _cpu_seconds() - item.cpu_seconds_before))
    if nextitem is None or tiers.scope_of(nextitem.nodeid) != tiers.scope_of(item.nodeid):
        jax.clear_caches()
        gc.collect()
        _give_memory_back()


def _give_memory_back():
    """glibc keeps what is free between pieces that are not; other systems have no such call."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class Scopes(LoadScopeScheduling):
        """Hands out the scopes in the order in which they were arranged."""

        def _split_scope(self, nodeid):
            return tiers.scope_of(nodeid)

    config.option.loadscopereorder = False
    return Scopes(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    node.config.num_left_out = getattr(node, "workeroutput", {}).get("num_left_out", 0)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["num_left_out"] = session.config.num_left_out


def pytest_terminal_summary(terminalreporter, config):
    minutes = (time.monotonic() - config.started) / 60
    rest = f"; make test-all runs {config.num_left_out:,} more" if config.num_left_out else ""
    terminalreporter.write_line(f"{minutes:.1f} minutes{rest}")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    monkeypatch.delenv("PLIANT_DATA", raising=False)

    def refuse(self, address):
        if self.family != socket.AF_UNIX:
            raise AssertionError(f"a test tried to reach {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace.update(jax=jax, jnp=jnp, optax=optax)


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def data_dir(monkeypatch):
    """The folder of real image data sets that PLIANT_DATA names, one subfolder each."""
    monkeypatch.delenv("PLIANT_DATA", raising=False)
    if _DATA is None or not (Path(_DATA) / "mnist").is_dir():
        pytest.skip("no real data: name a folder that has mnist/train-*.parquet and others with PLIANT_DATA")
    return Path(_DATA)


@pytest.fixture
def compilations():
    """A list that grows by one for every program that XLA compiles, or would if it were not in the cache."""
    compiled = []

    def listen(event, duration, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)
