import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import isometry_deviation, weight_norm
from pliant.errors import UserError
from pliant.networks import mlp, orthogonal
from subjects import measure, subject

DIAGONAL = jnp.diag(jnp.array([2.0, 1.0, 0.5]))


def measured(name, network, params, state):
    return measure(name, subject(network, params, state, jnp.ones((2, 3)))).numbers[name.replace("-", "_")]


def test_isometry_golden():
    found = isometry_deviation({"a": DIAGONAL, "b": jnp.zeros((4, 2)), "bias": jnp.ones(7)})
    np.testing.assert_allclose(found.by_kernel, [3.1875, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found.mean, 2.09375, rtol=1e-6)


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (3, 3, 8, 16)])
def test_isometry_of_orthogonal_kernels(key, shape):
    assert float(isometry_deviation(orthogonal(1.0)(key, shape)).mean) < 1e-10
    np.testing.assert_allclose(isometry_deviation(orthogonal(2.0**0.5)(key, shape)).mean, 1.0, rtol=1e-5)


def test_isometry_divides_by_the_smaller_side(key):
    kernel = jax.random.normal(key, (3, 3, 8, 16)) / 8
    columns = [np.asarray(kernel, np.float64)[..., out].ravel() for out in range(16)]
    sigma = np.linalg.svd(np.stack(columns, axis=1), compute_uv=False)
    assert sigma.size == 16
    np.testing.assert_allclose(isometry_deviation(kernel).mean, ((sigma**2 - 1) ** 2).mean(), rtol=1e-5)


def _sizes(kernel):
    found = weight_norm({"kernel": kernel})
    return found.total, found.by_leaf["kernel"], found.mean_absolute, found.max_absolute


@given(st.permutations(range(4)), st.permutations(range(3)), st.integers(0, 2**31))
@settings(max_examples=20, deadline=None, database=None)
def test_order_of_units_does_not_matter(rows, columns, seed):
    kernel = jnp.asarray(np.random.default_rng(seed).standard_normal((4, 3)), jnp.float32)
    shuffled = kernel[jnp.array(rows)][:, jnp.array(columns)]
    np.testing.assert_allclose(isometry_deviation(shuffled).mean, isometry_deviation(kernel).mean, rtol=1e-5)
    for before, after, flipped in zip(*map(_sizes, (kernel, shuffled, -3 * kernel)), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-6)
        np.testing.assert_allclose(flipped, 3 * before, rtol=1e-6)


def test_isometry_mask_selects():
    params = {"head": 5 * jnp.ones((3, 2)), "kernel": DIAGONAL}
    found = isometry_deviation(params, {"head": False, "kernel": True})
    np.testing.assert_allclose(found.by_kernel, [3.1875], rtol=1e-6)


@pytest.mark.parametrize(
    ("params", "mask"),
    [
        ({"kernel": DIAGONAL}, {"kernel": False}),
        ({"bias": jnp.ones(3)}, None),
        ({}, None),
    ],
)
def test_isometry_of_nothing_is_refused_and_not_zero(params, mask):
    with pytest.raises(
        UserError, match=r"got a mask that selects none of . parameter leaves; wanted at least one leaf"
    ):
        isometry_deviation(params, mask)


def test_isometry_of_a_vector_is_refused():
    with pytest.raises(UserError, match=r"got a parameter of shape \(3,\)"):
        isometry_deviation({"bias": jnp.ones(3)}, {"bias": True})


def test_norm_golden():
    found = weight_norm({"layer": {"bias": jnp.array([-12.0]), "kernel": jnp.array([[3.0, 4.0]])}})
    assert float(found.total) == 13.0
    assert {path: float(norm) for path, norm in found.by_leaf.items()} == {"layer/bias": 12.0, "layer/kernel": 5.0}
    np.testing.assert_allclose(found.mean_absolute, 19 / 3, rtol=1e-6)
    assert float(found.max_absolute) == 12.0
    assert all(float(size) == 0.0 for size in _sizes(jnp.zeros((2, 2))))


def test_norm_of_nothing_is_refused():
    for nothing in ({}, {"kernel": jnp.ones((0, 3))}):
        with pytest.raises(UserError, match=r"got no parameters; wanted at least one array\. Pass the network's param"):
            weight_norm(nothing)


