"""Muon on hidden kernels, Adam on everything else."""

import functools

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from pliant.errors import require_adam, require_range
from pliant.isometry import split_axes
from pliant.layouts import OutputAxes, find_output_axes
from pliant.masks import Mask, select
from pliant.types import Choice, LogUniform, Method, Number, Params, Part


def muon(
    learning_rate: Number,
    b1: Number = 0.9,
    b2: Number = 0.999,
    eps: Number = 1e-8,
    *,
    momentum: Number = 0.95,
    rate_factor: Number = 20.0,
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Muon on hidden kernels, with `rate_factor` times the learning rate; Adam on all other parameters.

    Use it to see what steps of equal size in all directions of a kernel do for plasticity, without any other change.

    .. math:: m \leftarrow \mu m + (1 - \mu) g, \qquad
              W \leftarrow W - c\, \eta\, \sqrt{\max(1, d_{out}/d_{in})}\; \mathrm{NS}(\mu \hat m + (1 - \mu) \hat g)

    with c the `rate_factor` and NS a Newton–Schulz iteration, which makes all singular values about 1.

    Args:
      learning_rate: step size of Adam, ≥ 0.
      b1: decay rate of the first moment, in [0, 1).
      b2: decay rate of the second moment, in [0, 1).
      eps: ≥ 0, outside the root.
      momentum: of Muon, in [0, 1).
      rate_factor: ≥ 0, Muon's learning rate over Adam's.
      mask: True at the kernels that Muon updates: a pytree of booleans or a function of the parameters that makes one.
        By default all leaves with two or more axes, which includes an output layer and embeddings: mask those out.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      An optimizer whose `update` ignores further keywords.

    Raises:
      UserError: for numbers out of range, a mask that selects nothing, and kernels whose output axes are in doubt.

    Example:
      >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
      >>> gradients = {"kernel": jnp.diag(jnp.array([3.0, 0.1])), "bias": jnp.ones(2)}
      >>> tx = muon(0.01)
      >>> updates, _ = tx.update(gradients, tx.init(params), params)
      >>> steps = jnp.abs(jnp.diag(updates["kernel"]))  # nearly of one size
      >>> bool((steps > 0.1).all() & (steps < 0.3).all()), round(float(updates["bias"][0]), 4)
      (True, -0.01)

    References:
      Jordan et al., `Muon: An optimizer for hidden layers in neural networks <https://kellerjordan.github.io/posts/muon/>`_,
      2024.

    Differs from:
      `optax.contrib.muon`, whose Adam for the other parameters has Nesterov momentum.
    """
    require_adam(learning_rate, b1, b2, eps)
    require_range("momentum", momentum, 0, 0.999999, do="0.95 is usual.")
    require_range("rate_factor", rate_factor, 0, do="20 makes the published 0.02 of a learning rate of 1e-3.")

    def labels(params: Params) -> Params:
        hidden = select(mask, params, min_axes=2)
        return jax.tree.map(lambda is_hidden: "muon" if is_hidden else "adam", hidden)

    of_kernels = optax.contrib.muon(
        learning_rate * rate_factor,
        beta=momentum,
        mu_dtype=jnp.float32,
        muon_weight_dimension_numbers=functools.partial(_as_matrices, output_axes),
    )
    return optax.partition({"muon": of_kernels, "adam": optax.adam(learning_rate, b1, b2, eps)}, labels)


def _as_matrices(output_axes: OutputAxes, kernels: Params) -> PyTree[optax.contrib.MuonDimensionNumbers]:
    """Inputs and outputs, as in `pliant.isometry.matrix_view`."""
    leaves, structure = jax.tree.flatten(kernels)
    found = find_output_axes(output_axes, kernels, [True] * len(leaves))
    axes = [split_axes(leaf.shape, outputs) for leaf, outputs in zip(leaves, found, strict=True)]
    return jax.tree.unflatten(structure, [optax.contrib.MuonDimensionNumbers(*each) for each in axes])


MUON = Method(
    name="muon",
    summary="steps of equal size in all directions of a hidden kernel (Muon); Adam for all other parameters",
    reference="Jordan et al. 2024",
    optimizer=Part(muon, roles=("matrix",)),
    space={"momentum": Choice((0.8, 0.9, 0.95)), "rate_factor": LogUniform(1.0, 100.0)},
)
