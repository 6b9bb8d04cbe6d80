"""Every random stream of a seed, in one enumeration."""

import enum
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Int, PRNGKeyArray


@enum.unique
class Draw(enum.Enum):
    """What is drawn: the key that is split, and the number that is folded into it.

    "seed" is a seed's root key, and "layer" the key that a network is called with; the others are of `SeedKeys`. These
    keys are also folded with numbers that count from 0: updates, tasks, layers, calls. What is drawn beside such a
    count has a number that the count does not reach. The order of examples is drawn by NumPy from (seed,
    task, epoch).

    Example:
      >>> Draw.SWITCH.key, Draw.SWITCH.number > 2**31
      ('method', True)
    """

    NETWORK = "seed", 0
    TASKS = "seed", 1
    METHOD = "seed", 2
    NOISE = "seed", 3
    PROBE = "seed", 4
    HEAD = "method", 2**32 - 2
    OPTIMIZER = "method", 2**32 - 3
    PENALTY = "method", 2**32 - 4
    SWITCH = "method", 2**32 - 5
    DIAGNOSTIC = "method", 2**32 - 6
    EVALUATION = "probe", 2**32 - 1
    EXAMPLES = "probe", 2**32 - 2
    POINT = "probe", 2**32 - 3
    BATCH = "noise", 2**32 - 1
    SOURCE = "noise", 2**32 - 2
    TRANSITION = "tasks", 2**20
    ACTIVATION = "layer", 2**32 - 1
    AUXILIARY_HEADS = "network", 2**32 - 1

    @property
    def key(self) -> str:
        """The name of the key that is split."""
        return self.value[0]

    @property
    def number(self) -> int:
        """What is folded into it."""
        return self.value[1]


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
    return SeedKeys(*(jax.random.fold_in(root, Draw[name.upper()].number) for name in SeedKeys._fields))


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
    return jax.random.fold_in(jax.random.fold_in(stream, draw.number), number)
