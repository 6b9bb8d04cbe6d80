import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, jacobian_spectrum, layer_jacobians, weight_spectra
from pliant.diagnostics import _jacobian_spectrum as module
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from pliant.types import Text
from subjects import measure, subject

few = settings(max_examples=20, deadline=None, database=None)
GOLDEN = np.diag([2.0, 1.0, 0.5])[None]


def drawn(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def orthogonal(seed, size):
    return np.linalg.qr(drawn(seed, (size, size)))[0]


def made(network, key):
    return jax.jit(network.init)(key)


def with_kernels(params, **kernels):
    return params | {name: params[name] | {"kernel": jnp.asarray(each, jnp.float32)} for name, each in kernels.items()}


def numbers_of(found):
    return {name: value for name, value in found._asdict().items() if name != "singular_values"}


def test_golden():
    found = jacobian_spectrum(GOLDEN)
    np.testing.assert_allclose(found.singular_values, [[2.0, 1.0, 0.5]])
    p = np.array([4, 2, 1]) / 7
    wanted = {
        "sigma_min": 0.5,
        "sigma_min_nonzero": 0.5,
        "sigma_max": 2.0,
        "sigma_mean": 7 / 6,
        "sigma_rms": np.sqrt(5.25 / 3),
        "condition_log10": np.log10(4),
        "condition_nonzero_log10": np.log10(4),
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "isometry_deviation": np.sqrt(1.25 / 3),
        "near_one_fraction": 1 / 3,
        "zero_fraction": 0.0,
    }
    assert numbers_of(found) == pytest.approx(wanted, rel=1e-12)


def test_what_is_zero_is_told_apart():
    found = jacobian_spectrum(np.array([[[3.0, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]))
    assert found.zero_fraction == pytest.approx(1 / 3)
    assert (found.sigma_min, found.sigma_min_nonzero) == pytest.approx((0.0, 0.3))
    assert (found.condition_log10, found.condition_nonzero_log10) == pytest.approx((12.0, 1.0))


def test_rounding_of_single_precision_counts_as_zero():
    """A product through five units has rank five, but in float32 no singular value is exactly 0."""
    first, second = (drawn(seed, (40, 5)).astype(np.float32) for seed in (0, 1))
    found = jacobian_spectrum((first @ second.T)[None])
    assert found.sigma_min > 0
    assert found.zero_fraction == pytest.approx(35 / 40)
    assert found.condition_nonzero_log10 < 1


def test_means_are_over_examples():
    found = jacobian_spectrum(np.stack([GOLDEN[0], 4 * GOLDEN[0]]))
    assert found.sigma_max == pytest.approx((2 + 8) / 2)
    assert found.sigma_rms == pytest.approx(np.sqrt(5.25 / 3) * 2.5)
    assert found.condition_log10 == pytest.approx(np.log10(4))


def test_a_jacobian_of_zeros():
    found = jacobian_spectrum(np.zeros((2, 3, 4)))
    assert (found.zero_fraction, found.effective_rank, found.sigma_max, found.isometry_deviation) == (1, 0, 0, 1)
    assert np.isnan([found.condition_log10, found.condition_nonzero_log10, found.sigma_min_nonzero]).all()
    mixed = jacobian_spectrum(np.concatenate([GOLDEN, np.zeros((1, 3, 3))]))
    assert (mixed.zero_fraction, mixed.sigma_max) == (0.5, 1.0)
    assert mixed.condition_nonzero_log10 == pytest.approx(np.log10(4))
    assert mixed.sigma_min_nonzero == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_nan_out(bad):
    jacobians = np.concatenate([GOLDEN, GOLDEN])
    jacobians[1, 0, 0] = bad
    found = jacobian_spectrum(jacobians)
    assert np.isnan(list(numbers_of(found).values())).all()
    np.testing.assert_allclose(found.singular_values[0], [2.0, 1.0, 0.5])
    assert np.isnan(found.singular_values[1]).all()


@pytest.mark.parametrize("shape", [(0, 2, 2), (2, 0, 2), (2, 2, 0)])
def test_nothing_to_measure_is_refused(shape):
    with pytest.raises(UserError, match=r"got Jacobians of shape .*; wanted at least one example, output and input"):
        jacobian_spectrum(np.zeros(shape))


@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
@few
def test_rotations_and_order_do_not_matter_and_scales_do(seed, scale):
    jacobians = drawn(seed, (2, 4, 3))
    wanted = jacobian_spectrum(jacobians)
    rotated = orthogonal(seed, 4) @ jacobians[::-1] @ orthogonal(seed + 1, 3)
    assert numbers_of(jacobian_spectrum(rotated)) == pytest.approx(numbers_of(wanted), rel=1e-6)
    assert numbers_of(jacobian_spectrum(jacobians.swapaxes(1, 2))) == pytest.approx(numbers_of(wanted), rel=1e-6)
    scaled = jacobian_spectrum(scale * jacobians)
    np.testing.assert_allclose(scaled.singular_values, scale * wanted.singular_values, rtol=1e-9)
    assert scaled.condition_log10 == pytest.approx(wanted.condition_log10)
    assert scaled.effective_rank == pytest.approx(wanted.effective_rank)
    assert wanted.sigma_min <= wanted.sigma_mean <= wanted.sigma_rms <= wanted.sigma_max
    assert 1 <= wanted.effective_rank <= 3


def test_of_a_linear_layer_it_is_the_spectrum_of_its_weights(key):
    """Consistency with the weight spectra: spec 22.6."""
    kernel = jnp.asarray(drawn(0, (6, 4)), jnp.float32)

    def function(x):
        hidden = x @ kernel
        return hidden, {"hidden": hidden}

    (jacobians,) = layer_jacobians(function, jax.random.normal(key, (3, 6)), ("hidden",)).values()
    (weights,) = weight_spectra({"kernel": np.asarray(kernel)}).values()
    found = jacobian_spectrum(np.asarray(jacobians))
    np.testing.assert_allclose(found.singular_values, np.tile(weights.singular_values, (3, 1)), rtol=1e-5)
    assert found.condition_log10 == pytest.approx(weights.condition_log10, rel=1e-5)


def test_sorting_and_orthogonal_weights_are_an_isometry(key):
    """Spec 22.8: the weights' isometry error is 0, and all singular values are 1."""
    network = mlp((6,), 6, widths=(6, 6), activation="maxmin")
    params, state = made(network, key)
    of = subject(network, params, state, jax.random.normal(key, (5, 6)))
    assert measure("isometry-deviation", of).numbers["isometry_deviation"] == pytest.approx(0, abs=1e-9)
    found = measure("jacobian", of)
    assert set(found.arrays) == {"singular_values/dense_0", "singular_values/dense_1", "input_output"}
    for array in found.arrays.values():
        np.testing.assert_allclose(array, np.ones((5, 6)), atol=1e-5)
    assert found.numbers["jacobian_near_one_fraction"] == 1.0
    assert found.numbers["jacobian_effective_rank"] == pytest.approx(6)
    assert found.numbers["input_output_effective_rank"] == pytest.approx(6)
    assert found.numbers["jacobian_isometry_deviation"] == pytest.approx(0, abs=1e-5)
    assert found.numbers["input_output_condition_log10"] == pytest.approx(0, abs=1e-5)


def test_a_relu_that_half_the_inputs_do_not_pass(key):
    """Identity weights: half of the singular values are zeros, half are ones."""
    network = mlp((8,), 2, widths=(8,))
    params, state = made(network, key)
    params = with_kernels(params, dense_0=np.eye(8))
    inputs = jnp.abs(jax.random.normal(key, (3, 8))) * jnp.array([[1.0, -1.0] * 4])
    found = measure("jacobian", subject(network, params, state, inputs))
    np.testing.assert_allclose(found.arrays["singular_values/dense_0"], np.tile([1.0] * 4 + [0.0] * 4, (3, 1)))
    for where in ("", "/dense_0"):
        assert found.numbers[f"jacobian_zero_fraction{where}"] == 0.5
        assert found.numbers[f"jacobian_near_one_fraction{where}"] == 0.5
        assert found.numbers[f"jacobian_effective_rank{where}"] == pytest.approx(4)
        assert found.numbers[f"jacobian_condition_log10{where}"] == 0.0
        assert found.numbers[f"jacobian_isometry_deviation{where}"] == pytest.approx(np.sqrt(0.5))


def test_a_layer_near_collapse_is_found(key):
    """One hidden kernel has a condition number of 1000; the other layer and the means show which and how much."""
    network = mlp((6,), 2, widths=(6, 6), activation="identity")
    params, state = made(network, key)
    spread = orthogonal(0, 6) * np.logspace(0, -3, 6) @ orthogonal(1, 6)
    params = with_kernels(params, dense_0=orthogonal(2, 6), dense_1=spread)
    numbers = measure("jacobian", subject(network, params, state, jax.random.normal(key, (4, 6)))).numbers
    assert numbers["jacobian_condition_log10/dense_0"] == pytest.approx(0, abs=1e-4)
    assert numbers["jacobian_condition_log10/dense_1"] == pytest.approx(3, abs=1e-2)
    assert numbers["jacobian_condition_log10"] == pytest.approx(1.5, abs=1e-2)
    assert numbers["jacobian_sigma_mean/dense_1"] == pytest.approx(np.logspace(0, -3, 6).mean(), rel=1e-4)


@pytest.fixture(scope="module")
def convolutional():
    options = {"channels": (4,), "kernel_sizes": (3,), "strides": (1,), "pool": (1,), "widths": (5,)}
    network = cnn((4, 4, 2), 3, **options)
    key = jax.random.key(0)
    params, state = made(network, key)
    return subject(network, params, state, jax.random.normal(key, (3, 4, 4, 2)))


@pytest.fixture(scope="module")
def exact(convolutional):
    return measure("jacobian", convolutional)


def test_a_convolutional_network(exact):
    shapes = {name: array.shape for name, array in exact.arrays.items()}
    wanted = {"singular_values/conv_0": (3, 32), "singular_values/dense_0": (3, 5), "input_output": (3, 3)}
    assert shapes == wanted
    assert np.isfinite(list(exact.numbers.values())).all()
    for metric in ("sigma_max", "sigma_rms", "zero_fraction"):
        layers = [exact.numbers[f"jacobian_{metric}/{layer}"] for layer in ("conv_0", "dense_0")]
        assert exact.numbers[f"jacobian_{metric}"] == pytest.approx(np.mean(layers))
    largest = exact.arrays["input_output"][:, 0].mean()
    assert exact.numbers["input_output_sigma_max"] == pytest.approx(largest)


def test_large_jacobians_are_estimated(convolutional, exact, monkeypatch):
    """The convolution's, of 64 × 32; nothing is stored of it, and what nobody knows is NaN and not in the means."""
    monkeypatch.setattr(module, "_LARGE", 1000)
    found = measure("jacobian", convolutional)
    assert set(found.arrays) == {"singular_values/dense_0", "input_output"}
    for name, rtol in (("jacobian_sigma_max/conv_0", 0.05), ("jacobian_sigma_rms/conv_0", 0.1)):
        assert found.numbers[name] == pytest.approx(exact.numbers[name], rel=rtol)
    assert np.isnan(found.numbers["jacobian_zero_fraction/conv_0"])
    for metric in ("zero_fraction", "condition_log10", "sigma_mean"):
        name = f"jacobian_{metric}/dense_0"
        assert found.numbers[f"jacobian_{metric}"] == found.numbers[name] == pytest.approx(exact.numbers[name])
    assert set(found.numbers) == set(exact.numbers)


def test_a_linear_model_has_no_layers(key):
    network = mlp((4,), 2, widths=())
    params, state = made(network, key)
    found = measure("jacobian", subject(network, params, state, jax.random.normal(key, (3, 4))))
    assert np.isnan(found.numbers["jacobian_sigma_max"])
    np.testing.assert_allclose(found.arrays["input_output"], np.ones((3, 2)), rtol=1e-5)


def test_a_network_of_nan_and_one_of_zeros(key):
    network = mlp((4,), 2, widths=(4, 4))
    params, state = made(network, key)
    of = subject(network, params, state, jax.random.normal(key, (3, 4)))
    zeros = measure("jacobian", of._replace(params=jax.tree.map(jnp.zeros_like, params))).numbers
    assert (zeros["jacobian_zero_fraction"], zeros["jacobian_sigma_max"], zeros["input_output_rms"]) == (1, 0, 0)
    assert np.isnan(zeros["jacobian_condition_log10"])
    broken = with_kernels(params, dense_1=np.full((4, 4), np.nan))
    numbers = measure("jacobian", of._replace(params=broken)).numbers
    assert np.isnan([value for name, value in numbers.items() if not name.endswith("/dense_0")]).all()
    assert numbers["jacobian_sigma_max/dense_0"] > 0


@pytest.mark.parametrize(
    ("rows", "columns", "layers", "wanted"),
    [(32, 32, 4, 64), (512, 512, 4, 8), (1024, 1024, 2, 2), (1024, 1024, 20, 1), (2048, 2048, 1, 16)],
)
def test_the_number_of_examples_bounds_the_work(rows, columns, layers, wanted):
    assert module._num_examples([module._Segment(None, "layer", rows, columns)] * layers) == wanted


def test_at_most_64_examples_are_looked_at(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = made(network, key)
    of = subject(network, params, state, jnp.ones((100, 3)))
    arrays = jax.eval_shape(lambda params: DIAGNOSTICS["jacobian"].measure(of._replace(params=params)), params)
    assert arrays["dense_0"].shape == (64, 4, 3)


def test_seeds_side_by_side_are_those_alone(key):
    network = mlp((3,), 2, widths=(4, 4), activation="tanh")
    params, state = jax.jit(jax.vmap(network.init))(jax.random.split(key, 2))
    of = subject(network, params, state, jax.random.normal(key, (3, 3)))
    diagnostic = DIAGNOSTICS["jacobian"]
    mapped = jax.jit(jax.vmap(lambda params: diagnostic.measure(of._replace(params=params))))(params)
    alone = measure("jacobian", of._replace(params=jax.tree.map(lambda leaf: leaf[1], params)))
    found = diagnostic.summarize(jax.tree.map(lambda leaf: np.asarray(leaf[1]), mapped))
    assert found.numbers == pytest.approx(alone.numbers, rel=1e-4, abs=1e-6)


def test_texts_have_no_derivatives(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = made(network, key)
    of = subject(network, params, state, jnp.ones((2, 3)))
    texts = Text(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32))
    with pytest.raises(UserError, match="got texts; wanted inputs that are numbers"):
        measure("jacobian", of._replace(probe=of.probe._replace(inputs=texts)))
