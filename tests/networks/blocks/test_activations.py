import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, activation, crelu, fourier, group_sort, max_min, mlp, orthogonal, smooth_leaky
from subjects import measure, subject


def same(a, b):
    np.testing.assert_array_equal(a, b)


def test_max_min_golden():
    same(max_min(jnp.array([3.0, 1.0, -2.0, 5.0])), [1.0, 3.0, -2.0, 5.0])
    same(max_min(jnp.array([[5.0, -2.0], [1.0, 1.0]])), [[-2.0, 5.0], [1.0, 1.0]])


def test_group_sort_golden():
    x = jnp.array([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])
    same(group_sort(x, 3), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    same(group_sort(x, 1), x)
    same(group_sort(x, 6), np.sort(x))


@pytest.mark.parametrize("size", [2, 3])
def test_channels_are_sorted_at_each_pixel(key, size):
    x = jax.random.normal(key, (2, 3, 4, 6))
    same(group_sort(x, size)[1, 2, 3], group_sort(x[1, 2, 3], size))


@pytest.mark.parametrize("size", [1, 2, 3])
@given(groups=st.integers(1, 3), seed=st.integers(0, 2**31))
@settings(max_examples=6, deadline=None, database=None)
def test_jacobian_is_a_permutation(groups, size, seed):
    x, tangent = jnp.asarray(np.random.default_rng(seed).standard_normal((2, groups * size)), jnp.float32)
    jacobian = np.asarray(jax.jacfwd(lambda x: group_sort(x, size))(x))
    assert set(np.unique(jacobian)) <= {0.0, 1.0}
    same(jacobian.sum(0), np.ones(groups * size))
    same(jacobian.sum(1), np.ones(groups * size))
    out, moved = jax.jvp(lambda x: group_sort(x, size), (x,), (tangent,))
    np.testing.assert_allclose(np.linalg.norm(out), np.linalg.norm(x), rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(moved), np.linalg.norm(tangent), rtol=1e-6)


def test_fast_pairs_are_the_sort(key):
    x = jax.random.normal(key, (5, 8))
    same(max_min(x), np.sort(np.asarray(x).reshape(5, 4, 2), axis=-1).reshape(5, 8))


@pytest.mark.parametrize(
    ("function", "width", "message"),
    [
        (max_min, 7, "got width 7 with groups of 2; wanted a width that is a multiple of 2. Choose a width such as 8"),
        (lambda x: group_sort(x, 3), 7, r"got width 7 with groups of 3; wanted .* of 3\. Choose a width such as 9"),
        (lambda x: group_sort(x, 0), 4, "got group_size=0"),
    ],
)
def test_widths_that_do_not_divide_are_refused(function, width, message):
    with pytest.raises(UserError, match=message):
        function(jnp.zeros(width))


def test_crelu_golden(key):
    same(crelu(jnp.array([2.0, -3.0])), [2.0, 0.0, 0.0, 3.0])
    x = jax.random.normal(key, (4, 3, 6))
    out = np.asarray(crelu(x))
    assert out.shape == (4, 3, 12)
    assert (out == 0).mean() == 0.5
    np.testing.assert_allclose((out**2).sum(), (np.asarray(x) ** 2).sum(), rtol=1e-6)


def test_crelu_always_passes_one_gradient(key):
    x = jax.random.normal(key, (6,))
    same((np.asarray(jax.jacfwd(crelu)(x)) != 0).sum(0), np.ones(6))


def test_fourier_golden(key):
    np.testing.assert_allclose(fourier(jnp.array([0.0, np.pi / 6])), [0.0, 0.5, 1.0, 3**0.5 / 2], rtol=1e-6)
    out = fourier(10.0 * jax.random.normal(key, (4, 3, 6)))
    assert out.shape == (4, 3, 12)
    np.testing.assert_allclose((out**2).sum(axis=-1), np.full((4, 3), 6.0), rtol=1e-6)


def test_fourier_passes_every_gradient_whole(key):
    jacobian = jax.jacfwd(fourier)(10.0 * jax.random.normal(key, (6,)))
    np.testing.assert_allclose(jacobian.T @ jacobian, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_fourier_keeps_the_scale_of_any_signal(key, scale):
    features = fourier(scale * jax.random.normal(key, (256, 128)))
    kernel = orthogonal(ACTIVATIONS["fourier"].gain)(key, (256, 128))
    np.testing.assert_allclose(jnp.mean((features @ kernel) ** 2), 1.0, rtol=0.05)


def test_smooth_leaky_golden():
    x = jnp.array([-60.0, 0.0, 60.0, 3.0])
    np.testing.assert_allclose(smooth_leaky(x), [-6.0, 0.0, 60.0, 0.3 + 2.7 / (1 + np.exp(-5.0))], rtol=1e-6)
    np.testing.assert_allclose(smooth_leaky(x, 1.0), x, rtol=1e-6)
    np.testing.assert_allclose(smooth_leaky(x, 0.2, 2.0, 4.0)[3], 0.6 + 2.4 / (1 + np.exp(-6.0)), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_smooth_leaky_has_a_slope_everywhere(alpha):
    slopes = jax.vmap(jax.grad(lambda x: smooth_leaky(x, alpha)))(jnp.linspace(-60.0, 60.0, 24_001))
    np.testing.assert_allclose(slopes[jnp.array([0, 12_000, 24_000])], [alpha, (1 + alpha) / 2, 1.0], rtol=1e-5)
    np.testing.assert_allclose(slopes.min(), alpha - 0.0998 * (1 - alpha), atol=1e-4)
    assert float(slopes.min()) > 0.0
    assert float(jnp.abs(jnp.diff(slopes)).max()) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, r"got alpha=1.5; wanted a number in \[0, 1\]. 0.1 is"),
        ({"p": 0.0}, "got p=0.0; wanted a finite number ≥ 1e-12. 3 is"),
        ({"c": -1.0}, "got c=-1.0; wanted a finite number ≥ 1e-12. 5 is"),
    ],
)
def test_smooth_leaky_refuses(options, message):
    with pytest.raises(UserError, match=message):
        smooth_leaky(jnp.zeros(2), **options)


