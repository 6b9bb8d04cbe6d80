"""Layouts: which axes of a kernel index its outputs, told or found out."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jax
import numpy as np

from pliant.errors import UserError, unknown_name
from pliant.isometry import split_axes
from pliant.masks import Keys, Mask, empty_places, keys_of, places, select
from pliant.types import Params, Wiring

OutputAxes: TypeAlias = int | tuple[int, ...] | Mapping[str, int | tuple[int, ...]] | Wiring | None
"""The axes of kernels that index outputs, see `pliant.isometry.matrix_view`: the same for all kernels; by `leaf_path`,
(−1,) where missing; a wiring, which knows; or None, see `select_kernels`."""


def select_kernels(mask: Mask, params: Params, output_axes: OutputAxes = None) -> list[tuple[int, ...] | None]:
    """The axes of every selected kernel that index its outputs, in the order of `jax.tree.leaves(params)`.

    With `output_axes` None they are (0,) for what is inside an Equinox module, and (−1,) for other matrices and
    convolutions, (in, out) and (height, width, in, out). A kernel of another container whose shape leaves room for
    doubt is refused: with three axes, or such as (8, 4, 3, 3).

    Args:
      mask: as in `select`, with `min_axes` 2.
      params: the parameters.
      output_axes: as `OutputAxes`.

    Returns:
      A tuple of axes for every leaf that is selected, None for the others.

    Raises:
      UserError: as `select`, for kernels whose axes are in doubt, and for axes that a kernel or the parameters do not
        have.

    Example:
      >>> params = {"bias": jax.numpy.zeros(3), "kernel": jax.numpy.zeros((8, 4, 3, 3))}
      >>> select_kernels(None, params, output_axes=0)
      [None, (0,)]
    """
    selected = jax.tree.leaves(select(mask, params, min_axes=2))
    found = find_output_axes(output_axes, params, selected)
    for leaf, axes, take in zip(jax.tree.leaves(params), found, selected, strict=True):
        if take:
            split_axes(np.shape(leaf), axes)
    return [axes if take else None for axes, take in zip(found, selected, strict=True)]


def find_output_axes(output_axes: OutputAxes, params: Params, selected: list[bool]) -> list[tuple[int, ...]]:
    """The axes that index outputs, one tuple a leaf; () for vectors, biases, and what is not `selected`.

    Example:
      >>> find_output_axes(None, {"bias": jax.numpy.zeros(3), "kernel": jax.numpy.zeros((2, 3))}, [True, True])
      [(), (-1,)]
    """
    _require_known(output_axes, params)
    modules = set(_equinox_modules(params))
    found = []
    for (keys, leaf), take in zip(places(params), selected, strict=True):
        is_equinox = any(keys[:length] in modules for length in range(len(keys) + 1))
        found.append(_axes(output_axes, keys, np.shape(leaf), is_equinox=is_equinox) if take else ())
    return found


def _axes(output_axes: OutputAxes, keys: Keys, shape: tuple[int, ...], *, is_equinox: bool) -> tuple[int, ...]:
    path = "/".join(keys)
    stated: int | tuple[int, ...] | None
    if len(shape) < 2:
        return ()
    if isinstance(output_axes, Wiring):
        stated = _wired(output_axes, path, len(shape))
        if stated is None and not is_equinox and len(shape) != 3:
            stated = (-1,)
    else:
        stated = output_axes.get(path, (-1,)) if isinstance(output_axes, Mapping) else output_axes
    if stated is not None:
        return (stated,) if isinstance(stated, int) else tuple(stated)
    if keys[-1:] == ("bias",):
        return ()
    if is_equinox:
        return (0,)
    if len(shape) == 2 or (len(shape) in (4, 5) and not _is_channels_first(shape)):
        return (-1,)
    raise UserError(
        got=f"the kernel {path!r} of shape {shape}, in which several axes may be the outputs",
        wanted="a word on which they are",
        do=f"Pass output_axes={{{path!r}: (-1,)}} for (…, in, out), (0,) for (out, in, …), (-2, -1) for (in, heads, "
        "size), or set the output_axes of the wiring.",
    )


def _wired(wiring: Wiring, path: str, ndim: int) -> tuple[int, ...] | None:
    """What a wiring says of a kernel's outputs: directly, or by the axes of the units that it feeds or reads."""
    if path in wiring.output_axes:
        return wiring.output_axes[path]
    if wiring.roles.get(path) in ("bias", "norm"):
        return ()
    fed = [feed.slot for layer in wiring.layers for feed in layer.feeds if feed.slot.path == path]
    readers = [slot for layer in wiring.layers for slot in layer.readers if slot.path == path]
    read = [slot.axis % ndim for slot in readers if slot.groups == 1]  # blocks may be of inputs or of outputs
    if fed:
        return fed[0].axes(ndim)
    if read and ndim == 2:
        return (1 - read[0],)
    last, first = ndim - 2, 1  # the inputs of (…, in, out) and of (out, in, …)
    return (-1,) if last in read else (0,) if first in read else None


def _is_channels_first(shape: tuple[int, ...]) -> bool:
    """Whether (out, in, height, width) suits a shape at least as well as (height, width, in, out)."""
    channels, window = shape[:2], shape[2:]
    is_square, is_square_otherwise = len(set(window)) == 1, len(set(shape[:-2])) == 1
    return max(window) < min(channels) or (is_square and not is_square_otherwise and max(channels) > window[0])


def _require_known(output_axes: OutputAxes, params: Params) -> None:
    """Raises for the path of a leaf that there is not."""
    if isinstance(output_axes, Mapping):
        known = ["/".join(keys) for keys, _ in places(params)]
        empty = ["/".join(keys) for keys in empty_places(params)]
        for path in output_axes:
            if path not in known and not any(f"{path}/".startswith(f"{each}/") for each in empty):
                raise unknown_name("path in output_axes", path, known, do="See pliant.types.leaf_path.")


def _equinox_modules(params: Params) -> Iterator[Keys]:
    for path, node in jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_module):
        if _is_module(node):
            yield keys_of(path)


def _is_module(node: Any) -> bool:
    return any(base.__name__ == "Module" and base.__module__.startswith("equinox.") for base in type(node).__mro__)
