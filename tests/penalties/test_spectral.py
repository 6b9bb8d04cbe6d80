import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.isometry import matrix_view
from pliant.networks import mlp
from pliant.penalties import SpectralState, spectral
from strict_types import unchecked

DIAGONAL = jnp.diag(jnp.array([2.0, 1.0]))


def carried(penalty, params, num_updates=50):
    """The state after so many updates on the same parameters."""
    state = penalty.init(params)
    return jax.lax.fori_loop(0, num_updates, lambda _, state: penalty.loss(params, state, None)[1], state)


def value_and_gradient(penalty, params, num_updates=50):

    @jax.jit
    def both(params):
        state = carried(penalty, params, num_updates)
        return jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(params)

    return both(params)


@jax.jit
def norm_of(params, num_updates):
    """The estimate: for k = 1 and a gain far below, it is the root of the penalty plus the gain."""
    penalty = spectral(1.0, exponent=1, gain=1e-6)
    return jnp.sqrt(penalty.loss(params, carried(penalty, params, num_updates), None)[0]) + 1e-6


@pytest.mark.parametrize(
    ("exponent", "value", "slope"),
    [(2, (4 - 1) ** 2, 2 * (4 - 1) * 4), (1, 1.0, 2.0), (3, (8 - 1) ** 2, 2 * (8 - 1) * 12)],
)
def test_golden(exponent, value, slope):
    """For k = 2 it is the largest singular value's share of the Gram deviation."""
    found, gradient = value_and_gradient(spectral(1.0, exponent=exponent), DIAGONAL)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    np.testing.assert_allclose(gradient, np.diag([slope, 0.0]), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("exponent", "value"), [(1, 25.0), (2, 625.0)])
def test_biases_golden(exponent, value):
    params = {"bias": jnp.array([3.0, 4.0]), "kernel": jnp.eye(2)}
    is_bias = {"bias": True, "kernel": False}
    penalty = spectral(1.0, exponent=exponent, bias_mask=is_bias)
    found, gradient = value_and_gradient(penalty, params)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    slope = exponent * 25.0 ** (exponent - 1) * 2 * np.array([3.0, 4.0])
    np.testing.assert_allclose(gradient["bias"], slope, rtol=1e-5)


@pytest.mark.parametrize("exponent", [1, 2, 3])
def test_biases_and_kernels_of_zeros_have_a_finite_gradient(exponent):
    """‖b‖²ᵏ without a root of 0."""
    params = {"bias": jnp.zeros(2), "kernel": jnp.zeros((3, 2))}
    penalty = spectral(1.0, exponent=exponent, bias_mask={"bias": True, "kernel": False})
    value, gradient = value_and_gradient(penalty, params, num_updates=3)
    assert float(value) == 1.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("shape", [(8, 5), (5, 8), (6, 6), (3, 3, 2, 4)])
def test_estimate_reaches_the_spectral_norm(key, shape):
    kernel = jax.random.normal(key, shape)
    sigma = np.linalg.svd(np.asarray(matrix_view(kernel), np.float64), compute_uv=False)[0]
    first, second, last = (norm_of(kernel, num_updates) for num_updates in (0, 1, 50))
    assert first < second < last < sigma + 1e-4
    np.testing.assert_allclose(last, sigma, atol=1e-4 * sigma)


def test_one_iteration_an_update_follows_slow_weights(key):
    """Where an estimate that begins anew each time stays far too small."""
    kernel, drift = jax.random.normal(key, (2, 24, 24)) / 24**0.5
    penalty = spectral(1.0, exponent=1, gain=1e-6)
    state, restarted, loss = penalty.init(kernel), penalty.init(kernel), jax.jit(penalty.loss)
    for step in range(60):
        now = kernel + 0.01 * step * drift
        value, state = loss(now, state, None)
    sigma = np.linalg.svd(np.asarray(now, np.float64), compute_uv=False)[0]
    assert np.sqrt(value) > 0.99 * sigma
    assert np.sqrt(penalty.loss(now, restarted, None)[0]) < 0.9 * sigma


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("column", range(3))
def test_no_single_weight_escapes_the_first_vector(row, column):
    kernel = jnp.zeros((5, 3)).at[row, column].set(-7.0)
    np.testing.assert_allclose(norm_of(kernel, 0), 7.0, rtol=1e-5)


