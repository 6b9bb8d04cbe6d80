import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import UserError
from pliant.isometry import matrix_view
from pliant.methods import METHODS
from pliant.networks import from_nnx, mlp, orthogonal
from pliant.networks.blocks._newton_schulz import (
    OrthogonalConv,
    OrthogonalDense,
    cans,
    cans_coefficients,
    newton_schulz,
    reproject,
)
from pliant.types import Wiring


def with_singular_values(key, shape, values):
    """A kernel with random singular vectors, and its polar factor."""
    left, right = jax.random.split(key)
    rows, columns = int(np.prod(shape[:-1])), shape[-1]
    size = min(rows, columns)
    u = np.asarray(orthogonal(1.0)(left, (rows, size)), np.float64)
    v = np.asarray(orthogonal(1.0)(right, (columns, size)), np.float64)
    return jnp.asarray(((u * values) @ v.T).reshape(shape), jnp.float32), (u @ v.T).reshape(shape)


def singular_values(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


@pytest.mark.parametrize(
    ("start", "end"), [(0.05, 0.714), (0.1, 0.966), (0.2, 0.99997), (1.0, 1.0), (1.5, 1.0), (1.7, 0.817)]
)
def test_seven_iterations_golden(start, end):
    np.testing.assert_allclose(newton_schulz(jnp.array([[start]]), iterations=7)[0, 0], end, atol=5e-4)


def test_one_iteration_golden():
    np.testing.assert_allclose(newton_schulz(jnp.array([[0.5]]), iterations=1), [[0.6875]], rtol=1e-6)
    np.testing.assert_array_equal(newton_schulz(jnp.array([[0.5, 2.0]]), iterations=0), [[0.5, 2.0]])


@pytest.mark.parametrize(
    ("order", "bound", "beyond"), [(1, 3**0.5, -1), (2, (7 / 3) ** 0.5, None), (3, 1.58929, -1), (4, 1.49438, None)]
)
def test_each_order_converges_below_its_bound_and_not_above(order, bound, beyond):
    """Where the polynomial is 0 for the odd orders, and where it is σ for the even ones."""
    inside = jnp.append(jnp.linspace(0.01, bound, 100, endpoint=False), bound - 1e-4)
    ends = jax.vmap(lambda sigma: newton_schulz(sigma[None, None], iterations=40, order=order))(inside)
    np.testing.assert_allclose(ends[:, 0, 0], 1.0, atol=1e-5)
    outside = newton_schulz(jnp.array([[bound + 1e-4]]), iterations=40, order=order)
    if beyond is None:
        assert not np.isfinite(outside)
    else:
        np.testing.assert_allclose(outside, beyond, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_each_order_is_its_polynomial_of_the_singular_values(key, shape, order):
    coefficients = {
        1: [3 / 2, -1 / 2],
        2: [15 / 8, -5 / 4, 3 / 8],
        3: [35 / 16, -35 / 16, 21 / 16, -5 / 16],
        4: [315 / 128, -105 / 32, 189 / 64, -45 / 32, 35 / 128],
    }[order]
    sigma = np.linspace(0.3, 1.1, min(shape))
    matrix, polar = with_singular_values(key, shape, sigma)
    wanted = sum(c * sigma ** (2 * i + 1) for i, c in enumerate(coefficients))
    result = newton_schulz(matrix, iterations=1, order=order)
    np.testing.assert_allclose(singular_values(result), np.sort(wanted)[::-1], rtol=1e-5)
    np.testing.assert_allclose(newton_schulz(matrix, iterations=12, order=order), polar, atol=2e-6)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_orthogonal_matrices_stay_what_they_are(key, order):
    matrix = orthogonal(1.0)(key, (8, 5))
    np.testing.assert_allclose(newton_schulz(matrix, order=order), matrix, atol=1e-6)


def test_64_by_64_after_seven_iterations(key):
    matrix, _ = with_singular_values(key, (64, 64), np.linspace(0.3, 1.0, 64))
    q = np.asarray(newton_schulz(matrix), np.float64)
    assert np.linalg.norm(q.T @ q - np.eye(64)) < 1e-3


@pytest.mark.parametrize(
    ("lower", "wanted"),
    [
        (0.1, [(3.9634, -3.5706), (1.8497, -0.5491), (1.5840, -0.5119), (1.5046, -0.5007), (1.5, -0.5)]),
        (
            0.01,
            [
                (5.0398, -4.9894),
                (2.4672, -0.6323),
                (2.2968, -0.6097),
                (2.0020, -0.5700),
                (1.6801, -0.5255),
                (1.5215, -0.5031),
                (1.5003, -0.5),
            ],
        ),
        (
            0.001,
            [
                (5.1801, -5.1749),
                (2.5840, -0.6477),
                (2.5621, -0.6448),
                (2.5076, -0.6377),
                (2.3821, -0.6211),
                (2.1375, -0.5884),
                (1.8031, -0.5426),
            ],
        ),
    ],
)
def test_cans_coefficients_golden(lower, wanted):
    steps = cans_coefficients(lower, len(wanted))
    assert all(isinstance(c, float) for step in steps for c in step)
    np.testing.assert_allclose(steps, wanted, atol=6e-5)


@given(lower=st.floats(1e-4, 0.99))
@settings(max_examples=30, deadline=None, database=None)
def test_cans_steps_equioscillate(lower):
    a, b = lower, 1.0
    for linear, cubic in cans_coefficients(lower, 4):
        s = np.sqrt((a * a + a * b + b * b) / 3)
        error = 1 - (linear * a + cubic * a**3)
        np.testing.assert_allclose(1 - (linear * b + cubic * b**3), error, atol=1e-12)
        np.testing.assert_allclose(linear * s + cubic * s**3 - 1, error, atol=1e-12)
        inside = np.linspace(a, b, 101)
        assert np.abs(linear * inside + cubic * inside**3 - 1).max() < error + 1e-12
        a, b = 1 - error, 1 + error


def test_cans_is_within_its_error_where_newton_schulz_is_not():
    sigma = np.linspace(0.01, 1.0, 1001)
    fast, slow = sigma, sigma
    for linear, cubic in cans_coefficients(0.01, 7):
        fast, slow = linear * fast + cubic * fast**3, 1.5 * slow - 0.5 * slow**3
    np.testing.assert_allclose(np.abs(fast - 1).max(), 2.6e-4, rtol=0.02)
    np.testing.assert_allclose(np.abs(slow - 1).max(), 0.83, rtol=0.01)


def test_cans_cubics_flip_what_exceeds_their_bound():
    linear, cubic = cans_coefficients(0.001, 1)[0]
    assert linear + cubic > 0
    assert linear * 1.0006 + cubic * 1.0006**3 < 0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("shape", [(20, 12), (12, 20), (16, 16)])
def test_cans_takes_any_scale_and_flips_nothing(key, shape, scale):
    matrix, polar = with_singular_values(key, shape, scale * np.geomspace(0.05, 1.0, min(shape)))
    np.testing.assert_allclose(cans(matrix), polar, atol=5e-4)
    single, polar = with_singular_values(key, shape, scale * (np.arange(min(shape)) == 0))  # the bound is attained
    rank_one = np.asarray(cans(single, lower=1e-3, iterations=12), np.float64)
    np.testing.assert_allclose(singular_values(rank_one)[0], 1.0, atol=1e-3)
    assert np.vdot(rank_one, single) > 0


def test_cans_leaves_zero_and_its_gradient_finite():
    value, gradient = jax.value_and_grad(lambda x: cans(x).sum())(jnp.zeros((3, 2)))
    assert value == 0.0
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 8)])
def test_reproject_gives_the_polar_factor(key, shape):
    size = min(int(np.prod(shape[:-1])), shape[-1])
    kernel, polar = with_singular_values(key, shape, 30.0 * np.geomspace(0.05, 1.0, size))
    result = reproject(kernel)
    np.testing.assert_allclose(result, polar, atol=3e-6)
    np.testing.assert_allclose(reproject(result), result, atol=2e-6)
    batch = jnp.stack([kernel, 2.0 * kernel])
    np.testing.assert_allclose(jax.jit(jax.vmap(reproject))(batch)[1], polar, atol=3e-6)


