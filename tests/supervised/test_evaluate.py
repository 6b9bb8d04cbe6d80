import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks import mlp
from pliant.streams import load_dataset, permuted_pixels, random_seq2seq, shifted
from pliant.supervised import evaluate, numbers, probe_indices
from pliant.types import Batch, Network, Text, Wiring

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


@pytest.mark.parametrize("num_examples", [1, 128, 257])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_all_texts_of_a_task_are_written_in_their_order(num_examples, num_beams):
    """In blocks, the last of which may be filled up; by a network that copies, but for some first letters."""
    stream = random_seq2seq(
        num_examples=num_examples, source_words=2, target_words=2, word_length=2, num_beams=num_beams
    )

    def copied(data, task, indices):
        letters = data[indices].astype(jnp.int32)
        return Batch(Text(letters, shifted(letters)), letters)

    def apply(params, state, inputs, *, train, key):
        first = jnp.where(inputs.source[:, :1] < 9, 20, inputs.source[:, :1])
        return 9 * jax.nn.one_hot(jnp.concatenate([first, inputs.source[:, 1:]], axis=1), 29), {}, state

    stream = stream._replace(train=stream.train._replace(batch=copied))
    network = Network(lambda key: ({}, {}), apply, Wiring((), {}))
    weights, sizes = ({"none": jnp.zeros(1)}, {}), (np.int32(num_examples), np.int32(0))
    results = evaluate(stream, network, weights, stream.data, (), *sizes)
    written, targets = results["written"]["train"]
    np.testing.assert_array_equal(targets, stream.data)
    np.testing.assert_array_equal(written[:, 1:], stream.data[:, 1:])
    np.testing.assert_array_equal(written[:, 0], np.where(stream.data[:, 0] < 9, 20, stream.data[:, 0]))
    exact = numbers(stream, jax.tree.map(np.asarray, results))["train_exact_match"]
    assert exact == np.mean(stream.data[:, 0] >= 9)


def test_probe_examples_are_fixed_and_distinct():
    first, again = (probe_indices(100, 30) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first.tolist())) == 30
    assert len(probe_indices(10, 30)) == 10
