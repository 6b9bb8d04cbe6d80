"""Stored labels of any kind as class numbers 0 to C − 1."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int, Shaped

from pliant.errors import UserError
from pliant.streams._tables import Table, is_list, plain

_WANTED = "class numbers ≥ 0 or names, one for every image"
_LARGEST_EXACT = 2**53  # of the whole numbers in float64


class Classes(NamedTuple):
    """Labels as class numbers."""

    values: tuple[int | str, ...]
    """The stored labels of class 0, 1, 2, …: the distinct labels of the training images, ascending."""
    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


def class_numbers(train: Table, test: Table) -> Classes:
    """Numbers the labels of the training images in ascending order.

    If both splits declare names for their labels, test labels are matched by name.

    Raises:
      UserError: for missing labels, labels that are not classes, and classes without a training image.
    """
    stored, of_test = label_values(train), label_values(test)
    if train.class_names and test.class_names and train.class_names != test.class_names:
        of_test = _renamed(of_test, train.class_names, test.class_names, test.what)
    if (stored.dtype == object) != (of_test.dtype == object):
        kinds = ["names" if labels.dtype == object else "numbers" for labels in (stored, of_test)]
        raise UserError(
            got=f"labels that are {kinds[0]} in {train.what} and {kinds[1]} in {test.what}",
            wanted="the same kind in both",
            do="Write both with the same labels.",
        )
    found = set(stored.tolist())
    if unknown := sorted(set(of_test.tolist()) - found):
        number = int(np.isin(of_test, unknown).sum())
        raise UserError(
            got=f"{number} images in {test.what} of classes that no training image has: {_some(unknown)}",
            wanted=f"the {len(found)} classes of the training images: {_some(sorted(found))}",
            do="Leave these images out, or add training images of their classes.",
        )
    values = _ascending(found)
    number_of = {value: number for number, value in enumerate(values)}

    def numbers(labels: np.ndarray) -> np.ndarray:
        return np.array([number_of[label] for label in labels.tolist()], np.int32)

    return Classes(values, numbers(stored), numbers(of_test))


def label_values(table: Table) -> Shaped[np.ndarray, " examples"]:
    """The labels as stored: whole numbers, or Python strings in an array of objects.

    Raises:
      UserError: for an empty column, missing labels, and labels that are not classes.
    """
    column, what = plain(table.labels), table.what
    while is_list(column.type):  # [[3], [1]]
        _require_none_missing(column, what)
        lengths = {int(length) for length in pc.unique(pc.list_value_length(column)).to_pylist()}
        if lengths - {1}:
            raise _refused(f"lists of {' or '.join(map(str, sorted(lengths)))} numbers as labels in {what}")
        column = plain(pc.list_flatten(column))
    if len(column) == 0:
        raise _refused(f"no labels in {what}, which is empty")
    _require_none_missing(column, what)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array(column.to_pylist(), object)
    if pa.types.is_boolean(kind):
        column, kind = column.cast(pa.int8()), pa.int8()
    if pa.types.is_floating(kind):
        return _whole(column.to_numpy(zero_copy_only=False), what)
    if not pa.types.is_integer(kind):
        raise _refused(f"labels of type {kind} in {what}")
    labels = column.to_numpy(zero_copy_only=False)
    if number := int((labels < 0).sum()):
        raise _refused(
            f"{number} negative labels in {what}, the smallest {labels.min()}",
            do="A −1 often stands for no label: leave these images out. Otherwise number the classes from 0.",
        )
    return labels


def _whole(labels: np.ndarray, what: str) -> np.ndarray:
    """Floating-point labels as whole numbers."""
    labels = labels.astype(np.float64)
    if number := int(np.isnan(labels).sum()):
        raise _missing(number, len(labels), what)
    if not (np.isfinite(labels) & (labels == labels.round()) & (labels >= 0) & (labels < _LARGEST_EXACT)).all():
        raise _refused(f"labels of {what} such as {_some(sorted(set(labels.tolist())))}")
    return labels.astype(np.int64)


def _renamed(labels: np.ndarray, to: Sequence[str], names: Sequence[str], what: str) -> np.ndarray:
    """Labels renumbered from `names` to `to`, by name."""
    if labels.dtype == object or labels.max() >= len(names):
        raise _refused(f"labels in {what} beyond the {len(names)} names that its file declares")
    if missing := sorted({names[label] for label in labels.tolist()} - set(to)):
        raise UserError(
            got=f"images in {what} of classes that the training files do not name: {_some(missing)}",
            wanted=f"their {len(to)} classes: {_some(to)}",
            do="Leave these images out, or write both splits with the same class names.",
        )
    return np.array([to.index(names[label]) for label in labels.tolist()], np.int64)


def _ascending(values: set[int | str]) -> tuple[int | str, ...]:
    """Sorted; names that are numbers by their value."""
    names = [value for value in values if isinstance(value, str)]
    if names and all(name.isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(values))  # all are numbers or all are names


def _require_none_missing(column: pa.Array, what: str) -> None:
    if column.null_count:
        raise _missing(column.null_count, len(column), what)


def _missing(number: int, total: int, what: str) -> UserError:
    return _refused(f"{number} of {total} labels missing in {what}", do="Leave these images out, or label them.")


def _refused(got: str, do: str = "Store the class of every image as one number or name.") -> UserError:
    return UserError(got=got, wanted=_WANTED, do=do)


def _some(values: Sequence[object], most: int = 5) -> str:
    return ", ".join(map(str, values[:most])) + (", …" if len(values) > most else "")
