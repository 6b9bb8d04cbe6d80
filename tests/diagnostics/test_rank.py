import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, effective_rank, feature_rank, participation_ratio, srank, stable_rank
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=50, deadline=None, database=None)
RANKS = (effective_rank, participation_ratio, srank, stable_rank, feature_rank)
every_rank = pytest.mark.parametrize("rank", RANKS, ids=lambda rank: rank.__name__)
matrices = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(0, 2**31)).map(
    lambda case: np.random.default_rng(case[2]).standard_normal(case[:2])
)


def test_golden():
    assert effective_rank(np.eye(4)) == pytest.approx(4.0, rel=1e-12)
    wanted = np.exp(0.75 * np.log(4 / 3) + 0.25 * np.log(4))
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(wanted, rel=1e-12)
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx(1.7548, abs=5e-5)
    assert effective_rank(np.outer([1.0, 2.0, 3.0], [1.0, -1.0])) == pytest.approx(1.0, abs=1e-12)


def test_golden_of_squared_singular_values():
    wanted = np.exp(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)))
    assert effective_rank(np.diag([3.0, 1.0]), power=2) == pytest.approx(wanted, rel=1e-12)
    assert wanted == pytest.approx(1.3841, abs=5e-5)
    assert effective_rank(np.eye(4), power=2) == pytest.approx(4.0, rel=1e-12)


def test_what_all_examples_share_can_be_left_out():
    """Raw, the common offset is the one direction that counts; centred, there are two of equal length."""
    spread = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert effective_rank(spread + 1e6) == pytest.approx(1.0, abs=1e-4)
    assert effective_rank(spread + 1e6, centered=True) == pytest.approx(2.0, rel=1e-9)
    assert effective_rank(np.ones((3, 2)), centered=True) == 0.0


def test_golden_participation_ratio():
    assert participation_ratio(np.diag([3.0, 1.0])) == pytest.approx(1.6, rel=1e-12)
    assert participation_ratio(np.eye(5)) == pytest.approx(5.0, rel=1e-12)


@pytest.mark.parametrize(
    ("singular", "delta", "wanted"),
    [
        ([100.0, 1.0], 0.01, 1),
        ([3.0, 1.0], 0.01, 2),
        ([1.0] * 100, 0.01, 99),
        ([1.0] * 100, 0.0, 100),
        ([1.0] * 100, 0.015, 99),
        ([1.0] * 100, 1.0, 1),
        ([1.0, 0.0], 0.0, 1),
    ],
)
def test_golden_srank(singular, delta, wanted):
    assert srank(np.diag(singular), delta) == wanted


def test_golden_stable_rank(key):
    assert stable_rank(np.diag([3.0, 1.0])) == pytest.approx(10 / 9, rel=1e-12)
    turned = np.linalg.qr(np.asarray(jax.random.normal(key, (6, 6)), np.float64))[0]
    assert stable_rank(turned) == pytest.approx(6.0, rel=1e-12)


def test_golden_feature_rank():
    """σ/√n are 2, 1 and 0.02 of four examples; the threshold is absolute, and has to be exceeded."""
    matrix = 2 * np.diag([2.0, 1.0, 0.02, 0.0])[:, :3]
    wanted = {0.0: 3, 0.01: 3, 0.019: 3, 0.021: 2, 1.0: 1, 2.0: 0}
    assert {threshold: feature_rank(matrix, threshold) for threshold in wanted} == wanted
    assert feature_rank(matrix / 10) == 2
    assert feature_rank(np.concatenate([matrix] * 25)) == 3


@every_rank
def test_a_matrix_of_zeros_has_rank_zero(rank):
    assert rank(np.zeros((3, 2))) == 0.0


@every_rank
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_in_nan_out(rank, bad):
    matrix = np.eye(3)
    matrix[0, 1] = bad
    assert np.isnan(rank(matrix))


def test_centred_nan_in_nan_out():
    assert np.isnan(effective_rank(np.array([[np.inf, 1.0], [np.inf, 2.0]]), centered=True))


@every_rank
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_matrix_is_refused(rank, shape):
    with pytest.raises(UserError, match=r"got a matrix of shape \(.*\); wanted at least one row and one column. Pass"):
        rank(np.zeros(shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: effective_rank(np.eye(2), power=0.5),
            r"got power=0\.5; wanted a finite number ≥ 1\. Use 1 as defined",
        ),
        (lambda: srank(np.eye(2), 1.5), r"got delta=1\.5; wanted a number in \[0, 1\]\. 0\.01 is usual"),
        (lambda: srank(np.eye(2), -0.1), r"got delta=-0\.1; wanted a number in \[0, 1\]"),
        (lambda: feature_rank(np.eye(2), -1.0), r"got threshold=-1\.0; wanted a finite number ≥ 0\. 0\.01 is usual"),
    ],
)
def test_numbers_out_of_range_are_refused(call, message):
    with pytest.raises(UserError, match=message):
        call()


@given(matrices, st.floats(1e-6, 1e6), st.randoms(use_true_random=False))
@few
def test_scale_order_and_side_do_not_matter(matrix, scale, random):
    rows, columns = (random.sample(range(size), size) for size in matrix.shape)
    for rank in (effective_rank, participation_ratio, srank, stable_rank):
        wanted = pytest.approx(rank(matrix), rel=1e-9)
        assert [rank(scale * matrix), rank(matrix.T), rank(matrix[rows][:, columns])] == [wanted] * 3


