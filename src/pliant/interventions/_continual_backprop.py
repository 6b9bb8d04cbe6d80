"""Continual backprop: replaces the least useful units, a few at a time."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pliant.errors import UserError, require_range
from pliant.interventions._frozen import keep_frozen
from pliant.interventions._surgery import (
    Units,
    lowest,
    mean_magnitude,
    num_selected,
    require_owned_outputs,
    require_statistics,
    reset_units,
    slot_mask,
)
from pliant.isometry import split_axes
from pliant.layouts import find_output_axes
from pliant.types import (
    HiddenLayer,
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Params,
    Signals,
    Slot,
    State,
    Wiring,
    by_path,
    leaf_path,
)
from pliant.xla.branches import anywhere

UTILITIES = ("adaptable", "zero-contribution", "contribution")


class ContinualBackpropState(NamedTuple):
    """State of `continual_backprop` for one hidden layer."""

    age: Int[Array, " width"]
    """Updates since the unit was made."""
    utility: Float[Array, " width"]
    """Running mean, begun at 0."""
    output: Float[Array, "outputs width"]
    """Running mean of each of the unit's outputs, begun at 0; one output, or two behind CReLU."""
    waiting: Int[Array, ""]
    """Mature units, summed over the updates since the last replacement."""
    credit: Float[Array, ""]
    """The fraction of a unit that was due and not replaced then."""


