"""UPGD, utility-based perturbed gradient descent: useful weights are spared, useless ones perturbed."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pliant.errors import UserError, require_adam, require_choice, require_range
from pliant.isometry import split_axes
from pliant.layouts import find_output_axes
from pliant.types import (
    Choice,
    Info,
    LogUniform,
    Method,
    Number,
    Params,
    Part,
    Scalar,
    Schedule,
    Slot,
    Wiring,
    by_path,
    leaf_path,
)

_TINY = 1e-12  # the least that utilities are divided by


class UPGDState(NamedTuple):
    """State of `upgd`."""

    count: Int[Array, ""]  # type: ignore[assignment] # optax's name; tuples have a method of that name
    """Number of updates so far."""
    trace: Any
    """Running utility, in float32: of every weight, or by hidden layer of every unit."""
    base: optax.OptState
    """Adam's moments, in float32 or wider; empty for SGD."""
    seed: Int[Array, ""]
    """Seed of the noise if `update` gets no key."""
    info: Info
    """`mean_utility`: the mean of Û over all weights or units."""


def upgd(
    learning_rate: Number | Schedule,
    *,
    beta: Number = 0.999,
    sigma: Number = 1e-3,
    weight_decay: Number = 1e-3,
    utility: Literal["weight", "feature"] = "weight",
    scope: Literal["global", "local"] = "global",
    protecting: bool = True,
    base: Literal["sgd", "adam"] = "sgd",
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    wiring: Wiring | None = None,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent that spares useful weights and adds noise to useless ones (UPGD).

    Use it on streams of single examples, where useful weights must not be forgotten.

    .. math:: w \leftarrow (1 - \alpha \lambda)\, w - \alpha\, (d + \xi)(1 - S), \qquad
              S = \mathrm{sigmoid}\Big(\frac{\hat U}{\eta}\Big), \qquad
              \hat U_t = \frac{U_t}{1 - \beta^t}, \quad U_t = \beta U_{t-1} + (1 - \beta)\, u_t

    with fresh noise ξ ~ N(0, σ²) for every weight; d is the gradient g, or Adam's direction
    :math:`\hat m / (\sqrt{\hat v} + \epsilon)` (AdaUPGD). u is a first-order estimate of how much the loss would rise
    without a weight or a unit:

    * utility "weight": u = −g w for every weight, biases and norms included;
    * utility "feature": u is minus the gradient with respect to a gate of 1 behind each unit of a hidden layer, which
      is −Σ g w over the weights that read the unit. S of a unit holds for all weights that feed it (its column of the
      kernel, its bias, its norm). Weights that feed no unit, such as the output layer, follow d without noise.

    η sets the scale: with the scope "global" it is the largest Û of all weights or units, at least 1e-12; with "local"
    the L2 norm of Û over the weights that feed a unit from one kernel (all axes but outputs; a vector as a whole), or
    over the units of a layer. A weight of no utility has S = ½: it descends at half the learning rate.

    Where u is not finite Û stays what it was.

    Not `protecting`, only the noise is weighed: :math:`w \leftarrow (1 - \alpha\lambda) w - \alpha\,(d + \xi (1 - S))`.

    Args:
      learning_rate: α ≥ 0, or an optax schedule. The authors' README passes twice the rate of SGD, as S starts at ½.
      beta: decay rate of the utility, in [0, 1).
      sigma: σ ≥ 0, the standard deviation of the noise, in units of the gradient; with Adam, of its direction.
      weight_decay: λ ≥ 0, decoupled, of all parameters.
      utility: "weight" or "feature".
      scope: "global" or "local".
      protecting: whether useful weights are spared by the gradient too.
      base: "sgd", or "adam" for AdaUPGD.
      b1: decay rate of Adam's first moment, in [0, 1).
      b2: decay rate of Adam's second moment, in [0, 1).
      eps: ϵ > 0 of Adam, outside the root.
      wiring: the network's layer graph; needed for utility "feature". With the scope "local" it says which axes of
        kernels are outputs; without it they are found as in `pliant.layouts.select_kernels`.
      seed: of the noise if `update` gets no `key`.

    Returns:
      An optimizer whose `update` needs `params`, and takes the noise from `key` if there is one. Memory: one float32
      copy of the parameters ("weight"), and Adam's moments with base "adam". The state's `info` has the `mean_utility`.

    Raises:
      UserError: for numbers out of range, unknown options, utility "feature" without a wiring, where units own no
        outputs (MaxMin) or layers apply a function of their kernels (weight norm), and if `params` is missing.

    Example:
      >>> tx = upgd(0.1, sigma=0.0, weight_decay=0.0)
      >>> params = jnp.array([1.0, 2.0])
      >>> updates, _ = tx.update(jnp.array([-1.0, 0.5]), tx.init(params), params)
      >>> [round(float(w), 4) for w in params + updates]
      [1.0269, 1.9634]

    References:
      Elsayed and Mahmood, `Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
      <https://arxiv.org/abs/2404.00781>`_, 2024. Section 3 and algorithm 1; AdaUPGD as in their experiments with PPO.

    Differs from:
      The authors' code, which with the scope "global" corrects Û but not the η that it is divided by, so that S is
      saturated early on; which normalises convolutions locally over the last axis of the kernel only; and whose AdaUPGD
      is global only. There is no second-order utility (½ H w²): an optimizer does not see the diagonal of the Hessian.
      Utilities see the gradient as it comes, penalties included.
    """
    require_adam(0.0 if callable(learning_rate) else learning_rate, b1, b2, eps)
    require_range("beta", beta, 0, 0.999999, do="0.999 is usual.")
    require_range("sigma", sigma, 0, do="Use 0 for no noise.")
    require_range("weight_decay", weight_decay, 0, do="Use 0 for none.")
    require_choice("utility", utility, "weight", "feature")
    require_choice("scope", scope, "global", "local")
    require_choice("base", base, "sgd", "adam")
    if utility == "feature":
        _check_units(wiring)
    inner = optax.with_extra_args_support(optax.scale_by_adam(b1, b2, eps) if base == "adam" else optax.identity())
    units = wiring if utility == "feature" else None

    def output_axes(params: Params) -> list[tuple[int, ...]]:
        """Of every leaf that has a utility; () where the leaf is one vector."""
        if units:
            return [()] * len(units.layers)
        return find_output_axes(wiring, params, [True] * len(jax.tree.leaves(params)))

    def init_fn(params: Params) -> UPGDState:
        if scope == "local":
            output_axes(params)  # kernels whose axes are in doubt are refused here, not at the first update
        if units is None:
            trace = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
        else:
            trace = {layer.name: jnp.zeros(layer.width, jnp.float32) for layer in units.layers}
        return UPGDState(
            jnp.zeros((), jnp.int32),
            trace,
            inner.init(_wide(params)),
            jnp.int32(seed),
            {"mean_utility": jnp.float32(0)},
        )

    def update_fn(
        updates: Any, state: UPGDState, params: Any = None, *, key: Any = None, **extra: Any
    ) -> tuple[Any, UPGDState]:
        if params is None:
            raise UserError(
                got="update(gradients, state)",
                wanted="update(gradients, state, params)",
                do="Pass the parameters: utilities are products of gradients and weights.",
            )
        count = optax.safe_increment(state.count)
        now = _unit_utilities(units, updates, params) if units else _weight_utilities(updates, params)
        kept = jnp.where(count > 1, (1 - beta**count) / (1 - beta ** jnp.maximum(count - 1, 1)), 1.0)

        def averaged(old: Array, new: Array) -> Array:  # Û stays where the gradient is not finite
            mean = jnp.where(jnp.isfinite(new), beta * old + (1 - beta) * new, kept * old)
            return mean.astype(old.dtype)

        trace = jax.tree.map(averaged, state.trace, now)
        corrected = jax.tree.map(lambda leaf: leaf / (1 - beta**count), trace)
        useful = _over_norms(corrected, output_axes(params)) if scope == "local" else _over_largest(corrected)
        room = jax.tree.map(lambda utility: 1 - jax.nn.sigmoid(utility), useful)
        rooms = _of_feeds(units, room, params) if units else by_path(room)
        direction, moments = inner.update(_wide(updates), state.base, params, **extra)
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate
        key = jax.random.fold_in(jax.random.key(state.seed), count) if key is None else key
        draws = iter(jax.random.split(key, len(jax.tree.leaves(params))))

        def move(path: Any, towards: Array, weight: Array) -> Array:
            step, noise = towards.astype(jnp.float32), sigma * jax.random.normal(next(draws), weight.shape)
            if not jnp.issubdtype(weight.dtype, jnp.inexact):
                return jnp.zeros_like(weight)
            if leaf_path(path) in rooms:
                free = rooms[leaf_path(path)]
                step = (step + noise) * free if protecting else jnp.where(sigma > 0, step + noise * free, step)
            decayed = step + weight_decay * weight.astype(jnp.float32)
            return (-rate * jnp.where(weight_decay > 0, decayed, step)).astype(weight.dtype)

        moves = jax.tree_util.tree_map_with_path(move, direction, params)
        info = {"mean_utility": (_mean(trace) / (1 - beta**count)).astype(jnp.float32)}
        return moves, UPGDState(count, trace, moments, state.seed, info)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _wide(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def _weight_utilities(gradients: Params, params: Params) -> Params:
    return jax.tree.map(lambda g, w: -g.astype(jnp.float32) * w.astype(jnp.float32), gradients, params)


def _unit_utilities(wiring: Wiring, gradients: Params, params: Params) -> dict[str, Float[Array, " width"]]:
    """By layer: minus the gradient at a gate of 1 behind each unit, from the weights that read it."""
    products = by_path(_weight_utilities(gradients, params))
    return {layer.name: sum(_per_unit(slot, products[slot.path]) for slot in layer.readers) for layer in wiring.layers}


def _per_unit(slot: Slot, leaf: Array) -> Float[Array, " width"]:
    """The sum of a leaf over what is each unit's; its tiles repeat all units."""
    own = slot.axes(leaf.ndim)
    others = tuple(axis for axis in range(leaf.ndim) if axis not in own)
    return slot.by_unit(leaf.sum(axis=others, keepdims=True)).sum(axis=0)


def _of_feeds(wiring: Wiring, units: dict[str, Array], params: Params) -> dict[str, Array]:
    """The units' numbers at the parameters that feed them, by path, ready to be multiplied with these."""
    leaves, spread = by_path(params), {}
    for layer in wiring.layers:
        for slot in (feed.slot for feed in layer.feeds):
            spread[slot.path] = slot.spread(units[layer.name], leaves[slot.path])
    return spread


def _over_largest(utilities: Any) -> Any:
    """Utilities over the largest of all."""
    # Column by column: XLA:CPU goes through a whole array one number after the other.
    largest = jnp.stack([_rows(leaf).max(axis=0).max() for leaf in jax.tree.leaves(utilities) if leaf.size]).max()
    return jax.tree.map(lambda leaf: leaf / jnp.maximum(largest, _TINY), utilities)


def _over_norms(utilities: Any, output_axes: list[tuple[int, ...]]) -> Any:
    """Utilities over the norms of the vectors that they are in, one for every output, or for a whole leaf."""
    leaves, structure = jax.tree.flatten(utilities)

    def over_norm(leaf: Array, outputs: tuple[int, ...]) -> Array:
        axes = split_axes(leaf.shape, outputs)[0] if outputs else None
        return leaf / jnp.maximum(jnp.sqrt(jnp.square(leaf).sum(axis=axes, keepdims=True)), _TINY)

    return jax.tree.unflatten(structure, [over_norm(*each) for each in zip(leaves, output_axes, strict=True)])


def _mean(tree: Any) -> Scalar:
    """Over all entries; rows are added up by a product with ones, since XLA:CPU is slow to add up an array."""
    tables = [_rows(leaf) for leaf in jax.tree.leaves(tree) if leaf.size]
    sums = [jnp.dot(jnp.ones(len(rows)), rows, precision="highest").sum() for rows in tables]
    return jnp.stack(sums).sum() / sum(rows.size for rows in tables)


def _rows(leaf: Array) -> Float[Array, "rows last"]:
    return leaf.reshape(-1, (1, *leaf.shape)[-1])


def _check_units(wiring: Wiring | None) -> None:
    mixed = sorted({layer.activation for layer in wiring.layers if not layer.elementwise}) if wiring else []
    if wiring is None or mixed or not wiring.layers:
        where = f"behind {', '.join(mixed)}" if mixed else "on a network without hidden layers"
        raise UserError(
            got="utility='feature' " + ("without a wiring" if wiring is None else where),
            wanted="the wiring of a network in which every unit owns its output",
            do="Pass wiring=network.wiring and use an elementwise activation such as relu, or utility='weight'.",
        )
    if wiring.indirect_readers:
        raise UserError(
            got=f"utility='feature' for a network that does not apply {wiring.indirect_readers[0]!r} as it is",
            wanted="layers that multiply by their kernels, which tell what a unit contributes",
            do="Use utility='weight', or plain layers.",
        )


UPGD = Method(
    name="upgd",
    summary="SGD that spares useful weights and perturbs useless ones",
    reference="Elsayed and Mahmood 2024, algorithm 1",
    optimizer=Part(upgd, fixed={"seed": 0}),
    space={
        "learning_rate": LogUniform(1e-4, 1.0),
        "beta": Choice((0.9, 0.99, 0.999, 0.9999)),
        "sigma": LogUniform(1e-4, 0.1),
        "weight_decay": LogUniform(1e-5, 0.1),
    },
    off={"protecting": False, "sigma": 0.0, "weight_decay": 0.0},
    base="sgd",
)