def test_narrow_types_are_computed_in_float32(key):
    kernel, _ = with_singular_values(key, (6, 4), np.linspace(0.5, 1.0, 4))
    narrow = kernel.astype(jnp.bfloat16)
    assert reproject(narrow).dtype == jnp.bfloat16
    assert newton_schulz(narrow).dtype == cans(narrow).dtype == jnp.float32
    np.testing.assert_allclose(singular_values(cans(narrow)), np.ones(4), atol=3e-4)


@pytest.mark.parametrize("function", [newton_schulz, cans, reproject])
def test_rows_of_zeros_stay_zero(key, function):
    """So a unit whose readers are zero stays cut off behind the orthogonalisation."""
    matrix = jax.random.normal(key, (6, 4)).at[2].set(0.0)
    assert not np.any(function(matrix / 6.0)[2])
    assert not np.any(function(matrix.T / 6.0)[:, 2])


class Single(nnx.Module):
    """One orthogonal layer as a network."""

    def __init__(self, make, rngs):
        self.layer = make(rngs)

    def __call__(self, x, *, train, key):
        return self.layer(x, train=train), {}


def network_of(make):
    roles = {"layer/kernel": "matrix", "layer/bias": "bias"}
    return from_nnx(lambda rngs: Single(make, rngs), Wiring((), roles))


