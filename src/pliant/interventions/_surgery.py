"""Surgery on units: which entries of the parameters are theirs, and how weights and optimizer statistics are reset.

Every intervention that resets units goes through `reset_units`, so the index arithmetic and the walk through
optimizer states exist once.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree, UInt

from pliant.errors import UserError
from pliant.types import Key, Learned, Slot, Wiring, leaf_path

MOMENTS = ("mu", "nu", "nu_max", "trace")
"""Field names of optax states that hold statistics of a parameter's gradients, one entry a weight."""
MASSES = ("mu_mass", "nu_mass")
"""Field names of states by which each weight's moments are divided to correct their bias, see
`pliant.optimizers.scale_by_adam_per_weight`."""

Units: TypeAlias = Mapping[str, Bool[Array, " width"]]
"""By hidden layer: True at the units to act on."""


def slot_mask(slot: Slot, units: Bool[Array, " width"], leaf: Array) -> Bool[Array, "..."]:
    """True at the entries of `leaf` that belong to `units`.

    Args:
      slot: where the units live in the leaf; several tiles repeat the units, unit index fastest.
      units: True at the units to select.
      leaf: the parameter.

    Example:
      >>> reader = Slot("head/kernel", axis=-2, tiles=2)
      >>> slot_mask(reader, jnp.array([True, False]), jnp.zeros((4, 1)))[:, 0].tolist()
      [True, False, True, False]
    """
    axis = slot.axis % leaf.ndim
    shape = [1] * leaf.ndim
    shape[axis] = -1
    return jnp.broadcast_to(jnp.tile(units, slot.tiles).reshape(shape), leaf.shape)


def reset_units(
    key: Key, learned: Learned, wiring: Wiring, units: Units, *, start: Mapping[str, Array] | None = None
) -> Learned:
    """Draws units anew: what feeds them is fresh, what reads them is zero, their moments are forgotten.

    First every feed of a selected unit (incoming kernel slice, bias, its norm's scale and offset) is drawn from
    that parameter's own initialiser; then the kernel rows that read it are set to 0, so an entry that is both ends
    at 0, and a unit that was silent leaves the network's output as it was. Adam's `mu` and `nu` (and relatives, see
    `MOMENTS`) become 0 at the same entries. Adam's count is shared by all weights and stays: a reset weight's first
    update is up to (1 − b1)/√(1 − b2) ≈ 3.2 learning rates for the usual decay rates. An optimizer with a
    bias correction of every weight's own (`pliant.optimizers.scale_by_adam_per_weight`) makes it one learning rate.

    Args:
      key: for the fresh draws; every leaf gets its own.
      learned: the parameters and any optax state; running statistics stay as they are.
      wiring: the network's layer graph.
      units: True at the units to reset, by layer; layers may be missing. No True is a bitwise no-op.
      start: feeds to go back to, by the parameter's `leaf_path`, in the place of fresh draws.

    Returns:
      The same with new parameters and optimizer state.

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Algorithm 1.

    Differs from:
      Dopamine, which keeps the bias' moments, whose mask from convolutions to dense layers is right for
      channel-first layouts only, and which finds Adam's state by position.
    """
    leaves = by_path(learned.params)
    fed: dict[str, Array] = {}
    read: dict[str, Array] = {}
    fresh: dict[str, Array] = {}
    for layer in wiring.layers:
        if layer.name not in units:
            continue
        for feed in layer.feeds:
            path, leaf = feed.slot.path, leaves[feed.slot.path]
            _mark(fed, feed.slot, units[layer.name], leaf)
            if start is None:
                fresh[path] = feed.initializer(jax.random.fold_in(key, len(fresh)), leaf.shape, leaf.dtype)
            else:
                fresh[path] = start[path]
        for slot in layer.readers:
            _mark(read, slot, units[layer.name], leaves[slot.path])

    def redraw(path: Any, leaf: Array) -> Array:
        name = leaf_path(path)
        if name in fed:
            leaf = jnp.where(fed[name], fresh[name], leaf)
        if name in read:
            leaf = jnp.where(read[name], jnp.zeros_like(leaf), leaf)
        return leaf

    touched = {path: fed.get(path, False) | read.get(path, jnp.zeros(leaves[path].shape, bool)) for path in fed | read}
    return learned._replace(
        params=jax.tree_util.tree_map_with_path(redraw, learned.params),
        optimizer=clear_moments(learned.optimizer, touched | dict(units)),
    )


