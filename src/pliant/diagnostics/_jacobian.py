"""Exact Jacobians of single examples, of a network and between its layers."""

from collections.abc import Sequence

import jax
from jaxtyping import Array, Float

from pliant.tracing import Function, jacobian_shape, layer_starts, segment

_CHUNK = 2**22  # entries of the Jacobians that are computed at the same time: bounds the memory that autodiff takes


def input_output_jacobian(
    function: Function, inputs: Float[Array, "examples ..."]
) -> Float[Array, "examples out inputs"]:
    r"""Computes the derivative of a network's output with respect to its inputs, exactly and for each example.

    Use it when the Jacobian fits into memory; `jacobian_moments` estimates what large ones say.

    .. math:: J(x) = \partial f(x) / \partial x

    Args:
      function: `function(inputs) -> (output, features)`, whose examples do not depend on each other: a network in eval
        mode.
      inputs: (examples, …), at least one.

    Returns:
      The Jacobians; all axes behind that of the examples are flattened. NaN where the derivative is.

    Raises:
      UserError: for an empty batch, since nothing was measured.

    Example:
      >>> input_output_jacobian(lambda x: (x**2, {}), jnp.array([[1.0, 3.0]])).tolist()
      [[[2.0, 0.0], [0.0, 6.0]]]

    References:
      Pennington, Schoenholz, Ganguli, `Resurrecting the sigmoid in deep learning through dynamical isometry
      <https://arxiv.org/abs/1711.04735>`_, 2017. Equation 2.

    Differs from:
      Nothing known.
    """
    return intermediate_jacobian(function, inputs)


def intermediate_jacobian(
    function: Function, inputs: Float[Array, "examples ..."], start: str | None = None, end: str | None = None
) -> Float[Array, "examples out inputs"]:
    r"""Computes the derivative of one layer's features with respect to another's, exactly and for each example.

    Use it to see how one part of a network transmits signals and gradients.

    .. math:: J(x) = \partial h_{end}(x) / \partial h_{start}(x)

    along all ways from the one to the other: whatever reads the first reads its change, and what goes around it, as a
    skip connection does, stays as it is. One backward pass a row, a few examples at a time.

    Args:
      function: as in `input_output_jacobian`; see `perturbable` for what it should return as features.
      inputs: (examples, …), at least one.
      start: a feature; None is the inputs.
      end: a feature; None is the output.

    Returns:
      The Jacobians; all axes behind that of the examples are flattened. 0 where `end` does not depend on `start`.

    Raises:
      UserError: for an empty batch, an unknown feature, or a `start` that is no value of its own (see `perturbable`).

    Example:
      >>> def function(x):
      ...     hidden = 2 * x
      ...     return 3 * hidden, {"hidden": hidden}
      >>> intermediate_jacobian(function, jnp.ones((1, 1)), "hidden").tolist()
      [[[3.0]]]

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Appendix B.3, figure 6.

    Differs from:
      Nothing known.
    """
    rows, columns = jacobian_shape(function, inputs, start, end)

    def of_one(example: Array) -> Array:
        path, at = segment(function, example[None], start, end)
        return jax.jacrev(path)(at).reshape(rows, columns)

    at_once = max(1, min(len(inputs), _CHUNK // (rows * columns)))
    return jax.lax.map(of_one, inputs, batch_size=at_once)


def layer_jacobians(
    function: Function, inputs: Float[Array, "examples ..."], layers: Sequence[str]
) -> dict[str, Float[Array, "examples out inputs"]]:
    r"""Computes the derivative of each layer with respect to the one before it, exactly and for each example.

    Use it to find the layer at which signals or gradients vanish or explode.

    .. math:: J_l(x) = \partial h_l(x) / \partial h_{l-1}(x), \qquad h_0 = x

    For a dense layer :math:`J_l = D_l W_l^\top`, the activation's derivative times the weights; a norm or pooling
    between the two features is part of it, what goes around the earlier one is not (see `intermediate_jacobian`). Where
    layers are parallel, such as the experts of a mixture, the one before is the nearest earlier one that a layer
    depends on: in the traced program, whatever the numbers are.

    Args:
      function: as in `intermediate_jacobian`.
      inputs: (examples, …), at least one.
      layers: names of features from input to output, at least one.

    Returns:
      The Jacobians by layer.

    Raises:
      UserError: if there is no layer or an empty batch, since nothing was measured; for an unknown feature, or one that
        is no value of its own (see `perturbable`).

    Example:
      >>> def function(x):
      ...     first = 2 * x
      ...     second = jnp.maximum(first, 0)
      ...     return second, {"first": first, "second": second}
      >>> found = layer_jacobians(function, jnp.array([[1.0], [-1.0]]), ("first", "second"))
      >>> {name: jacobians.ravel().tolist() for name, jacobians in found.items()}
      {'first': [2.0, 2.0], 'second': [1.0, 0.0]}

    References:
      Rosseau et al. 2026 (arXiv 2606.09762). Equations 10 to 15.

    Differs from:
      Nothing known.
    """
    starts = layer_starts(function, inputs, layers)
    return {layer: intermediate_jacobian(function, inputs, start, layer) for layer, start in starts.items()}