LAYERS = {
    "dense": (lambda rngs, **options: OrthogonalDense(8, 6, rngs=rngs, **options), (5, 8)),
    "wide": (lambda rngs, **options: OrthogonalDense(6, 8, rngs=rngs, **options), (5, 6)),
    "conv": (lambda rngs, **options: OrthogonalConv(2, 4, (3, 3), strides=2, rngs=rngs, **options), (3, 5, 5, 2)),
}
KINDS = ["newton-schulz", "cans"]


def prepared(name, kind, key, values=None, **options):
    make, shape = LAYERS[name]
    network = network_of(lambda rngs: make(rngs, kind=kind, **options))
    params, state = network.init(key)
    kernel = params["layer"]["kernel"]
    size = min(matrix_view(kernel).shape)
    spread = np.geomspace(0.2, 1.0, size) if values is None else values
    params["layer"]["kernel"], polar = with_singular_values(jax.random.fold_in(key, 1), kernel.shape, spread)
    return network, params, state, jax.random.normal(key, shape), polar


def trained(network, params, state, x, times):
    def step(_, state):
        return network.apply(params, state, x, train=True, key=None)[2]

    return jax.jit(lambda state: jax.lax.fori_loop(0, times, step, state))(state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_start_as_their_weights(key, name, kind):
    make, shape = LAYERS[name]
    network = network_of(lambda rngs: make(rngs, kind=kind))
    params, state = network.init(key)
    assert set(params["layer"]) == {"kernel", "bias"}
    assert (state == {}) == (kind == "cans")
    x = jax.random.normal(key, shape)
    params["layer"]["bias"] += 0.5
    y = network.apply(params, state, x, train=False, key=None)[0]
    np.testing.assert_allclose(y, plain(params["layer"]["kernel"], x) + 0.5, atol=2e-3)


def plain(kernel, x):
    if kernel.ndim == 2:
        return np.asarray(x) @ np.asarray(kernel)
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, jnp.asarray(kernel, jnp.float32), (2, 2), "SAME", dimension_numbers=numbers)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_apply_the_polar_factor(key, name, kind):
    network, params, state, x, polar = prepared(name, kind, key, gain=0.5)
    state = trained(network, params, state, x, 30)
    y = network.apply(params, state, x, train=False, key=None)[0]
    np.testing.assert_allclose(y, 0.5 * plain(polar, x), atol=2e-3)


