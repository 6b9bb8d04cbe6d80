import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from pliant.diagnostics import DIAGNOSTICS, hessian_density, lanczos
from pliant.errors import UserError
from pliant.networks import cnn, mlp
from strict_types import unchecked
from subjects import measure, subject

few = settings(max_examples=25, deadline=None, database=None)
PAIR = np.array([[1.0, 1.0]]), np.array([[2.0]])  # nodes −1 and 3 with weights ½


def diagonal_density(curvature, key, num_steps, num_starts=3, **options):
    curvature = jnp.asarray(curvature, jnp.float32)
    found = lanczos(lambda x: (curvature * x * x).sum() / 2, jnp.zeros(curvature.shape), key, num_steps, num_starts)
    return hessian_density(np.asarray(found.alphas), np.asarray(found.betas), curvature.size, **options)


def mass(found, low, high):
    inside = (found.grid >= low) & (found.grid <= high)
    return np.trapezoid(found.density[inside], found.grid[inside])


def test_golden_numbers():
    found = hessian_density(*PAIR, num_params=100, epsilon=2.0)
    np.testing.assert_allclose(found.nodes, [[-1.0, 3.0]])
    np.testing.assert_allclose(found.weights, [[0.5, 0.5]])
    numbers = found.largest, found.smallest, found.negative_mass, found.epsilon_rank, found.trace, found.num_outliers
    np.testing.assert_allclose(numbers, [3.0, -1.0, 0.5, 0.5, 100.0, 100.0])


def test_golden_curve():
    """σ² is the variance of the kernel for each unit of range: here 0.01 · 4, so s = 0.2."""
    found = hessian_density(*PAIR, num_params=2, variance=0.01)
    np.testing.assert_allclose(found.grid[[0, -1]], [-1.0 - 4 * 0.2, 3.0 + 4 * 0.2])
    np.testing.assert_allclose(np.diff(found.grid), 5.6 / 999)
    peak = 0.5 / (0.2 * np.sqrt(2 * np.pi))
    at = np.interp([-1.0, -0.8, 1.0, 3.0], found.grid, found.density)
    np.testing.assert_allclose(at, [peak, peak * np.exp(-0.5), 0.0, peak], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose([mass(found, -2, 1), mass(found, 1, 4)], 0.5, rtol=1e-2)


def test_a_narrow_spectrum_has_a_kernel_for_a_range_of_one():
    found = hessian_density(np.array([[0.0]]), np.zeros((1, 0)), num_params=1, variance=1e-6)
    np.testing.assert_allclose(found.grid[[0, -1]], [-0.01, 0.01])
    np.testing.assert_allclose(found.density.max(), 1 / np.sqrt(2 * np.pi * 1e-6), rtol=1e-3)


@given(st.floats(1e-3, 1e5), st.integers(2, 12), st.integers(0, 2**31))
@few
def test_the_density_integrates_to_one_and_has_the_mean_of_the_nodes(scale, num_steps, seed):
    """Also where the kernel of the reference would fall between two points of the grid."""
    draw = np.random.default_rng(seed)
    alphas = scale * draw.standard_normal((2, num_steps))
    found = hessian_density(alphas, scale * draw.uniform(0.5, 1.0, (2, num_steps - 1)), num_params=50)
    np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1.0, rtol=1e-9)
    assert (found.density >= 0).all()
    extent = found.grid[-1] - found.grid[0]
    mean = np.trapezoid(found.density * found.grid, found.grid)
    np.testing.assert_allclose(mean, (found.weights * found.nodes).sum(axis=1).mean(), atol=1e-3 * extent)
    np.testing.assert_allclose(found.trace, 50 * alphas[:, 0].mean(), rtol=1e-9, atol=1e-9 * scale)


def test_the_trace_of_a_diagonal_hessian_is_exact(key):
    curvature = np.linspace(-1.0, 4.0, 40)
    found = diagonal_density(curvature, key, num_steps=5)
    np.testing.assert_allclose(found.trace, curvature.sum(), rtol=1e-5)


