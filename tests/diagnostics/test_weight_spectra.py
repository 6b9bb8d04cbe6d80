import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.diagnostics import DIAGNOSTICS, effective_rank, isometry_deviation, stable_rank, weight_spectra
from pliant.errors import UserError
from pliant.networks import cnn, mlp, orthogonal
from pliant.types import Wiring
from subjects import measure, subject

few = settings(max_examples=20, deadline=None, database=None)
METRICS = ("condition_log10", "sigma_min", "sigma_max", "effective_rank", "stable_rank", "log_spread")


def one(kernel):
    return weight_spectra({"kernel": kernel})["kernel"]


def test_golden():
    found = one(jnp.diag(jnp.array([0.5, 2.0, 1.0])))
    assert found.singular_values.tolist() == [2.0, 1.0, 0.5]
    assert (found.sigma_min, found.sigma_max) == (0.5, 2.0)
    assert found.mean == pytest.approx(3.5 / 3)
    assert found.rms == pytest.approx(1.75**0.5)
    assert found.condition_log10 == pytest.approx(np.log10(4))
    assert found.isometry_deviation == 3.1875
    assert found.stable_rank == pytest.approx(5.25 / 4)
    p = np.array([4, 2, 1]) / 7
    assert found.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert found.log_spread == pytest.approx(np.log(2) * (2 / 3) ** 0.5)


def test_a_conv_kernel_has_as_many_values_as_its_smaller_side(key):
    kernel = jax.random.normal(key, (3, 3, 8, 16))
    sigma = one(kernel).singular_values
    columns = np.stack([np.asarray(kernel, np.float64)[..., out].ravel() for out in range(16)], axis=1)
    assert sigma.shape == (16,)
    np.testing.assert_allclose(sigma**2, np.linalg.eigvalsh(columns.T @ columns)[::-1], rtol=1e-9)


@pytest.mark.parametrize(("shape", "smaller"), [((9, 4), 4), ((4, 9), 4), ((3, 3, 2, 5), 5)])
def test_orthogonal_kernels(key, shape, smaller):
    found = one(orthogonal(3.0)(key, shape))
    np.testing.assert_allclose(found.singular_values, np.full(smaller, 3.0), rtol=1e-5)
    assert found.condition_log10 == pytest.approx(0.0, abs=1e-5)
    assert found.log_spread == pytest.approx(0.0, abs=1e-5)
    assert found.stable_rank == pytest.approx(smaller, rel=1e-5)
    assert found.isometry_deviation == pytest.approx(64.0, rel=1e-5)


def test_the_condition_of_a_singular_kernel_is_finite():
    found = one(jnp.diag(jnp.array([1.0, 0.0])))
    assert found.sigma_min == 0.0
    assert found.condition_log10 == pytest.approx(12.0)
    assert found.log_spread == pytest.approx(12 * np.log(10) / 2)


def test_a_kernel_of_zeros_has_no_shape():
    found = one(jnp.zeros((3, 2)))
    assert (found.sigma_min, found.sigma_max, found.effective_rank, found.stable_rank) == (0.0, 0.0, 0.0, 0.0)
    assert found.isometry_deviation == 1.0
    assert np.isnan([found.condition_log10, found.log_spread]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_in_nan_out(bad):
    found = weight_spectra({"bad": jnp.ones((2, 3)).at[0, 1].set(bad), "good": jnp.eye(2)})
    assert np.isnan(np.concatenate([np.ravel(value) for value in found["bad"]])).all()
    assert found["bad"].singular_values.shape == (2,)
    assert found["good"].condition_log10 == 0.0


@given(st.sampled_from([(5, 3), (3, 5), (2, 2, 2, 3)]), st.floats(1e-3, 1e3), st.integers(0, 2**31))
@few
def test_it_agrees_with_the_other_measures_and_scales(shape, scale, seed):
    kernel = np.random.default_rng(seed).standard_normal(shape)
    found, scaled = one(kernel), one(scale * kernel)
    matrix = kernel.reshape(-1, shape[-1])
    assert found.effective_rank == pytest.approx(effective_rank(matrix), rel=1e-9)
    assert found.stable_rank == pytest.approx(stable_rank(matrix), rel=1e-9)
    on_device = float(isometry_deviation(jnp.asarray(kernel, jnp.float32)).mean)
    assert found.isometry_deviation == pytest.approx(on_device, rel=1e-3)
    np.testing.assert_allclose(scaled.singular_values, scale * found.singular_values, rtol=1e-9)
    for name in ("condition_log10", "effective_rank", "stable_rank", "log_spread"):
        assert getattr(scaled, name) == pytest.approx(getattr(found, name), rel=1e-6)


def test_float64_stays_float64():
    assert one(np.diag([1.0, 1e-10])).condition_log10 == pytest.approx(10.0, rel=1e-9)


def test_the_mask_selects_and_vectors_are_left_out():
    params = {"head": 5 * jnp.eye(2), "layer": {"bias": jnp.ones(3), "kernel": jnp.eye(3)}}
    assert set(weight_spectra(params)) == {"head", "layer/kernel"}
    assert set(weight_spectra(params, {"head": True, "layer": {"bias": False, "kernel": False}})) == {"head"}


def test_nothing_to_measure_is_refused():
    with pytest.raises(
        UserError, match=r"got a mask that selects none of 1 parameter leaves; wanted at least one leaf"
    ):
        weight_spectra({"bias": jnp.ones(3)})
    with pytest.raises(UserError, match=r"got a parameter of shape \(3,\)"):
        weight_spectra({"bias": jnp.ones(3)}, {"bias": True})
    with pytest.raises(UserError, match=r"got kernels without entries; wanted at least one row and one column"):
        weight_spectra({"kernel": jnp.ones((0, 3))})


def test_means_are_over_hidden_kernels_and_the_head_is_apart(key):
    network = mlp((3,), 2, widths=(3, 3))
    params, state = network.init(key)
    params["dense_0"]["kernel"] = jnp.diag(jnp.array([4.0, 2.0, 1.0]))
    params["dense_1"]["kernel"] = jnp.eye(3)
    params["head"]["kernel"] = 100.0 * jnp.eye(3)[:, :2]
    found = measure("weight-spectra", subject(network, params, state, jnp.ones((2, 3))))
    paths = ("dense_0/kernel", "dense_1/kernel", "head/kernel")
    assert set(found.numbers) == {f"weight_{m}{end}" for m in METRICS for end in ("", *(f"/{path}" for path in paths))}
    assert found.numbers["weight_sigma_max"] == 2.5
    assert found.numbers["weight_sigma_max/head/kernel"] == 100.0
    assert found.numbers["weight_condition_log10/dense_0/kernel"] == pytest.approx(np.log10(4))
    assert found.numbers["weight_condition_log10"] == pytest.approx(np.log10(4) / 2)
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "singular_values/dense_0/kernel": (3,),
        "singular_values/dense_1/kernel": (3,),
        "singular_values/head/kernel": (2,),
    }
    assert found.arrays["singular_values/dense_0/kernel"].tolist() == [4.0, 2.0, 1.0]


