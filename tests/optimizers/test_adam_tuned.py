import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.optimizers import adam_tuned


def test_the_root_is_damped_and_both_moments_forget_alike():
    tx, gradient = adam_tuned(0.1), jnp.array([0.02])
    updates, state = tx.update(gradient, tx.init(gradient))
    np.testing.assert_allclose(updates, -0.1 * 0.02 / (0.02**2 + 1e-3) ** 0.5, rtol=1e-5)
    np.testing.assert_allclose([state[0].mu[0] / 0.02, state[0].nu[0] / 0.02**2], [0.1, 0.1], rtol=1e-5)


def test_refuses():
    with pytest.raises(UserError, match=r"got eps_root=-1.0; wanted a finite number ≥ 0. 1e-3 is the authors'"):
        adam_tuned(0.1, eps_root=-1.0)
