import datetime

import numpy as np
import pyarrow as pa
import pytest

from pliant.errors import UserError
from pliant.streams._classes import class_numbers, label_values
from pliant.streams._tables import Table


def _table(labels, kind=None, what="train", names=()):
    column = labels if isinstance(labels, pa.Array) else pa.array(labels, kind)
    return Table(pa.chunked_array([pa.nulls(len(column))]), pa.chunked_array([column]), names, what, None, "")


def _classes(train, test=None, kind=None):
    return class_numbers(_table(train, kind), _table(train if test is None else test, kind, "test"))


@pytest.mark.parametrize(
    ("labels", "kind", "values", "numbers"),
    [
        ([0, 1, 2, 0], pa.int64(), (0, 1, 2), [0, 1, 2, 0]),
        ([10, 1, 2, 10], pa.uint8(), (1, 2, 10), [2, 0, 1, 2]),
        ([0, 1_000_000], pa.int32(), (0, 1_000_000), [0, 1]),
        ([2**40, 2**63 + 1, 2**40], pa.uint64(), (2**40, 2**63 + 1), [0, 1, 0]),
        ([3.0, 1.0], pa.float64(), (1, 3), [1, 0]),
        ([3.0, 1.0], pa.float16(), (1, 3), [1, 0]),
        ([True, False], pa.bool_(), (0, 1), [1, 0]),
        ([[3], [1]], pa.list_(pa.int64()), (1, 3), [1, 0]),
        ([[[3]], [[1]]], pa.list_(pa.list_(pa.int64(), 1)), (1, 3), [1, 0]),
        (["owl", "cat", "owl"], pa.string(), ("cat", "owl"), [1, 0, 1]),
        (["owl", "cat"], pa.large_string(), ("cat", "owl"), [1, 0]),
        (["10", "9"], pa.string(), ("9", "10"), [1, 0]),
        (pa.array(["owl", "cat"]).dictionary_encode(), None, ("cat", "owl"), [1, 0]),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_labels_are_numbered_in_ascending_order(labels, kind, values, numbers):
    found = _classes(labels, kind=kind)
    assert found.values == values
    assert found.train.tolist() == found.test.tolist() == numbers
    assert found.train.dtype == np.int32


def test_classes_are_those_of_the_training_images():
    found = _classes([5, 7, 9], [9, 9])
    assert (found.values, found.test.tolist()) == ((5, 7, 9), [2, 2])
    with pytest.raises(
        UserError, match="got 2 images in test of classes that no training image has: 4, 8; wanted the 3"
    ):
        _classes([5, 7, 9], [4, 9, 8])


def test_names_and_numbers_do_not_go_together():
    with pytest.raises(UserError, match="got labels that are names in train and numbers in test; wanted the same kind"):
        _classes(["0", "1"], [0, 1])


def test_names_that_both_files_declare_count():
    """Number 0 may be another class in the other file."""
    train = _table([0, 1], names=("cat", "owl"))
    assert class_numbers(train, _table([0, 1, 1], names=("owl", "cat"))).test.tolist() == [1, 0, 0]
    assert class_numbers(train, _table([0, 1, 1])).test.tolist() == [0, 1, 1]
    with pytest.raises(UserError, match="got images in test of classes that the training files do not name: dog"):
        class_numbers(train, _table([0, 1], what="test", names=("dog", "cat")))
    with pytest.raises(UserError, match="got labels in test beyond the 1 names that its file declares"):
        class_numbers(train, _table([0, 1], what="test", names=("cat",)))


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        ([], pa.int64(), "got no labels in train, which is empty"),
        ([0, None, None], pa.int64(), "got 2 of 3 labels missing in train"),
        ([0.0, float("nan")], pa.float64(), "got 1 of 2 labels missing in train"),
        (["owl", None], pa.string(), "got 1 of 2 labels missing in train"),
        ([[0], None], pa.list_(pa.int64()), "got 1 of 2 labels missing in train"),
        ([[0], [None]], pa.list_(pa.int64()), "got 1 of 2 labels missing in train"),
        ([0.5, 1.0], pa.float64(), r"got labels of train such as 0\.5, 1\.0"),
        ([1.0, float("inf")], pa.float64(), r"got labels of train such as 1\.0, inf"),
        ([1.0, 1e300], pa.float64(), r"got labels of train such as 1\.0, 1e\+300"),
        ([-1.0, 1.0], pa.float64(), r"got labels of train such as -1\.0, 1\.0"),
        ([-1, -1, 3], pa.int8(), "got 2 negative labels in train, the smallest -1"),
        ([[0, 1], [1]], pa.list_(pa.int64()), "got lists of 1 or 2 numbers as labels in train"),
        ([[0, 1], [1, 0]], pa.list_(pa.int64(), 2), "got lists of 2 numbers as labels in train"),
        ([[], []], pa.list_(pa.int64()), "got lists of 0 numbers as labels in train"),
        ([b"owl"], pa.binary(), "got labels of type binary in train"),
        ([datetime.date(2020, 1, 1)], pa.date32(), "got labels of type date32.* in train"),
        ([None, None], pa.null(), "got 2 of 2 labels missing in train"),
    ],
)
def test_what_is_no_class(labels, kind, message):
    with pytest.raises(UserError, match=message + ".*; wanted class numbers ≥ 0 or names, one for every image"):
        label_values(_table(labels, kind))
