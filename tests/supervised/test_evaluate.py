import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks import mlp
from pliant.streams import load_dataset, permuted_pixels
from pliant.supervised import evaluate, numbers, probe_indices

DIGITS = load_dataset("digits")
STREAM = permuted_pixels(DIGITS)
NETWORK = mlp(STREAM.input_shape, 10, widths=(16,))


@pytest.fixture(scope="module")
def measured():
    params, _ = NETWORK.init(jax.random.key(0))
    task = STREAM.task(jax.random.key(1), 0)
    sizes = jnp.int32(STREAM.train.num(0)), jnp.int32(STREAM.test.num(0))
    return params, task, evaluate(STREAM, NETWORK, (params, {}), STREAM.data, task, *sizes)


@pytest.mark.parametrize(("name", "size"), [("train", 1621), ("test", 176)])
def test_accuracies_in_blocks_are_those_of_all_examples(measured, name, size):
    params, task, results = measured
    batch = getattr(STREAM, name).batch(STREAM.data, task, jnp.arange(size))
    output, _, _ = NETWORK.apply(params, {}, batch.inputs, train=False, key=None)
    expected = np.mean(np.asarray(output).argmax(1) == np.asarray(batch.targets))
    assert float(results[f"{name}_accuracy"]) == pytest.approx(expected, abs=1e-6)


def test_scores_of_one_seed(measured):
    found = numbers(STREAM, jax.tree.map(np.asarray, measured[2]))
    assert set(found) == {"train_accuracy", "test_accuracy", "diverged"}
    assert found["diverged"] == 0.0


def test_probe_examples_are_fixed_and_distinct():
    first, again = (probe_indices(100, 30) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.tolist())) == 30
    assert len(probe_indices(10, 30)) == 10
