"""FIRE: kernels become isometries when the task changes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import require_range, require_whole
from pliant.interventions._at_switch import at_switch
from pliant.isometry import spatial_axes, split_axes
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.networks import newton_schulz
from pliant.types import Fresh, Intervention, Key, Learned, Method, Number, Part, State, Uniform

_TINY = 1e-30


def fire(
    *,
    mix: Number = 1.0,
    iterations: int = 10,
    every_tasks: Number = 1,
    mask: Mask = None,
    output_axes: OutputAxes = None,
) -> Intervention:
    r"""Replaces kernels by nearby isometries when the task changes (Frobenius-isometry reinitialisation, FIRE).

    Use it when you know when the task changes and want to keep the directions of what was learned.

    .. math:: W \leftarrow \alpha \sqrt{\tfrac{d_{out}}{d_{in}}}\; Q(W) + (1 - \alpha)\, W, \qquad
              Q(W) = \mathrm{NS}(W / \lVert W \rVert_F)

    NS is the Newton–Schulz iteration of order 1, see `pliant.networks.newton_schulz`: Q(W) is near the closest matrix
    with orthonormal columns (rows, if it is wide). With the root in front, the root mean square of a layer's
    pre-activations is at most that of its inputs, and the same unless the layer narrows. Of a convolution every spatial
    slice (in, out) is a matrix of its own, and the result is divided by height·wide. All in float32 or wider. The
    optimizer's state is kept.

    A singular value that is 0.03 of the Frobenius norm ends at 0.97 after ten iterations, one of 0.01 at 0.53, and
    smaller ones end at 58 times what they were. Not all, then, are isometries afterwards.

    Args:
      mix: α in [0, 1]; 1 replaces the kernel, 0 changes nothing.
      iterations: ≥ 0, of the Newton–Schulz iteration.
      every_tasks: n ≥ 1, act after tasks n, 2n, …; 0 never acts.
      mask: True at the kernels to replace: a pytree of booleans or a function of the parameters that makes one. By
        default all leaves with two or more axes. The method `fire` leaves embeddings out.
      output_axes: the axes of kernels that index outputs, see `pliant.optimizers.add_isometry_step`.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`, the L2 norm of what the parameters changed by.

    Raises:
      UserError: for numbers out of range, a mask that does not fit or selects nothing or a vector, and kernels whose
        output axes are in doubt.

    Example:
      >>> learned = Learned({"kernel": jnp.diag(jnp.array([4.0, 1.0]))}, {}, ())
      >>> method, fresh = fire(), Fresh(lambda key: ((), {}), lambda params: ())
      >>> new, _, _ = method.switch(jax.random.key(0), 1, learned, method.init(learned), fresh)
      >>> jnp.round(new.params["kernel"], 3).tolist()
      [[1.0, 0.0], [0.0, 1.0]]

    References:
      Han et al., `FIRE: Frobenius-Isometry Reinitialization for Balancing the Stability-Plasticity Tradeoff
      <https://arxiv.org/abs/2602.08040>`_, 2026. The method, and the authors' code (isaac7778/FIRE).

    Differs from:
      The authors' code for vision transformers, which leaves all but the query and key kernels alone, and for language
      models, which takes the three parts of a joint attention kernel apart. A kernel of zeros stays (theirs becomes
      NaN). Whether the optimizer is reset as well is a choice of the protocol (`--optimizer-at-switch`).
    """
    require_range("mix", mix, 0, 1, do="Use 1 to replace kernels.")
    iterations = require_whole("iterations", iterations, 0, do="Use 10, as published.")

    def init(learned: Learned) -> State:
        select_kernels(mask, learned.params, output_axes)
        return ()

    def renew(key: Key, learned: Learned, state: State, fresh: Fresh) -> Learned:
        del key, state, fresh

        def renewed(kernel: Array, axes: tuple[int, ...] | None) -> Array:
            if axes is None:
                return kernel
            wide = kernel.astype(jnp.promote_types(kernel.dtype, jnp.float32))
            new = (mix * _isometry(wide, axes, iterations) + (1 - mix) * wide).astype(kernel.dtype)
            return jnp.where(mix > 0, new, kernel)

        kernels, structure = jax.tree.flatten(learned.params)
        found = zip(kernels, select_kernels(mask, learned.params, output_axes), strict=True)
        return learned._replace(params=jax.tree.unflatten(structure, [renewed(*each) for each in found]))

    return Intervention(init, switch=at_switch(renew, every_tasks))


def _isometry(kernel: Float[Array, "*axes"], output_axes: tuple[int, ...], iterations: int) -> Float[Array, "*axes"]:
    """√(out/in) Q of every slice, over the number of slices."""

    def orthogonal(matrix: Float[Array, "in out"]) -> Float[Array, "in out"]:
        return newton_schulz(matrix / jnp.maximum(jnp.linalg.norm(matrix), _TINY), iterations=iterations)

    inputs, outputs = split_axes(kernel.shape, output_axes)
    positions = spatial_axes(kernel.shape, output_axes)
    order = (*positions, *(axis for axis in inputs if axis not in positions), *outputs)
    ordered = kernel.transpose(*order)
    num_slices = math.prod(kernel.shape[axis] for axis in positions)
    num_out = math.prod(kernel.shape[axis] for axis in outputs)
    slices = ordered.reshape(num_slices, -1, num_out)
    result = (num_out / slices.shape[1]) ** 0.5 / num_slices * jax.vmap(orthogonal)(slices)
    return result.reshape(ordered.shape).transpose(*(order.index(axis) for axis in range(kernel.ndim)))


FIRE = Method(
    name="fire",
    summary="Adam; when the task changes, every kernel becomes an isometry close to it",
    reference="Han et al. 2026, FIRE",
    intervention=Part(fire, roles=("matrix", "head")),
    space={"mix": Uniform(0.2, 1.0)},
    off={"every_tasks": 0},
    boundary_aware=True,
)