def test_a_known_spectrum_is_found(key):
    """Flat directions, a negative bulk and three outliers; five distinct eigenvalues, so Lanczos ends early."""
    curvature = [0.0] * 80 + [-0.2] * 10 + [0.05] * 7 + [10.0, 10.0, 20.0]
    found = diagonal_density(curvature, key, num_steps=12)
    numbers = found.largest, found.smallest, found.negative_mass, found.epsilon_rank, found.num_outliers
    np.testing.assert_allclose(numbers, [20.0, -0.2, 0.1, 0.13, 3.0], rtol=1e-3)
    assert np.isnan(found.nodes[:, 5:]).all()
    assert not found.weights[:, 5:].any()
    np.testing.assert_allclose([mass(found, -1, 1), mass(found, 9, 11), mass(found, 19, 21)], [0.97, 0.02, 0.01], 1e-2)


def test_what_is_negative_is_relative_to_the_largest():
    alphas, betas = np.diag([-1.0, 2.0, 100.0]) @ np.ones((3, 1)), np.zeros((3, 0))
    for tolerance, wanted in ((3e-3, 1 / 3), (0.0, 1 / 3), (0.02, 0.0)):
        assert hessian_density(alphas, betas, 9, tolerance=tolerance).negative_mass == pytest.approx(wanted)


def test_rounding_makes_no_negative_mass(key):
    curvature = np.concatenate([np.zeros(300), np.linspace(0.1, 50.0, 30)])
    assert diagonal_density(curvature, key, num_steps=60, tolerance=1e-5).negative_mass == 0.0


@given(st.integers(0, 2**31))
@few
def test_the_order_of_starts_does_not_matter(seed):
    draw = np.random.default_rng(seed)
    alphas, betas = draw.standard_normal((4, 3)), draw.uniform(0.5, 1.0, (4, 2))
    one, other = hessian_density(alphas, betas, 9), hessian_density(alphas[::-1], betas[::-1], 9)
    np.testing.assert_allclose(one.density, other.density, atol=1e-12)
    np.testing.assert_allclose(one[4:], other[4:])


def test_a_hessian_of_zeros_is_one_peak():
    found = hessian_density(np.array([[0.0, np.nan]]), np.array([[0.0]]), num_params=7)
    assert tuple(found[4:]) == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    np.testing.assert_allclose(mass(found, -0.01, 0.01), 1.0, rtol=1e-2)


def test_nan_in_nan_out():
    alphas = np.array([[1.0, 2.0], [np.nan, np.nan]])
    found = hessian_density(alphas, np.array([[1.0], [np.nan]]), num_params=7)
    assert np.isnan(found.density).all()
    assert np.isnan(found.grid).all()
    assert np.isnan(found[4:]).all()
    assert not np.isnan(found.nodes[0]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_params": 1}, "got num_params=1 and 2 steps; wanted at least as many"),
        ({"variance": 0.0}, "got variance=0.0; wanted a finite number"),
        ({"epsilon": -1.0}, "got epsilon=-1.0; wanted a finite number ≥ 0"),
        ({"tolerance": -1.0}, "got tolerance=-1.0; wanted a finite number ≥ 0"),
        ({"num_points": 1}, "got num_points=1; wanted a finite number ≥ 2"),
    ],
)
def test_what_is_out_of_range_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        hessian_density(*PAIR, **({"num_params": 9} | options))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_nothing_to_measure_is_refused(shape):
    with pytest.raises(UserError, match="wanted at least one start and one step of Lanczos"):
        unchecked(hessian_density)(np.zeros(shape), np.zeros(shape), 9)


@pytest.fixture(scope="module")
def net():
    network = mlp((3,), 2, widths=(4, 4), activation="tanh")
    params, state = network.init(jax.random.key(0))
    of = subject(network, params, state, jax.random.normal(jax.random.key(1), (16, 3)))
    diagnostic = DIAGNOSTICS["hessian-density"]
    run = jax.jit(lambda params: diagnostic.measure(of._replace(params=params)))
    return params, lambda params: diagnostic.summarize(jax.tree.map(np.asarray, run(params)))


def test_diagnostic_has_its_numbers_and_arrays(net):
    params, measured = net
    num_params = ravel_pytree(params)[0].size
    found = measured(params)
    assert list(found.numbers) == [
        "hessian_density_largest",
        "hessian_density_smallest",
        "hessian_negative_mass",
        "hessian_epsilon_rank",
        "hessian_trace",
        "hessian_num_outliers",
    ]
    assert num_params < 90
    assert {name: array.shape for name, array in found.arrays.items()} == {
        "grid": (1000,),
        "density": (1000,),
        "nodes": (10, num_params),
        "weights": (10, num_params),
    }
    assert np.isfinite(list(found.numbers.values())).all()
    assert 1 <= found.numbers["hessian_num_outliers"] <= num_params
    np.testing.assert_allclose(found.arrays["weights"].sum(axis=1), 1.0, rtol=1e-9)
    assert DIAGNOSTICS["hessian-density"].cost == "rare"


