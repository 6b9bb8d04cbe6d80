import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import load_dataset, output_interpolation, random_labels, task_sampling, warm_start
from pliant.supervised import RunConfig, epoch_ends, micro_steps, num_steps
from pliant.training import rates, sampled_weights

DIGITS = load_dataset("digits", train_size=100)
ABRUPT = random_labels(DIGITS)
GROWING = warm_start(load_dataset("digits"), num_tasks=3)


def _gradual(number):
    return output_interpolation(ABRUPT, micro_steps=number)


def _counts(moments, number):
    """How many updates each micro-step from 1 to `number` has."""
    return np.bincount(moments, minlength=number + 1)[1:].tolist()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (RunConfig(epochs=1, batch_size=1), 100),
        (RunConfig(epochs=3, batch_size=30), 10),
        (RunConfig(epochs=2, batch_size=30), 6),  # 200 examples: 6 batches and 20 examples that are dropped
        (RunConfig(epochs=3, batch_size=30, steps=7), 7),
    ],
)
def test_updates_of_an_abrupt_task(config, expected):
    assert [num_steps(config, ABRUPT, index) for index in (0, 1, 9)] == [expected] * 3
    assert micro_steps(config, ABRUPT, 1).tolist() == [1] * expected


def test_tasks_of_different_sizes_have_different_numbers_of_updates():
    config = RunConfig(epochs=2, batch_size=10)
    sizes = [GROWING.train.num(index) for index in range(3)]
    assert len(set(sizes)) == 3
    assert [num_steps(config, GROWING, index) for index in range(3)] == [2 * size // 10 for size in sizes]


def test_a_gradual_task_costs_as_many_updates():
    config = RunConfig(epochs=10, batch_size=10)
    assert [num_steps(config, _gradual(20), index) for index in range(3)] == [100] * 3


@pytest.mark.parametrize(("share", "between"), [(0.5, 50), (0.25, 25), (0.9, 90), (1.0, 99)])
def test_the_share_of_the_transition(share, between):
    """Micro-steps 1 to 4 of 5 are the transition; the rest, at least one update, is the pure task."""
    config = RunConfig(steps=100, transition_share=share)
    moments = micro_steps(config, _gradual(5), 1)
    counts = _counts(moments, 5)
    assert sum(counts[:-1]) == between
    assert counts[-1] == 100 - between > 0
    assert max(counts[:-1]) - min(counts[:-1]) <= 1
    assert (np.diff(moments) >= 0).all()
    assert (np.diff(moments) <= 1).all()


@pytest.mark.parametrize("number", [2, 3, 5, 11, 51])
def test_micro_steps_are_integers_from_the_first_to_the_last(number):
    moments = micro_steps(RunConfig(steps=100), _gradual(number), 3)
    assert moments.dtype.kind == "i"
    assert len(moments) == 100
    assert sorted(set(moments.tolist())) == list(range(1, number + 1))


def test_the_first_task_is_pure():
    for budget in ("equal-updates", "per-micro-task"):
        config = RunConfig(steps=10, budget=budget)
        assert micro_steps(config, _gradual(4), 0).tolist() == [4] * 10


def test_without_a_share_the_change_is_abrupt():
    assert micro_steps(RunConfig(steps=10, transition_share=0.0), _gradual(4), 1).tolist() == [4] * 10


@pytest.mark.parametrize("number", [2, 3, 7])
def test_a_budget_for_each_micro_task(number):
    """Each gets as many updates as an abrupt task, the last and pure one too."""
    config = RunConfig(epochs=3, batch_size=30, budget="per-micro-task")
    stream = _gradual(number)
    assert [num_steps(config, stream, index) for index in range(3)] == [10, 10 * number, 10 * number]
    for index in (1, 2):
        assert _counts(micro_steps(config, stream, index), number) == [10] * number


def test_a_budget_for_each_micro_task_of_an_abrupt_stream():
    config = RunConfig(steps=10, budget="per-micro-task")
    assert num_steps(config, ABRUPT, 1) == 10
    assert micro_steps(config, ABRUPT, 1).tolist() == [1] * 10


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"steps": 9}, 6),  # 4 updates for micro-steps 1 to 5
        ({"steps": 4, "transition_share": 0.1}, 3),  # rounds to none
        ({"steps": 5, "transition_share": 1.0}, 6),  # one is the pure task's
        ({"steps": 1}, 2),
    ],
)
def test_fewer_updates_than_micro_steps(changes, number):
    config = RunConfig(**changes)
    with pytest.raises(UserError, match=rf"got {number} micro-steps in {config.steps} updates.*--budget per"):
        micro_steps(config, _gradual(number), 1)
    assert micro_steps(config, _gradual(number), 0).tolist() == [number] * config.steps
    enough = RunConfig(steps=2 * number, transition_share=0.5)
    assert set(micro_steps(enough, _gradual(number), 1)) == set(range(1, number + 1))


