"""Reprojection: the weights behind Newton–Schulz layers become orthogonal again."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pliant.errors import require_range
from pliant.interventions._at_switch import norm_moved
from pliant.interventions._moments import clear_moments
from pliant.masks import Mask, select
from pliant.networks import reproject
from pliant.types import Info, Intervention, Key, Learned, Number, Params, Signals, State, leaf_path


def reprojection(
    *, every: Number = 10_000, iterations: int = 20, clears_moments: bool = False, mask: Mask = None
) -> Intervention:
    r"""Replaces kernels by their orthogonalised values at regular intervals.

    .. math:: W \leftarrow Q(W) \qquad \text{at updates } F, 2F, \dots

    with Q the Newton–Schulz iteration, see `pliant.networks.reproject`. Layers that apply Q(W) in the place of W (the
    network's option `linear="newton-schulz"`) go on computing what they did, but the gradients that reach W are well
    conditioned again: they grow as 1/σ where a singular value σ of W has become small. For plain layers it is a
    projection onto the isometries, which changes what they compute.

    Args:
      every: F ≥ 1, a period in updates; 0 never replaces anything.
      iterations: ≥ 0, of Q; 20 are enough for condition numbers up to 100.
      clears_moments: True to forget the optimizer's moments of these kernels, which were of other weights.
      mask: True at the kernels to replace: a pytree of booleans or a function of the parameters that makes one. By
        default all leaves with two or more axes, which includes a plain output layer: mask that out.

    Returns:
      A stateless `Intervention`; `info` has `norm_moved`, the L2 norm of what the parameters changed by.

    Raises:
      UserError: for numbers out of range, and a mask that selects nothing or a vector.

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
      The paper says nothing of the moments; they are kept by default.
    """
    require_range("every", every, 0, do="Use the period in updates, 10,000 by default; 0 never replaces anything.")
    require_range("iterations", iterations, 0, do="Use 20.")

    def init(learned: Learned) -> State:
        select(mask, learned.params, min_axes=2)
        return ()

    def projected(learned: Learned) -> tuple[Learned, Array]:
        chosen = select(mask, learned.params, min_axes=2)
        params = jax.tree.map(
            lambda selected, kernel: reproject(kernel, iterations) if selected else kernel, chosen, learned.params
        )
        optimizer = learned.optimizer
        if clears_moments:
            optimizer = clear_moments(optimizer, _everywhere(chosen, params))
        return learned._replace(params=params, optimizer=optimizer), norm_moved(learned.params, params)

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        del key, signals
        is_due = (every > 0) & (step % jnp.maximum(every, 1) == 0)
        learned, moved = jax.lax.cond(is_due, projected, lambda learned: (learned, jnp.float32(0)), learned)
        return learned, state, {"norm_moved": moved}

    return Intervention(init, update)


def _everywhere(chosen: PyTree[bool], params: Params) -> dict[str, Array]:
    """True at all entries of the chosen leaves, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    pairs = zip(leaves, jax.tree.leaves(chosen), strict=True)
    return {leaf_path(path): jnp.full(leaf.shape, True) for (path, leaf), selected in pairs if selected}