@pytest.mark.parametrize("name", LAYERS)
def test_reprojecting_the_weights_changes_no_output(key, name):
    """For a condition number of 5, as the largest that seven iterations forgive is 8."""
    network, params, state, x, _ = prepared(name, "newton-schulz", key)
    state = trained(network, params, state, x, 30)
    before = network.apply(params, state, x, train=False, key=None)[0]
    after = {"layer": params["layer"] | {"kernel": reproject(params["layer"]["kernel"])}}
    assert np.abs(after["layer"]["kernel"] - params["layer"]["kernel"]).max() > 0.1
    np.testing.assert_allclose(network.apply(after, state, x, train=False, key=None)[0], before, atol=1e-3)


def test_guard_is_one_power_iteration_a_training_step(key):
    network, params, state, x, _ = prepared("dense", "newton-schulz", key, values=np.linspace(0.5, 3.0, 6))
    kernel = np.asarray(params["layer"]["kernel"], np.float64)
    u = np.asarray(state["layer"]["u"], np.float64)
    _, _, kept = network.apply(params, state, x, train=False, key=None)
    jax.tree.map(np.testing.assert_array_equal, kept, state)
    _, _, moved = network.apply(params, state, x, train=True, key=None)
    v = kernel.T @ u / np.linalg.norm(kernel.T @ u)
    u = kernel @ v / np.linalg.norm(kernel @ v)
    np.testing.assert_allclose(moved["layer"]["v"], v, atol=1e-6)
    np.testing.assert_allclose(moved["layer"]["u"], u, atol=1e-6)
    state = trained(network, params, state, x, 100)
    estimate = np.asarray(state["layer"]["u"]) @ kernel @ np.asarray(state["layer"]["v"])
    np.testing.assert_allclose(estimate, 3.0, rtol=1e-5)


@pytest.mark.parametrize(("sigma", "scale"), [(0.5, 1.0), (0.96, 1.05 * 0.96), (4.0, 4.2)])
def test_scale_is_the_estimate_with_a_margin_but_not_below_one(key, sigma, scale):
    network, params, state, x, polar = prepared("dense", "newton-schulz", key, values=np.full(6, sigma), iterations=1)
    y = network.apply(params, state, x, train=True, key=None)[0]
    start = sigma / scale
    np.testing.assert_allclose(y, (1.5 * start - 0.5 * start**3) * plain(polar, x), atol=1e-5)


@pytest.mark.parametrize("largest", [0.3, 0.9, 1.0, 4.0])
def test_seven_iterations_take_0_13_of_the_larger_of_1_and_the_largest_above_0_99(key, largest):
    floor = 0.13 * max(1.0, largest)
    values = np.array([largest, floor, floor, floor, floor, 0.5 * floor])
    network, params, state, x, _ = prepared("dense", "newton-schulz", key, values=values)
    state = trained(network, params, state, x, 30)
    jacobian = jax.jacobian(lambda x: network.apply(params, state, x[None], train=False, key=None)[0][0])(x[0])
    ends = singular_values(jacobian)
    assert np.all((ends[:5] > 0.99) & (ends[:5] < 1.001))
    assert ends[5] < 0.9


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_guard_forgives_1_56_times_its_estimate_with_every_order(key, order):
    """Vectors that are a mixture of two singular directions."""
    kernel = jnp.diag(jnp.array([3.0, 0.1]))
    part = (1 / 1.56 - 0.1 / 3) / (1 - 0.1 / 3)  # of the larger one in the estimate
    mixture = jnp.sqrt(jnp.array([part, 1 - part]))
    layer = OrthogonalDense(2, 2, order=order, iterations=30, rngs=nnx.Rngs(0))
    layer.kernel[...], layer.u[...], layer.v[...] = kernel, mixture, mixture
    np.testing.assert_allclose(layer(jnp.eye(2), train=False), jnp.eye(2), atol=1e-4)


