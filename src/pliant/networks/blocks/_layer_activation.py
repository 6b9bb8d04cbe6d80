"""An activation in its place behind a layer: what the layer learns of it, and what it draws from."""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from pliant.errors import UserError
from pliant.keys import Draw, draw_key
from pliant.networks.blocks._activations import Activation
from pliant.types import Key, Role

NextKey: TypeAlias = Callable[[], Key | None]


class LayerActivation(nnx.Module):
    """The activation behind one layer. Every network makes one for each place, so that none asks which it is.

    What it learns are parameters by the names in `Activation.learned`; a plain function leaves no trace in the network.

    Example:
      >>> from pliant.networks import activation
      >>> activate = LayerActivation(activation("aid"))
      >>> round(float(activate(jnp.array(-2.0), key_stream(None, train=False))), 3)
      -0.2
    """

    def __init__(self, chosen: Activation):
        self.function = chosen.apply
        self.draws = chosen.draws
        self.learned = tuple(chosen.learned)
        for name, values in chosen.learned.items():
            setattr(self, name, nnx.Param(jnp.array(values)))

    def __call__(self, x: Array, next_key: NextKey) -> Array:
        """The activations; the last axis is `expansion` times as long."""
        options = {name: getattr(self, name)[...] for name in self.learned}
        if self.draws:
            options["key"] = next_key()
        return self.function(x, **options)


def key_stream(key: Key | None, *, train: bool) -> NextKey:
    """`next_key()`: a key of its own for every call, apart from those of dropout; None in evaluation.

    Which key a call gets depends on the order of the calls in the network.

    Raises:
      UserError: from the calls, in training without a key.
    """
    if not train:
        return lambda: None
    calls = itertools.count()

    def next_key() -> Key:
        if key is None:
            raise UserError(
                got="an activation that draws, in training without a key",
                wanted="a key",
                do="Pass key=jax.random.key(0) to `apply`.",
            )
        return draw_key(key, Draw.ACTIVATION, next(calls))

    return next_key


def activation_roles(path: str, chosen: Activation) -> dict[str, Role]:
    """The roles of what the `LayerActivation` at `path` learns.

    Example:
      >>> from pliant.networks import activation
      >>> activation_roles("activation_0", activation("rational"))
      {'activation_0/numerator': 'other', 'activation_0/denominator': 'other'}
    """
    return {f"{path}/{name}": "other" for name in chosen.learned}
