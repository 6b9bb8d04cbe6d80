import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.optimizers import adam


def test_it_is_adam_and_ignores_what_it_is_told_besides():
    ours, theirs, params = adam(0.1, 0.8, 0.9, 1e-6), optax.adam(0.1, 0.8, 0.9, 1e-6), jnp.array([1.0, -2.0])
    gradient = jnp.array([0.3, 0.0])
    updates, state = ours.update(gradient, ours.init(params), params, step=1, key=None)
    wanted, _ = theirs.update(gradient, theirs.init(params), params)
    np.testing.assert_array_equal(updates, wanted)
    assert int(state[0].count) == 1


def test_refuses():
    with pytest.raises(UserError, match=r"got b2=1.0; wanted a number in \[0, 0.999999\]. 0.999 is usual"):
        adam(0.1, b2=1.0)
