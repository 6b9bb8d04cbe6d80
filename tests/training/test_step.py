import jax
import jax.numpy as jnp
import numpy as np

from pliant.keys import seed_keys
from pliant.methods import METHODS, build, defaults
from pliant.networks import mlp
from pliant.streams import CLASSIFICATION
from pliant.training import init_state, train_step
from pliant.types import Batch, Lesson

DRAW = np.random.default_rng(0)
BATCH = Batch(jnp.asarray(DRAW.normal(size=(16, 6)), jnp.float32), jnp.asarray(DRAW.integers(0, 3, 16), jnp.int32))


def test_layers_that_draw_do_so_in_every_step_and_for_every_seed():
    network = mlp((6,), 3, widths=(8,), activation="aid")
    parts = build(METHODS["adam"], network.wiring, defaults(METHODS["adam"], 1e-3))

    @jax.jit
    def loss(step, seed):
        state = init_state(network, parts, seed_keys(0).network)
        keys = seed_keys(seed)
        return train_step(network, parts, CLASSIFICATION, state, Lesson(BATCH, (), None), step, keys).info["loss"]

    losses = [float(loss(step, seed)) for step, seed in ((1, 0), (2, 0), (1, 1), (1, 0))]
    assert len(set(losses[:3])) == 3
    assert losses[3] == losses[0]
