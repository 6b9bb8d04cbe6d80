import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import random_teacher
from strict_types import unchecked


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_targets_are_standardised_over_the_training_examples(key, activation):
    stream = random_teacher(activation=activation)
    for index in range(3):
        task = stream.task(key, index)
        np.testing.assert_allclose(np.mean(task.train), 0.0, atol=1e-5)
        np.testing.assert_allclose(np.var(task.train), 1.0, rtol=1e-5)
        assert abs(np.mean(task.test)) < 0.3
        assert 0.7 < np.var(task.test) < 1.4
        assert (task.train.shape, task.test.shape) == ((1024, 1), (256, 1))


def test_inputs_are_normal_the_same_for_all_and_disjoint(key):
    stream, again = random_teacher(), random_teacher()
    np.testing.assert_array_equal(stream.data.train, again.data.train)
    inputs = np.concatenate([stream.data.train, stream.data.test])
    assert len(np.unique(inputs, axis=0)) == 1280
    assert abs(inputs.mean()) < 4 / np.sqrt(inputs.size)
    assert abs(inputs.var() - 1) < 4 * np.sqrt(2 / inputs.size)
    batches = [stream.train.batch(stream.data, stream.task(key, index), jnp.arange(9)) for index in (0, 1)]
    np.testing.assert_array_equal(batches[0].inputs, batches[1].inputs)


def test_teachers_of_tasks_and_seeds_are_unrelated(key):
    stream = random_teacher(num_examples=4000)
    targets = [stream.task(each, index).train[:, 0] for each in (key, jax.random.key(1)) for index in (0, 1, 2)]
    correlations = np.corrcoef(targets)[~np.eye(6, dtype=bool)]
    assert np.abs(correlations).max() < 0.8
    assert abs(correlations.mean()) < 0.3


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_targets_are_a_network_of_that_width(key, activation):
    """With one unit the targets are linear in φ of a projection, so the teacher can be read off its targets."""
    stream = random_teacher(width=1, num_inputs=1, num_examples=200, activation=activation)
    task = stream.task(key, 0)
    x, y = np.asarray(stream.data.train)[:, 0], np.asarray(task.train)[:, 0]
    order = np.argsort(x)
    slopes = np.diff(y[order]) / np.diff(x[order])
    assert np.all(slopes >= -1e-2) or np.all(slopes <= 1e-2)
    is_linear = np.ptp(slopes) < 0.1
    assert not is_linear


def test_a_linear_fit_is_not_enough(key):
    """A learner has something to find behind the linear part."""
    stream = random_teacher(num_examples=4000)
    inputs = np.c_[np.asarray(stream.data.train, float), np.ones(4000)]
    targets = np.asarray(stream.task(key, 0).train, float)
    residual = targets - inputs @ np.linalg.lstsq(inputs, targets, rcond=None)[0]
    assert 0.05 < np.mean(residual**2) < 0.9


def test_batches_pick_examples(key):
    stream = random_teacher(num_examples=20, num_test=10)
    task, indices = stream.task(key, 1), jnp.array([3, 0])
    for batch_of, inputs, targets in (
        (stream.train.batch, stream.data.train, task.train),
        (stream.test.batch, stream.data.test, task.test),
    ):
        batch = batch_of(stream.data, task, indices)
        np.testing.assert_array_equal(batch.inputs, inputs[indices])
        np.testing.assert_array_equal(batch.targets, targets[indices])


def test_the_mean_scores_chance(key):
    stream = random_teacher()
    batch = stream.train.batch(stream.data, stream.task(key, 0), jnp.arange(1024))
    scores = stream.objective.scores(jnp.zeros((1024, 1)), batch.targets, stream.task(key, 0))
    np.testing.assert_allclose(scores.mean(), stream.chance, rtol=1e-5)


def test_errors():
    with pytest.raises(UserError, match="got activation='gelu'; wanted 'tanh' or 'relu'"):
        unchecked(random_teacher)(activation="gelu")
    with pytest.raises(UserError, match="got num_examples=1; wanted a finite number ≥ 2"):
        random_teacher(num_examples=1)
    for name in ("num_inputs", "num_test", "width"):
        with pytest.raises(UserError, match=f"got {name}=0; wanted a finite number ≥ 1"):
            random_teacher(**{name: 0})