def test_gradient_is_that_of_the_leading_singular_value(key):
    kernel = jax.random.normal(key, (7, 4))
    _, gradient = value_and_gradient(spectral(0.5, exponent=1), kernel, num_updates=200)
    u, sigma, v = np.linalg.svd(np.asarray(kernel, np.float64))
    np.testing.assert_allclose(gradient, 0.5 * 2 * (sigma[0] - 1) * np.outer(u[:, 0], v[0]), atol=1e-4)


def test_gain_is_what_is_aimed_at():
    value, gradient = value_and_gradient(spectral(1.0, gain=2.0), DIAGONAL)
    np.testing.assert_allclose(value, 0.0, atol=1e-6)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-4)


def test_vectors_are_carried_through_jit_and_vmap(key):
    kernels = jax.random.normal(key, (3, 6, 4))
    penalty = spectral(1.0)

    def norms(kernel):
        state = carried(penalty, kernel, 10)
        return penalty.loss(kernel, state, None)

    together, states = jax.jit(jax.vmap(norms))(kernels)
    assert states.u[0].shape == (3, 6)
    for seed in range(3):
        value, state = norms(kernels[seed])
        np.testing.assert_allclose(together[seed], value, rtol=1e-5)
        np.testing.assert_allclose(states.u[0][seed], state.u[0], atol=1e-5)
        assert np.any(np.asarray(state.u[0] != penalty.init(kernels[seed]).u[0]))


def test_vectors_outlive_a_kernel_of_zeros():
    penalty = spectral(1.0)
    state = penalty.init(jnp.zeros((3, 2)))
    _, after = penalty.loss(jnp.zeros((3, 2)), state, None)
    np.testing.assert_array_equal(after.u[0], state.u[0])
    np.testing.assert_allclose(jnp.linalg.norm(after.u[0]), 1.0, rtol=1e-6)


