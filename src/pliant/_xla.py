"""What pliant asks of XLA: right numbers on the CPU, every core, and a compilation cache.

**The guard.** By default XLA:CPU (jaxlib 0.10.2 and later) fuses some reductions into generated code that
returns wrong numbers without a word: `jax.jit(lambda E, c: jnp.sum((E @ jnp.full_like(E, c)) * E, -1))` with E of
shape (5, 33, 33) gives values up to 1e34, different in each run (jax-ml/jax#39103). Importing pliant turns that
family of fusions off through `XLA_FLAGS`, unless the user has set the same flag to anything. It costs nothing
measurable for MLPs and 6–16 % for convolutional networks and transformers. `tests/test_xla.py` compares a grid of
such expressions with float64 NumPy, so that a release that needs another remedy is noticed.

The flag is read once, when XLA makes its first client: import pliant before the first computation.
"""

import os
import re
import sys
import warnings
from importlib.metadata import version

GUARD_FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def guard_reductions() -> None:
    """Adds the flag that keeps XLA:CPU's reductions right, unless the user has set it.

    Warns where a computation came first, since XLA no longer reads its flags then. Releases before 0.10.2 are not
    affected and do not know the flag (XLA ends the process on a flag that it does not know); releases from
    0.13 on have not been tried.
    """
    release = tuple(int(part) for part in re.findall(r"\d+", version("jaxlib"))[:3])
    flags = os.environ.get("XLA_FLAGS", "")
    if not (0, 10, 2) <= release < (0, 13) or GUARD_FLAG in flags:
        return
    if _has_computed():
        warnings.warn(
            "pliant was imported after JAX's first computation, so the guard against XLA:CPU's wrong reductions "
            f"(jax-ml/jax#39103) is not active. Import pliant first, or set XLA_FLAGS={GUARD_FLAG}=-reduce.",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    os.environ["XLA_FLAGS"] = f"{flags} {GUARD_FLAG}=-reduce".strip()


def _has_computed() -> bool:
    """Whether JAX has made a client; without importing JAX, which would be slow, if nobody has."""
    if "jax" not in sys.modules:
        return False
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


def use_every_core() -> None:
    """Makes every CPU core that this process may use a JAX device, so that seeds are spread over them.

    Only for programs of our own (the command line, benchmarks): a library does not decide this for its caller.
    Must come before the first computation.
    """
    import jax

    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))


def cache_compilations() -> None:
    """Keeps compiled programs in the user's cache folder; `JAX_COMPILATION_CACHE_DIR` overrides the place."""
    import jax
    import platformdirs

    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", platformdirs.user_cache_dir("pliant") + "/xla")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # ours take 0.2 to 3
