import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import label_noise, load_dataset
from strict_types import unchecked

DIGITS = load_dataset("digits")


def wrong_fraction(task):
    return np.mean(np.asarray(task.labels) != DIGITS.train.labels[np.asarray(task.examples)])


@pytest.mark.parametrize(("first", "last"), [(0.5, 0.0), (1.0, 0.2), (0.0, 0.6)])
def test_noise_goes_linearly_from_first_to_last(key, first, last):
    stream = label_noise(DIGITS, num_tasks=5, first_noise=first, last_noise=last, chunks="all")
    keys = jax.random.split(key, 4)
    for index in range(5):
        noise = first + (last - first) * index / 4
        found = np.mean([wrong_fraction(stream.task(each, index)) for each in keys])
        deviation = np.sqrt(0.9 * noise * (1 - 0.9 * noise) / (4 * 1621))
        assert abs(found - 0.9 * noise) <= 4 * deviation  # none where there is no noise


def test_noisy_labels_are_uniform(key):
    labels = label_noise(DIGITS, first_noise=1.0, chunks="all").task(key, 0).labels
    counts = np.bincount(labels, minlength=10)
    assert np.all(np.abs(counts - 162.1) < 4 * np.sqrt(1621 * 0.09))


def test_disjoint_chunks_partition_the_data(key):
    stream = label_noise(DIGITS, num_tasks=10)
    chunks = [np.asarray(stream.task(key, index).examples) for index in range(10)]
    assert all(len(chunk) == stream.train.num(0) == 162 for chunk in chunks)
    assert len(np.unique(np.concatenate(chunks))) == 1620


def test_cumulative_chunks_keep_the_earlier_ones(key):
    disjoint, cumulative = (label_noise(DIGITS, num_tasks=10, chunks=chunks) for chunks in ("disjoint", "cumulative"))
    assert [cumulative.train.num(index) for index in (0, 4, 9)] == [162, 810, 1620]
    chunks = [disjoint.task(key, index).examples for index in range(3)]
    np.testing.assert_array_equal(cumulative.task(key, 2).examples[:486], np.concatenate(chunks))


def test_all_images_get_new_noise_in_every_task(key):
    stream = label_noise(DIGITS, last_noise=0.5, chunks="all")
    first, second = (stream.task(key, index) for index in (0, 1))
    np.testing.assert_array_equal(first.examples, np.arange(1621))
    differ = [np.asarray(task.labels) != DIGITS.train.labels for task in (first, second)]
    both = np.mean(differ[0] & differ[1])
    assert abs(both - 0.45**2) < 4 * np.sqrt(0.2 * 0.8 / 1621)  # independent
    assert stream.keeps == "inputs"
    assert label_noise(DIGITS).keeps is None


def test_batches_have_the_tasks_labels_and_clean_test_labels(key):
    stream = label_noise(DIGITS)
    task = stream.task(key, 0)
    batch = stream.train.batch(stream.data, task, jnp.arange(162))
    np.testing.assert_array_equal(batch.targets, task.labels)
    wanted = (DIGITS.train.images[np.asarray(task.examples)] - DIGITS.mean) / DIGITS.std
    np.testing.assert_allclose(batch.inputs, wanted, rtol=1e-5, atol=1e-5)
    test = stream.test.batch(stream.data, task, jnp.arange(176))
    np.testing.assert_array_equal(test.targets, DIGITS.test.labels)


def test_a_single_task_has_the_first_noise(key):
    assert 0.4 < wrong_fraction(label_noise(DIGITS, num_tasks=1).task(key, 0)) < 0.5


def test_errors():
    with pytest.raises(UserError, match="got chunks='half'; wanted 'disjoint', 'cumulative' or 'all'"):
        unchecked(label_noise)(DIGITS, chunks="half")
    with pytest.raises(UserError, match=r"got first_noise=1.5; wanted a number in \[0, 1\]"):
        label_noise(DIGITS, first_noise=1.5)
    with pytest.raises(UserError, match=r"got last_noise=-0.1; wanted a number in \[0, 1\]"):
        label_noise(DIGITS, last_noise=-0.1)
    with pytest.raises(UserError, match=r"got tasks=2000; wanted a number in \[1, 1621\]"):
        label_noise(DIGITS, num_tasks=2000)