def test_an_empty_leaf_beside_others_does_not_matter():
    found = weight_norm({"empty": jnp.ones((0, 3)), "full": jnp.array([-2.0])})
    assert (float(found.total), float(found.mean_absolute), float(found.max_absolute)) == (2.0, 2.0, 2.0)
    assert float(found.by_leaf["empty"]) == 0.0


def test_norms_of_several_seeds(key):
    stacked = {"kernel": jax.random.normal(key, (3, 4, 2)), "bias": jnp.ones((3, 2))}
    together = jax.jit(jax.vmap(weight_norm))(stacked)
    for seed in range(3):
        alone = weight_norm(jax.tree.map(lambda leaf, seed=seed: leaf[seed], stacked))
        jax.tree.map(lambda a, b, seed=seed: np.testing.assert_allclose(a[seed], b, rtol=1e-6), together, alone)


def test_norm_of_bfloat16_is_summed_in_float32():
    params = {"a": jnp.ones(1, jnp.bfloat16), "b": jnp.full((1,), 1 / 16, jnp.bfloat16)}
    np.testing.assert_allclose(weight_norm(params).total, (1 + 1 / 256) ** 0.5, rtol=1e-6)


def test_nan_in_nan_out():
    assert np.isnan(isometry_deviation({"a": DIAGONAL, "b": jnp.full((2, 2), jnp.nan)}).mean)
    found = weight_norm({"a": DIAGONAL, "b": jnp.array([jnp.nan])})
    assert np.isnan([found.total, found.by_leaf["b"], found.mean_absolute, found.max_absolute]).all()
    assert np.isfinite(found.by_leaf["a"])


def test_registered_measures_look_at_the_hidden_kernels(key):
    network = mlp((3,), 2, widths=(4, 4), activation="maxmin")
    params, state = network.init(key)
    assert measured("isometry-deviation", network, params, state) < 1e-10
    params["head"]["kernel"] = params["head"]["kernel"] + 5.0
    assert measured("isometry-deviation", network, params, state) < 1e-10
    params["dense_1"]["kernel"] = 2**0.5 * params["dense_1"]["kernel"]
    assert measured("isometry-deviation", network, params, state) == pytest.approx(0.5, rel=1e-5)
    leaves = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    numbers = measure("weight-norm", subject(network, params, state, jnp.ones((2, 3)))).numbers
    assert numbers["weight_norm"] == pytest.approx(np.linalg.norm(leaves), rel=1e-6)
    assert numbers["weight_mean_absolute"] == pytest.approx(np.abs(leaves).mean(), rel=1e-6)
    assert numbers["weight_max_absolute"] == pytest.approx(np.abs(leaves).max(), rel=1e-6)
    parts = {metric: value for metric, value in numbers.items() if metric.startswith("weight_norm/")}
    assert {metric.removeprefix("weight_norm/") for metric in parts} == {
        f"{layer}/{leaf}" for layer in ("dense_0", "dense_1", "head") for leaf in ("kernel", "bias")
    }
    assert np.linalg.norm(list(parts.values())) == pytest.approx(numbers["weight_norm"], rel=1e-6)


def test_isometry_without_hidden_kernels_is_nan(key):
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    assert np.isnan(measured("isometry-deviation", network, params, state))


def test_isometry_of_a_conv_kernel_by_hand():
    """Two output channels, each one entry of the window, so that σ are the entries: 2 and 1."""
    kernel = jnp.zeros((3, 3, 2, 2)).at[1, 1, 0, 0].set(2.0).at[0, 2, 1, 1].set(1.0)
    np.testing.assert_allclose(
        isometry_deviation({"kernel": kernel}, output_axes=-1).mean, (3**2 + 0**2) / 2, rtol=1e-6
    )


def test_the_layout_is_told_or_refused():
    kernel = np.linalg.qr(np.random.default_rng(0).standard_normal((36, 8)))[0].T.reshape(8, 4, 3, 3)
    np.testing.assert_allclose(isometry_deviation({"conv": kernel}, output_axes=0).mean, 0.0, atol=1e-6)
    with pytest.raises(UserError, match="in which several axes may be the outputs"):
        isometry_deviation({"conv": kernel})
