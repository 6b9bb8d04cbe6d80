import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pliant.sampling import batch_indices


@given(num_examples=st.integers(2, 40), batch_size=st.integers(1, 10), cut=st.integers(1, 20), total=st.integers(2, 30))
def test_pieces_are_the_whole(num_examples, batch_size, cut, total):
    batch_size, cut = min(batch_size, num_examples), min(cut, total - 1)
    size = {"num_examples": num_examples, "batch_size": batch_size}
    whole = batch_indices(1, 2, 0, total, **size)
    pieces = [batch_indices(1, 2, 0, cut, **size), batch_indices(1, 2, cut, total, **size)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert whole.shape == (total, batch_size)


def test_every_epoch_is_a_permutation():
    order = batch_indices(0, 0, 0, 15, num_examples=10, batch_size=2).reshape(3, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in order)
    assert (order[0] != order[1]).any()


@pytest.mark.parametrize("other", [(1, 0), (0, 1)])
def test_seeds_and_tasks_have_orders_of_their_own(other):
    size = {"num_examples": 50, "batch_size": 10}
    assert (batch_indices(0, 0, 0, 5, **size) != batch_indices(*other, 0, 5, **size)).any()
