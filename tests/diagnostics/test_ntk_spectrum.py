import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, layer_traces, ntk_spectrum, rayleigh
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Text
from strict_types import unchecked
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)


def symmetric(seed, size=6):
    root = np.random.default_rng(seed).standard_normal((size, size))
    return root @ root.T


def measured(network, params, state, inputs, **fields):
    return measure("ntk", subject(network, params, state, inputs, **fields))


def test_golden_spectrum():
    found = ntk_spectrum(np.diag([1.0, 3.0]))
    np.testing.assert_allclose(found.eigenvalues, [3.0, 1.0])
    np.testing.assert_allclose(10**found.condition_log10, 3.0)
    np.testing.assert_allclose(found.effective_rank, 1.7548, rtol=1e-4)
    np.testing.assert_allclose(found.relative_effective_rank, 1.7548 / 2, rtol=1e-4)
    np.testing.assert_allclose(found.participation_ratio, 1.6)
    np.testing.assert_allclose(found.isotropy_deviation, 0.5)
    assert (found.smallest_normalized, found.mean_eigenvalue) == (0.5, 2.0)
    assert (found.most_negative, found.is_saturated) == (0.0, False)


def test_the_identity_is_isotropic():
    found = ntk_spectrum(5 * np.eye(4))
    assert (found.condition_log10, found.isotropy_deviation, found.is_saturated) == (0.0, 0.0, False)
    np.testing.assert_allclose([found.effective_rank, found.participation_ratio], [4.0, 4.0])
    assert (found.relative_effective_rank, found.smallest_normalized, found.mean_eigenvalue) == (1.0, 1.0, 5.0)


def test_a_singular_kernel_is_saturated():
    found = ntk_spectrum(np.ones((4, 4)))
    np.testing.assert_allclose(found.condition_log10, 10.0)
    assert found.is_saturated
    np.testing.assert_allclose([found.effective_rank, found.participation_ratio], [1.0, 1.0], rtol=1e-9)
    np.testing.assert_allclose(found.isotropy_deviation, np.sqrt(3), rtol=1e-9)
    assert found.smallest_normalized < 1e-10


def test_rounding_below_zero_is_reported_and_cut_off():
    found = ntk_spectrum(np.diag([1.0, -1e-7]))
    np.testing.assert_allclose(found.most_negative, -1e-7)
    assert found.eigenvalues.tolist() == [1.0, 0.0]
    assert found.is_saturated


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
@few
def test_all_but_the_mean_is_relative(seed, scale):
    matrix = symmetric(seed)
    one, other = ntk_spectrum(matrix), ntk_spectrum(scale * matrix)
    np.testing.assert_allclose(other.mean_eigenvalue, scale * one.mean_eigenvalue, rtol=1e-9)
    for name in ("condition_log10", "effective_rank", "participation_ratio", "isotropy_deviation"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), rtol=1e-6)
    normalized = matrix / one.mean_eigenvalue
    np.testing.assert_allclose(one.isotropy_deviation, np.linalg.norm(normalized - np.eye(6)) / np.sqrt(6), rtol=1e-9)
    assert 1 <= one.participation_ratio <= one.effective_rank <= 6


@given(st.integers(0, 2**31), st.integers(0, 5))
@few
def test_rayleigh_of_an_eigenvector_is_its_eigenvalue(seed, which):
    matrix = symmetric(seed)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(rayleigh(matrix, 1e-3 * vectors[:, which].reshape(3, 2)), eigenvalues[which], rtol=1e-6)


def test_zeros_and_nan():
    found = ntk_spectrum(np.zeros((3, 3)))
    assert (found.effective_rank, found.participation_ratio, found.mean_eigenvalue) == (0.0, 0.0, 0.0)
    assert np.isnan([found.condition_log10, found.isotropy_deviation, found.smallest_normalized]).all()
    assert not found.is_saturated
    for bad in (np.nan, np.inf):
        found = ntk_spectrum(np.diag([1.0, bad]))
        assert np.isnan(found.eigenvalues).all()
        assert np.isnan(
            [value for name, value in found._asdict().items() if name not in ("eigenvalues", "is_saturated")]
        ).all()
        assert not found.is_saturated
        assert np.isnan(rayleigh(np.diag([1.0, bad]), np.array([1.0, 0.0])))
        assert np.isnan(rayleigh(np.eye(2), np.array([1.0, bad])))
    assert np.isnan(rayleigh(np.eye(2), np.zeros(2)))
    assert rayleigh(np.diag([3.0, 1.0]), np.array([1e-200, 0.0])) == 3.0


@pytest.mark.parametrize("shape", [(0, 0), (2, 3), (3,)])
def test_what_is_no_kernel_is_refused(shape):
    with pytest.raises(
        UserError, match=r"got a matrix of shape .*; wanted rows × rows, at least one. Pass the matrix of"
    ):
        unchecked(ntk_spectrum)(np.ones(shape))


@pytest.mark.parametrize("size", [0, 3])
def test_a_gradient_of_another_size_is_refused(size):
    with pytest.raises(
        UserError, match=rf"got a matrix of shape \(2, 2\) and a gradient of {size} numbers; wanted as many"
    ):
        rayleigh(np.eye(2), np.ones(size))


