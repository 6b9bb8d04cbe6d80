"""The seam: the only place where a module library meets the contracts."""

from collections.abc import Callable
from typing import Any

import flax.linen
from flax import nnx
from jaxtyping import Array, PyTree

from pliant.types import Features, Inputs, Key, Network, Params, State, Wiring


def from_nnx(make: Callable[[nnx.Rngs], nnx.Module], wiring: Wiring) -> Network:
    """Makes a `Network` of a Flax NNX module factory.

    Only the functional subset of NNX is used (split, merge, pure dictionaries), so what runs is plain JAX on nested
    dicts.

    Args:
      make: builds the module from `nnx.Rngs`. The module is called as `module(inputs, train=..., key=...)` and
        returns (output, features); several outputs are a dictionary.
      wiring: the layer graph of the module.

    Example:
      >>> class Linear(nnx.Module):
      ...     def __init__(self, rngs):
      ...         self.head = nnx.Linear(3, 2, rngs=rngs)
      ...     def __call__(self, x, *, train, key):
      ...         return self.head(x), {}
      >>> wiring = Wiring(layers=(), roles={"head/kernel": "head", "head/bias": "bias"})
      >>> network = from_nnx(Linear, wiring)
      >>> params, state = network.init(jax.random.key(0))
      >>> params["head"]["kernel"].shape, state
      ((3, 2), {})

    References:
      Flax, `NNX functional API <https://flax.readthedocs.io/en/latest/guides/performance.html>`_.

    Differs from:
      `nnx.jit` and its relatives, which cost up to 15 times more per call than `jax.jit` on a dict.
    """
    graphdef, _, _ = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)

    def init(key: Key) -> tuple[Params, State]:
        _, params, state = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return nnx.to_pure_dict(params), nnx.to_pure_dict(state)

    def apply(
        params: Params, state: State, inputs: Inputs, *, train: bool, key: Key | None = None
    ) -> tuple[PyTree[Array], Features, State]:
        module = nnx.merge(graphdef, params, state)
        output, features = module(inputs, train=train, key=key)
        _, _, state = nnx.split(module, nnx.Param, ...)
        return output, features, nnx.to_pure_dict(state)

    return Network(init, apply, wiring)


def from_linen(module: flax.linen.Module, example: Array, wiring: Wiring) -> Network:
    """Makes a `Network` of a Flax Linen module that returns (output, features) and keeps no running statistics.

    Args:
      module: called as `module(inputs)`.
      example: inputs of the right shape, for Linen's shape inference.
      wiring: the layer graph of the module.

    Example:
      >>> class Linear(flax.linen.Module):
      ...     @flax.linen.compact
      ...     def __call__(self, x):
      ...         return flax.linen.Dense(2, name="head")(x), {}
      >>> wiring = Wiring(layers=(), roles={"head/kernel": "head", "head/bias": "bias"})
      >>> network = from_linen(Linear(), jnp.zeros((1, 3)), wiring)
      >>> network.init(jax.random.key(0))[0]["head"]["kernel"].shape
      (3, 2)

    References:
      Flax, `Linen module API <https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/module.html>`_.

    Differs from:
      Nothing known.
    """

    def init(key: Key) -> tuple[Params, State]:
        return module.init(key, example)["params"], {}

    def apply(
        params: Params, state: State, inputs: Array, *, train: bool, key: Key | None = None
    ) -> tuple[Array, Features, State]:
        del train, key
        result: Any = module.apply({"params": params}, inputs)
        output, features = result
        return output, features, state

    return Network(init, apply, wiring)
