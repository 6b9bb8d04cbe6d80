"""Spectral regularisation: pulls the largest singular value of every kernel to one."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import require_choice, require_range, require_whole
from pliant.isometry import matrix_view
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask, select
from pliant.penalties._strength import heard, scaled
from pliant.types import Forward, LogUniform, Method, Number, Params, Part, Penalty, Role, Scalar, Wiring


class SpectralState(NamedTuple):
    """State of `spectral`."""

    u: tuple[Float[Array, " in"], ...]
    """For each selected kernel, in the order of the parameters: an estimate of its leading left singular vector."""
    norms: tuple[Float[Array, "..."], ...]
    """The selected norm parameters at the start."""
    targets: tuple[Scalar, ...]
    """The spectral norms at the start, where these are aimed at."""


def spectral(
    strength: Number = 1e-3,
    *,
    exponent: int = 2,
    gain: Number = 1.0,
    target: Literal["gain", "start"] = "gain",
    include_head: bool = True,
    include_bias: bool = True,
    pull_to_one: bool = False,
    wiring: Wiring | None = None,
    mask: Mask = None,
    bias_mask: Mask = None,
    norm_mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Penalty:
    r"""Penalises kernels whose spectral norm differs from the gain, and long biases.

    Use it when spectral norms grow from task to task and an orthogonal network is too strict.

    .. math:: \lambda \Big( \sum_{W} \big(\hat\sigma(W)^k - s^k\big)^2 + \sum_{b} \lVert b \rVert^{2k}
              + \sum_{\gamma} \lVert \gamma - \gamma_0 \rVert^2 \Big), \qquad \hat\sigma(W) = u^\top A v

    where A is the matrix view of W. The unit vector u is kept from update to update and follows the leading singular
    vector with one power iteration each time,

    .. math:: v \leftarrow A^\top u / \lVert A^\top u \rVert, \qquad u \leftarrow A v / \lVert A v \rVert.

    The gradient treats both as constants, so that :math:`\partial\hat\sigma / \partial A = u v^\top`. All in float32 or
    wider. The estimate is too small, by less the slower the weights move.

    Args:
      strength: λ ≥ 0. 0 does nothing.
      exponent: k ≥ 1.
      gain: s > 0, the spectral norm aimed at.
      target: "gain" aims at s for all kernels; "start" for each at the spectral norm that it started with, at s if that
        was 0. That target is exact, but the estimate begins below it: u is not a singular vector yet, so the penalty of
        weights that stay starts above 0 and falls to 0 in the first updates.
      include_head: whether the output layer's kernel is among them.
      include_bias: whether the norms of biases are pulled to 0.
      pull_to_one: whether the scales of norms are pulled to 1, where they start, and their offsets to 0.
      wiring: the network's layer graph, by which the three options above select hidden kernels, the output layer's,
        biases and norms. Without it these options do nothing, and only masks select.
      mask: True at the kernels to penalise: a pytree of booleans or a function of the parameters that makes one. By
        default what the wiring says; without a wiring all leaves with two or more axes.
      bias_mask: True at the biases to penalise; by default what the wiring says, or none.
      norm_mask: True at the scales and offsets of norms to pull to their start γ₀; by default what the wiring says, or
        none.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      A `Penalty` with a `SpectralState`, which must be checkpointed. u begins as a fixed vector without zeros.

    Raises:
      UserError: for numbers out of range, a mask that does not fit or selects nothing or a vector, and kernels whose
        output axes are in doubt.

    Example:
      >>> penalty = spectral(1.0)
      >>> params, state = jnp.diag(jnp.array([2.0, 1.0])), penalty.init(jnp.eye(2))
      >>> for _ in range(10):
      ...     value, state = penalty.loss(params, state, None)
      >>> round(float(value), 3)  # (2² − 1)²
      9.0

    References:
      Lewandowski et al., `Learning Continually by Spectral Regularization <https://arxiv.org/abs/2406.06811>`_, 2025.
      The spectral regulariser of section 4, k = 2.

    Differs from:
      Sources that report ‖b‖ᵏ; the norms are left out by default, where sources disagree (‖γ − 1‖²ᵏ, nothing, or a
      pull to 1). rejax' code, which starts each estimate from the same random vector, so that it stays too small, and
      leaves the output layer out. lop-jax, which aims at σ² = 2 (pass a gain of √2). The code of the paper on gradual
      change (2026) aims at the start's norm on MNIST: `target`.
    """
    require_range("strength", strength, 0, do="Use 0 to switch the penalty off.")
    require_whole("exponent", exponent, 1, do="Use 2, as published.")
    require_range("gain", gain, 1e-12, do="Use 1, as published, or √2 for the gain of ReLU networks.")
    require_choice("target", target, "gain", "start")

    if wiring is not None:
        own = _masks(wiring, include_head, include_bias, pull_to_one)
        masks = zip((mask, bias_mask, norm_mask), own, strict=True)
        mask, bias_mask, norm_mask = (of_roles if given is None else given for given, of_roles in masks)

    def kernels(params: Params) -> list[Array]:
        found = zip(jax.tree.leaves(params), select_kernels(mask, params, output_axes), strict=True)
        return [_wide(matrix_view(kernel, axes)) for kernel, axes in found if axes is not None]

    def others(mask: Mask, params: Params) -> list[Array]:
        return [] if mask is None else _chosen(select(mask, params), params)

    def init(params: Params) -> SpectralState:
        others(bias_mask, params)  # a mask that selects nothing is refused here, not at the first update
        norms = tuple(jnp.copy(leaf) for leaf in others(norm_mask, params))
        found = kernels(params)
        own = [jnp.linalg.norm(kernel, ord=2) for kernel in found] if target == "start" else []
        aims = tuple(jnp.where(norm > 0, norm, gain) for norm in own)
        return SpectralState(tuple(_first_vector(kernel) for kernel in found), norms, aims)

    def loss(params: Params, state: SpectralState, forward: Forward | None) -> tuple[Scalar, SpectralState]:
        del forward
        params = heard(strength, params)
        found = [_spectral_norm(kernel, u) for kernel, u in zip(kernels(params), state.u, strict=True)]
        aims = state.targets if target == "start" else (gain,) * len(found)
        terms = [(norm**exponent - aim**exponent) ** 2 for (norm, _), aim in zip(found, aims, strict=True)]
        terms += [_square(bias) ** exponent for bias in others(bias_mask, params)]
        norms = zip(others(norm_mask, params), state.norms, strict=True)
        terms += [_square(_wide(now) - _wide(start)) for now, start in norms]
        return scaled(strength, sum(terms)), state._replace(u=tuple(u for _, u in found))

    return Penalty(init, loss)


def _masks(wiring: Wiring, include_head: bool, include_bias: bool, pull_to_one: bool) -> tuple[Mask, Mask, Mask]:
    """True at kernels, at biases and at norms; None where there are none, or none are wanted."""
    kernels: tuple[Role, ...] = ("matrix", "head") if include_head else ("matrix",)
    wanted = {"bias": include_bias, "norm": pull_to_one}
    present = {role for role in wiring.roles.values() if wanted.get(role)}
    return (
        lambda params: wiring.mask(params, *kernels),
        (lambda params: wiring.mask(params, "bias")) if "bias" in present else None,
        (lambda params: wiring.mask(params, "norm")) if "norm" in present else None,
    )


def _chosen(selected: Params, params: Params) -> list[Array]:
    return [leaf for leaf, take in zip(jax.tree.leaves(params), jax.tree.leaves(selected), strict=True) if take]


def _square(leaf: Array) -> Scalar:
    return jnp.sum(_wide(leaf) ** 2)


def _wide(leaf: Array) -> Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _first_vector(matrix: Float[Array, "in out"]) -> Float[Array, " in"]:
    """The same for every kernel of this height; no sine of a whole number but 0 is 0, and no pattern repeats."""
    return _direction(jnp.sin(1.0 + jnp.arange(matrix.shape[0], dtype=matrix.dtype)))


def _spectral_norm(matrix: Float[Array, "in out"], u: Float[Array, " in"]) -> tuple[Scalar, Float[Array, " in"]]:
    """uᵀAv after one power iteration, and the new u; the old one for A = 0, and where A is not finite."""
    fixed = jax.lax.stop_gradient(matrix)
    v = _direction(jnp.matmul(u, fixed, precision="highest"))
    image = jnp.matmul(fixed, v, precision="highest")
    size = jnp.linalg.norm(image)
    u = jnp.where((size > 0) & jnp.isfinite(size), _direction(image), u)
    return jnp.vdot(u, jnp.matmul(matrix, v, precision="highest"), precision="highest"), u


def _direction(vector: Float[Array, " size"]) -> Float[Array, " size"]:
    """The vector over its length; 0 stays 0."""
    norm = jnp.linalg.norm(vector)
    return vector / jnp.where(norm > 0, norm, 1.0)


SPECTRAL = Method(
    name="spectral",
    summary="Adam with a penalty on spectral norms other than 1, and on long biases",
    reference="Lewandowski et al. 2025, section 4",
    penalty=Part(spectral, fixed={"bias_mask": None, "norm_mask": None}),
    space={"strength": LogUniform(1e-5, 1e-1)},
    off={"strength": 0.0},
    lowers="penalty",
)
