"""The image and label columns of a data set as stored, and parts of messages about them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

IMAGE_COLUMNS = ("image", "img")


class Table(NamedTuple):
    """The images and labels of one split, as stored."""

    images: pa.ChunkedArray
    labels: pa.ChunkedArray
    class_names: tuple[str, ...]
    """Names that the file declares for the labels 0, 1, 2, …; empty if it declares none."""
    what: str
    """Such as "train of 'mnist'"."""
    folder: Path | None
    """Where the image files are that rows name by a path."""
    remedy: str
    """What to do if the stored data are damaged."""


def plain(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array of built-in Arrow types: the storage of extension types, the values of dictionaries."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more than one chunk can hold
        array = pa.concat_arrays(array.chunks)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def is_list(kind: pa.DataType) -> bool:
    """True for lists of variable or fixed length."""
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def first_line(text: object, most: int = 300) -> str:
    """The first line of a message, for use within another one."""
    return (str(text).strip().splitlines() or [""])[0][:most].rstrip(". ")


def counted(counts: Sequence[tuple[str, int]]) -> str:
    """Names with counts.

    Example:
      >>> counted([("L", 3), ("RGB", 1)])
      'L (3), RGB (1)'
    """
    return ", ".join(f"{name} ({number})" for name, number in counts)
