"""Strict flags for every test: warnings are errors (pyproject), shapes are checked, nothing reaches the network."""

import atexit
import importlib.util
import os
import shutil
import socket
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 2)
os.environ["HF_HUB_OFFLINE"] = "1"

# What two files compile is compiled once. Each process has a cache of its own: JAX writes its files while others read.
_CACHE = tempfile.mkdtemp(prefix="pliant-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

collect_ignore = [] if importlib.util.find_spec("torch") else ["src/pliant/torch"]

_DATA = os.environ.get("PLIANT_DATA")


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


@pytest.fixture(scope="module", autouse=True)
def _free_programs():
    """Compiled programs of a finished file are let go: all together they would take tens of gigabytes."""
    yield
    jax.clear_caches()


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
