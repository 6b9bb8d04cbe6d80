"""Parseval regularisation: keeps the units of a layer orthogonal."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError, require_range, require_whole
from pliant.isometry import gram_deviation, matrix_view
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, LogUniform, Method, Number, Params, Part, Penalty, Scalar, State

_PUBLISHED_WIDTH = 64


def parseval(
    strength: Number = 1e-3,
    *,
    gain: Number = 2**0.5,
    groups: int = 1,
    angles_only: bool = False,
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Penalty:
    r"""Penalises deviations of a layer's units from being orthogonal and of equal length (Parseval).

    Use it to compare AdamO with orthogonality by a penalty; it costs more.

    .. math:: \lambda \sum_l \Big(\frac{64}{n_l}\Big)^2 \sum_{g} \lVert W_{lg}^\top W_{lg} - s^2 I \rVert_F^2

    :math:`W_l` is the matrix view of a kernel, n its number of columns: the units. The factor makes λ mean the same
    for all widths. With several groups, only the columns within one are held against each other. Where a group has
    more columns than rows the Gram matrix of the rows is taken, which differs by a constant, so that 0 can be reached.

    Args:
      strength: λ ≥ 0. 0 does nothing.
      gain: s > 0, the singular value aimed at.
      groups: ≥ 1, into how many blocks of neighbours the units of each kernel are divided.
      angles_only: True for columns divided by their lengths, with s = 1: the lengths are left free.
      mask: True at the kernels to penalise: a pytree of booleans or a function of the parameters that makes one. By
        default all leaves with two or more axes, which includes an output layer and embeddings: mask those out.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      A stateless `Penalty`.

    Raises:
      UserError: for numbers out of range, units that cannot be divided into that many groups, a mask that does not fit
        or selects nothing, and kernels whose output axes are in doubt.

    Example:
      >>> penalty = parseval(0.5)
      >>> value, _ = penalty.loss(2.0 * jnp.eye(64), (), None)  # 0.5 · 64 · (4 − 2)²
      >>> round(float(value), 3)
      128.0

    References:
      Chung, Cherif, Meger, Precup, `Parseval Regularization for Continual Reinforcement Learning
      <https://arxiv.org/abs/2412.07224>`_, 2024. The regularisation term, its normalised variant and its subgroups.

    Differs from:
      The authors' code (wechu/parseval_reg), where the width in the factor is the one of all hidden layers, the Gram
      matrix is always that of the units, and normalised columns are held against s² = 2, which adds a constant. Its
      diagonal layers and input scales are changes to the network. The code of FIRE, which also penalises the scales
      of norms, without the factor. Plasticine, whose s is 1, for one layer.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_range("gain", gain, 1e-12, do="Use √2 for the gain of ReLU networks, 1 for isometry.")
    groups = require_whole("groups", groups, 1, do="Use 1 for all units together.")

    def of_kernel(matrix: Float[Array, "in out"]) -> Scalar:
        num_in, num_out = matrix.shape
        _check_groups(groups, num_out)
        if angles_only:
            matrix = _unit_columns(matrix)
        blocks = jnp.moveaxis(matrix.reshape(num_in, groups, num_out // groups), 1, 0)
        target = 1.0 if angles_only else gain
        deviations = jax.vmap(lambda block: gram_deviation(block, target))(blocks)
        return (_PUBLISHED_WIDTH / num_out) ** 2 * deviations.sum()

    def matrices(params: Params) -> list[Float[Array, "in out"]]:
        kernels = zip(jax.tree.leaves(params), select_kernels(mask, params, output_axes), strict=True)
        return [matrix_view(kernel, axes) for kernel, axes in kernels if axes is not None]

    def init(params: Params) -> State:
        for matrix in matrices(params):
            _check_groups(groups, matrix.shape[1])
        return ()

    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        del forward
        return scaled(strength, sum(of_kernel(matrix) for matrix in matrices(heard(strength, params)))), state

    return Penalty(init, loss)


def _unit_columns(matrix: Float[Array, "in out"]) -> Float[Array, "in out"]:
    """Every column over its length; columns that are 0 stay, with gradient 0."""
    wide = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    squares = jnp.sum(wide**2, axis=0, keepdims=True)
    return wide / jnp.sqrt(jnp.where(squares > 0, squares, 1.0))


def _check_groups(groups: int, num_units: int) -> None:
    if num_units % groups:
        raise UserError(
            got=f"groups={groups} for a kernel with {num_units} units",
            wanted="a divisor of the number of units",
            do="Use 1 for all units together.",
        )


PARSEVAL = Method(
    name="parseval",
    summary="Adam with a penalty that keeps the units of every hidden layer orthogonal",
    reference="Chung et al. 2024, Parseval regularisation",
    penalty=Part(parseval, roles=("matrix",)),
    space={"strength": LogUniform(1e-5, 1e-1)},
    off={"strength": 0.0},
    lowers="penalty",
)