def test_a_collapsed_direction_of_a_cnn_is_found(key):
    network = cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(4,))
    params, state = network.init(key)
    path = next(path for path, role in network.wiring.roles.items() if role == "matrix" and "conv" in path)
    module = path.rpartition("/")[0]
    x = jnp.ones((2, 4, 4, 1))
    healthy = measure("weight-spectra", subject(network, params, state, x)).numbers[f"weight_condition_log10/{path}"]
    assert healthy == pytest.approx(0.0, abs=1e-5)
    kernel = params[module]["kernel"]
    params[module] = params[module] | {"kernel": kernel.at[..., 1].set(kernel[..., 0])}
    found = measure("weight-spectra", subject(network, params, state, x))
    assert found.numbers[f"weight_condition_log10/{path}"] > 6
    assert found.arrays[f"singular_values/{path}"].shape == (3,)


def test_without_hidden_kernels_the_head_is_all_there_is(key):
    network = mlp((3,), 2, widths=())
    params, state = network.init(key)
    numbers = measure("weight-spectra", subject(network, params, state, jnp.ones((2, 3)))).numbers
    assert np.isnan(numbers["weight_sigma_max"])
    assert np.isfinite(numbers["weight_sigma_max/head/kernel"])


def test_without_any_kernel_it_is_refused(key):
    network = mlp((3,), 2, widths=())._replace(wiring=Wiring((), {"bias": "bias"}))
    of = subject(network, {"bias": jnp.ones(2)}, {}, jnp.ones((2, 3)))
    with pytest.raises(UserError, match=r"got a network without kernels; wanted at least one matrix\. Leave this diag"):
        DIAGNOSTICS["weight-spectra"].measure(of)


def test_several_seeds_at_once(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = jax.lax.map(network.init, jax.random.split(key, 2))
    diagnostic = DIAGNOSTICS["weight-spectra"]

    def device(params, state):
        return diagnostic.measure(subject(network, params, state, jnp.ones((2, 3))))

    together = jax.jit(jax.vmap(device))(params, state)
    for seed in range(2):
        alone = device(*jax.tree.map(lambda leaf, seed=seed: leaf[seed], (params, state)))
        both = [
            diagnostic.summarize(jax.tree.map(np.asarray, each))
            for each in (jax.tree.map(lambda leaf, seed=seed: leaf[seed], together), alone)
        ]
        assert both[0].numbers == both[1].numbers


def test_the_layout_is_told_or_refused():
    """Orthonormal as 8 × 36."""
    kernel = np.linalg.qr(np.random.default_rng(0).standard_normal((36, 8)))[0].T.reshape(8, 4, 3, 3)
    assert weight_spectra({"conv": kernel}, output_axes=0)["conv"].sigma_max == pytest.approx(1.0)
    assert weight_spectra({"conv": kernel}, output_axes={"conv": (0,)})["conv"].isometry_deviation < 1e-12
    with pytest.raises(UserError, match=r"got the kernel 'conv' of shape .*, in which several axes may be the out"):
        weight_spectra({"conv": kernel})
