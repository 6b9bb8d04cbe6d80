import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.optimizers import rmsprop


@pytest.mark.parametrize(("centered", "variances"), [(True, (1 / 4, 3 / 16)), (False, (1 / 2, 3 / 4))])
def test_two_steps_by_hand(centered, variances):
    """Constant gradients of 1 with β = ½: m and v are ½, then ¾, so v − m² is ¼, then 3/16."""
    tx, gradient = rmsprop(0.1, decay=0.5, eps=1e-12, centered=centered), jnp.ones(1)
    state = tx.init(gradient)
    for variance in variances:
        updates, state = tx.update(gradient, state)
        np.testing.assert_allclose(updates, [-0.1 / variance**0.5], rtol=1e-5)


def test_eps_is_inside_the_root():
    tx, gradient = rmsprop(1.0, decay=0.0, eps=0.01), jnp.ones(1)
    np.testing.assert_allclose(tx.update(gradient, tx.init(gradient))[0], [-10.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 1.0}, r"got decay=1\.0; wanted a number in \[0, 0\.999999\]\. 0\.95 is usual"),
        ({"eps": 0.0}, r"got eps=0\.0; wanted a finite number ≥ 1e-30\. 0\.01/32² is usual"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        rmsprop(0.1, **options)
