import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import load_dataset, warm_start

DIGITS = load_dataset("digits")


def test_part_then_all(key):
    stream = warm_start(DIGITS)
    assert [stream.train.num(index) for index in range(2)] == [810, 1621]
    np.testing.assert_array_equal(np.sort(stream.task(key, 0)), np.arange(1621))


def test_grows_in_equal_steps():
    stream = warm_start(DIGITS, num_tasks=10, first_fraction=0.1)
    sizes = [stream.train.num(index) for index in range(10)]
    np.testing.assert_array_equal(sizes, np.rint(1621 * np.arange(1, 11) / 10))


def test_a_single_task_has_all():
    assert warm_start(DIGITS, num_tasks=1, first_fraction=0.1).train.num(0) == 1621


def test_later_tasks_keep_the_earlier_examples(key):
    stream = warm_start(DIGITS, num_tasks=3, first_fraction=0.2)
    first, second = (stream.task(key, index)[: stream.train.num(index)] for index in (0, 1))
    np.testing.assert_array_equal(second[: len(first)], first)


def test_every_part_has_the_classes_of_the_whole(key):
    task = np.asarray(warm_start(DIGITS).task(key, 0))
    counts = np.bincount(DIGITS.train.labels)
    for size in (10, 100, 162, 810, 1621):
        part = np.bincount(DIGITS.train.labels[task[:size]], minlength=10)
        assert np.all(np.abs(part - counts * size / 1621) <= 1)


def test_balanced_data_stay_balanced(key):
    data = load_dataset("digits", train_size=100)
    task = np.asarray(warm_start(data).task(key, 0))
    assert np.bincount(data.train.labels[task[:50]]).tolist() == [5] * 10


def test_seeds_draw_their_own_part():
    stream = warm_start(DIGITS)
    parts = [set(np.asarray(stream.task(jax.random.key(seed), 0))[:810]) for seed in range(2)]
    assert 300 < len(parts[0] & parts[1]) < 510  # half of a half of 1621 is 405


def test_batches_are_the_images_and_their_labels(key):
    stream = warm_start(DIGITS)
    task = stream.task(key, 0)
    batch = stream.train.batch(stream.data, task, jnp.arange(810))
    chosen = np.asarray(task)[:810]
    np.testing.assert_array_equal(batch.targets, DIGITS.train.labels[chosen])
    wanted = (DIGITS.train.images[chosen] - DIGITS.mean) / DIGITS.std
    np.testing.assert_allclose(batch.inputs, wanted, rtol=1e-5, atol=1e-5)
    test = stream.test.batch(stream.data, task, jnp.arange(176))
    np.testing.assert_array_equal(test.targets, DIGITS.test.labels)


def test_errors():
    with pytest.raises(UserError, match=r"got first_fraction=0.0; wanted a number in \[0.000616903, 1\]"):
        warm_start(DIGITS, first_fraction=0.0)
    with pytest.raises(UserError, match=r"got first_fraction=1\.1"):
        warm_start(DIGITS, first_fraction=1.1)
