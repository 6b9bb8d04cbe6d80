import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import upgd_toy
from strict_types import unchecked


def test_indices_move_on_by_two(key):
    stream = upgd_toy()
    for index, first in ((0, 0), (1, 2), (7, 14), (8, 0), (19, 6)):
        task = stream.task(key, index)
        wanted = (np.asarray(task.inputs)[:, first] + np.asarray(task.inputs)[:, first + 1]) / 2
        np.testing.assert_allclose(task.targets[:, 0], wanted, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(stream.task)(key, jnp.int32(index)).targets, task.targets, atol=1e-6)


def test_sign_flips(key):
    stream = upgd_toy(changes="sign")
    for index, sign in ((0, 1), (1, -1), (2, 1), (9, -1)):
        task = stream.task(key, index)
        np.testing.assert_allclose(task.targets[:, 0], sign * np.asarray(task.inputs)[:, :2].mean(1), rtol=1e-6)


def test_examples_are_standard_normal_and_drawn_anew(key):
    stream = upgd_toy()
    inputs = np.stack([stream.task(key, index).inputs for index in range(10)])
    assert inputs.shape == (10, 200, 16)
    assert len(np.unique(inputs.reshape(2000, 16), axis=0)) == 2000
    assert abs(inputs.mean()) < 4 / np.sqrt(inputs.size)
    assert abs(inputs.var() - 1) < 4 * np.sqrt(2 / inputs.size)


@pytest.mark.parametrize("changes", ["indices", "sign"])
def test_predicting_nothing_scores_chance(key, changes):
    stream = upgd_toy(num_examples=20_000, changes=changes)
    task = stream.task(key, 1)
    batch = stream.train.batch(stream.data, task, jnp.arange(20_000))
    score = stream.objective.scores(jnp.zeros((20_000, 1)), batch.targets, task).mean()
    np.testing.assert_allclose(score, stream.chance, rtol=0.04)


def test_errors():
    with pytest.raises(UserError, match="got changes='scale'; wanted 'indices' or 'sign'"):
        unchecked(upgd_toy)(changes="scale")
    with pytest.raises(UserError, match="got num_examples=0; wanted a finite number ≥ 1"):
        upgd_toy(num_examples=0)
