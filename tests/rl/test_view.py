import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.rl import view
from pliant.types import Environment, EnvironmentStream, World


def _environment(dtype, shape=(2,), shown=None):
    """Never stepped here."""
    return Environment("seen", jax.ShapeDtypeStruct(shape, dtype), 1, lambda *_: (), lambda *_: (), 1, view=shown)


def _stream(environment, **fields):
    return EnvironmentStream("seen", 1, (environment,), lambda _: 0, **fields)


@pytest.mark.parametrize(
    ("dtype", "stored", "seen"),
    [(bool, 1, 1.0), (np.uint8, 51, 0.2), (np.int32, -3, -3.0), (np.float32, 0.5, 0.5), (np.float16, 0.5, 0.5)],
)
def test_only_bytes_are_scaled(dtype, stored, seen):
    environment = _environment(dtype)
    inputs = view(environment, jnp.full((3, 2), stored, dtype), World((), ()))
    assert inputs.dtype == jnp.float32
    np.testing.assert_allclose(inputs, np.full((3, 2), seen, np.float32), rtol=1e-6)
    assert _stream(environment).inputs == jax.ShapeDtypeStruct((2,), jnp.float32)


@pytest.mark.parametrize("leading", [(), (3,), (4, 3), (2, 1, 3)])
def test_a_view_keeps_the_leading_axes(leading):
    """Rollouts have a step and an environment axis, replays one of examples, an acting agent none."""
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    environment = _environment(np.int32, (), lambda index, world: world.data[index] + world.task)
    stream = _stream(environment, data=table, task=lambda key, index: jnp.full(2, index, jnp.float32))
    assert stream.inputs == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert stream.observation == jax.ShapeDtypeStruct((), jnp.int32)
    indices = np.random.default_rng(0).integers(0, 10, leading).astype(np.int32)
    world = World(jnp.asarray(table), stream.task(jax.random.key(0), 5))
    np.testing.assert_array_equal(view(environment, jnp.asarray(indices), world), table[indices] + 5)
