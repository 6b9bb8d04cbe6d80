import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.optimizers import sgd


def test_two_steps_with_momentum_and_decay():
    tx, params = sgd(0.1, 0.5, weight_decay=0.2), jnp.array([2.0])
    state = tx.init(params)
    first, state = tx.update(jnp.array([1.0]), state, params, step=1)
    np.testing.assert_allclose(first, -0.1 * (1.0 + 0.2 * 2.0), rtol=1e-6)
    second, _ = tx.update(jnp.array([3.0]), state, params, step=2)
    np.testing.assert_allclose(second, -0.1 * (0.5 * 1.4 + 3.0 + 0.2 * 2.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": -1.0}, r"got learning_rate=-1.0; wanted a finite number ≥ 0. Use a step size such as 0.01"),
        ({"momentum": 1.0}, r"got momentum=1.0; wanted a number in \[0, 0.999999\]. 0 or 0.9 are usual"),
        ({"weight_decay": -0.1}, r"got weight_decay=-0.1; wanted a finite number ≥ 0. Use 0 for none"),
    ],
)
def test_refuses(values, message):
    with pytest.raises(UserError, match=message):
        sgd(**{"learning_rate": 0.1} | values)
