import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import effective_rank
from pliant.errors import UserError
from pliant.networks import mlp
from subjects import measure, subject

few = settings(max_examples=50, deadline=None, database=None)
matrices = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31)).map(
    lambda case: np.random.default_rng(case[2]).standard_normal(case[:2])
)


def test_golden():
    assert effective_rank(np.eye(4)) == pytest.approx(4.0, rel=1e-12)
    wanted = np.exp(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(wanted, rel=1e-12)
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(1.7548, abs=5e-5)
    assert effective_rank(np.outer([1.0, 2.0, 3.0], [1.0, -1.0])) == pytest.approx(1.0, abs=1e-12)


def test_a_matrix_of_zeros_has_rank_zero():
    assert effective_rank(np.zeros((3, 2))) == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_in_nan_out(bad):
    matrix = np.eye(3)
    matrix[0, 1] = bad
    assert np.isnan(effective_rank(matrix))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_matrix_is_refused(shape):
    with pytest.raises(UserError, match=r"got a matrix of shape \(.*\); wanted at least one row and one column. Pass"):
        effective_rank(np.zeros(shape))


@given(matrices, st.floats(1e-6, 1e6), st.randoms(use_true_random=False))
@few
def test_scale_order_and_side_do_not_matter(matrix, scale, random):
    rank = effective_rank(matrix)
    assert effective_rank(scale * matrix) == pytest.approx(rank, rel=1e-9)
    assert effective_rank(matrix.T) == pytest.approx(rank, rel=1e-9)
    rows, columns = (random.sample(range(size), size) for size in matrix.shape)
    assert effective_rank(matrix[rows][:, columns]) == pytest.approx(rank, rel=1e-9)


@given(matrices)
@few
def test_it_lies_between_the_stable_rank_and_the_rank(matrix):
    sigma = np.linalg.svd(matrix, compute_uv=False)
    stable = (sigma**2).sum() / sigma[0] ** 2
    participation = sigma.sum() ** 2 / (sigma**2).sum()
    rank = effective_rank(matrix)
    assert 1 - 1e-9 <= stable <= rank * (1 + 1e-9)
    assert participation <= rank * (1 + 1e-9)
    assert rank <= min(matrix.shape) * (1 + 1e-9)


def test_extreme_ranges_are_numbers():
    assert effective_rank(np.diag([1e300, 1e-300])) == pytest.approx(1.0, abs=1e-12)
    assert effective_rank(np.diag([1e-300, 1e-300])) == pytest.approx(2.0, rel=1e-9)


def test_float32_is_measured_in_float64():
    spread = np.diag(np.array([1.0, 1e-9, 1e-9], np.float32))
    wanted = effective_rank(spread.astype(np.float64))
    assert effective_rank(spread) == wanted
    assert wanted > 1.0


def measured(network, params, state, inputs):
    return measure("effective-rank", subject(network, params, state, inputs)).numbers["effective_rank"]


def test_features_of_rank_three_are_found(key):
    """Eight units that are linear in three inputs, all directions alike."""
    network = mlp((3,), 2, widths=(8,), activation="identity")
    params, state = network.init(key)
    x = jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    assert measured(network, params, state, x) == pytest.approx(3.0, rel=1e-5)


def test_it_looks_at_the_last_hidden_layer(key):
    network = mlp((4,), 2, widths=(8, 4), activation="identity", gain=1.0)
    params, state = network.init(key)
    params["dense_1"]["kernel"] = params["dense_1"]["kernel"] * jnp.array([[1.0, 0.0, 0.0, 0.0]])
    assert measured(network, params, state, jax.random.normal(key, (16, 4))) == pytest.approx(1.0, abs=1e-5)


def test_without_hidden_layers_it_looks_at_the_inputs(key):
    network = mlp((2, 2), 3, widths=())
    params, state = network.init(key)
    assert measured(network, params, state, jnp.eye(4).reshape(4, 2, 2)) == pytest.approx(4.0, rel=1e-6)


def test_diverged_features_give_nan(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    params["dense_0"]["bias"] = jnp.full(4, jnp.nan)
    assert np.isnan(measured(network, params, state, jnp.ones((4, 3))))
