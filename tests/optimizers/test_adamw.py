import jax
import jax.numpy as jnp
import numpy as np
import pytest

from one_update import MLP, by_role, moved, params_of, parts, still
from pliant.errors import UserError
from pliant.networks import vit
from pliant.optimizers import adamw


@pytest.mark.parametrize(("name", "spared"), [("adamw", ()), ("weight-decay", ("bias", "norm"))])
def test_decoupled_decay_multiplies_by_one_minus_rate_times_decay(name, spared):
    updates, params = by_role(MLP, moved(name, still(), weight_decay=0.3)), by_role(MLP, params_of(MLP))
    assert updates.keys() == {"matrix", "head", "bias", "norm"}
    for role, leaves in updates.items():
        for update, leaf in zip(leaves, params[role], strict=True):
            np.testing.assert_allclose(update, 0 * leaf if role in spared else -0.03 * leaf, rtol=1e-5)


def test_embeddings_are_kernels():
    network = vit((4, 4, 1), 2, width=4, num_heads=1, num_blocks=1, mlp_width=4)
    moves = moved("weight-decay", still(network), network)
    assert np.any(moves["patch"]["kernel"])
    assert not np.any(moves["patch"]["bias"])


def test_refuses():
    message = r"got weight_decay=-0.1; wanted a finite number ≥ 0. Use 0 for plain Adam"
    with pytest.raises(UserError, match=message):
        parts("adamw", weight_decay=-0.1)


def test_a_traced_decay_of_zero_leaves_infinite_weights_alone():
    params = jnp.array([1.0, jnp.inf])

    @jax.jit
    def update(weight_decay):
        tx = adamw(0.1, weight_decay=weight_decay)
        return tx.update(jnp.zeros(2), tx.init(params), params)[0]

    np.testing.assert_array_equal(update(0.0), [0.0, 0.0])
    np.testing.assert_allclose(update(0.5), [-0.05, -np.inf])