@given(matrices, st.integers(1, 7))
@few
def test_the_ranks_are_in_order(matrix, kept):
    """Rényi entropies fall with their order, and with the power of σ."""
    left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
    low = left[:, :kept] * sigma[:kept] @ right[:kept]
    most = min(kept, *matrix.shape) * (1 + 1e-6)
    ranks = [1 - 1e-9, stable_rank(low), effective_rank(low, power=2), effective_rank(low), most]
    assert all(below <= above * (1 + 1e-9) for below, above in itertools.pairwise(ranks))
    assert 1 - 1e-9 <= participation_ratio(low) <= effective_rank(low) * (1 + 1e-9)
    assert 1 <= srank(low) <= most
    assert 0 <= feature_rank(low) <= most


@given(matrices)
@few
def test_the_formulas(matrix):
    sigma = np.linalg.svd(matrix, compute_uv=False)
    p = sigma / sigma.sum()
    assert effective_rank(matrix) == np.exp(-(p * np.log(p)).sum())
    assert participation_ratio(matrix) == pytest.approx(sigma.sum() ** 2 / (sigma**2).sum(), rel=1e-9)
    assert stable_rank(matrix) == pytest.approx((matrix**2).sum() / sigma[0] ** 2, rel=1e-9)
    assert srank(matrix, 0.3) == next(k for k in range(1, 8) if sigma[:k].sum() >= 0.7 * sigma.sum())


def test_extreme_ranges_are_numbers():
    assert effective_rank(np.diag([1e300, 1e-300])) == pytest.approx(1.0, abs=1e-12)
    for size in (1e-300, 1e300):
        for rank in (effective_rank, participation_ratio, srank, stable_rank):
            assert rank(np.diag([size, size])) == pytest.approx(2.0, rel=1e-9)


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


def test_every_registered_rank_is_that_of_the_head_features(key):
    network = mlp((5,), 2, widths=(8, 6))
    params, state = network.init(key)
    x = jax.random.normal(key, (40, 5))
    features = np.asarray(network.apply(params, state, x, train=False, key=None)[1]["dense_1"])
    wanted = {
        "effective-rank": {
            "effective_rank": effective_rank(features),
            "effective_rank_squared": effective_rank(features, power=2),
            "participation_ratio": participation_ratio(features),
        },
        "srank": {"srank": srank(features)},
        "stable-rank": {"stable_rank": stable_rank(features)},
        "feature-rank": {"feature_rank": feature_rank(features)},
    }
    for name, numbers in wanted.items():
        found = measure(name, subject(network, params, state, x))
        assert found.numbers == pytest.approx(numbers, rel=1e-4)
        assert found.arrays == {}
        assert DIAGNOSTICS[name].cost == "spectral"


@pytest.mark.parametrize("name", ["effective-rank", "srank", "stable-rank", "feature-rank"])
def test_a_collapsed_cnn_is_found(key, name):
    """All units of the last layer are made the same."""
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(6,))
    params, state = network.init(key)
    x = jax.random.normal(key, (32, 4, 4, 1))
    metric = name.replace("-", "_")
    healthy = measure(name, subject(network, params, state, x)).numbers[metric]
    layer = network.wiring.head_reads()
    params[layer] = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.abs(leaf[..., :1]), leaf.shape), params[layer])
    collapsed = measure(name, subject(network, params, state, x)).numbers[metric]
    assert collapsed == pytest.approx(1.0, abs=1e-4)
    assert healthy > 1.2


def test_seeds_side_by_side_are_seeds_by_themselves(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = jax.lax.map(network.init, jax.random.split(key, 2))
    x = jax.random.normal(key, (8, 3))
    diagnostic = DIAGNOSTICS["effective-rank"]
    together = jax.jit(jax.vmap(lambda params: diagnostic.measure(subject(network, params, {}, x))))(params)
    for seed in range(2):
        alone = measure(
            "effective-rank", subject(network, jax.tree.map(lambda leaf, s=seed: leaf[s], params), state, x)
        )
        assert diagnostic.summarize(np.asarray(together[seed])).numbers == pytest.approx(alone.numbers, rel=1e-5)


def test_equal_matrices_are_decomposed_once(monkeypatch):
    """And one that has changed is decomposed again, also behind a view that cannot be written."""
    calls = []
    svd = np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda matrix, **options: calls.append(1) or svd(matrix, **options))
    matrix = np.diag([3.0, 1.0])
    assert effective_rank(matrix) == pytest.approx(1.7548, abs=1e-4)
    matrix[1, 1] = 3.0
    assert effective_rank(matrix) == pytest.approx(2.0)
    assert len(calls) == 2
    view = matrix.view()
    view.setflags(write=False)
    assert [stable_rank(view), srank(view), effective_rank(view)] == pytest.approx([2.0, 2.0, 2.0])
    assert len(calls) == 2
    matrix[1, 1] = 1.0
    assert effective_rank(view) == pytest.approx(1.7548, abs=1e-4)
    assert len(calls) == 3
    assert effective_rank(np.array([[3.0, 1.0]])) == pytest.approx(1.0)