def test_guard_outlives_a_kernel_of_zeros(key):
    network, params, state, x, _ = prepared("dense", "newton-schulz", key, values=np.zeros(6))
    y, _, after = network.apply(params, state, x, train=True, key=None)
    assert not np.any(y)
    np.testing.assert_array_equal(after["layer"]["u"], state["layer"]["u"])
    assert np.linalg.norm(after["layer"]["u"]) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_go_through_all_iterations(key, name, kind):
    """Against finite differences of the whole layer, iterations and scale included."""
    network, params, state, x, _ = prepared(name, kind, key, values=None)
    state = trained(network, params, state, x, 30)

    @jax.jit
    def loss(kernel):
        layer = params["layer"] | {"kernel": kernel}
        return jnp.sum(jnp.sin(network.apply({"layer": layer}, state, x, train=False, key=None)[0]))

    kernel = params["layer"]["kernel"]
    direction = jax.random.normal(jax.random.fold_in(key, 2), kernel.shape)
    direction = direction / jnp.linalg.norm(direction)
    value = jnp.vdot(jax.grad(loss)(kernel), direction)
    step = 3e-3
    differences = (loss(kernel + step * direction) - loss(kernel - step * direction)) / (2 * step)
    np.testing.assert_allclose(value, differences, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(jax.jvp(loss, (kernel,), (direction,))[1], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), [("dense", "cans"), ("conv", "newton-schulz")])
def test_trains_in_a_loop_with_gradients_of_gradients_under_vmap(key, name, kind):
    make, shape = LAYERS[name]
    network = network_of(lambda rngs: make(rngs, kind=kind, iterations=3))
    x = jax.random.normal(key, shape)

    def loss(params, state):
        y, _, state = network.apply(params, state, x, train=True, key=None)
        return jnp.mean(jnp.sin(y)), state

    def penalised(params, state):
        gradient, state = jax.grad(loss, has_aux=True)(params, state)
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient)), state

    def step(_, carry):
        params, state = carry
        gradients, state = jax.grad(penalised, has_aux=True)(params, state)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), state

    def run(seed):
        return jax.lax.fori_loop(0, 3, step, network.init(jax.random.key(seed)))

    together = jax.jit(jax.vmap(run))(jnp.arange(2))
    alone = jax.jit(run)(1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-3, atol=1e-5), together, alone)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(together))
    start = network.init(jax.random.key(1))[0]["layer"]["kernel"]
    assert np.abs(alone[0]["layer"]["kernel"] - start).max() > 1e-5


