"""DASH: shrinks weights that do not serve the new task."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pliant.errors import require_choice, require_range, require_whole
from pliant.finite import all_finite
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._moments import clear_moments
from pliant.isometry import spatial_axes, split_axes
from pliant.layouts import OutputAxes, find_output_axes
from pliant.masks import Mask, select
from pliant.types import (
    Fresh,
    Info,
    Intervention,
    Key,
    Learned,
    Method,
    Number,
    Params,
    Part,
    Signals,
    Uniform,
    by_path,
)
from pliant.xla.branches import anywhere

Per = Literal["unit", "slice"]


class DashState(NamedTuple):
    """State of `dash`."""

    missing: Int[Array, ""]
    """Gradients of the new task still to come before weights are shrunk; 0 if none are awaited."""
    gradient: Params
    """Their running mean so far, in float32; a 0 at parameters that are left alone."""


def dash(
    *,
    min_scale: Number = 0.3,
    alpha: Number = 0.3,
    num_batches: Number = 8,
    per: Per = "unit",
    reset_moments: bool = False,
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Intervention:
    r"""Shrinks weights that do not point along the new task's negative gradient, soon after a task change (DASH).

    Use it for a warm start on more data, if you know when the data change.

    .. math:: w \leftarrow s\, w, \qquad s = \min\big(1, \max(\lambda, \cos(-G, w))\big), \qquad
              G \leftarrow (1 - \alpha) G + \alpha g

    once a task, for the weights w that feed one unit (a column of a dense kernel, a filter of a convolution) and for
    each bias as a whole. G starts at 0 and averages the gradients g of the first n updates of the new task; weights are
    shrunk after the n-th. A gradient that is not finite is not counted. A cosine with 0 counts as 0.

    The new task is learned while G is measured; the authors measure G on the frozen network. A larger n makes G less
    noisy, a smaller one is closer to theirs.

    The optimizer's state is kept, as in the authors' code, but theirs is SGD. Adam's second moment remembers the larger
    gradients of the larger weights for about 1/(1 − b2) updates, in which little is learned. If a task is hardly longer
    than that and shares nothing with the last one (random labels), weights may shrink to nothing from task to task.
    `reset_moments` clears the moments of the weights that were shrunk.

    Args:
      min_scale: λ in [0, 1], the least that is left of a weight; 1 does nothing.
      alpha: α in (0, 1], the weight of the newest gradient.
      num_batches: n ≥ 1, in updates; a task that has fewer is not shrunk.
      per: "unit" as above, or "slice": every input channel of a filter on its own, as in the authors' code.
      reset_moments: whether the moments of shrunk weights are set to 0, see `pliant.interventions.clear_moments`.
      mask: True at the parameters to shrink: a pytree of booleans or a function of the parameters that makes one; by
        default all. The method `dash` takes kernels, the output layer and biases.
      output_axes: the axes of kernels that index units, see `pliant.optimizers.add_isometry_step`.

    Returns:
      An `Intervention` with a `switch`; its state is a `DashState`, one float32 copy of the parameters. `info` has
      the number of `vectors_shrunk` and `norm_moved`. The gradients of the first task change nothing.

    Raises:
      UserError: for numbers out of range, an unknown `per`, a mask that does not fit or selects nothing, and kernels
        whose output axes are in doubt.

    Example:
      >>> from pliant.types import Fresh, Learned, Signals
      >>> learned = Learned(jnp.array([[3.0, 1.0], [4.0, 0.0]]), {}, ())
      >>> fresh = Fresh(init_network=lambda key: ((), {}), init_optimizer=lambda params: ())
      >>> signals = Signals(jnp.array([[-1.0, 1.0], [0.0, 0.0]]), {}, lambda learned, key, number: {}, fresh)
      >>> method, key = dash(num_batches=1), jax.random.key(0)
      >>> learned, state, _ = method.switch(key, 1, learned, method.init(learned), fresh)
      >>> learned, state, info = method.update(key, 1, learned, state, signals)
      >>> [[round(float(w), 3) for w in row] for row in learned.params]  # the cosines are 0.6 and -1
      [[1.8, 0.3], [2.4, 0.0]]

    References:
      Shin et al., `DASH: Warm-Starting Neural Network Training in Stationary Settings without Loss of Plasticity
      <https://arxiv.org/abs/2410.23495>`_, 2024. Algorithm 1; λ = α = 0.3 in their code.

    Differs from:
      The authors' code, which measures G on all data of the new task before it is learned, in as many parts as there
      were tasks; and which shrinks every input channel of a filter on its own (`per="slice"`), which for 1 × 1
      convolutions leaves of the cosine only the sign. Gradients are those of training, penalties included.
    """
    require_range("min_scale", min_scale, 0, 1, do="0.3 is usual, 1 switches it off.")
    require_range("alpha", alpha, 1e-6, 1, do="0.3 is usual, 1 takes the last gradient.")
    require_whole("num_batches", num_batches, 1, do="Use 8, or fewer where tasks are short.")
    require_choice("per", per, "unit", "slice")

    def summed(params: Params) -> list[tuple[int, ...] | None]:
        """For every leaf the axes of a vector of weights; None for all."""
        selected = jax.tree.leaves(select(mask, params))
        found = find_output_axes(output_axes, params, selected)
        return [_axes(leaf.shape, axes, per) for leaf, axes in zip(jax.tree.leaves(params), found, strict=True)]

    def zeros(params: Params) -> Params:
        return jax.tree.map(
            lambda selected, leaf: jnp.zeros(leaf.shape if selected else (), jnp.float32), select(mask, params), params
        )

    def init(learned: Learned) -> DashState:
        summed(learned.params)  # kernels whose axes are in doubt are refused here, not at the first switch
        return DashState(jnp.zeros((), jnp.int32), zeros(learned.params))

    def shrink(learned: Learned, gradient: Params, is_due: Array) -> tuple[Learned, Info]:
        old, optimizer = learned.params, learned.optimizer

        axes = iter(summed(old))

        def scale_of(selected: bool, g: Array, w: Array) -> Array:
            along = next(axes)
            return jnp.where(is_due, _scale(g, w, along, min_scale), 1.0) if selected else jnp.ones((1,) * w.ndim)

        scales = jax.tree.map(scale_of, select(mask, old), gradient, old)
        new = jax.tree.map(lambda s, w: jnp.where(s < 1, s * w, w).astype(w.dtype), scales, old)
        if reset_moments:
            shrunk = jax.tree.map(lambda s, w: jnp.broadcast_to(s < 1, w.shape), scales, old)
            optimizer = clear_moments(optimizer, by_path(shrunk))
        number = jnp.stack([(s < 1).sum(dtype=jnp.int32) for s in jax.tree.leaves(scales)]).sum(dtype=jnp.int32)
        info = {"vectors_shrunk": number, "norm_moved": norm_moved(old, new)}
        return learned._replace(params=new, optimizer=optimizer), info

    def keep(learned: Learned, *_: Any) -> tuple[Learned, Info]:
        return learned, {"vectors_shrunk": jnp.int32(0), "norm_moved": jnp.float32(0)}

    def gather(mean: Params, now: Params, is_waiting: Array) -> tuple[Params, Array]:
        chosen = select(mask, now)
        is_taken = is_waiting & all_finite(jax.tree.map(lambda selected, g: g if selected else None, chosen, now))

        def take_in(selected: bool, old: Array, g: Array) -> Array:
            return jnp.where(is_taken, (1 - alpha) * old + alpha * g.astype(jnp.float32), old) if selected else old

        return jax.tree.map(take_in, chosen, mean, now), is_taken

    def update(
        key: Key, step: Any, learned: Learned, state: DashState, signals: Signals
    ) -> tuple[Learned, DashState, Info]:
        del key, step
        is_waiting = state.missing > 0
        gradient, is_taken = jax.lax.cond(
            anywhere(is_waiting),
            gather,
            lambda mean, *_: (mean, jnp.array(False)),
            state.gradient,
            signals.gradients,
            is_waiting,
        )
        is_due = is_taken & (state.missing == 1)
        learned, info = jax.lax.cond(anywhere(is_due), shrink, keep, learned, gradient, is_due)
        return learned, DashState(state.missing - is_taken, gradient), info

    def switch(
        key: Key, index: Any, learned: Learned, state: DashState, fresh: Fresh
    ) -> tuple[Learned, DashState, Info]:
        del key, index, state, fresh
        return learned, DashState(jnp.asarray(num_batches, jnp.int32), zeros(learned.params)), {}

    return Intervention(init, update, switch)


def _axes(shape: tuple[int, ...], output_axes: tuple[int, ...], per: Per) -> tuple[int, ...] | None:
    if not output_axes:
        return None
    return (per == "slice" and spatial_axes(shape, output_axes)) or split_axes(shape, output_axes)[0]


def _scale(gradient: Array, weights: Array, axes: tuple[int, ...] | None, min_scale: Number) -> Float[Array, "..."]:
    """What each vector of weights is multiplied by; its own axes have size 1."""

    def direction(vectors: Array) -> Array:
        vectors = vectors.astype(jnp.float32)
        norms = jnp.sqrt(jnp.square(vectors).sum(axis=axes, keepdims=True))
        return vectors / jnp.where(norms > 0, norms, 1)

    cosines = -(direction(gradient) * direction(weights)).sum(axis=axes, keepdims=True)
    return jnp.clip(cosines, min_scale, 1)


DASH = Method(
    name="dash",
    summary="Adam that shrinks weights that do not point along the negative gradient of a new task",
    reference="Shin et al. 2024, algorithm 1",
    intervention=Part(dash, roles=("matrix", "head", "bias")),
    space={"min_scale": Uniform(0.1, 0.9), "alpha": Uniform(0.1, 0.9)},
    off={"min_scale": 1.0},
    boundary_aware=True,
)