def test_every_transition_has_the_same_pace():
    config = RunConfig(steps=30)
    sampling = task_sampling(ABRUPT, micro_steps=4)
    np.testing.assert_array_equal(micro_steps(config, sampling, 1), micro_steps(config, _gradual(4), 1))


def test_rates_drop_after_the_fractions():
    found = rates(RunConfig(rate_drops=(0.3, 0.6, 0.8), rate_drop_factor=0.2), 10)
    np.testing.assert_allclose(found, [1] * 3 + [0.2] * 3 + [0.04] * 2 + [0.008] * 2)


@pytest.mark.parametrize(
    ("drops", "factor", "expected"),
    [
        ((), 0.2, [1.0] * 4),
        ((0.0,), 0.5, [0.5] * 4),
        ((1.0,), 0.5, [1.0] * 4),
        ((0.75, 0.25), 0.5, [1.0, 0.5, 0.5, 0.25]),  # in any order
        ((0.5, 0.5), 0.5, [1.0, 1.0, 0.25, 0.25]),
        ((0.3,), 0.5, [1.0, 1.0, 0.5, 0.5]),  # 0.3 of 4 updates: after the second, since one cannot be cut
        ((0.5,), 0.0, [1.0, 1.0, 0.0, 0.0]),
        ((0.5,), 1.0, [1.0] * 4),
    ],
)
def test_rates(drops, factor, expected):
    assert rates(RunConfig(rate_drops=drops, rate_drop_factor=factor), 4).tolist() == expected


@pytest.mark.parametrize("total", [10, 100, 1000, 70, 120_000])
def test_fractions_are_exact(total):
    """0.3, 0.6 and 0.7 are no binary fractions, and yet no update is too early or late."""
    found = rates(RunConfig(rate_drops=(0.3, 0.6, 0.7), rate_drop_factor=0.5), total)
    assert np.bincount((-np.log2(found)).astype(int)).tolist() == [3 * total // 10] * 2 + [total // 10, 3 * total // 10]


@pytest.mark.parametrize("total", [1, 15, 16, 17, 500])
def test_followed_updates_weigh_as_much_as_all(total):
    weights = sampled_weights(total)
    (chosen,) = weights.nonzero()
    assert len(weights) == total
    assert len(chosen) == min(total, 16)
    assert chosen[0] == 0
    assert chosen[-1] == total - 1
    assert len(set(weights[chosen])) == 1
    assert weights.sum() == pytest.approx(total)
    gaps = np.diff(chosen)
    assert total == 1 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        (RunConfig(epochs=3, batch_size=30), [3, 6, 10]),  # 100 examples: batches run on across the ends of epochs
        (RunConfig(epochs=2, batch_size=50), [2, 4]),
        (RunConfig(steps=7, batch_size=30), [3, 6, 7]),
        (RunConfig(steps=2, batch_size=30), [2]),
    ],
)
def test_epochs_end_after_whole_passes_and_at_the_end_of_the_task(config, ends):
    assert epoch_ends(config, ABRUPT, 0) == ends