def test_norms_are_pulled_to_where_they_started():
    params = {"kernel": jnp.eye(2), "offset": jnp.zeros(2), "scale": jnp.ones(2)}
    is_norm = {"kernel": False, "offset": True, "scale": True}
    penalty = spectral(0.5, norm_mask=is_norm)
    state = penalty.init(params)
    moved = params | {"scale": jnp.array([2.0, 1.0]), "offset": jnp.array([0.0, -3.0])}
    value, gradient = jax.value_and_grad(lambda params: penalty.loss(params, state, None)[0])(moved)
    np.testing.assert_allclose(value, 0.5 * (1 + 9), rtol=1e-5)
    np.testing.assert_allclose(gradient["scale"], [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(gradient["offset"], [0.0, -3.0], atol=1e-6)


def touched_by(options, **network_options):
    """The leaves that the method's penalty has a gradient for."""
    network = mlp((6,), 3, **{"widths": (5,), "norm": "layer"} | network_options)
    shapes, _ = jax.eval_shape(network.init, jax.random.key(0))
    start, moved = (jax.tree.map(lambda leaf, x=x: jnp.full(leaf.shape, x), shapes) for x in (1.0, 1.5))
    penalty = spectral(wiring=network.wiring, **options)
    state = penalty.init(start)
    gradient = jax.jit(jax.grad(lambda params: penalty.loss(params, state, None)[0]))(moved)
    return {f"{layer}/{name}" for layer in gradient for name in gradient[layer] if np.any(gradient[layer][name])}


KERNELS = {"dense_0/kernel", "head/kernel"}
BIASES = {"dense_0/bias", "head/bias"}
NORMS = {"norm_0/scale", "norm_0/bias"}


def test_the_method_penalises_kernels_and_biases():
    assert touched_by({}) == KERNELS | BIASES
    assert touched_by({"include_head": False}) == {"dense_0/kernel"} | BIASES
    assert touched_by({"include_bias": False}) == KERNELS
    assert touched_by({"pull_to_one": True}) == KERNELS | BIASES | NORMS
    assert touched_by({"pull_to_one": True}, use_bias=False, norm="none") == KERNELS
    assert touched_by({}, widths=()) == {"head/kernel", "head/bias"}


def test_strength_zero_is_exactly_zero(key):
    params = {"bias": jnp.ones(4), "kernel": jax.random.normal(key, (3, 4))}
    is_bias = {"bias": True, "kernel": False}
    value, gradient = value_and_gradient(spectral(0.0, bias_mask=is_bias, norm_mask=is_bias), params)
    assert float(value) == 0.0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_narrow_types_are_computed_in_float32(key):
    kernel = jax.random.normal(key, (6, 4)).astype(jnp.bfloat16)
    penalty = spectral(1.0)
    state = carried(penalty, kernel)
    value, gradient = jax.value_and_grad(lambda kernel: penalty.loss(kernel, state, None)[0])(kernel)
    assert (value.dtype, gradient.dtype, state.u[0].dtype) == (jnp.float32, jnp.bfloat16, jnp.float32)
    sigma = np.linalg.svd(np.asarray(kernel, np.float64), compute_uv=False)[0]
    np.testing.assert_allclose(value, (sigma**2 - 1) ** 2, rtol=1e-3)


def test_state_is_one_vector_a_kernel():
    params = {"bias": jnp.ones(4), "head": jnp.ones((4, 2)), "kernel": jnp.ones((3, 4))}
    state = spectral().init(params)
    assert isinstance(state, SpectralState)
    assert [u.shape for u in state.u] == [(4,), (3,)]
    assert state.norms == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": -1.0}, r"got strength=-1.0; wanted a finite number ≥ 0. Use 0 to switch"),
        ({"exponent": 0}, "got exponent=0; wanted a finite number ≥ 1. Use 2, as published"),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Use 1, as published"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        spectral(**options)


@pytest.mark.parametrize("name", ["mask", "bias_mask", "norm_mask"])
def test_mask_that_selects_nothing_is_refused(name):
    with pytest.raises(UserError, match="got a mask that selects none of 1 parameter leaves"):
        spectral(**{name: {"kernel": False}}).init({"kernel": jnp.ones((2, 2))})


def test_the_target_may_be_each_kernels_own_norm_at_the_start():
    start = {"a": DIAGONAL, "b": 0.5 * DIAGONAL}
    penalty = spectral(1.0, target="start")
    state = penalty.init(start)
    np.testing.assert_allclose(state.targets, [2.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(spectral(gain=3.0, target="start").init(jnp.zeros((2, 2))).targets, [3.0])
    now = {"a": 2.0 * DIAGONAL, "b": 0.5 * DIAGONAL}
    state = jax.lax.fori_loop(0, 50, lambda _, state: penalty.loss(now, state, None)[1], state)
    np.testing.assert_allclose(penalty.loss(now, state, None)[0], (16.0 - 4.0) ** 2, rtol=1e-5)


def test_an_unknown_target_is_refused():
    with pytest.raises(UserError, match="got target='begin'; wanted 'gain' or 'start'"):
        unchecked(spectral)(target="begin")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_the_vector_outlives_weights_that_are_not_finite(bad):
    """3e38 is finite, but the norms of what it multiplies are not."""
    penalty = spectral(1.0)
    state = carried(penalty, DIAGONAL)
    _, state = penalty.loss(DIAGONAL * jnp.float32(bad), state, None)
    value, _ = penalty.loss(DIAGONAL, state, None)
    np.testing.assert_allclose(value, 9.0, rtol=1e-5)
