import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, gradient_cosine, gradient_gram
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from subjects import measure, subject

few = settings(max_examples=6, deadline=None, database=None)
BLOCK = "pliant.diagnostics._gradient_cosine._BLOCK"
SCALARS = ("mean", "negative_fraction", "strongly_negative_fraction", "effective_rank", "mean_absolute", "num_zero")


def squared(params, example):
    """Of a linear model."""
    inputs, targets = example
    return 0.5 * jnp.square(inputs @ params["w"] + params["b"][None] - targets).mean()


def linear(inputs, targets):
    params = {"w": jnp.zeros((inputs.shape[1], 1)), "b": jnp.zeros(1)}
    return gradient_gram(squared, params, (inputs, targets))


def without_bias(inputs, targets):
    return gradient_gram(
        lambda w, example: squared({"w": w, "b": jnp.zeros(1)}, example), jnp.zeros((2, 1)), (inputs, targets)
    )


def random_gram(seed, k=12, size=3):
    vectors = np.random.default_rng(seed).standard_normal((k, size))
    return vectors @ vectors.T


def test_golden_gram():
    """The gradient of example i is −y (x, 1)."""
    gram = linear(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([[1.0], [-2.0]]))
    np.testing.assert_allclose(gram, [[6.0, -8.0], [-8.0, 40.0]], rtol=1e-6)


def test_golden_numbers():
    """Gradients at 0°, 90°, 120° and 180°."""
    angles = np.radians([0, 90, 120, 180])
    vectors = np.stack([np.cos(angles), np.sin(angles)], 1) * np.array([[1.0], [2.0], [3.0], [4.0]])
    found = gradient_cosine(vectors @ vectors.T, num_clusters=2)
    cosines = np.cos([angles[1], angles[2], angles[3], angles[2] - angles[1], angles[3] - angles[1], np.pi / 3])
    np.testing.assert_allclose(found.mean, cosines.mean(), atol=1e-12)
    np.testing.assert_allclose(found.mean_absolute, np.abs(cosines).mean(), atol=1e-12)
    assert found.strongly_negative_fraction == 2 / 6
    # The eigenvalues of the matrix are 2.5 and 1.5: those of the sum of squares of the unit vectors.
    np.testing.assert_allclose(found.effective_rank, 0.625**-0.625 * 0.375**-0.375, rtol=1e-9)
    assert found.num_zero == 0


@pytest.mark.parametrize(
    ("inputs", "targets", "cosine"),
    [
        ([[1.0, 2.0]] * 2, [[1.0], [1.0]], 1.0),
        ([[1.0, 2.0]] * 2, [[1.0], [-1.0]], -1.0),
        ([[1.0, 0.0], [0.0, 3.0]], [[1.0], [1.0]], 0.0),
    ],
)
def test_same_opposite_and_orthogonal_examples(inputs, targets, cosine):
    found = gradient_cosine(np.asarray(without_bias(jnp.array(inputs), jnp.array(targets))))
    np.testing.assert_allclose(found.matrix, [[1.0, cosine], [cosine, 1.0]], atol=1e-6)
    np.testing.assert_allclose([found.mean, found.mean_absolute], [cosine, abs(cosine)], atol=1e-6)
    assert found.negative_fraction == found.strongly_negative_fraction == float(cosine < 0)


@pytest.mark.parametrize("per_block", [1, 3, 5, 7, 100])
def test_blocks_make_no_difference(key, monkeypatch, per_block):
    network = mlp((3,), 2, widths=(4,), activation="tanh")
    params, state = network.init(key)
    examples = jax.random.normal(key, (7, 3)), jax.random.normal(key, (7, 2))

    def loss(params, example):
        return jnp.square(network.apply(params, state, example[0], train=False, key=None)[0] - example[1]).mean()

    def one(i):
        gradient = jax.grad(loss)(params, jax.tree.map(lambda leaf: leaf[i : i + 1], examples))
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])

    stacked = np.stack([one(i) for i in range(7)])
    monkeypatch.setattr(BLOCK, per_block * stacked.shape[1])
    gram = np.asarray(jax.jit(lambda params: gradient_gram(loss, params, examples))(params))
    np.testing.assert_allclose(gram, stacked @ stacked.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(gram, gram.T)


def test_seeds_may_be_mapped(key, monkeypatch):
    monkeypatch.setattr(BLOCK, 20)
    examples = jax.random.normal(key, (5, 4)), jnp.ones((5, 1))
    params = {"w": jax.random.normal(key, (3, 4, 1)), "b": jnp.ones((3, 1))}
    together = jax.jit(jax.vmap(lambda params: gradient_gram(squared, params, examples)))(params)
    one_by_one = jax.lax.map(lambda params: gradient_gram(squared, params, examples), params)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-5)


