import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp

WIRING = mlp((2,), 1, widths=(3,)).wiring


@pytest.mark.parametrize(
    ("name", "fraction", "wanted"),
    [
        ("cyclic-lr", 0.05, 0.5),
        ("cyclic-lr", 0.55, 0.5),
        ("cyclic-lr", 0.1, 1.0),
        ("rewarmed-lr", 0.05, 0.5),
        ("rewarmed-lr", 0.9, 1.0),
    ],
)
def test_the_schedule_is_the_factor_of_the_learning_rate(name, fraction, wanted):
    method = METHODS[name]
    values = defaults(method, learning_rate=1.0)

    def first_move(**moment):
        tx = build(method, WIRING, values, **moment).optimizer
        return float(tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0])

    np.testing.assert_allclose(first_move(fraction=jnp.float32(fraction)), -wanted, rtol=1e-5)
    np.testing.assert_allclose(first_move(fraction=jnp.float32(fraction), rate=0.1), -0.1 * wanted, rtol=1e-5)


def test_the_fraction_may_be_traced():
    method = METHODS["cyclic-lr"]

    @jax.jit
    def first_move(fraction):
        tx = build(method, WIRING, defaults(method, learning_rate=1.0), fraction=fraction).optimizer
        return tx.update(jnp.ones(()), tx.init(jnp.zeros(())))[0]

    np.testing.assert_allclose([first_move(0.05), first_move(0.55)], [-0.5, -0.5], rtol=1e-5)
