"""Reprojection: the weights of Newton–Schulz layers become orthogonal again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.errors import require_whole
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._moments import clear_moments
from pliant.isometry import from_matrix, matrix_view
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.networks import reproject
from pliant.types import Info, Intervention, Key, Learned, LogUniform, Method, Number, Part, Signals, State, by_path


def reprojection(
    *,
    every: Number = 10_000,
    iterations: int = 20,
    clears_moments: bool = False,
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Intervention:
    r"""Replaces kernels by their orthogonalised values at regular intervals.

    Use it with layers that orthogonalise their weights (`linear="newton-schulz"`), to keep their gradients well
    conditioned.

    .. math:: W \leftarrow Q(W) \qquad \text{at updates } F, 2F, \dots

    with Q the Newton–Schulz iteration, see `pliant.networks.reproject`. Layers that apply Q(W) instead of W (the
    network's option `linear="newton-schulz"`) go on computing what they did, but the gradients that reach W are well
    conditioned again: they grow as 1/σ where a singular value σ of W has become small. For plain layers it is a
    projection onto the isometries, which changes what they compute.

    Args:
      every: F ≥ 1, a period in updates; 0 never replaces anything.
      iterations: ≥ 0, of Q; 20 are enough for condition numbers up to 100.
      clears_moments: True to forget the optimizer's moments of these kernels, which were of other weights.
      mask: True at the kernels to replace: a pytree of booleans or a function of the parameters that makes one. By
        default all leaves with two or more axes, which includes a plain output layer: mask that out.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`, the L2 norm of what the parameters changed by.

    Raises:
      UserError: for numbers out of range, a mask that does not fit or selects nothing or a vector, and kernels whose
        output axes are in doubt.

    Example:
      >>> learned = Learned({"kernel": jnp.diag(jnp.array([4.0, -0.5]))}, {}, ())
      >>> method, signals = reprojection(every=100), Signals({}, {}, None, None)
      >>> new, _, info = method.update(jax.random.key(0), 100, learned, method.init(learned), signals)
      >>> jnp.round(new.params["kernel"], 3).tolist(), round(float(info["norm_moved"]), 3)
      ([[1.0, 0.0], [0.0, -1.0]], 3.041)

    References:
      Rosseau, Müller, Nowé, `Preserving Plasticity in Continual Learning via Dynamical Isometry
      <https://arxiv.org/abs/2606.09762>`_, 2026. Appendix B: every 10,000 updates.

    Differs from:
      The paper does not mention the moments; they are kept by default.
    """
    require_whole("every", every, 0, do="Use the period in updates, 10,000 by default; 0 never replaces anything.")
    iterations = require_whole("iterations", iterations, 0, do="Use 20.")

    def init(learned: Learned) -> State:
        select_kernels(mask, learned.params, output_axes)
        return ()

    def new_value(kernel: Array, axes: tuple[int, ...] | None) -> Array:
        if axes is None:
            return kernel
        return from_matrix(reproject(matrix_view(kernel, axes), iterations), kernel.shape, axes)

    def projected(learned: Learned) -> tuple[Learned, Array]:
        kernels, structure = jax.tree.flatten(learned.params)
        axes = select_kernels(mask, learned.params, output_axes)
        params = jax.tree.unflatten(structure, [new_value(*each) for each in zip(kernels, axes, strict=True)])
        optimizer = learned.optimizer
        if clears_moments:
            everywhere = zip(by_path(params).items(), axes, strict=True)
            chosen = {path: jnp.full(leaf.shape, True) for (path, leaf), own in everywhere if own is not None}
            optimizer = clear_moments(optimizer, chosen)
        return learned._replace(params=params, optimizer=optimizer), norm_moved(learned.params, params)

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        del key, signals
        is_due = (every > 0) & (step % jnp.maximum(every, 1) == 0)
        learned, moved = jax.lax.cond(is_due, projected, lambda learned: (learned, jnp.float32(0)), learned)
        return learned, state, {"norm_moved": moved}

    return Intervention(init, update)


NEWTON_SCHULZ = Method(
    name="newton-schulz",
    summary="Adam on hidden layers that apply the orthogonalised value of their weights",
    reference="Anil et al. 2019; Rosseau et al. 2026, appendix B",
    intervention=Part(reprojection, roles=("matrix",)),
    network={"linear": "newton-schulz"},
    space={"every": LogUniform(500, 10000, is_whole=True)},
    off={"every": 0},
    lowers="isometry_deviation",
)
NEWTON_SCHULZ_MAXMIN = NEWTON_SCHULZ._replace(
    name="newton-schulz-maxmin",
    summary="Adam on orthogonalised hidden layers with MaxMin between: isometric by construction",
    reference="Anil et al. 2019; Rosseau et al. 2026, section 3.1 and appendix B",
    network={"linear": "newton-schulz", "activation": "maxmin"},
)
