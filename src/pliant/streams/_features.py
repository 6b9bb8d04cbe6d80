"""Columns of numbers as images: one image a row."""

import math
import re

import numpy as np
import pyarrow as pa

from pliant.errors import UserError
from pliant.streams._tables import plain

_SHAPE = re.compile(r"(\d+)x(\d+)(?:x(\d+))?")


def as_images(
    what: str, stored: pa.ChunkedArray | None, others: pa.Table, shape: str | None
) -> tuple[pa.ChunkedArray, bool]:
    """The column of images; without one, all other columns as images of one row, or of a shape.

    Args:
      what: the split, for messages.
      stored: a column of images, of paths, or of one vector for each example; None if there is none.
      others: all columns but the labels.
      shape: of vectors and rows, such as "28x28" or "32x32x3".

    Returns:
      The images, and whether they are columns of numbers that are no images.
    """
    if stored is not None and not _is_vector(stored.type):
        if shape is not None:
            raise UserError(got=f"shape={shape} for the images of {what}", wanted="none", do="They have a shape.")
        return stored, False
    rows = _matrix(what, others) if stored is None else _vectors(stored)
    sizes = (1, rows.shape[1], 1) if shape is None else _sizes(what, shape, rows.shape[1])
    images = np.ascontiguousarray(rows).reshape(-1, *sizes)
    return pa.chunked_array([pa.FixedShapeTensorArray.from_numpy_ndarray(images)]), shape is None


def _is_vector(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1


def _vectors(stored: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([chunk.to_numpy_ndarray() for chunk in stored.chunks])


def _matrix(what: str, others: pa.Table) -> np.ndarray:
    """Columns of numbers as a matrix: whole numbers as such, others as float32."""
    if not others.num_columns:
        raise UserError(
            got=f"no column of {what} but the labels",
            wanted="a column of images or of paths of image files, or columns of numbers",
            do="Add them, or name the column of images: PATH:image=COLUMN.",
        )
    columns = {name: plain(others[name]) for name in others.schema.names}
    odd = [name for name, column in columns.items() if not _is_number(column.type)]
    if odd:
        raise UserError(
            got=f"the columns {', '.join(odd[:5])}{', …' if len(odd) > 5 else ''} of {what}, which are not numbers",
            wanted="columns of numbers, or one of images or paths of image files",
            do="Leave them out, code them as numbers, or name the column of images: PATH:image=COLUMN.",
        )
    missing = {name: column.null_count for name, column in columns.items() if column.null_count}
    if missing:
        name, number = next(iter(missing.items()))
        raise UserError(
            got=f"{number} missing numbers in the column {name!r} of {what}",
            wanted="a number in every row",
            do="Fill them in, or leave these rows out.",
        )
    is_whole = all(pa.types.is_integer(column.type) for column in columns.values())
    arrays = [column.to_numpy(zero_copy_only=False) for column in columns.values()]
    return np.stack(arrays, axis=1).astype(np.result_type(*arrays) if is_whole else np.float32)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _sizes(what: str, shape: str, number: int) -> tuple[int, int, int]:
    found = _SHAPE.fullmatch(shape)
    sizes = tuple(int(size or 1) for size in found.groups()) if found else (0, 0, 0)
    if math.prod(sizes) != number:
        raise UserError(
            got=f"shape={shape} for rows of {number} numbers in {what}",
            wanted="HEIGHTxWIDTH or HEIGHTxWIDTHxCHANNELS, whose product is the length of a row",
            do="Correct it, or leave it out for rows that are no images.",
        )
    return sizes[0], sizes[1], sizes[2]
