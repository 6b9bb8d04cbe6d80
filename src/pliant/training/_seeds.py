"""One function of a seed becomes one program for all seeds: spread over devices, batched within each."""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from pliant.types import Network

Batching: TypeAlias = Literal["vmap", "map"]
Program: TypeAlias = Callable[[Any, Any], Any]
"""A compiled function: its first argument has a slot axis, its second is shared by all slots."""
_SMALL_WIDTH = 64


def choose_batching(network: Network, platform: str) -> Batching:
    """How seeds share a device: "vmap" on accelerators and for small networks, else one after the other.

    On a CPU core a layer of more than about 64 units fills the vector units by itself; batching seeds then only
    spoils the cache (measured, 512 wide: 340 against 579 steps/s). Batched convolutions are slower still, whatever
    their size: each seed has its own kernels, so they become grouped ones (4.9 against 22.5 steps/s).

    Example:
      >>> from pliant.networks import mlp
      >>> choose_batching(mlp((8, 8, 1), 10, widths=(512,)), "cpu")
      'map'
    """
    if platform != "cpu":
        return "vmap"
    leaves = jax.tree.leaves(jax.eval_shape(network.init, jax.random.key(0))[0])
    is_small = all(leaf.ndim < 4 and leaf.shape[-1] <= _SMALL_WIDTH for leaf in leaves)
    return "vmap" if is_small else "map"


class SeedAxis(NamedTuple):
    """The seeds of a run and the devices that they are spread over."""

    num_seeds: int
    num_slots: int
    """`num_seeds`, rounded up to a multiple of the devices: the last seed fills the rest, unseen."""
    mesh: Mesh
    batching: Batching

    def over_seeds(self, f: Callable[[Any, Any], Any], *, consumes: bool = False) -> Program:
        """Compiles a function of one seed for all slots.

        Args:
          f: `f(item of one seed, shared)`, pure.
          consumes: whether items are pairs, results tuples, and the first part of an item becomes that of its result
            in place: what was given is gone after the call. Nothing else is donated: a chunk of updates is long
            against one copy of a learner.

        Returns:
          `(items with a leading slot axis, shared) -> results with a slot axis`.
        """

        def on_one_device(donated: Any, kept: Any, shared: Any) -> Any:
            def one(parts: tuple[Any, Any]) -> Any:
                return f(parts if consumes else parts[1], shared)

            mapped = donated, kept
            if self.batching == "vmap":
                return jax.vmap(one)(mapped)
            if self.num_slots == self.mesh.size:  # one on each device: a loop over it would copy what is donated
                return jax.tree.map(lambda leaf: leaf[None], one(jax.tree.map(lambda leaf: leaf[0], mapped)))
            return _in_turn(one, donated, kept) if consumes else jax.lax.map(one, mapped)

        seeds, everywhere = PartitionSpec("seed"), PartitionSpec()
        spread = jax.shard_map(
            on_one_device, mesh=self.mesh, in_specs=(seeds, seeds, everywhere), out_specs=seeds, check_vma=False
        )
        compiled = jax.jit(spread, donate_argnums=0)
        return lambda items, shared: compiled(*(items if consumes else ((), items)), shared)

    def put(self, tree: PyTree) -> PyTree:
        """Fills the slots of arrays with one entry a seed, and places them on their devices."""
        last = np.minimum(np.arange(self.num_slots), self.num_seeds - 1)
        sharding = NamedSharding(self.mesh, PartitionSpec("seed"))
        return jax.device_put(jax.tree.map(lambda leaf: np.asarray(leaf)[last], tree), sharding)

    def share(self, tree: PyTree) -> PyTree:
        """Places arrays whole on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def get(self, tree: PyTree) -> PyTree:
        """Fetches arrays with a slot axis as NumPy, one entry a seed; typed keys as their data."""
        return jax.tree.map(lambda leaf: np.asarray(leaf)[: self.num_seeds], jax.device_get(_as_data(tree)))

    def like(self, tree: PyTree) -> PyTree:
        """The shapes and types of what `get` fetches; nothing is fetched."""
        shapes = jax.eval_shape(_as_data, tree)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((self.num_seeds, *leaf.shape[1:]), leaf.dtype), shapes)

    def put_like(self, tree: PyTree, like: PyTree) -> PyTree:
        """Places what `get` has fetched; typed keys are made of their data where `like` has them."""

        def typed(leaf: Any, original: Any) -> Any:
            kind = jax.random.key_impl(original) if _is_key(original) else None
            return leaf if kind is None else jax.random.wrap_key_data(leaf, impl=kind)

        return jax.tree.map(typed, self.put(tree), like)


def _in_turn(one: Callable[[Any], Any], donated: Any, kept: Any) -> Any:
    """What `lax.map` does, which would hold twice what is donated: here the loop carries it."""

    def turn(donated: Any, item: tuple[Any, Any]) -> Any:
        i, kept = item
        own = jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(leaf, i, keepdims=False), donated)
        new, *rest = one((own, kept))
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=i, axis=0)
        return jax.tree.map(put, donated, new), rest

    num = len(jax.tree.leaves(kept)[0])
    donated, rest = jax.lax.scan(turn, donated, (jnp.arange(num), kept))
    return donated, *rest


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _as_data(tree: PyTree) -> PyTree:
    """Typed keys as the integers that they hold, which can be stored."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def seed_axis(num_seeds: int, network: Network, batching: Batching | None = None) -> SeedAxis:
    """Spreads seeds over the devices, as many on each; the last may train copies, which are not seen.

    Args:
      num_seeds: ≥ 1.
      network: decides the batching unless `batching` does.
      batching: overrides the choice, for measurements.

    Example:
      >>> from pliant.networks import mlp
      >>> axis = seed_axis(3, mlp((2,), 1))
      >>> double = axis.over_seeds(lambda x, factor: x * factor)
      >>> axis.get(double(axis.put(np.arange(3.0, dtype=np.float32)), 2.0)).tolist()
      [0.0, 2.0, 4.0]
    """
    on_each = math.ceil(num_seeds / jax.device_count())
    devices = jax.devices()[: math.ceil(num_seeds / on_each)]  # no more than are needed: the others would train copies
    mesh = Mesh(np.array(devices), ("seed",))
    return SeedAxis(num_seeds, on_each * len(devices), mesh, batching or choose_batching(network, devices[0].platform))
