import jax
import jax.numpy as jnp
import numpy as np

from pliant.optimizers._weight_decay import add_weight_decay


def test_a_traced_zero_leaves_infinite_weights_alone():
    params = jnp.array([1.0, jnp.inf])

    @jax.jit
    def update(weight_decay):
        decay = add_weight_decay(weight_decay)
        return decay.update(jnp.zeros(2), decay.init(params), params)[0]

    np.testing.assert_array_equal(update(0.0), [0.0, 0.0])
    np.testing.assert_allclose(update(0.5), [0.5, np.inf])
