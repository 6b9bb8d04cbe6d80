"""Surgery on units: which entries of the parameters belong to them, and how these and the moments are reset.

Every intervention that resets units goes through `reset_units`, so the index arithmetic exists once.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from pliant.errors import UserError, unknown_name
from pliant.interventions._frozen import resettable
from pliant.interventions._moments import clear_moments
from pliant.types import HiddenLayer, Key, Learned, Slot, State, Wiring, by_path, leaf_path
from pliant.xla.branches import anywhere

Units: TypeAlias = Mapping[str, Bool[Array, " width"]]
"""By hidden layer: True at the units to act on."""


def slot_mask(slot: Slot, units: Bool[Array, " width"], leaf: Array) -> Bool[Array, "..."]:
    """Returns True at the entries of `leaf` that belong to `units`.

    Use it in interventions that act on single units.

    Args:
      slot: where the units live in the leaf; several tiles repeat the units, unit index fastest.
      units: True at the units to select.
      leaf: the parameter.

    Example:
      >>> reader = Slot("head/kernel", axis=-2, tiles=2)
      >>> slot_mask(reader, jnp.array([True, False]), jnp.zeros((4, 1)))[:, 0].tolist()
      [True, False, True, False]
    """
    return jnp.broadcast_to(slot.spread(units, leaf), leaf.shape)


def reset_units(
    key: Key, learned: Learned, wiring: Wiring, units: Units, *, start: Mapping[str, Array] | None = None
) -> Learned:
    """Resets units: samples fresh incoming weights, sets outgoing weights to 0, and clears their moments.

    Use it to write an intervention that resets units of your choice.

    First every feed of a selected unit (incoming kernel slice, bias, its norm's scale and offset) is drawn from
    that parameter's own initialiser; then the kernel rows that read it are set to 0, so an entry that is both ends
    at 0. The network's output does not change if the unit was silent, its weights are applied as they are, and no norm
    mixes the layer's units. Weight norm, spectral norm and orthogonalisation rescale the other weights, and a LayerNorm
    sees another mean and variance.

    Adam's `mu` and `nu` (and relatives, see `MOMENTS`) become 0 at the same entries. Adam's count is shared by all
    weights and stays: a reset weight's first update is up to (1 − b1)/√(1 − b2) ≈ 3.2 learning rates for the usual
    decay rates. An optimizer with a bias correction for every weight
    (`pliant.optimizers.scale_by_adam_per_weight`) makes it one learning rate.

    Args:
      key: for the fresh draws; every leaf gets its own.
      learned: the parameters and any optax state; running statistics stay as they are.
      wiring: the network's layer graph.
      units: True at the units to reset, by layer; layers may be missing. No True is a bitwise no-op, and so are units
        that frozen parameters feed or read.
      start: values to restore in place of fresh draws, by the parameter's `leaf_path`.

    Returns:
      The same with new parameters and optimizer state.

    Raises:
      UserError: if a layer or parameter does not exist, and from `clear_moments`.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(3,))
      >>> learned = Learned(*network.init(jax.random.key(0)), ())
      >>> units = {"dense_0": jnp.array([True, False, False])}
      >>> after = reset_units(jax.random.key(1), learned, network.wiring, units)
      >>> (after.params["head"]["kernel"] == 0)[:, 0].tolist()
      [True, False, False]

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Algorithm 1.

    Differs from:
      Dopamine, which keeps the bias' moments, whose mask from convolutions to dense layers is right for
      channel-first layouts only, and which finds Adam's state by position.
    """
    leaves = by_path(learned.params)
    _require_known(wiring, units, leaves)
    fed: dict[str, Array] = {}
    read: dict[str, Array] = {}
    draws: dict[str, _Draw] = {}
    for layer in resettable(wiring).layers:
        if layer.name not in units:
            continue
        is_any = units[layer.name].any()
        for feed in layer.feeds:
            path = feed.slot.path
            _mark(fed, feed.slot, units[layer.name], leaves[path])
            draw = draws.get(path, _Draw(feed.initializer, jax.random.fold_in(key, len(draws)), jnp.array(False)))
            draws[path] = draw._replace(is_wanted=draw.is_wanted | is_any)
        for slot in layer.readers:
            _mark(read, slot, units[layer.name], leaves[slot.path])
    fresh = {path: _drawn(draw, leaves[path]) for path, draw in draws.items()} if start is None else start

    def redraw(path: Any, leaf: Array) -> Array:
        name = leaf_path(path)
        if name in fed:
            leaf = jnp.where(fed[name], fresh[name], leaf)
        if name in read:
            leaf = jnp.where(read[name], jnp.zeros_like(leaf), leaf)
        return leaf

    touched = {path: fed.get(path, False) | read.get(path, jnp.zeros(leaves[path].shape, bool)) for path in fed | read}
    params = jax.tree_util.tree_map_with_path(redraw, learned.params)
    return learned._replace(params=params, optimizer=clear_moments(learned.optimizer, touched, units, params=params))


def require_owned_outputs(wiring: Wiring, method: str) -> Wiring:
    """Raises unless the network has hidden layers and every hidden unit owns its output.

    Args:
      wiring: the network's layer graph.
      method: its name, for the message.

    Returns:
      The wiring without the layers whose units cannot be reset, since some of their parameters are frozen.
    """
    mixed = sorted({layer.activation for layer in wiring.layers if not layer.elementwise})
    if mixed or not wiring.layers:
        raise UserError(
            got=f"{method} behind {', '.join(mixed)}" if mixed else f"{method} on a network without hidden layers",
            wanted="hidden layers in which every unit owns its output",
            do="Use an elementwise activation such as relu: sorted outputs belong to no unit, and none of them dies.",
        )
    free = resettable(wiring)
    if not free.layers:
        raise UserError(
            got=f"{method} on hidden layers that all have frozen parameters: {', '.join(sorted(wiring.frozen))}",
            wanted="a layer of which nothing that feeds or reads its units is frozen",
            do="Freeze less, or use another method.",
        )
    return free


def require_statistics(layers: Sequence[HiddenLayer], state: State, method: str) -> None:
    """Raises unless the wiring says which of the network's running statistics belong to whom.

    Args:
      layers: those to reset.
      state: the network's running statistics.
      method: what resets them, for the message.
    """
    unclear, kept = [layer.name for layer in layers if layer.statistics is None], by_path(state)
    elsewhere = [slot.path for layer in layers for slot in layer.statistics or () if slot.path not in kept]
    if elsewhere:
        raise UserError(
            got=f"{method} on a network whose running statistics {elsewhere[0]!r} are not in its state",
            wanted="statistics apart from the parameters: those of reset units are put back to how they begin",
            do="Use pliant.attach with statistics=, and an apply(params, statistics, x).",
        )
    if unclear and kept:
        raise UserError(
            got=f"{method} on a network with the state {next(iter(kept))!r}, which may be some layer's",
            wanted="hidden layers that list their running statistics",
            do=f"Give the layer {unclear[0]!r} statistics=(Slot('norm/mean', -1), ...), or () if it has none.",
        )


def mean_magnitude(leaves: Mapping[str, Array], slots: Sequence[Slot], num_units: int) -> Float[Array, " units"]:
    """The mean absolute value of each unit's entries, over all of its slots together, in float32.

    Args:
      leaves: parameters, or what has their shapes, by `leaf_path`.
      slots: where the units live.
      num_units: what the slots' axes hold, perhaps several times, as they say.
    """
    sums = [_sums(jnp.abs(leaves[slot.path].astype(jnp.float32)), slot) for slot in slots]
    tables = [_added(each.reshape(-1, num_units, slot.repeats)) for each, slot in zip(sums, slots, strict=True)]
    total = jnp.concatenate(tables).sum(axis=0)
    return total * num_units / sum(leaves[slot.path].size for slot in slots)


def _added(table: Float[Array, "tiles units repeats"]) -> Float[Array, "tiles units"]:
    return table[..., 0] if table.shape[-1] == 1 else table.sum(axis=-1)


def _sums(leaf: Float[Array, "..."], slot: Slot) -> Float[Array, " units"]:
    """Sums over all but the units, as products with ones: XLA:CPU is slow to add up rows or columns of a matrix."""
    leaf, axis = (leaf, slot.axis % leaf.ndim) if slot.groups == 1 else (slot.units_last(leaf), -1)
    axis %= leaf.ndim
    num_units, after = leaf.shape[axis], math.prod(leaf.shape[axis + 1 :])
    if after > 1:
        leaf = jnp.matmul(leaf.reshape(-1, after), jnp.ones(after, leaf.dtype), precision="highest")
    rows = leaf.reshape(-1, num_units)
    return jnp.matmul(jnp.ones(len(rows), leaf.dtype), rows, precision="highest")


def lowest(scores: Float[Array, " n"], number: Int[Array, ""] | int, *, key: Key | None = None) -> Bool[Array, " n"]:
    """True at the `number` lowest scores, NaN last; equal ones in their order, or by chance if there is a key.

    Finds the threshold bit by bit, since XLA:CPU is slow to sort the weights of a kernel.
    """
    ranks = [_as_integers(scores), jnp.arange(scores.size, dtype=jnp.uint32)]
    if key is not None:
        ranks.insert(1, _as_integers(jax.random.uniform(key, scores.shape)))
    chosen, equal = jnp.zeros(scores.shape, bool), jnp.ones(scores.shape, bool)
    for rank in ranks:
        threshold = _threshold(rank, equal, number - chosen.sum(dtype=jnp.int32))
        chosen |= equal & (rank < threshold)
        equal &= rank == threshold
    return chosen


def _as_integers(scores: Float[Array, " n"]) -> UInt[Array, " n"]:
    """Integers in the order of the scores, equal where these are; the largest of all for NaN."""
    scores = scores.astype(jnp.float32)
    bits = jax.lax.bitcast_convert_type(jnp.where(scores == 0, 0.0, scores), jnp.uint32)  # −0 is 0
    sign = jnp.uint32(2**31)
    return jnp.where(jnp.isnan(scores), jnp.uint32(2**32 - 1), jnp.where(bits < sign, bits | sign, ~bits))


def _threshold(ranks: UInt[Array, " n"], among: Bool[Array, " n"], number: Int[Array, ""]) -> UInt[Array, ""]:
    """The largest integer of 32 bits with at most `number` ranks below it, found bit by bit from the highest."""

    def with_bit(i: Any, found: Array) -> Array:
        larger = found | (jnp.uint32(2**31) >> jnp.uint32(i))
        return jnp.where((among & (ranks < larger)).sum(dtype=jnp.int32) <= number, larger, found)

    return jax.lax.fori_loop(0, 32, with_bit, jnp.uint32(0))


def num_selected(flags: Mapping[str, Bool[Array, "..."]]) -> Int[Array, ""]:
    """How many units or weights are selected, in all layers together."""
    return jnp.stack([jnp.sum(each, dtype=jnp.int32) for each in flags.values()]).sum(dtype=jnp.int32)


def _require_known(wiring: Wiring, units: Units, leaves: Mapping[str, Array]) -> None:
    """Raises for layers that the wiring does not have, and for parameters that do not exist."""
    unknown = sorted(set(units) - {layer.name for layer in wiring.layers})
    if unknown:
        raise unknown_name("hidden layer", unknown[0], [layer.name for layer in wiring.layers], do="See wiring.layers.")
    chosen = [layer for layer in wiring.layers if layer.name in units]
    slots = [slot for layer in chosen for slot in (*(feed.slot for feed in layer.feeds), *layer.readers)]
    missing = sorted({slot.path for slot in slots} - set(leaves))
    if missing:
        raise UserError(
            got=f"parameters without {missing[0]!r}, which the wiring names",
            wanted=f"all of its parameters; there are {', '.join(leaves)}",
            do="Pass the wiring of this network.",
        )


class _Draw(NamedTuple):
    """How a parameter is sampled, and whether any of its units are reset."""

    initializer: Callable[..., Array]
    key: Key
    is_wanted: Bool[Array, ""]


def _drawn(draw: _Draw, leaf: Array) -> Array:
    """A fresh parameter, or zeros where nothing of it is wanted: an orthogonal draw costs more than a step."""
    return jax.lax.cond(
        anywhere(draw.is_wanted),
        lambda key: draw.initializer(key, leaf.shape, leaf.dtype),
        lambda _: jnp.zeros_like(leaf),
        draw.key,
    )


def _mark(masks: dict[str, Array], slot: Slot, units: Array, leaf: Array) -> None:
    masks[slot.path] = masks.get(slot.path, False) | slot_mask(slot, units, leaf)