def continual_backprop(
    wiring: Wiring,
    *,
    replacement_rate: Number = 1e-4,
    maturity: Number = 100,
    decay: Number = 0.99,
    utility: str = "adaptable",
    transfer_mean: bool = True,
) -> Intervention:
    r"""Replaces the least useful mature units, a small fraction of them at every update (continual backprop).

    Use it on streams whose task changes are not known, over many updates.

    After every update, for each unit i of a hidden layer with outputs h on the training batch,

    .. math:: a &\leftarrow a + 1, \qquad f \leftarrow \eta f + (1 - \eta)\, \mathbb E_x h(x), \qquad
                   \hat f = f / (1 - \eta^a) \\
              y &= \frac{\mathbb E_x |h(x) - \hat f| \cdot \operatorname{mean}_k |w^{out}_{ik}|}
                        {\operatorname{mean}_j |w^{in}_{ji}|}, \qquad
                   u \leftarrow \eta u + (1 - \eta)\, y, \qquad \hat u = u / (1 - \eta^a)

    and of the units older than the maturity m the n with the lowest û are replaced, where n is the whole part of ρ
    times the number of such units, added up over the updates since the last replacement; the fraction is kept. A
    replaced unit is reset as by `pliant.interventions.reset_units`, and its mean output moves into the biases of the
    next layer,

    .. math:: b_k \leftarrow b_k + \sum_i w^{out}_{ik} \hat f_i

    so that replacing a unit that hardly varies changes little, and a, f, u restart at 0. It cannot be replaced until it
    is mature. The expectations of a channel are over all positions, the mean over its outgoing weights is over all that
    read it, at all positions behind a flatten. A batch in which a unit's numbers are not finite changes nothing of the
    unit's a, f and u.

    Args:
      wiring: the network's layer graph.
      replacement_rate: ρ in [0, 1], units per mature unit and update; 0 replaces none.
      maturity: m ≥ 0, in updates.
      decay: η in [0, 1), of the running means; with 0 only the last batch counts.
      utility: "adaptable" is y as above; "zero-contribution" leaves out the denominator, "contribution" f̂ as well.
      transfer_mean: whether mean outputs move into biases. Where what reads a unit has no bias, nothing moves. Behind
        a convolution with padding the borders get too much: one bias serves all positions.

    Returns:
      An `Intervention`; its state is a `ContinualBackpropState` by layer. `info` counts the `units_reset`, and has the
      `mature_fraction` of the units, above 0 before any is replaced, and their `mean_age` in updates.

    Raises:
      UserError: for numbers out of range, an unknown utility, networks in which no unit owns an output (MaxMin), and,
        if mean outputs are to move, layers that apply a function of their kernels (weight norm, Newton–Schulz).

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((1,), 1, widths=(2,))
      >>> params, _ = network.init(jax.random.key(0))
      >>> params["head"]["kernel"] = jnp.array([[1.0], [5.0]])
      >>> features = {"dense_0": jnp.array([[1.0, 0.1], [3.0, 0.1]])}  # the second unit is a constant
      >>> signals = Signals(gradients=params, features=features, probe=None, fresh=None)
      >>> method = continual_backprop(network.wiring, replacement_rate=0.5, maturity=0)
      >>> learned = Learned(params, {}, ())
      >>> new, _, _ = method.update(jax.random.key(1), 1, learned, method.init(learned), signals)
      >>> new.params["head"]["kernel"][:, 0].tolist(), round(float(new.params["head"]["bias"][0]), 5)
      ([1.0, 0.0], 0.5)

    References:
      Dohare, Sutton, Mahmood, `Continual Backprop <https://arxiv.org/abs/2108.06325>`_, 2021. Section 4 and
      algorithm 1.
      Dohare et al., `Loss of plasticity in deep continual learning <https://doi.org/10.1038/s41586-024-07711-7>`_,
      2024. Methods; their utility is "contribution".

    Differs from:
      The authors' code: the mean output moves (there f is set to 0 first, so nothing does); both moments of the
      incoming and outgoing weights are cleared for convolutions too; mature units are counted in whole numbers, since
      running sums of ρ·N lose some in float32; ρ counts mature units for convolutions as well, not all channels, and
      chance decides nothing; f decays in residual networks too. For a channel behind a flatten, y multiplies the mean
      of its outputs over all positions by the mean of the weights that read it; ConvGnT multiplies at each position
      and takes the mean of the products. Its layers for PyTorch modules have η = 0 by default. Utilities of several
      outputs of a unit (CReLU) are averaged. Behind the gate of a mixture of experts f̂ is the mean of the gated output.
    """
    require_range("replacement_rate", replacement_rate, 0, 1, do="1e-4 is usual; 0 replaces no unit.")
    require_range("maturity", maturity, 0, do="Use 100 updates, or 1000 for long tasks.")
    require_range("decay", decay, 0, 0.999999, do="Use 0.99, as published.")
    wiring = require_owned_outputs(wiring, "continual backprop")
    if transfer_mean and wiring.indirect_readers:
        raise UserError(
            got=f"transfer_mean for a network that does not apply {wiring.indirect_readers[0]!r} as it is",
            wanted="layers that multiply by their kernels: what is read of a unit's mean moves into biases",
            do="Use transfer_mean=False, or plain layers.",
        )
    if utility not in UTILITIES:
        raise UserError(
            got=f"utility={utility!r}",
            wanted=f"one of {', '.join(map(repr, UTILITIES))}",
            do="Leave it out for 'adaptable'.",
        )

    biases = _biases_behind(wiring) if transfer_mean else {}

    def init(learned: Learned) -> State:
        require_statistics(wiring.layers, learned.statistics, "continual backprop")
        return {layer.name: _newborn(layer) for layer in wiring.layers}

    def observe(layer: HiddenLayer, now: ContinualBackpropState, features: Array, leaves: Mapping[str, Array]) -> _Seen:
        age = now.age + 1
        correction = 1.0 - decay**age
        h = layer.units_last(features).astype(jnp.float32).reshape(-1, *now.output.shape)
        output = decay * now.output + (1.0 - decay) * h.mean(axis=0)
        mean = output / correction[None]
        spread = jnp.abs(h if utility == "contribution" else h - mean[None]).mean(axis=0)
        y = (spread * _outgoing(layer, leaves, now.output.shape)).mean(axis=0)
        if utility == "adaptable":
            y = y / jnp.maximum(_incoming(layer, wiring, leaves), 1e-12)
        running = decay * now.utility + (1.0 - decay) * y
        is_seen = jnp.isfinite(h.mean(axis=0)).all(axis=0) & jnp.isfinite(y)  # else it tells nothing about the unit
        state = now._replace(
            age=jnp.where(is_seen, age, now.age),
            utility=jnp.where(is_seen, running, now.utility),
            output=jnp.where(is_seen[None], output, now.output),
        )
        correction = jnp.where(state.age > 0, 1.0 - decay**state.age, 1.0)
        mean = state.output / correction[None]
        return _with_due(state, state.utility / correction, mean, state.age > maturity, replacement_rate)

    def replace(
        key: Key, learned: Learned, state: State, seen: Mapping[str, _Seen], signals: Signals
    ) -> tuple[Learned, State, Array]:
        units = {name: layer.mature & lowest(layer.ranked, layer.due) for name, layer in seen.items()}
        if transfer_mean:
            outputs = {name: jnp.where(units[name][None], layer.mean, 0.0) for name, layer in seen.items()}
            learned = learned._replace(params=_with_outputs_in_biases(learned.params, wiring, biases, outputs))
        learned = _with_new_statistics(learned, wiring, units, key, signals)
        return (
            reset_units(key, learned, wiring, units),
            {name: _reborn(state[name], flags) for name, flags in units.items()},
            num_selected(units),
        )

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        del step
        leaves = by_path(learned.params)
        seen = {
            layer.name: observe(layer, state[layer.name], signals.features[layer.name], leaves)
            for layer in wiring.layers
        }
        learned, state, num_reset = jax.lax.cond(
            anywhere(jnp.stack([layer.due for layer in seen.values()]).sum() > 0),
            lambda learned, state: replace(key, learned, state, seen, signals),
            lambda learned, state: (learned, state, jnp.int32(0)),
            learned,
            {name: layer.state for name, layer in seen.items()},
        )
        mature = jnp.concatenate([layer.mature for layer in seen.values()]).mean()
        age = jnp.concatenate([layer.age for layer in state.values()]).mean()
        return learned, state, {"units_reset": num_reset, "mature_fraction": mature, "mean_age": age}

    return keep_frozen(Intervention(init, update), wiring)


