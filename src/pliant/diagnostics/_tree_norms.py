"""Norms and sizes of trees of parameters, gradients or updates, leaf by leaf."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from pliant.errors import UserError
from pliant.isometry import matrix_view
from pliant.layouts import OutputAxes, select_kernels
from pliant.masks import Mask
from pliant.types import Params, Scalar, by_path, leaf_path
from pliant.xla.squares import total_norm


def widened(tree: Params, kind: str = "parameters") -> Params:
    """The leaves in float32 or wider, because sums in bfloat16 lose digits.

    Args:
      tree: the leaves.
      kind: what they are, for the message.

    Raises:
      UserError: if there is not one number, since nothing was measured.

    Example:
      >>> widened({"w": jnp.ones(2, jnp.bfloat16)})["w"].dtype.name
      'float32'
    """
    if count(tree) == 0:
        raise UserError(got=f"no {kind}", wanted="at least one array", do=f"Pass the network's {kind}.")
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), tree)


def matrices(params: Params, mask: Mask, output_axes: OutputAxes) -> dict[str, Any]:
    """The kernels that have entries as matrices (in, out), by path.

    Raises:
      UserError: as `pliant.layouts.select_kernels`, and if there is none, since nothing was measured.

    Example:
      >>> {path: each.shape for path, each in matrices({"conv": jnp.ones((8, 4, 3, 3))}, None, 0).items()}
      {'conv': (36, 8)}
    """
    chosen = zip(by_path(params).items(), select_kernels(mask, params, output_axes), strict=True)
    found = {path: matrix_view(leaf, axes) for (path, leaf), axes in chosen if axes is not None}
    if not found:
        raise UserError(
            got="kernels without entries", wanted="at least one row and one column", do="Pass a network with weights."
        )
    return found


def count(tree: Params) -> int:
    """The number of entries in all leaves together.

    Example:
      >>> count({"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)})
      9
    """
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def require_same(tree: Params, other: Params) -> None:
    """Raises unless two trees have the same leaves: arrays that differ in shape would be broadcast.

    Raises:
      UserError: if they differ in structure or in a shape.

    Example:
      >>> require_same({"w": jnp.ones(2)}, {"w": jnp.zeros(2)})
    """
    ours, theirs = (
        {leaf_path(path): jnp.shape(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(each)}
        for each in (tree, other)
    )
    differing = sorted(path for path in ours.keys() | theirs.keys() if ours.get(path) != theirs.get(path))
    if differing:
        path = differing[0]
        raise UserError(
            got=f"{path!r} of shape {ours.get(path)} and {theirs.get(path)}",
            wanted="the same leaves of the same shapes in both trees",
            do="Pass two moments of one network.",
        )


def norms(tree: Params) -> Mapping[str, Scalar]:
    """The L2 norm of every leaf, by `leaf_path`.

    Example:
      >>> {path: float(norm) for path, norm in norms({"head": {"bias": jnp.array([3.0, 4.0])}}).items()}
      {'head/bias': 5.0}
    """
    return {leaf_path(path): total_norm(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