def test_leaky_relu_has_the_slope_of_the_field():
    np.testing.assert_allclose(ACTIVATIONS["leaky-relu"].apply(jnp.array([-2.0, 2.0])), [-0.02, 2.0], rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_expansion_and_ownership_are_as_declared(key, name):
    chosen = ACTIVATIONS[name]
    x = jax.random.normal(key, (6,))
    jacobian = np.asarray(jax.jacfwd(chosen.apply)(x)) != 0
    assert jacobian.shape == (6 * chosen.expansion, 6)
    tiles = jacobian.reshape(chosen.expansion, 6, 6)
    assert bool((tiles & ~np.eye(6, dtype=bool)).any()) == (not chosen.elementwise)


@pytest.mark.parametrize(
    "name", ["relu", "leaky-relu", "smooth-leaky", "rational", "identity", "maxmin", "crelu", "fourier"]
)
def test_gain_keeps_the_scale_of_the_signal(key, name):
    """Standard normal in, through the activation and the next kernel: mean square 1 out (sampling error 2 %)."""
    chosen = ACTIVATIONS[name]
    features = chosen.apply(jax.random.normal(key, (256, 128)))
    kernel = orthogonal(chosen.gain)(key, (features.shape[1], 128))
    np.testing.assert_allclose(jnp.mean((features @ kernel) ** 2), 1.0, rtol=0.05)


def test_gain_keeps_the_scale_of_what_is_drawn(key):
    chosen = ACTIVATIONS["aid"]
    features = chosen.apply(jax.random.normal(key, (256, 128)), key=jax.random.key(1))
    kernel = orthogonal(chosen.gain)(key, (128, 128))
    np.testing.assert_allclose(jnp.mean((features @ kernel) ** 2), 1.0, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "fraction"),
    [
        *((name, 0.25) for name in ("relu", "leaky-relu", "smooth-leaky", "aid", "crelu", "tanh")),
        ("rational", 0.0),
        ("fourier", np.nan),
        ("maxmin", np.nan),
    ],
)
def test_dormancy_sees_units_that_can_be_silent(key, name, fraction):
    """One of four units gets no input. What it says then: 0, what was learned of rational ones, and never 0."""
    network = mlp((6,), 3, widths=(4,), activation=name, use_bias=False)
    params, state = network.init(key)
    params["dense_0"]["kernel"] = params["dense_0"]["kernel"].at[:, 0].set(0.0)
    found = measure("dormant", subject(network, params, state, jax.random.normal(key, (64, 6)))).numbers
    np.testing.assert_array_equal(found["dormant_fraction"], np.float32(fraction))


def test_unknown_name_is_refused_with_the_nearest():
    message = r"got the activation 'max-min'; wanted one of aid, crelu, .*Did you mean 'maxmin'\? See pliant.networks"
    with pytest.raises(UserError, match=message):
        activation("max-min")
    assert activation("maxmin") is ACTIVATIONS["maxmin"]
