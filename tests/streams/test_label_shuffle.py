import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import label_shuffle, load_dataset, random_labels

DIGITS = load_dataset("digits", train_size=200, test_size=100)


def test_a_task_is_a_bijection_of_its_own(key):
    stream = label_shuffle(DIGITS)
    tasks = [stream.task(key, index).tolist() for index in range(8)]
    assert all(sorted(task) == list(range(10)) for task in tasks)
    assert len(set(map(tuple, tasks))) == 8
    assert tasks[0] != list(range(10))


def test_train_and_test_labels_are_mapped_alike(key):
    stream = label_shuffle(DIGITS)
    task = stream.task(key, 2)
    indices = jnp.arange(100)
    for batch_of, part in ((stream.train.batch, DIGITS.train), (stream.test.batch, DIGITS.test)):
        targets = batch_of(stream.data, task, indices).targets
        np.testing.assert_array_equal(targets, np.asarray(task)[part.labels[:100]])


def test_images_stay(key):
    stream = label_shuffle(DIGITS)
    indices = jnp.array([5, 0, 9])
    for task in (stream.task(key, 0), stream.task(jax.random.key(1), 1)):
        wanted = (DIGITS.train.images[[5, 0, 9]] - DIGITS.mean) / DIGITS.std
        np.testing.assert_allclose(stream.train.batch(stream.data, task, indices).inputs, wanted, rtol=1e-5, atol=1e-5)


def test_classes_stay_together_which_random_labels_do_not(key):
    for make, together in ((label_shuffle, True), (random_labels, False)):
        stream = make(DIGITS)
        targets = np.asarray(stream.train.batch(stream.data, stream.task(key, 0), jnp.arange(200)).targets)
        groups = [set(targets[DIGITS.train.labels == label]) for label in range(10)]
        assert all(len(group) == 1 for group in groups) == together


def test_errors():
    with pytest.raises(UserError, match=r"got tasks=0; wanted a finite number ≥ 1\. Leave it out"):
        label_shuffle(DIGITS, num_tasks=0)
