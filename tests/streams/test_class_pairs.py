import jax
import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import class_pairs
from strict_types import unchecked

MANY = many_classes(num_classes=8, num_train=10, num_test=4)


def pairs(stream, key, indices):
    return [tuple(stream.task(key, index).tolist()) for index in indices]


def test_a_round_has_every_class_once(key):
    found = pairs(class_pairs(MANY), key, range(4))
    assert sorted(np.ravel(found)) == list(range(8))


@pytest.mark.parametrize(("rounds", "same"), [("repeat", True), ("redraw", False)])
def test_rounds(key, rounds, same):
    stream = class_pairs(MANY, rounds=rounds)
    first, second = (pairs(stream, key, range(start, start + 4)) for start in (0, 4))
    assert (first == second) == same
    assert sorted(np.ravel(second)) == list(range(8))


@pytest.mark.parametrize("rounds", ["repeat", "redraw"])
def test_an_odd_class_is_left_out_of_the_round(key, rounds):
    stream = class_pairs(many_classes(num_classes=7), rounds=rounds)
    for start in (0, 3, 6):
        assert len(set(np.ravel(pairs(stream, key, range(start, start + 3))))) == 6


def test_labels_say_which_of_the_two(key):
    stream = class_pairs(MANY)
    task = stream.task(key, 3)
    for batch_of, part, size in ((stream.train.batch, MANY.train, 20), (stream.test.batch, MANY.test, 8)):
        batch = batch_of(stream.data, task, jnp.arange(size))
        true = {tuple(i.ravel()): label for i, label in zip(part.images, part.labels, strict=True)}
        images = np.rint(np.asarray(batch.inputs) * 127.5 + 127.5).astype(np.uint8).reshape(size, -1)
        assert len(set(map(tuple, images))) == size
        classes = np.array([true[tuple(image)] for image in images])
        np.testing.assert_array_equal(np.asarray(task)[batch.targets], classes)


def test_seeds_have_their_own_order(key):
    stream = class_pairs(MANY)
    assert pairs(stream, key, range(4)) != pairs(stream, jax.random.key(1), range(4))


def test_the_published_sizes():
    stream = class_pairs(
        many_classes(num_classes=4, num_train=650, num_test=120), train_per_class=600, test_per_class=100
    )
    assert (stream.train.num(0), stream.test.num(0), stream.num_outputs) == (1200, 200, 2)
    assert class_pairs(MANY).train.num(0) == 20


def test_errors():
    with pytest.raises(UserError, match="got rounds='once'; wanted 'repeat' or 'redraw'"):
        unchecked(class_pairs)(MANY, rounds="once")
    with pytest.raises(UserError, match="which has a single class; wanted 2 classes or more"):
        class_pairs(many_classes(num_classes=1))
    with pytest.raises(UserError, match="got 5 test images of every class of 'many'; wanted 1 to 4"):
        class_pairs(MANY, test_per_class=5)
