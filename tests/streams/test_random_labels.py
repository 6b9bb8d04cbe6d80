import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import load_dataset, random_labels
from strict_types import unchecked

DIGITS = load_dataset("digits", train_size=200)


def test_a_task_does_not_depend_on_earlier_ones(key):
    stream = random_labels(DIGITS)
    all_in_order = [stream.task(key, index) for index in range(8)]
    np.testing.assert_array_equal(stream.task(key, 7), all_in_order[7])
    traced = jax.jit(stream.task)(key, jnp.int32(7))
    np.testing.assert_array_equal(traced, all_in_order[7])


def test_tasks_and_seeds_differ(key):
    stream = random_labels(DIGITS)
    first = stream.task(key, 0)
    assert (first != DIGITS.train.labels).any()
    assert (stream.task(key, 1) != first).any()
    assert (stream.task(jax.random.key(1), 0) != first).any()


def test_permute_keeps_the_class_sizes(key):
    task = random_labels(DIGITS).task(key, 3)
    np.testing.assert_array_equal(np.bincount(task), np.bincount(DIGITS.train.labels))


def test_chance_is_guessing_among_all_classes():
    assert random_labels(DIGITS).chance == 0.1


def test_iid_labels_are_uniform(key):
    stream = random_labels(DIGITS, labels="iid")
    counts = np.bincount(np.concatenate([stream.task(key, index) for index in range(50)]), minlength=10)
    assert (np.bincount(stream.task(key, 0)) != np.bincount(DIGITS.train.labels)).any()
    assert abs(counts / counts.sum() - 0.1).max() < 4 * np.sqrt(0.1 * 0.9 / 10_000)


def test_labels_are_independent_of_the_true_ones(key):
    stream = random_labels(DIGITS)
    agreement = np.mean([np.mean(stream.task(key, index) == DIGITS.train.labels) for index in range(50)])
    assert abs(agreement - 0.1) < 0.02


def test_batches_have_the_tasks_labels_and_the_same_images(key):
    stream = random_labels(DIGITS)
    indices = jnp.array([5, 0, 9])
    first, second = (stream.train.batch(stream.data, stream.task(key, index), indices) for index in (0, 1))
    np.testing.assert_array_equal(first.targets, stream.task(key, 0)[indices])
    np.testing.assert_array_equal(first.inputs, second.inputs)
    expected = (DIGITS.train.images[[5, 0, 9]] - DIGITS.mean) / DIGITS.std
    np.testing.assert_allclose(first.inputs, expected, rtol=1e-5, atol=1e-5)


def test_errors():
    with pytest.raises(UserError, match="got labels='shuffle'; wanted 'permute' or 'iid'"):
        unchecked(random_labels)(DIGITS, labels="shuffle")
    with pytest.raises(UserError, match="got tasks=0; wanted a finite number ≥ 1"):
        random_labels(DIGITS, num_tasks=0)