def test_convolution_is_an_isometry_where_patches_do_not_overlap(key):
    layer = OrthogonalConv(2, 8, (2, 2), strides=2, padding="VALID", use_bias=False, rngs=nnx.Rngs(0))
    x = jax.random.normal(key, (3, 4, 4, 2))
    np.testing.assert_allclose(jnp.linalg.norm(layer(x)), jnp.linalg.norm(x), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_convolution_is_the_dense_layer_at_every_pixel(key, kind):
    dense = OrthogonalDense(6, 4, kind=kind, rngs=nnx.Rngs(0))
    convolution = OrthogonalConv(6, 4, (1, 1), kind=kind, rngs=nnx.Rngs(0))
    dense.kernel[...], _ = with_singular_values(key, (6, 4), np.linspace(0.5, 3.0, 4))
    convolution.kernel[...] = dense.kernel[...][None, None]
    dense.bias[...] = convolution.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(key, (2, 3, 5, 6))
    for train in (True, True, False):
        pixels = dense(x.reshape(-1, 6), train=train)
        np.testing.assert_allclose(convolution(x, train=train), pixels.reshape(2, 3, 5, 4), atol=1e-5)


@pytest.mark.parametrize("widths", [(16, 16, 16), (24, 8, 16)])
@pytest.mark.parametrize("sigma", [None, np.linspace(0.2, 3.0, 8)], ids=["start", "far"])
def test_newton_schulz_maxmin_has_lipschitz_constant_1(key, widths, sigma):
    network = mlp((12,), 10, widths=widths, **METHODS["newton-schulz-maxmin"].network)
    params, state = network.init(key)
    for i in range(len(widths)):
        layer = params[f"dense_{i}"]
        layer["bias"] += jnp.sin(jnp.arange(layer["bias"].size))
        if sigma is not None:
            size = min(layer["kernel"].shape)
            values = np.interp(np.linspace(0, 1, size), np.linspace(0, 1, 8), sigma)
            layer["kernel"], _ = with_singular_values(jax.random.fold_in(key, i), layer["kernel"].shape, values)
    points = 2.0 * jax.random.normal(jax.random.fold_in(key, 9), (32, 12))
    state = trained(network, params, state, points, 30)

    def output(points):
        return network.apply(params, state, points, train=False, key=None)[0]

    slopes = [singular_values(jacobian)[0] for jacobian in jax.vmap(jax.jacobian(lambda x: output(x[None])[0]))(points)]
    assert max(slopes) < 1 + 1e-4
    assert max(slopes) > 0.9, "isometric layers: the bound is nearly attained"
    apart, between = output(points[:16]) - output(points[16:]), points[:16] - points[16:]
    assert np.all(jnp.linalg.norm(apart, axis=-1) <= (1 + 1e-4) * jnp.linalg.norm(between, axis=-1))


def test_convolution_stretches_at_most_by_the_root_of_the_patch(key):
    layer = OrthogonalConv(3, 4, (3, 3), use_bias=False, rngs=nnx.Rngs(0))
    jacobian = jax.jacfwd(lambda x: layer(x[None])[0])(jnp.zeros((5, 5, 3))).reshape(100, 75)
    assert 1.0 <= singular_values(jacobian)[0] <= 3.0


def test_padding_and_bias_are_those_of_a_plain_convolution(key):
    layer = OrthogonalConv(3, 4, (3, 3), strides=2, padding=((1, 1), (1, 1)), rngs=nnx.Rngs(0))
    assert layer(jnp.ones((2, 5, 7, 3))).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: newton_schulz(jnp.eye(2), iterations=-1), "got iterations=-1; wanted a finite number ≥ 0. Use 7"),
        (lambda: newton_schulz(jnp.eye(2), order=0), r"got order=0; wanted a number in \[1, 4\]. Use 1"),
        (lambda: newton_schulz(jnp.eye(2), order=5), r"got order=5; wanted a number in \[1, 4\]"),
        (lambda: cans(jnp.eye(2), lower=0.0), r"got lower=0.0; wanted a number in \[0.0001, 0.99\]. Use 0.01"),
        (lambda: cans_coefficients(1.0, 2), "got lower=1.0"),
        (lambda: reproject(jnp.ones(3)), r"got a parameter of shape \(3,\); wanted a dense"),
        (lambda: reproject(jnp.eye(2), iterations=-1), "got iterations=-1"),
        (lambda: OrthogonalDense(3, 2, iterations=0, rngs=nnx.Rngs(0)), "got linear_iterations=0; .* ≥ 1. Use 7"),
        (lambda: OrthogonalDense(3, 2, order=5, rngs=nnx.Rngs(0)), "got order=5"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize("kind", ["plain", "newton"])
def test_refuses_unknown_kinds(kind, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=rf"got the linear layer '{kind}'; wanted one of cans, newton-schulz\. .*Leave"):
        OrthogonalDense(3, 2, kind=kind, rngs=nnx.Rngs(0))
