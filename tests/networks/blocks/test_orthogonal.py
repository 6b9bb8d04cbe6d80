import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.isometry import matrix_view
from pliant.networks import delta_orthogonal, orthogonal


@pytest.mark.parametrize("gain", [1.0, 2.0**0.5])
@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5), (1, 6), (3, 3, 2, 8), (3, 3, 8, 2), (2, 2, 1, 16)])
def test_all_singular_values_are_the_gain(key, shape, gain):
    kernel = orthogonal(gain)(key, shape, jnp.float32)
    assert kernel.shape == shape
    sigma = np.linalg.svd(matrix_view(kernel), compute_uv=False)
    np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=2e-6)


def test_vmap_draws_what_a_loop_draws(key):
    keys = jax.random.split(key, 3)
    draw = orthogonal(1.5)
    together = jax.jit(jax.vmap(lambda key: draw(key, (6, 4), jnp.float32)))(keys)
    for seed in range(3):
        np.testing.assert_allclose(together[seed], draw(keys[seed], (6, 4)), atol=1e-6)
    assert np.all(np.asarray(together[0]) != np.asarray(together[1]))


def _of_the_circular_map(kernel, size=6):
    """Singular values of a convolution with stride 1 around a torus: its matrix at every frequency, by NumPy."""
    at_frequencies = np.fft.fft2(np.asarray(kernel, np.float64), (size, size), axes=(0, 1))
    return np.linalg.svd(at_frequencies, compute_uv=False)


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (3, 3, 8, 2), (5, 5, 4, 4), (2, 3, 3, 4), (1, 1, 3, 5)])
def test_a_delta_is_an_isometry_of_images(key, shape):
    np.testing.assert_allclose(_of_the_circular_map(delta_orthogonal(1.3)(key, shape, jnp.float32)), 1.3, rtol=2e-6)


@pytest.mark.parametrize("shape", [(3, 3, 2, 8), (3, 3, 8, 8)])
def test_an_orthogonal_matrix_of_patches_is_no_isometry_of_images_but_bounded(key, shape):
    largest = _of_the_circular_map(orthogonal()(key, shape, jnp.float32)).max()
    assert 1 < largest <= 3 * (1 + 1e-6)


def test_a_delta_of_a_dense_kernel_is_orthogonal(key):
    np.testing.assert_array_equal(
        delta_orthogonal(1.3)(key, (6, 4), jnp.float32), orthogonal(1.3)(key, (6, 4), jnp.float32)
    )


def test_narrow_types_are_rounded_from_float32(key):
    kernel = orthogonal(1.0)(key, (6, 4), jnp.bfloat16)
    assert kernel.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kernel, orthogonal(1.0)(key, (6, 4), jnp.float32).astype(jnp.bfloat16))


MANY_NETWORKS = """
import pliant.networks, jax
jax.config.update("jax_num_cpu_devices", 2)
network = pliant.networks.mlp((64,), 10, widths=(64,) * 5)
init = jax.jit(jax.vmap(lambda key: network.init(key)[0]))
params = init(jax.random.split(jax.random.key(0), 4))
print(jax.block_until_ready(params)["dense_4"]["kernel"].shape)
"""


@pytest.mark.exact
def test_many_networks_in_one_program_do_not_wait_for_ever():
    """In a process of its own: the failure is a deadlock of batched QR decompositions inside XLA:CPU."""
    done = subprocess.run(
        [sys.executable, "-c", MANY_NETWORKS], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "(4, 64, 64)"