@given(st.permutations(range(12)), st.integers(0, 2**31), st.floats(1e-3, 1e3))
@few
def test_order_and_lengths_do_not_matter(order, seed, scale):
    gram = random_gram(seed)
    lengths = np.linspace(1, scale, 12)
    found = gradient_cosine(gram)
    other = gradient_cosine((gram * lengths[:, None] * lengths[None])[np.ix_(order, order)])
    for name in SCALARS:
        np.testing.assert_allclose(getattr(other, name), getattr(found, name), rtol=1e-6, atol=1e-9, err_msg=name)
    assert (np.diag(found.matrix) == 1).all()
    np.testing.assert_allclose(
        found.matrix,
        (gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram))))[np.ix_(found.order, found.order)],
        atol=1e-12,
    )
    assert sorted(found.order) == list(range(12))
    assert 1 <= found.effective_rank <= 3 + 1e-9


def test_clusters_show_as_blocks():
    """Five examples of one kind, three of another, two of a third, shuffled; the odd one of the five comes last."""
    kinds = np.array([2, 0, 1, 0, 0, 1, 2, 0, 1, 0])
    vectors = np.eye(3)[kinds]
    vectors[4, 1] = 0.4
    found = gradient_cosine(vectors @ vectors.T, num_clusters=3)
    np.testing.assert_array_equal(found.labels, [0] * 5 + [1] * 3 + [2] * 2)
    np.testing.assert_array_equal(kinds[found.order], [0] * 5 + [1] * 3 + [2] * 2)
    assert found.order[4] == 4
    within = (6 + 4 / np.sqrt(1.16) + 3 + 1) / 14
    np.testing.assert_allclose(found.within_cluster, within, rtol=1e-9)
    np.testing.assert_allclose(found.between_cluster, 3 * 0.4 / np.sqrt(1.16) / 31, rtol=1e-9)
    again = gradient_cosine(vectors @ vectors.T, num_clusters=3)
    np.testing.assert_array_equal(found.order, again.order)


@pytest.mark.parametrize(("k", "num_different", "num_clusters"), [(2, 1, 10), (4, 2, 10), (3, 3, 10), (6, 2, 1)])
def test_there_are_no_more_clusters_than_different_rows(k, num_different, num_clusters):
    vectors = np.eye(k)[np.arange(k) % num_different]
    found = gradient_cosine(vectors @ vectors.T, num_clusters)
    assert len(set(found.labels)) == min(num_different, num_clusters)


def test_no_pair_within_or_between_clusters():
    assert np.isnan(gradient_cosine(np.eye(3)).within_cluster)
    assert np.isnan(gradient_cosine(np.ones((3, 3))).between_cluster)


