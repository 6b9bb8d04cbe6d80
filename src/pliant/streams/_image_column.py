"""Columns of images, encoded or as lists of numbers, as arrays."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped

from pliant.errors import UserError
from pliant.streams._image_files import BYTES, FLOATS, INTEGERS, WORDS, Depth, Picture, decode, together
from pliant.streams._tables import Table, first_line, is_list, plain

_WANTED = "encoded images, or lists of numbers: height × wide or height × wide × channels"
_MOST_CHANNELS = 4
_INT32 = np.iinfo(np.int32)


def read_images(
    tables: Sequence[Table], rows: Sequence[Int[np.ndarray, " _"]]
) -> tuple[list[Shaped[np.ndarray, "_ height wide channels"]], Depth]:
    """The images in some rows of each split, and their common range.

    Raises:
      UserError: for missing, damaged or transparent images, several sizes or ranges, an image file in both splits, and
        columns without images.
    """
    seen: dict[str, int] = {}
    splits = [_pictures(table, indices, seen) for table, indices in zip(tables, rows, strict=True)]
    arrays, depth = together(splits, [table.what for table in tables])
    for array, table in zip(arrays, tables, strict=True):
        if depth is FLOATS and not np.isfinite(array).all():
            number = int((~np.isfinite(array).all(axis=(1, 2, 3))).sum())
            raise UserError(
                got=f"{number} images in {table.what} with numbers that are not finite in float32",
                wanted="finite numbers",
                do="Replace them, or leave these images out.",
            )
    return arrays, depth


def _pictures(table: Table, rows: Int[np.ndarray, " _"], seen: dict[str, int]) -> list[Picture]:
    """Decodes ascending rows of a split; `seen` has the hashes of files named in earlier splits."""
    named: dict[str, int] = {}
    pictures, start = [], 0
    for chunk in table.images.chunks:  # one by one: together they may not fit into one array
        here = rows[(start <= rows) & (rows < start + len(chunk))]
        pictures += _of_chunk(table, chunk.take(pa.array(here - start)), here, seen, named)
        start += len(chunk)
    seen |= named
    return pictures


def _of_chunk(
    table: Table, stored: pa.Array, rows: Int[np.ndarray, " _"], seen: Mapping[str, int], named: dict[str, int]
) -> list[Picture]:
    _require_none_missing(stored, table)
    if len(stored) == 0:
        return []
    if isinstance(stored.type, pa.FixedShapeTensorType):
        return _rows(stored.to_numpy_ndarray(), table)
    column = plain(stored)
    if is_list(column.type):
        return _rows(_array(column, table), table)
    pictures = []
    for row, name, content in zip(rows.tolist(), *_files(column, table), strict=True):
        if name is not None:
            named[name] = hash(content)
            if seen.get(name) == named[name]:
                raise UserError(
                    got=f"the image file {name!r} in {table.what} (image {row}) and in the training images",
                    wanted="test images that are not training images",
                    do="Leave it out of one of them.",
                )
        pictures.append(decode(content, f"image {row} in {table.what}" + (f" ({name})" if name else ""), table.remedy))
    return pictures


def _files(column: pa.Array, table: Table) -> tuple[list[str | None], list[bytes]]:
    """Names, if any, and contents of image files."""
    kind, empty = column.type, [None] * len(column)
    if pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}:
        parts = {field.name: pc.struct_field(column, field.name).to_pylist() for field in kind}
        contents, names = (parts.get(part, empty) for part in ("bytes", "path"))
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        contents, names = column.to_pylist(), empty
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        contents, names = empty, column.to_pylist()
    else:
        raise UserError(got=f"images of type {kind} in {table.what}", wanted=_WANTED, do="Store the images so.")
    return names, [
        _content(name, table) if content is None else content for name, content in zip(names, contents, strict=True)
    ]


def _content(name: str | None, table: Table) -> bytes:
    """The content of a file that a row names."""
    if not name:
        raise UserError(
            got=f"an image in {table.what} with neither bytes nor a path", wanted=_WANTED, do="Leave it out."
        )
    try:
        return ((table.folder or Path()) / os.path.expanduser(name)).read_bytes()
    except (OSError, ValueError) as error:
        shown = name if len(name) <= 80 else f"{name[:80]}…"
        raise UserError(
            got=f"{shown!r} as an image in {table.what}, which names no file ({first_line(error, 60)})",
            wanted=_WANTED,
            do="Store the bytes of the image files in the column.",
        ) from error


def _array(column: pa.Array, table: Table) -> Shaped[np.ndarray, " *shape"]:
    """Nested lists of numbers as one array."""
    shape = [len(column)]
    while is_list(column.type):
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) > 1:
            raise UserError(
                got=f"lists of {', '.join(map(str, sorted(lengths)[:5]))} numbers in {table.what}",
                wanted="images of one size",
                do="Resize or crop them to one size.",
            )
        shape += lengths
        column = pc.list_flatten(column)
        column = plain(column)
        _require_none_missing(column, table)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise UserError(got=f"lists of {kind} as images in {table.what}", wanted=_WANTED, do="Store numbers.")
    return column.to_numpy(zero_copy_only=False).reshape(shape)


def _rows(array: np.ndarray, table: Table) -> list[Picture]:
    """The images of an array."""
    mode = f"lists of {array.dtype}"
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or not 1 <= array.shape[-1] <= _MOST_CHANNELS or 0 in array.shape[1:]:
        shape = " × ".join(map(str, array.shape[1:-1] if array.shape[-1] == 1 and array.ndim == 4 else array.shape[1:]))
        raise UserError(
            got=f"images as lists of {shape} numbers in {table.what}",
            wanted=f"height × wide, or height × wide × channels with 1 to {_MOST_CHANNELS} channels",
            do="Reshape them; channels come last.",
        )
    depth = _depth(array, table)
    if array.dtype == bool:
        array = array * np.uint8(255)
    with np.errstate(over="ignore"):  # values beyond float32 are refused later
        return [Picture(image, depth, mode) for image in array.astype(depth.dtype)]


def _depth(array: np.ndarray, table: Table) -> Depth:
    """The range that a type of numbers implies."""
    if array.dtype.kind == "f":
        return FLOATS
    if array.dtype in (np.uint8, bool):
        return BYTES
    if array.dtype == np.uint16:
        return WORDS
    if array.size and not (array.min() >= _INT32.min and array.max() <= _INT32.max):
        raise UserError(
            got=f"numbers from {array.min()} to {array.max()} in the images of {table.what}",
            wanted="numbers that fit into 32 bits",
            do="Rescale them, for example to floating-point numbers in [0, 1].",
        )
    return INTEGERS


def _require_none_missing(column: pa.Array | pa.ChunkedArray, table: Table) -> None:
    if column.null_count:
        raise UserError(
            got=f"{column.null_count} missing images or numbers in {table.what}",
            wanted="an image in every row",
            do="Leave these rows out.",
        )