def test_diagnostic_is_the_density_of_the_dense_hessian(net):
    """The same probe loss, its dense Hessian by NumPy, and the distance between the two distributions."""
    params, measured = net
    network = mlp((3,), 2, widths=(4, 4), activation="tanh")
    x = jax.random.normal(jax.random.key(1), (16, 3))
    flat, unravel = ravel_pytree(params)
    output = network.apply(params, {}, x, train=False, key=None)[0]
    noise, _ = jax.random.split(jax.random.key(7))
    targets = output + output.std() * jax.random.normal(noise, output.shape)

    def loss(flat):
        return jnp.square(network.apply(unravel(flat), {}, x, train=False, key=None)[0] - targets).mean()

    matrix = np.asarray(jax.jit(jax.hessian(loss))(flat), np.float64)
    exact = np.linalg.eigvalsh(matrix)
    found = measured(params)
    numbers = found.numbers["hessian_density_largest"], found.numbers["hessian_density_smallest"]
    np.testing.assert_allclose(numbers, [exact[-1], exact[0]], rtol=1e-3)
    deviation = np.sqrt(2 * (np.sum(matrix**2) - np.sum(np.diag(matrix) ** 2)) / 10)  # of a Rademacher trace
    assert abs(found.numbers["hessian_trace"] - exact.sum()) < 4 * deviation
    of_start = np.sort(found.arrays["nodes"].ravel())
    shares = found.arrays["weights"].ravel()[np.argsort(found.arrays["nodes"].ravel())] / 10
    at = np.linspace(exact[0] - 0.1, exact[-1] + 0.1, 2000)
    ours = np.array([shares[of_start <= t].sum() for t in at])
    theirs = np.array([(exact <= t).mean() for t in at])
    distance = np.trapezoid(np.abs(ours - theirs), at)
    assert distance < 0.02 * (exact[-1] - exact[0])


def test_diagnostic_of_nan_and_of_a_silent_network(net):
    params, measured = net
    broken = measured(jax.tree.map(lambda leaf: leaf * jnp.nan, params))
    assert np.isnan(list(broken.numbers.values())).all()
    assert np.isnan(broken.arrays["density"]).all()
    silent = measured(jax.tree.map(jnp.zeros_like, params))
    np.testing.assert_allclose(
        silent.numbers["hessian_trace"], 2.0, rtol=1e-5
    )  # of the head's two biases: 2 · 1/2 each
    assert silent.numbers["hessian_negative_mass"] == 0.0


def test_diagnostic_on_a_cnn(key):
    network = cnn((4, 4, 4), 3, channels=(3,), kernel_sizes=(3,), strides=(2,), pool=(1,), widths=())
    params, state = network.init(key)
    found = measure("hessian-density", subject(network, params, state, jax.random.normal(key, (8, 4, 4, 4))))
    assert found.arrays["nodes"].shape == (10, 90)
    assert found.numbers["hessian_trace"] > 0
    np.testing.assert_allclose(np.trapezoid(found.arrays["density"], found.arrays["grid"]), 1.0, rtol=1e-9)


def test_large_networks_get_fewer_steps(monkeypatch):
    """Vectors of Lanczos are kept below a number in all; nothing is computed here."""
    monkeypatch.setattr("pliant.diagnostics._hessian_density._MOST_NUMBERS", 1000)
    network = mlp((10,), 2, widths=(8,))
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    of = subject(network, params, state, jnp.ones((4, 10)))
    shapes = jax.eval_shape(lambda params: DIAGNOSTICS["hessian-density"].measure(of._replace(params=params)), params)
    assert shapes["alphas"].shape == (10, 1000 // (88 + 18))


def test_no_examples_are_refused(key):
    network = mlp((3,), 2, widths=(4,))
    params, state = network.init(key)
    with pytest.raises(UserError, match="got an empty batch"):
        measure("hessian-density", subject(network, params, state, jnp.ones((0, 3))))