def test_layers_of_leaves():
    found = layer_traces({"a/b/kernel": 1.0, "a/b/bias": np.float32(2), "a/c": 4.0, "": 8.0})
    assert found == {"a/b": 3.0, "a": 4.0, "": 8.0}
    with pytest.raises(UserError, match=r"got no traces; wanted one of at least one leaf. Pass the traces of `ntk`"):
        layer_traces({})


def test_every_metric_of_an_mlp(key):
    network = mlp((4,), 3, widths=(16,), norm="layer")
    params, state = network.init(key)
    numbers, arrays = measured(network, params, state, jax.random.normal(key, (8, 4)))
    assert set(numbers) == {
        "ntk_condition_log10",
        "ntk_effective_rank",
        "ntk_participation_ratio",
        "ntk_is_saturated",
        "ntk_isotropy_deviation",
        "ntk_smallest_normalized",
        "ntk_rayleigh",
        "ntk_trace",
        "ntk_trace/dense_0",
        "ntk_trace/norm_0",
        "ntk_trace/head",
    }
    assert all(np.isfinite(value) for value in numbers.values())
    assert numbers["ntk_is_saturated"] == 0.0
    shares = arrays["eigenvalues"] / arrays["eigenvalues"].sum()
    np.testing.assert_allclose(numbers["ntk_participation_ratio"], 1 / (shares**2).sum(), rtol=1e-6)
    assert set(arrays) == {"eigenvalues"}
    assert arrays["eigenvalues"].shape == (24,)
    np.testing.assert_allclose(numbers["ntk_trace"], arrays["eigenvalues"].mean(), rtol=1e-5)
    layers = sum(value for name, value in numbers.items() if "/" in name)
    np.testing.assert_allclose(layers, numbers["ntk_trace"], rtol=1e-5)
    assert arrays["eigenvalues"][-1] <= numbers["ntk_rayleigh"] <= arrays["eigenvalues"][0]


def test_rayleigh_is_of_the_mean_loss(key):
    """For a linear network of orthonormal inputs the kernel is ‖x‖² + 1 = 2 on the diagonal and 1 elsewhere."""
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    params = jax.tree.map(jnp.zeros_like, params)
    targets = jnp.array([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    numbers = measured(network, params, state, jnp.eye(3), targets=targets).numbers
    np.testing.assert_allclose(numbers["ntk_rayleigh"], 2.0, rtol=1e-5)  # the targets share no output
    targets = jnp.ones((3, 2))
    numbers = measured(network, params, state, jnp.eye(3), targets=targets).numbers
    np.testing.assert_allclose(numbers["ntk_rayleigh"], 4.0, rtol=1e-5)
    np.testing.assert_allclose(numbers["ntk_condition_log10"], np.log10(4), rtol=1e-5)


def test_many_outputs_are_averaged(key):
    network = mlp((4,), 20, widths=(8,))
    params, state = network.init(key)
    found = measured(network, params, state, jax.random.normal(key, (100, 4)))
    assert found.arrays["eigenvalues"].shape == (64,)
    assert np.isnan(found.numbers["ntk_rayleigh"])
    assert found.numbers["ntk_trace"] > 0


def test_a_dead_network_is_found(key):
    """Only the head's bias moves the output: one direction for all examples of each output."""
    network = mlp((4,), 3, widths=(8,))
    params, state = network.init(key)
    inputs = jax.random.normal(key, (8, 4))
    healthy = measured(network, params, state, inputs).numbers
    params["dense_0"]["bias"] = params["dense_0"]["bias"] - 100.0
    dead = measured(network, params, state, inputs).numbers
    np.testing.assert_allclose(dead["ntk_effective_rank"], 3.0, rtol=1e-4)
    assert healthy["ntk_effective_rank"] > 4
    assert dead["ntk_isotropy_deviation"] > healthy["ntk_isotropy_deviation"]
    assert (dead["ntk_trace/dense_0"], dead["ntk_trace/head"]) == (0.0, 1.0)
    np.testing.assert_allclose(dead["ntk_trace"], 1.0, rtol=1e-6)


def test_of_a_cnn(key):
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    params, state = network.init(key)
    found = measured(network, params, state, jax.random.normal(key, (4, 4, 4, 1)))
    assert found.arrays["eigenvalues"].shape == (8,)
    assert {"ntk_trace/conv_0", "ntk_trace/dense_0", "ntk_trace/head"} <= set(found.numbers)
    assert all(np.isfinite(value) for value in found.numbers.values())


def test_nan_in_nan_out(key):
    network = mlp((4,), 3, widths=(4,))
    params, state = network.init(key)
    params["head"]["kernel"] = params["head"]["kernel"].at[0, 0].set(jnp.nan)
    found = measured(network, params, state, jax.random.normal(key, (4, 4)) + 3)
    assert np.isnan(found.arrays["eigenvalues"]).all()
    assert np.isnan([found.numbers["ntk_condition_log10"], found.numbers["ntk_rayleigh"]]).all()


def test_texts_are_refused():
    class Net:
        @staticmethod
        def apply(params, state, inputs, *, train, key):
            return params["table"][inputs.decoder], {}, state

    params, text = {"table": jnp.ones((5, 5))}, Text(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 4), jnp.int32))
    network = mlp((1,), 1)._replace(apply=Net.apply)
    of = subject(network, params, {}, text, jnp.ones((2, 4), jnp.int32))
    with pytest.raises(UserError, match=r"got outputs of shape \(2, 4, 5\) for 2 examples; wanted \(batch, out\)"):
        DIAGNOSTICS["ntk"].measure(of)