class _Seen(NamedTuple):
    """A layer after an update, before any of its units is replaced."""

    state: ContinualBackpropState
    mean: Float[Array, "outputs width"]
    """f̂."""
    mature: Bool[Array, " width"]
    ranked: Float[Array, " width"]
    """û, infinite where the unit is not mature."""
    due: Int[Array, ""]
    """How many units are to be replaced."""


def _newborn(layer: HiddenLayer) -> ContinualBackpropState:
    return ContinualBackpropState(
        age=jnp.zeros(layer.width, jnp.int32),
        utility=jnp.zeros(layer.width),
        output=jnp.zeros((layer.traits.outputs, layer.width)),
        waiting=jnp.int32(0),
        credit=jnp.float32(0.0),
    )


def _reborn(state: ContinualBackpropState, units: Array) -> ContinualBackpropState:
    return state._replace(
        age=jnp.where(units, 0, state.age),
        utility=jnp.where(units, 0.0, state.utility),
        output=jnp.where(units[None], 0.0, state.output),
    )


def _outgoing(layer: HiddenLayer, leaves: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
    num_outputs, width = shape
    return mean_magnitude(leaves, layer.readers, num_outputs * width).reshape(num_outputs, width)


def _incoming(layer: HiddenLayer, wiring: Wiring, leaves: Mapping[str, Array]) -> Array:
    kernels = [feed.slot for feed in layer.feeds if wiring.roles[feed.slot.path] == "matrix"]
    return mean_magnitude(leaves, kernels, layer.width)


def _with_due(state: ContinualBackpropState, utility: Array, mean: Array, mature: Array, rate: Number) -> _Seen:
    """Adds the mature units to those waiting, and takes out what makes whole units.

    Only whole numbers are added up, so nothing drifts; 1e-6 makes up for the rounding of their product with the rate.
    """
    waiting = state.waiting + mature.sum(dtype=jnp.int32)
    credit = state.credit + rate * waiting
    due = jnp.floor(credit + 1e-6).astype(jnp.int32)
    state = state._replace(
        waiting=jnp.where(due > 0, 0, waiting), credit=jnp.where(due > 0, credit - due, state.credit)
    )
    return _Seen(state, mean, mature, jnp.where(mature, utility, jnp.inf), due)


def _biases_behind(wiring: Wiring) -> dict[str, str]:
    """The biases of the kernels that read hidden units, by kernel."""
    kernels = {slot.path for layer in wiring.layers for slot in layer.readers}
    return {kernel: bias for kernel in kernels if (bias := wiring.bias_of(kernel)) is not None}


def _with_outputs_in_biases(
    params: Params, wiring: Wiring, biases: Mapping[str, str], outputs: Mapping[str, Array]
) -> Params:
    """Adds what is read of the units' `outputs`, constants by layer, to the biases behind them."""
    leaves, read = by_path(params), dict[str, Array]()
    readers = {slot.path for layer in wiring.layers for slot in layer.readers}
    axes = dict(zip(leaves, find_output_axes(wiring, params, [path in readers for path in leaves]), strict=True))
    for layer in wiring.layers:
        for slot in layer.readers:
            if (bias := biases.get(slot.path)) is not None:
                kernel = leaves[slot.path].astype(jnp.float32)
                read[bias] = read.get(bias, 0.0) + _read(slot, kernel, axes[slot.path], outputs[layer.name])

    def add(path: Any, leaf: Array) -> Array:
        name = leaf_path(path)
        return (leaf + read[name].reshape(leaf.shape)).astype(leaf.dtype) if name in read else leaf

    return jax.tree_util.tree_map_with_path(add, params)


def _read(
    slot: Slot, kernel: Array, output_axes: tuple[int, ...], values: Float[Array, "outputs width"]
) -> Float[Array, " out"]:
    """What a kernel makes of constant values of the units, at every position."""
    inputs, outputs = split_axes(kernel.shape, output_axes)
    own, num_outputs = slot.axes(kernel.ndim), math.prod(kernel.shape[axis] for axis in outputs)
    in_tile = slot._replace(tiles=slot.tiles // len(values))  # the outputs of a unit are tiles
    line = in_tile.spread(values.reshape(-1), kernel)
    if len(own) > 1 or own[0] in outputs:  # each output reads units of its own
        return jnp.where(line == 0, 0.0, line * kernel).sum(axis=inputs).reshape(num_outputs)
    line, (axis,) = line.reshape(-1), own
    ordered = kernel.transpose(*(each for each in inputs if each != axis), axis, *outputs)
    weights = ordered.reshape(-1, kernel.shape[axis], num_outputs).sum(axis=0)
    return line @ jnp.where(line[:, None] == 0, 0.0, weights)


def _with_new_statistics(learned: Learned, wiring: Wiring, units: Units, key: Key, signals: Signals) -> Learned:
    """Puts the running statistics of the units (BatchNorm) back to how they begin."""
    slots = {slot.path: (slot, units[layer.name]) for layer in wiring.layers for slot in layer.statistics or ()}
    if not slots:
        return learned

    def renew(path: Any, now: Array, start: Array) -> Array:
        if leaf_path(path) not in slots:
            return now
        slot, flags = slots[leaf_path(path)]
        return jnp.where(slot_mask(slot, flags, now), start, now)

    _, start = signals.fresh.init_network(key)
    return learned._replace(statistics=jax.tree_util.tree_map_with_path(renew, learned.statistics, start))


CONTINUAL_BACKPROP = Method(
    name="continual-backprop",
    summary="Adam that continually replaces the least useful units, a few at a time",
    reference="Dohare et al. 2024, methods; Dohare et al. 2021, algorithm 1",
    intervention=continual_backprop,
    space={"replacement_rate": LogUniform(1e-6, 1e-2), "maturity": LogUniform(10, 1000, is_whole=True)},
    off={"replacement_rate": 0.0},
    remembers="the utilities and ages of units",
)
