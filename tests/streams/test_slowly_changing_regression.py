import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import slowly_changing_regression
from pliant.streams._slowly_changing_regression import LTUNetwork, _random_network, ltu_output
from strict_types import unchecked


def slow_bits(stream, key, index, num_slow=15):
    slow = np.asarray(stream.task(key, index).inputs)[:, :num_slow]
    assert np.all(slow == slow[0])
    return slow[0]


def test_target_computed_by_hand():
    """β = 0.7 and 3 bits, so β(n + 1) = 2.8.

    Unit 0: w = (1, 1, −1), b = 1: S = (3 − 1 + 1)/2 = 1.5, τ = 1.3.
    Unit 1: w = (−1, 1, 1), b = −1: S = (3 − 1 − 1)/2 = 0.5, τ = 2.3.
    Unit 2: w = (−1, −1, −1), b = 1: S = (3 + 3 + 1)/2 = 3.5, τ = −0.7.
    """
    kernel = jnp.array([[1.0, 1, -1], [-1, 1, 1], [-1, -1, -1]]).T
    network = LTUNetwork(kernel, jnp.array([1.0, -1, 1]), jnp.array([1.0, 1, -1]), jnp.float32(-1))
    inputs = jnp.array([[1.0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    # w·x + b of units 0, 1, 2:  (3, −1, −1)  (1, 1, −1)  (1, −1, 1)  (2, 0, −2)
    # on where above τ:          (1,  0,  0)  (0, 0,  0)  (0,  0, 1)  (1, 0,  0)
    assert ltu_output(network, inputs, 0.7).tolist() == [0.0, -1.0, -2.0, 0.0]
    # β = 0.5: thresholds 0.5, 1.5, −1.5; on: (1, 0, 1)  (1, 0, 1)  (1, 0, 1)  (1, 0, 0)
    assert ltu_output(network, inputs, 0.5).tolist() == [-1.0, -1.0, -1.0, 0.0]


def test_targets_against_a_plain_loop(key):
    stream = slowly_changing_regression(num_examples=8)
    network = jax.tree.map(np.asarray, _random_network(jax.random.split(key, 3)[0], 20, 100))
    assert all(set(np.unique(leaf)) <= {-1.0, 1.0} for leaf in network)
    assert all(abs(leaf.mean()) < 0.4 for leaf in network[:3])
    task = stream.task(key, 0)
    for bits, target in zip(np.asarray(task.inputs), np.asarray(task.targets), strict=True):
        output = network.head_bias
        for weights, bias, sign in zip(network.kernel.T, network.bias, network.head, strict=True):
            tau = 0.7 * (20 + 1) - (20 - sum(weights) + bias) / 2
            output = output + sign * (sum(weights * bits) + bias > tau)
        assert output == target.item()


@pytest.mark.parametrize("seed", [0, 1])
def test_one_bit_flips_from_task_to_task(seed):
    stream = slowly_changing_regression(num_tasks=40, num_examples=4)
    bits = np.array([slow_bits(stream, jax.random.key(seed), index) for index in range(40)])
    assert np.all(np.abs(np.diff(bits, axis=0)).sum(1) == 1)
    assert len({int(np.flatnonzero(change)[0]) for change in np.diff(bits, axis=0)}) > 7


def test_flips_do_not_depend_on_the_number_of_tasks(key):
    few, many = (slowly_changing_regression(num_tasks=number, num_examples=4) for number in (8, 100))
    for index in (0, 7):
        np.testing.assert_array_equal(few.task(key, index).inputs, many.task(key, index).inputs)


def test_all_bits_change(key):
    stream = slowly_changing_regression(num_tasks=40, num_examples=4, change="all")
    bits = np.array([slow_bits(stream, key, index) for index in range(40)])
    changed = np.abs(np.diff(bits, axis=0)).mean()
    assert abs(changed - 0.5) < 4 * 0.5 / np.sqrt(39 * 15)


def test_fast_bits_are_fair_and_drawn_for_every_example(key):
    stream = slowly_changing_regression()
    first, second = (np.asarray(stream.task(key, index).inputs) for index in (0, 1))
    assert first.shape == (10_000, 20)
    assert set(np.unique(first)) == {0.0, 1.0}
    assert np.all(np.abs(first[:, 15:].mean(0) - 0.5) < 4 * 0.005)
    assert len(np.unique(first[:, 15:], axis=0)) == 32
    assert (first[:, 15:] != second[:, 15:]).any()


def test_the_target_network_stays(key):
    """Two examples with the same bits have the same target, in whatever task."""
    stream = slowly_changing_regression(num_tasks=60, num_bits=6, num_slow=3, num_examples=50)
    answers = {}
    for index in range(60):
        task = stream.task(key, index)
        for bits, target in zip(np.asarray(task.inputs), np.asarray(task.targets), strict=True):
            assert answers.setdefault(tuple(bits), target.item()) == target.item()
    assert len(answers) == 64
    assert len(set(answers.values())) > 8
    others = stream.task(jax.random.key(1), 0)
    pairs = zip(np.asarray(others.inputs), np.asarray(others.targets), strict=True)
    assert any(answers[tuple(bits)] != target.item() for bits, target in pairs)


def test_a_batch_is_some_of_the_examples(key):
    stream = slowly_changing_regression(num_examples=30)
    task = stream.task(key, 2)
    batch = stream.train.batch(stream.data, task, jnp.array([7, 0]))
    np.testing.assert_array_equal(batch.inputs, task.inputs[jnp.array([7, 0])])
    np.testing.assert_array_equal(batch.targets, task.targets[jnp.array([7, 0])])
    assert batch.targets.shape == (2, 1)


def test_errors():
    with pytest.raises(UserError, match="got change='two'; wanted 'one' or 'all'"):
        unchecked(slowly_changing_regression)(change="two")
    with pytest.raises(UserError, match=r"got num_slow=21; wanted a number in \[1, 20\]"):
        slowly_changing_regression(num_slow=21)
    with pytest.raises(UserError, match=r"got beta=1.2; wanted a number in \[0, 1\]"):
        slowly_changing_regression(beta=1.2)
    for name in ("num_tasks", "num_bits", "num_examples", "width"):
        with pytest.raises(UserError, match=f"got {name.replace('num_tasks', 'tasks')}=0; wanted a finite number ≥ 1"):
            slowly_changing_regression(**{name: 0})
