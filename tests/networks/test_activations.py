import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, activation, crelu, group_sort, max_min, orthogonal
from pliant.networks._activations import fourier


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


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_expansion_and_ownership_are_as_declared(key, name):
    chosen = ACTIVATIONS[name]
    x = jax.random.normal(key, (6,))
    jacobian = np.asarray(jax.jacfwd(chosen.apply)(x)) != 0
    assert jacobian.shape == (6 * chosen.expansion, 6)
    tiles = jacobian.reshape(chosen.expansion, 6, 6)
    assert bool((tiles & ~np.eye(6, dtype=bool)).any()) == (not chosen.elementwise)


@pytest.mark.parametrize("name", ["relu", "leaky-relu", "identity", "maxmin", "crelu", "fourier"])
def test_gain_keeps_the_scale_of_the_signal(key, name):
    """Standard normal in, through the activation and the next kernel: mean square 1 out (sampling error 2 %)."""
    chosen = ACTIVATIONS[name]
    features = chosen.apply(jax.random.normal(key, (256, 128)))
    kernel = orthogonal(chosen.gain)(key, (features.shape[1], 128))
    np.testing.assert_allclose(jnp.mean((features @ kernel) ** 2), 1.0, rtol=0.05)


def test_unknown_name_is_refused_with_the_nearest():
    message = (
        r"got the activation 'max-min'; wanted one of crelu, fourier, .*Did you mean 'maxmin'\? See pliant.networks"
    )
    with pytest.raises(UserError, match=message):
        activation("max-min")
    assert activation("maxmin") is ACTIVATIONS["maxmin"]
