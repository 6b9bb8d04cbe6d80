"""How the tests' programs are compiled: quickly, unless a test is marked `exact`, and once on this machine."""

import functools
import hashlib
import os
import shutil
from importlib.metadata import version
from pathlib import Path

import jax
from jax._src import compilation_cache, compiler
from jax._src.lru_cache import LRUCache

QUICK_OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""Those that a release of jaxlib no longer knows are left out."""
MAX_BYTES = 4e9

_is_quick = False
_own_options = compiler.get_compile_options


@functools.cache
def _known_options():
    def is_known(option):
        try:
            jax.jit(lambda: 0).lower().compile(compiler_options=dict([option]))
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return dict(filter(is_known, QUICK_OPTIONS.items()))


def _options(*args, env_options_overrides=None, **rest):
    overrides = {**(env_options_overrides or {}), **_known_options()} if _is_quick else env_options_overrides
    return _own_options(*args, env_options_overrides=overrides, **rest)


compiler.get_compile_options = _options


def compile_quickly(quick: bool) -> None:
    """Compiles with few of XLA's optimizations from here on, in a third of the time; the last bits may differ."""
    global _is_quick
    if quick != _is_quick:
        _known_options()  # which compiles, as for users
        _is_quick = quick
        jax.config.update("jax_disable_most_optimizations", quick)
        jax.clear_caches()


class _SharedCache(LRUCache):
    """Writes whole files at once: the workers share a folder, and a run can be interrupted."""

    def put(self, key, value):
        path = Path(self.path) / f"{key}-cache"
        if not path.exists():
            part = path.with_name(f"{key}.{os.getpid()}")
            part.write_bytes(value)
            part.replace(path)


def keep_programs(root: Path) -> None:
    """Keeps compiled programs in a folder below `root`, for the other workers and for later runs."""
    compilation_cache.LRUCache = _SharedCache
    jax.config.update("jax_compilation_cache_dir", str(_folder(root)))
    # Otherwise the name of the folder becomes part of each program's key.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _folder(root: Path) -> Path:
    """One a release of jaxlib and a kind of CPU: programs of one may not run on another."""
    processor = Path("/proc/cpuinfo")
    kinds = (
        {line for line in processor.read_text().splitlines() if line.startswith("flags")} if processor.exists() else {}
    )
    digest = hashlib.sha256("".join(sorted(kinds)).encode()).hexdigest()[:8]
    return root / f"jaxlib-{version('jaxlib')}-{digest}"


def make_room(root: Path) -> None:
    """Removes the programs of other releases, and all if they have become too many."""
    for folder in root.iterdir() if root.is_dir() else ():
        if folder != _folder(root) or sum(file.stat().st_size for file in folder.iterdir()) > MAX_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
