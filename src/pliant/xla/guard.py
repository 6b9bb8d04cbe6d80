"""What pliant asks of XLA: right numbers on the CPU, every core, and a compilation cache.

**The guard.** By default XLA:CPU (jaxlib 0.10.2 and later) fuses some reductions into generated code that
returns wrong numbers without a word: `jax.jit(lambda E, c: jnp.sum((E @ jnp.full_like(E, c)) * E, -1))` with E of
shape (5, 33, 33) gives values up to 1e34, different in each run (jax-ml/jax#39103). Importing pliant turns that
family of fusions off through `XLA_FLAGS`, unless the user has set the same flag to anything. It costs nothing
measurable for MLPs and 6–16 % for convolutional networks and transformers. `tests/xla/test_guard.py` compares a grid of
such expressions with float64 NumPy, so that a release that needs another remedy is noticed.

The flag is read once, when XLA makes its first client: import pliant before the first computation.

**Child processes inherit it.** XLA ends a process that is given a flag it does not know. So a child with a jaxlib that
is older than 0.10.2 (another environment, started by `subprocess` from a program that imports pliant) aborts with
"Unknown flags in XLA_FLAGS". Start the child without the variable, or set `PLIANT_XLA_GUARD=0` before pliant is
imported: then pliant sets nothing, warns of nothing, and reductions are as XLA makes them.
"""

import os
import re
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version

GUARD_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_COUNT_FLAG = "--xla_force_host_platform_device_count"
SWITCH = "PLIANT_XLA_GUARD"
"""The environment variable that is 0 for no guard."""
_KNOWING = (0, 10, 2), (0, 13)
"""Releases of jaxlib that know the flag: from the first on, below the second, from which on it has not been tried."""


def guard_reductions() -> None:
    """Adds the flag that keeps XLA:CPU's reductions right, unless the user has set it or switched the guard off.

    Warns if it comes too late, since XLA no longer reads its flags after the first computation, and if `XLA_FLAGS` is
    the name of a file. Releases of jaxlib that are not known to know the flag are left alone.
    """
    flags = os.environ.get("XLA_FLAGS", "").strip()
    is_off = os.environ.get(SWITCH, "").strip() == "0"
    if is_off or GUARD_FLAG in flags or not _KNOWING[0] <= _release() < _KNOWING[1]:
        return
    if _has_computed():
        _warn("pliant was imported after JAX's first computation", "Import pliant first")
    elif flags and not flags.startswith("--"):  # XLA reads its flags from that file
        _warn(f"XLA_FLAGS={flags} is the name of a file", "Write the flag into the file")
    else:
        os.environ["XLA_FLAGS"] = f"{flags} {GUARD_FLAG}=-reduce".strip()


def _warn(reason: str, remedy: str) -> None:
    warnings.warn(
        f"{reason}, so the guard against XLA:CPU's wrong reductions (jax-ml/jax#39103) is not active. {remedy}, or set "
        f"XLA_FLAGS={GUARD_FLAG}=-reduce; {SWITCH}=0 leaves it off without this warning.",
        RuntimeWarning,
        stacklevel=4,
    )


def _release() -> tuple[int, ...]:
    """The numbers of jaxlib's release; () if it is not installed as a package."""
    try:
        return tuple(int(part) for part in re.findall(r"\d+", version("jaxlib"))[:3])
    except PackageNotFoundError:
        return ()


def _has_computed() -> bool:
    """Whether JAX has made a client; without importing JAX, which would be slow, if nobody has."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "backends_are_initialized", lambda: False)())


def use_every_core() -> None:
    """Makes every CPU core that this process may use a JAX device, so that seeds are spread over them.

    The user's own number stays: `JAX_NUM_CPU_DEVICES`, or `--xla_force_host_platform_device_count` in `XLA_FLAGS`.
    Only for programs of our own (the command line, benchmarks): a library does not decide this for its caller.
    Must come before the first computation.
    """
    import jax

    is_set = jax.config.values["jax_num_cpu_devices"] != -1 or _COUNT_FLAG in os.environ.get("XLA_FLAGS", "")
    if not is_set:
        jax.config.update("jax_num_cpu_devices", _num_cores())


def _num_cores() -> int:
    """How many CPU cores this process may use; where the system does not tell, how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder; `JAX_COMPILATION_CACHE_DIR` overrides the place."""
    import jax
    import platformdirs

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", platformdirs.user_cache_dir("pliant") + "/xla")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # ours take 0.2 to 3
