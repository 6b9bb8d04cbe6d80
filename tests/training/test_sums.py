import numpy as np

from pliant.training import Sums
from pliant.types import Mean


def test_means_do_not_depend_on_chunks():
    """Which go by the clock, while an interrupted run must end with the same bits."""
    exponents = np.random.default_rng(0).uniform(-8, 1, (3, 1000))
    values = (10**exponents).astype(np.float32)
    totals = []
    for size in (1, 7, 128, 1000):
        sums = Sums()
        for start in range(0, 1000, size):
            sums.add({"a": values[:, start : start + size]}, size)
        totals.append(sums.numbers(1)["a"].tobytes())
    assert len(set(totals)) == 1
    np.testing.assert_allclose(np.frombuffer(totals[0]), values.sum(axis=1, dtype=np.float64), rtol=1e-12)


def test_counts_are_summed_beyond_their_type():
    sums = Sums()
    for _ in range(2):
        sums.add({"resets": np.array([[2**31 - 1, 1, 5]], np.int32)}, 2)
    assert sums.numbers(4)["resets"].tolist() == [2**32]


def test_a_mean_is_over_its_own_count():
    """Returns of episodes: two of them in the first update, none in the second, one in the third; none for slot 1."""
    sums = Sums()
    returns = Mean(np.array([[6.0, 0.0, 9.0], [0.0, 0.0, 0.0]], np.float32), np.array([[2, 0, 1], [0, 0, 0]], np.int32))
    sums.add({"episode_return": Mean(returns.total[:, :2], returns.number[:, :2])}, 2)
    assert sums.mean("episode_return", 2) == 3.0  # of slot 1 nothing is known
    sums.add({"episode_return": Mean(returns.total[:, 2:], returns.number[:, 2:])}, 1)
    np.testing.assert_array_equal(sums.numbers(3)["episode_return"], [5.0, np.nan])


def test_what_nobody_reports_is_not_known():
    assert np.isnan(Sums().mean("online_accuracy", 1))
