"""Every random stream of a seed, in one enumeration."""

import enum
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, PRNGKeyArray


class Draw(enum.IntEnum):
    """What is drawn: the number that is folded into a key.

    The first ones split a seed's root key, see `SeedKeys`. The others split one of those keys further, beside numbers
    that count from 0 (updates, tasks, calls). They lie above all int32 numbers, so they never meet a count. The data
    order is drawn by NumPy from (seed, task, epoch).

    Example:
      >>> Draw.NETWORK < 2**31 <= Draw.SWITCH
      True
    """

    NETWORK = 0
    TASKS = 1
    METHOD = 2
    NOISE = 3
    PROBE = 4
    # Of METHOD, beside the updates.
    HEAD = 2**32 - 2
    OPTIMIZER = 2**32 - 3
    PENALTY = 2**32 - 4
    SWITCH = 2**32 - 5
    DIAGNOSTIC = 2**32 - 6
    # Of NOISE, beside the updates and calls.
    BATCH = 2**32 - 1
    SOURCE = 2**32 - 7


class SeedKeys(NamedTuple):
    """The separate random streams of a seed."""

    network: PRNGKeyArray
    """Initial parameters."""
    tasks: PRNGKeyArray
    """What makes each task: labels, permutations."""
    method: PRNGKeyArray
    """Optimizer, penalty, intervention, and what follows training."""
    noise: PRNGKeyArray
    """Layers that draw, such as dropout, and what a source draws for an update, such as augmentation."""
    probe: PRNGKeyArray
    """Measurements."""


def seed_keys(seed: Int[Array, ""] | int) -> SeedKeys:
    """Derives the random streams of a seed.

    Example:
      >>> keys = seed_keys(0)
      >>> len({str(jax.random.key_data(key)) for key in keys}) == len(keys)
      True
    """
    root = jax.random.key(seed)
    return SeedKeys(*(jax.random.fold_in(root, Draw[name.upper()].value) for name in SeedKeys._fields))


def draw_key(stream: PRNGKeyArray, draw: Draw, number: Any) -> PRNGKeyArray:
    """The key of one draw of a stream, for one update or task.

    Args:
      stream: one of `SeedKeys`.
      draw: what is drawn.
      number: of the update or task.

    Example:
      >>> stream = seed_keys(0).method
      >>> keys = [draw_key(stream, draw, 1) for draw in (Draw.OPTIMIZER, Draw.PENALTY)]
      >>> bool((jax.random.key_data(keys[0]) == jax.random.key_data(keys[1])).all())
      False
    """
    return jax.random.fold_in(jax.random.fold_in(stream, draw.value), number)
