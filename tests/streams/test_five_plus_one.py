import jax
import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import five_plus_one

MANY = many_classes(num_classes=14, num_train=10, num_test=4)


def classes_of(stream, key, index):
    batch = stream.train.batch(stream.data, stream.task(key, index), jnp.arange(stream.train.num(index)))
    return np.unique(batch.targets, return_counts=True)


def test_five_classes_then_one(key):
    stream = five_plus_one(MANY)
    for index in range(8):
        classes, counts = classes_of(stream, key, index)
        assert len(classes) == (1 if index % 2 else 5)
        assert set(counts) == {10}


def test_no_class_comes_twice_in_a_round(key):
    stream = five_plus_one(MANY)
    rounds = [np.concatenate([classes_of(stream, key, 4 * number + i)[0] for i in range(4)]) for number in range(3)]
    assert all(len(np.unique(each)) == 12 for each in rounds)
    assert not np.array_equal(rounds[0], rounds[1])
    assert not np.array_equal(rounds[1], rounds[2])


def test_test_images_are_of_the_same_classes(key):
    stream = five_plus_one(MANY)
    for index in (2, 3):
        batch = stream.test.batch(stream.data, stream.task(key, index), jnp.arange(stream.test.num(index)))
        classes, counts = np.unique(batch.targets, return_counts=True)
        np.testing.assert_array_equal(classes, classes_of(stream, key, index)[0])
        assert set(counts) == {4}


def test_traced_index(key):
    stream = five_plus_one(MANY)
    for index in (2, 3, 6):
        np.testing.assert_array_equal(jax.jit(stream.task)(key, jnp.int32(index)), stream.task(key, index))


def test_the_published_sizes():
    stream = five_plus_one(many_classes(num_classes=100, num_train=500, num_test=1))
    assert [stream.train.num(index) for index in (0, 1, 28, 29)] == [2500, 500, 2500, 500]
    assert (stream.num_tasks, stream.num_outputs, stream.headline) == (30, 100, "online_accuracy")


def test_images_per_class(key):
    assert set(classes_of(five_plus_one(MANY, images_per_class=7), key, 0)[1]) == {7}


def test_errors():
    with pytest.raises(UserError, match="got 'many', which has 5 classes; wanted 6 classes or more"):
        five_plus_one(many_classes(num_classes=5))
    message = "got 11 training images of every class of 'many'; wanted 1 to 10, as many as its smallest class has"
    with pytest.raises(UserError, match=message):
        five_plus_one(MANY, images_per_class=11)
    with pytest.raises(UserError, match="got -1 training images"):
        five_plus_one(MANY, images_per_class=-1)
