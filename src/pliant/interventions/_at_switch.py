"""Interventions that act when the task changes: at every n-th change, or never."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from pliant.errors import require_whole
from pliant.types import Fresh, Info, Key, Learned, Number, Params, Scalar, State
from pliant.xla.squares import total_norm

Change: TypeAlias = Callable[[Key, Learned, State, Fresh], Learned]
"""`change(key, learned, state, fresh) -> learned`: what an intervention does to the learner."""
Switch: TypeAlias = Callable[[Key, Any, Learned, State, Fresh], tuple[Learned, State, Info]]
"""The hook of an `Intervention`."""


def at_switch(change: Change, every_tasks: Number) -> Switch:
    """Makes the `switch` hook that changes the learner after every n-th task.

    Args:
      change: what to do; runs inside a branch, so it may draw a whole network.
      every_tasks: n ≥ 1, a period in tasks; 0 never changes anything.

    Returns:
      The hook; its `info` has `norm_moved`, the L2 norm of what the parameters changed by.

    Raises:
      UserError: if `every_tasks` is negative.

    Example:
      >>> halve = lambda key, learned, state, fresh: learned._replace(params=learned.params / 2)
      >>> learned, fresh = Learned(jnp.array([6.0, 8.0]), {}, ()), Fresh(lambda key: ((), {}), lambda params: ())
      >>> switch = at_switch(halve, 2)
      >>> [float(switch(jax.random.key(0), index, learned, (), fresh)[2]["norm_moved"]) for index in (1, 2)]
      [0.0, 5.0]
    """
    require_whole("every_tasks", every_tasks, 0, do="Use 1 for every switch, 0 for none.")

    def switch(key: Key, index: Any, learned: Learned, state: State, fresh: Fresh) -> tuple[Learned, State, Info]:
        def changed(learned: Learned) -> tuple[Learned, Scalar]:
            after = change(key, learned, state, fresh)
            return after, norm_moved(learned.params, after.params)

        is_due = (every_tasks > 0) & (index % jnp.maximum(every_tasks, 1) == 0)
        learned, moved = jax.lax.cond(is_due, changed, lambda learned: (learned, jnp.float32(0)), learned)
        return learned, state, {"norm_moved": moved}

    return switch


def norm_moved(before: Params, after: Params) -> Scalar:
    """The L2 norm of the difference, in float32.

    Example:
      >>> float(norm_moved({"w": jnp.zeros(2)}, {"w": jnp.array([3.0, 4.0])}))
      5.0
    """
    wide = jax.tree.map(lambda old, new: new.astype(jnp.float32) - old.astype(jnp.float32), before, after)
    return total_norm(wide)


def drawn(key: Key, params: Params, fresh: Fresh) -> tuple[Params, State]:
    """Draws new parameters with the types of `params`, and returns them with the initial running statistics.

    Example:
      >>> fresh = Fresh(lambda key: (jax.random.normal(key, (2,)), {}), lambda params: ())
      >>> drawn(jax.random.key(0), jnp.zeros(2, jnp.bfloat16), fresh)[0].dtype.name
      'bfloat16'
    """
    new, statistics = fresh.init_network(key)
    return jax.tree.map(lambda old, leaf: leaf.astype(old.dtype), params, new), statistics
