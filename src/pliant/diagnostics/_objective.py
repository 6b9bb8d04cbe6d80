"""The loss of a user's own network: cross-entropy for classes, squared error for values."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from pliant.errors import UserError

Losses = Callable[[Array, Any], Array]
"""`losses(output, targets) -> loss of every example`."""


def find_objective(output: Any, y: Any) -> tuple[Losses, Array]:
    """The loss of every example, and the targets in the form that it takes.

    Args:
      output: of the network, (batch, …, out).
      y: integers are classes, also as one-hot rows; floating-point numbers are values. Without, the loss is that of
        values: the output itself plus noise of its standard deviation.

    Raises:
      UserError: for targets that do not fit the output.

    Example:
      >>> losses, targets = find_objective(jnp.zeros((2, 3)), [[0, 0, 1], [1, 0, 0]])
      >>> targets.tolist(), round(float(losses(jnp.zeros((2, 3)), targets).mean()), 4)
      ([2, 0], 1.0986)
    """
    if y is None:
        now = output
        return _squared, now + now.std() * jax.random.normal(jax.random.key(1), now.shape, now.dtype)
    targets = np.asarray(y)
    if targets.dtype.kind not in "iubf" and not jnp.issubdtype(targets.dtype, jnp.floating):
        raise UserError(
            got=f"y of {targets.dtype}", wanted="numbers", do="Integers are classes, floating-point numbers are values."
        )
    shape = output.shape
    is_float = jnp.issubdtype(targets.dtype, jnp.floating)
    if not is_float and targets.shape == shape and shape[-1] > 1 and _is_one_hot(targets):
        targets = targets.argmax(axis=-1)
    if not is_float and shape[-1] > 1 and targets.shape == (*shape[:-1], 1):
        targets = targets[..., 0]  # a column of classes
    if is_float:
        allowed = (shape, shape[:-1]) if shape[-1] == 1 else (shape,)
        _require(targets.shape in allowed, f"y of shape {targets.shape}", f"values {shape}")
        return _squared, jnp.asarray(targets)
    of = "one class for each example" if len(shape) == 2 else "one class for each position"
    _require(targets.shape == shape[:-1], f"y of shape {targets.shape}", f"{of}, {shape[:-1]}")
    _require(
        0 <= int(targets.min()) <= int(targets.max()) < shape[-1],
        f"classes {targets.min()} to {targets.max()}",
        f"0 to {shape[-1] - 1}, for {shape[-1]} outputs",
    )
    return _cross_entropy, jnp.asarray(targets.astype(np.int32))


def _squared(output: Array, targets: Array) -> Array:
    return jnp.square(output - targets.reshape(output.shape)).reshape(len(output), -1).mean(axis=1)


def _cross_entropy(output: Array, targets: Array) -> Array:
    found = optax.softmax_cross_entropy_with_integer_labels(output, targets)
    return found.reshape(len(found), -1).mean(axis=1) if found.ndim > 1 else found


def _is_one_hot(targets: np.ndarray) -> bool:
    return bool(((targets == 0) | (targets == 1)).all() and (targets.sum(axis=-1) == 1).all())


def _require(is_so: bool, got: str, wanted: str) -> None:
    if not is_so:
        raise UserError(got=got, wanted=wanted, do="Integers are classes, floating-point numbers are values.")
