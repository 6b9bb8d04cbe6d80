import numpy as np

from pliant.results import ranks


def test_ranks_by_hand():
    found = ranks(np.array([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9], [0.4, 0.5, 0.3], [0.2, 0.2, 0.2]]))
    assert [rank.value for rank in found] == [3.5, 1, 2, 3.5]
    assert [rank.value for rank in ranks(-np.array([[1.0], [2.0]]), lower_is_better=True)] == [2, 1]


def test_clear_and_unclear_ranks():
    draw = np.random.default_rng(0)
    scores = np.array([0.9, 0.5, 0.5])[:, None] + draw.normal(0, 0.05, (3, 10))
    first, *others = ranks(scores)
    assert first == (1, 1, 1)
    assert {(rank.low, rank.high) for rank in others} == {(2, 3)}


def test_seeds_are_paired():
    """A seed that is hard for all methods says nothing about their order: resampled apart, ranks would be unclear."""
    hard = np.random.default_rng(0).normal(0, 1, 8)
    assert ranks(np.stack([hard, hard + 0.01])) == [(2, 2, 2), (1, 1, 1)]


def test_few_seeds_and_no_numbers():
    two = ranks(np.array([[1.0, 2.0], [0.0, 1.0]]))
    assert [rank.value for rank in two] == [1, 2]
    assert np.isnan([(rank.low, rank.high) for rank in two]).all()
    assert [rank.value for rank in ranks(np.array([[np.nan, 2.0, 3.0], [0.0, 0.0, 0.0]]))] == [2, 1]
    assert np.isnan([rank.value for rank in ranks(np.zeros((2, 0)))]).all()
    assert ranks(np.ones((1, 3))) == [(1, 1, 1)]


def test_the_last_bits_of_single_precision_decide_no_rank():
    equal = [0.0925000012, 0.0924999975, 0.0925]
    assert [rank.value for rank in ranks(np.array([equal, equal[::-1], [0.0925] * 3, [0.0926] * 3]))] == [3, 3, 3, 1]
    ends = {(rank.low, rank.high) for rank in ranks(np.array([equal, [0.0925] * 3]))}
    assert ends == {(1.5, 1.5)}
    apart = np.float32([[1e-8], [1.00001e-8]])  # small numbers are told apart as large ones are
    assert [rank.value for rank in ranks(apart, lower_is_better=True)] == [1, 2]