def clear_moments(opt_state: optax.OptState, where: Mapping[str, Bool[Array, "..."]]) -> optax.OptState:
    """Zeroes an optimizer's gradient statistics at chosen weights, and nothing else.

    Statistics are found by field name (`MOMENTS`, and `MASSES` for a weight's bias correction) and by the path of their
    parameter, wherever they sit: in chains, masks, partitions, `MultiSteps`, `inject_hyperparams`, schedule-free.
    Counts that weights share, accumulated gradients and stored copies of parameters are left alone.

    Args:
      opt_state: any optax state.
      where: by the parameter's `leaf_path`, True at the entries to forget; of statistics that are kept by unit, such as
        the utilities of `pliant.optimizers.upgd`, by the name of the hidden layer.

    Returns:
      A state of the same structure.

    Example:
      >>> tx = optax.chain(optax.clip(1.0), optax.adam(0.1))
      >>> params = {"w": jnp.ones(2)}
      >>> _, state = tx.update(params, tx.init(params))
      >>> cleared = clear_moments(state, {"w": jnp.array([True, False])})
      >>> [round(float(m), 3) for m in cleared[1][0].mu["w"]], int(cleared[1][0].count)
      ([0.0, 0.1], 1)

    References:
      google/dopamine#209 and timoklein/redo#6, where users ask for it.

    Differs from:
      `optax.tree.map_params`, which also reaches copies of parameters and accumulated gradients.
    """

    def clear(path: PyTree, leaf: Any) -> Any:
        for i, entry in enumerate(path):
            if getattr(entry, "name", None) in MOMENTS + MASSES and leaf_path(path[i + 1 :]) in where:
                return jnp.where(where[leaf_path(path[i + 1 :])], jnp.zeros_like(leaf), leaf)
        return leaf

    return jax.tree_util.tree_map_with_path(clear, opt_state)


def require_owned_outputs(wiring: Wiring, method: str) -> None:
    """Raises unless the network has hidden layers and every hidden unit owns its output.

    Args:
      wiring: the network's layer graph.
      method: what wants to work on units, for the message.
    """
    mixed = sorted({layer.activation for layer in wiring.layers if not layer.elementwise})
    if mixed or not wiring.layers:
        raise UserError(
            got=f"{method} behind {', '.join(mixed)}" if mixed else f"{method} on a network without hidden layers",
            wanted="hidden layers in which every unit owns its output",
            do="Use an elementwise activation such as relu: sorted outputs belong to no unit, and none of them dies.",
        )


def by_path(tree: PyTree) -> dict[str, Any]:
    """The leaves by their `leaf_path`."""
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def mean_magnitude(leaves: Mapping[str, Array], slots: Sequence[Slot], num_units: int) -> Float[Array, " units"]:
    """The mean absolute value of each unit's entries, over all of its slots together, in float32.

    Args:
      leaves: parameters, or what has their shapes, by `leaf_path`.
      slots: where the units live.
      num_units: what the slots' axes hold, perhaps several times, unit index fastest.
    """
    sums = [_sums(jnp.abs(leaves[slot.path].astype(jnp.float32)), slot.axis) for slot in slots]
    total = jnp.concatenate([each.reshape(-1, num_units) for each in sums]).sum(axis=0)
    return total * num_units / sum(leaves[slot.path].size for slot in slots)


def _sums(leaf: Float[Array, "..."], axis: int) -> Float[Array, " units"]:
    """Sums over all axes but one, as products with ones: XLA:CPU is slow to add up rows or columns of a matrix."""
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


def _mark(masks: dict[str, Array], slot: Slot, units: Array, leaf: Array) -> None:
    masks[slot.path] = masks.get(slot.path, False) | slot_mask(slot, units, leaf)
