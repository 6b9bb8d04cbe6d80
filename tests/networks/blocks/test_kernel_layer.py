import jax
import numpy as np
import pytest
from flax import nnx

from pliant.networks.blocks._kernel_layer import KernelLayer


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(("strides", "padding"), [(1, "SAME"), (2, "VALID"), (2, ((1, 1), (1, 1)))])
def test_a_convolution_is_flax(key, strides, padding, use_bias):
    options = {"strides": strides, "padding": padding, "use_bias": use_bias}
    layer = KernelLayer((3, 2, 5, 3), **options, kernel_init=jax.nn.initializers.normal(1.0), rngs=nnx.Rngs(0))
    plain = nnx.Conv(5, 3, (3, 2), **options, kernel_init=jax.nn.initializers.normal(1.0), rngs=nnx.Rngs(0))
    x = jax.random.normal(key, (4, 7, 6, 5))
    assert "pliant_convolution" in str(jax.make_jaxpr(lambda x: layer(x))(x))
    np.testing.assert_allclose(layer(x), plain(x), rtol=1e-5, atol=1e-5)
    paths = {path[0] for path in nnx.to_flat_state(nnx.state(layer)).paths}
    assert paths == ({"kernel", "bias"} if use_bias else {"kernel"})
