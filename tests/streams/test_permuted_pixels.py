import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import Dataset, Images, load_dataset, permuted_pixels
from strict_types import unchecked

DIGITS = load_dataset("digits", train_size=100)


def _colour():
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (12, 4, 5, 3), dtype=np.uint8)
    labels = np.arange(12, dtype=np.int32) % 2
    one = np.ones((1, 1, 3), np.float32)
    return Dataset("colour", 2, Images(images, labels), Images(images, labels), 0 * one, one)


def test_a_task_is_a_bijection_and_its_own(key):
    stream = permuted_pixels(DIGITS)
    tasks = [np.asarray(stream.task(key, index)) for index in range(3)]
    assert all(sorted(task) == list(range(64)) for task in tasks)
    assert (tasks[0] != tasks[1]).any()
    assert (tasks[0] != np.arange(64)).any()
    np.testing.assert_array_equal(jax.jit(stream.task)(key, jnp.int32(2)), tasks[2])


def test_inverse_permutation_recovers_the_images(key):
    stream = permuted_pixels(DIGITS)
    task = stream.task(key, 0)
    batch = stream.train.batch(stream.data, task, jnp.arange(6))
    back = batch.inputs.reshape(6, 64)[:, jnp.argsort(task)].reshape(6, 8, 8, 1)
    np.testing.assert_allclose(back, (DIGITS.train.images[:6] - DIGITS.mean) / DIGITS.std, rtol=1e-5, atol=1e-5)


def test_train_and_test_are_permuted_alike(key):
    stream = permuted_pixels(_colour())
    task = stream.task(key, 1)
    train = stream.train.batch(stream.data, task, jnp.arange(12))
    test = stream.test.batch(stream.data, task, jnp.arange(12))
    np.testing.assert_array_equal(train.inputs, test.inputs)
    np.testing.assert_array_equal(train.targets, _colour().train.labels)


@pytest.mark.parametrize(("kind", "size"), [("spatial", 20), ("flat", 60)])
def test_channels(key, kind, size):
    data = _colour()
    stream = permuted_pixels(data, permute=kind)
    task = stream.task(key, 0)
    assert task.shape == (size,)
    images = np.asarray(stream.train.batch(stream.data, task, jnp.arange(12)).inputs)
    pixels = {tuple(pixel) for pixel in data.train.images[0].reshape(-1, 3)}
    kept = {tuple(pixel) for pixel in images[0].reshape(-1, 3).astype(int)} == pixels
    assert kept == (kind == "spatial")
    np.testing.assert_array_equal(np.sort(images[0].ravel()), np.sort(data.train.images[0].ravel()))


def test_errors():
    with pytest.raises(UserError, match="got permute='rows'; wanted 'spatial' or 'flat'"):
        unchecked(permuted_pixels)(DIGITS, permute="rows")
