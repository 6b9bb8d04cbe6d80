"""What recipes are made of: plain Adam, and a way to aim a library function at the parameters of some roles."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import optax
from jaxtyping import PyTree

from pliant.errors import require_adam
from pliant.types import Number, Params, Role, Wiring, leaf_path


def adam_optimizer(
    wiring: Wiring, *, learning_rate: Number, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Plain Adam; the optimizer of every method that brings none of its own.

    Args:
      wiring: not used.
      learning_rate: step size, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.

    Returns:
      `optax.adam`, whose `update` ignores further keywords.

    Raises:
      UserError: for numbers out of range.

    Example:
      >>> from pliant.networks import mlp
      >>> tx = adam_optimizer(mlp((2,), 1).wiring, learning_rate=0.1)
      >>> updates, _ = tx.update(jnp.array([3.0, -2.0]), tx.init(jnp.zeros(2)))
      >>> [round(float(u), 4) for u in updates]
      [-0.1, 0.1]
    """
    del wiring
    require_adam(learning_rate, b1, b2, eps)
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps))


def on_roles(factory: Callable[..., Any], *roles: Role) -> Callable[..., Any]:
    """Makes a recipe's builder of a function that takes a mask: the mask becomes True at the leaves of these roles.

    Frozen leaves are left out. Which axes of kernels are outputs, if the function asks for that, is the wiring's word.

    The function's other parameters, with their defaults, become the recipe's hyperparameters. Its documentation stays.

    Example:
      >>> from pliant.penalties import l2_init
      >>> inspect.signature(on_roles(l2_init, "matrix")).parameters["strength"].default
      0.01
    """
    parameters = inspect.signature(factory).parameters
    own = [p for p in parameters.values() if p.name not in ("mask", "output_axes")]

    def builder(wiring: Wiring, **hyperparameters: Any) -> Any:
        aim: dict[str, Any] = {"mask": lambda params: _learnable(wiring, params, *roles)}
        if "output_axes" in parameters:
            aim["output_axes"] = wiring
        return factory(**hyperparameters, **aim)

    first = inspect.Parameter("wiring", inspect.Parameter.POSITIONAL_ONLY)
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    builder.__signature__ = inspect.Signature([first, *named])  # type: ignore[attr-defined]
    builder.__doc__ = factory.__doc__
    return builder


def _learnable(wiring: Wiring, params: Params, *roles: Role) -> PyTree[bool]:
    return jax.tree_util.tree_map_with_path(
        lambda path, chosen: chosen and leaf_path(path) not in wiring.frozen, wiring.mask(params, *roles)
    )