def test_gradients_of_zero_are_counted():
    found = gradient_cosine(np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [2.0, 0.0, 4.0]]))
    assert found.num_zero == 1
    zero = int(np.flatnonzero(found.order == 1)[0])
    assert not found.matrix[zero].any()
    assert not found.matrix[:, zero].any()
    np.testing.assert_allclose(found.mean, 1 / 3)
    nothing = gradient_cosine(np.zeros((3, 3)))
    assert (nothing.num_zero, nothing.mean, nothing.effective_rank) == (3, 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_nan_out(bad):
    gram = np.eye(3)
    gram[0, 1] = bad
    found = gradient_cosine(gram)
    assert np.isnan([getattr(found, name) for name in SCALARS[:-1]]).all()
    assert np.isnan(found.matrix).all()
    assert found.labels.tolist() == [-1, -1, -1]
    assert found.order.tolist() == [0, 1, 2]


def test_an_example_with_nan_spoils_its_row_only():
    gram = linear(jnp.array([[1.0], [jnp.nan], [2.0]]), jnp.ones((3, 1)))
    np.testing.assert_array_equal(np.isnan(gram), np.isin(np.add.outer([0, 1, 0], [0, 1, 0]), [1, 2]))


@pytest.mark.parametrize(("k", "num_clusters"), [(0, 10), (1, 10), (3, 0)])
def test_nothing_to_compare_is_refused(k, num_clusters):
    with pytest.raises(UserError, match=r"got gradients of . examples and .*; wanted at least two examples and one"):
        gradient_cosine(np.eye(k), num_clusters)


@pytest.mark.parametrize(
    ("params", "examples"),
    [
        (jnp.ones(2), jnp.ones((0, 2))),
        (jnp.ones(2), (jnp.ones(2), jnp.ones(3))),
        ({}, jnp.ones(2)),
        (jnp.ones(2), ()),
    ],
)
def test_nothing_to_derive_is_refused(params, examples):
    with pytest.raises(UserError, match=r"wanted at least one example, the same number in all arrays"):
        gradient_gram(lambda params, example: jnp.zeros(()), params, examples)


def conflicted(key, targets):
    """A linear model before training; four copies of two orthogonal inputs."""
    network = mlp((2,), 2, widths=())
    params, state = network.init(key)
    inputs = jnp.tile(jnp.eye(2), (4, 1))
    return subject(network, jax.tree.map(jnp.zeros_like, params), state, inputs, jnp.array(targets))


def test_contradictory_labels_are_found(key):
    """Both biases and, for the same input, weights: cosines are ±1 there and ±1/2 between different inputs."""
    agreeing = measure("gradient-cosine", conflicted(key, [0, 1] * 4)).numbers
    against = measure("gradient-cosine", conflicted(key, [0, 1, 1, 0] * 2)).numbers
    same, other = itertools.repeat(1.0, 24), itertools.repeat(-0.5, 32)
    np.testing.assert_allclose(agreeing["gradient_cosine_mean"], np.mean([*same, *other]), atol=1e-6)
    np.testing.assert_allclose(agreeing["gradient_cosine_within_cluster"], 1.0, atol=1e-6)
    np.testing.assert_allclose(agreeing["gradient_cosine_between_cluster"], -0.5, atol=1e-6)
    np.testing.assert_allclose(against["gradient_cosine_mean"], -8 / 56, atol=1e-6)
    np.testing.assert_allclose(against["gradient_cosine_strongly_negative_fraction"], 32 / 56, atol=1e-6)
    assert against["gradient_cosine_negative_fraction"] == against["gradient_cosine_strongly_negative_fraction"]
    np.testing.assert_allclose(against["gradient_cosine_mean_absolute"], (24 + 16) / 56, atol=1e-6)
    assert against["num_zero_gradients"] == 0.0
    assert 1 < against["gradient_cosine_effective_rank"] <= 2


def test_a_convolutional_network(key):
    network = cnn((4, 4, 1), 3, channels=(2,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    params, state = network.init(key)
    x, y = jax.random.normal(key, (6, 4, 4, 1)), jnp.arange(6) % 3
    found = measure("gradient-cosine", subject(network, params, state, x, y))
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "matrix": (6, 6),
        "labels": (6,),
        "order": (6,),
    }
    off_diagonal = found.arrays["matrix"][~np.eye(6, dtype=bool)]
    np.testing.assert_allclose(found.numbers["gradient_cosine_mean"], off_diagonal.mean(), rtol=1e-9)
    assert set(found.arrays["order"]) == set(range(6))


def test_at_most_512_examples(key):
    network = mlp((1,), 1, widths=())
    params, state = network.init(key)
    of = subject(network, params, state, jnp.ones((600, 1)), jnp.ones((600, 1)))
    shape = jax.eval_shape(lambda params: DIAGNOSTICS["gradient-cosine"].measure(of._replace(params=params)), params)
    assert shape.shape == (512, 512)


def test_one_example_is_refused(key):
    network = mlp((1,), 1, widths=())
    with pytest.raises(UserError, match="got a probe of one example; wanted at least two"):
        measure("gradient-cosine", subject(network, *network.init(key), jnp.ones((1, 1)), jnp.ones((1, 1))))
