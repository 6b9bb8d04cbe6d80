"""What recipes are made of: plain Adam, and a way to aim a library function at the parameters of some roles."""

import inspect
from collections.abc import Callable
from typing import Any

import optax

from pliant.errors import require_adam
from pliant.types import Number, Role, Wiring


def adam_optimizer(
    wiring: Wiring, *, learning_rate: Number, b1: Number = 0.9, b2: Number = 0.999, eps: Number = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Plain Adam; the optimizer of every method that brings none of its own."""
    del wiring
    require_adam(learning_rate, b1, b2, eps)
    return optax.with_extra_args_support(optax.adam(learning_rate, b1, b2, eps))


def on_roles(factory: Callable[..., Any], *roles: Role) -> Callable[..., Any]:
    """Makes a recipe's builder of a function that takes a mask: the mask becomes True at the leaves of these roles.

    The function's other parameters, with their defaults, become the recipe's hyperparameters.

    Example:
      >>> from pliant.penalties import l2_init
      >>> inspect.signature(on_roles(l2_init, "matrix")).parameters["strength"].default
      0.01
    """
    own = [p for p in inspect.signature(factory).parameters.values() if p.name != "mask"]

    def builder(wiring: Wiring, **hyperparameters: Any) -> Any:
        return factory(**hyperparameters, mask=lambda params: wiring.mask(params, *roles))

    first = inspect.Parameter("wiring", inspect.Parameter.POSITIONAL_ONLY)
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    builder.__signature__ = inspect.Signature([first, *named])  # type: ignore[attr-defined]
    return builder
