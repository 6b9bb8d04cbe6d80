"""Trains a copy of a network, for the diagnostics that probe plasticity by training."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from pliant.errors import UserError, require_range
from pliant.types import Batch, Key, Params, Scalar


class Fit(NamedTuple):
    """What `fit` returns."""

    params: Params
    """After the last update."""
    losses: Float[Array, " points"]
    """Mean loss, or score, of all examples at the asked numbers of updates."""


def fit(
    function: Callable[[Params, Any], Array],
    losses: Callable[[Array, Any], Float[Array, " batch"]],
    params: Params,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    key: Key,
    *,
    batch_size: int,
    points: Sequence[int],
    scores: Callable[[Array, Any], Float[Array, " batch"]] | None = None,
) -> Fit:
    """Trains a copy of the parameters from a fresh optimizer state, in one loop that can be compiled and mapped.

    Every update sees `batch_size` examples sampled with replacement, so that any batch size fits any data.

    Args:
      function: `function(params, inputs) -> output`, deterministic.
      losses: `losses(output, targets) -> loss of every example`.
      params: where training begins; not changed.
      optimizer: its update is handed `step`, from 1, and `key`, if it takes them.
      batch: all examples.
      key: for the draws, and for the optimizer.
      batch_size: examples in an update, ≥ 1.
      points: numbers of updates after which the loss of all examples is taken, ascending; 0 is before the first.
      scores: `scores(output, targets)` of every example, taken in place of the loss.

    Raises:
      UserError: for an empty batch, an empty draw, or points that do not ascend.
    """
    require_range("batch_size", batch_size, 1, do="32 is usual.")
    ends, num_examples = np.asarray(points, np.int32), len(jax.tree.leaves(batch.inputs)[0])
    if num_examples == 0:
        raise UserError(got="an empty batch", wanted="at least one example", do="Pass examples to train on.")
    if ends.size == 0 or ends[0] < 0 or (np.diff(ends) <= 0).any():
        raise UserError(
            got=f"losses after {list(points)} updates", wanted="numbers ≥ 0 that ascend", do="Sort them: (100, 500)."
        )
    extended, batch = optax.with_extra_args_support(optimizer), jax.tree.map(jnp.asarray, batch)

    def mean_loss(params: Params, batch: Batch, of: Callable[[Array, Any], Array] = losses) -> Scalar:
        return of(function(params, batch.inputs), batch.targets).mean()

    def update(i: Int[Array, ""], carry: tuple[Params, optax.OptState]) -> tuple[Params, optax.OptState]:
        params, state = carry
        of_batch, of_optimizer = jax.random.split(jax.random.fold_in(key, i))
        chosen = jax.random.randint(of_batch, (batch_size,), 0, num_examples)
        gradients = jax.grad(mean_loss)(params, jax.tree.map(lambda leaf: leaf[chosen], batch))
        updates, state = extended.update(gradients, state, params, step=i + 1, key=of_optimizer)
        return optax.apply_updates(params, updates), state

    def advance(carry: Any, span: tuple[Int[Array, ""], Int[Array, ""]]) -> tuple[Any, Scalar]:
        carry = jax.lax.fori_loop(*span, update, carry)
        return carry, mean_loss(carry[0], batch, scores or losses)

    spans = jnp.asarray([0, *ends[:-1]], jnp.int32), jnp.asarray(ends)
    (params, _), curve = jax.lax.scan(advance, (params, extended.init(params)), spans)
    return Fit(params, curve)
