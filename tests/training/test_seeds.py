import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks import mlp
from pliant.training import choose_batching, seed_axis
from pliant.training._seeds import _in_turn

NETWORK = mlp((3,), 2, widths=(8,))


@pytest.mark.parametrize("batching", ["vmap", "map"])
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_every_seed_gets_its_own_result(num_seeds, batching):
    axis = seed_axis(num_seeds, NETWORK, batching)
    items = np.arange(num_seeds * 4, dtype=np.float32).reshape(num_seeds, 4)
    results = axis.over_seeds(lambda row, shift: {"sum": row.sum() + shift})(axis.put(items), jnp.float32(0.5))
    np.testing.assert_allclose(axis.get(results)["sum"], items.sum(1) + 0.5)
    assert axis.get(results)["sum"].shape == (num_seeds,)


@pytest.mark.parametrize("batching", ["vmap", "map"])
@pytest.mark.parametrize("num_seeds", [2, 5])
def test_what_is_consumed_is_gone_and_its_successor_is_the_first_result(num_seeds, batching):
    axis = seed_axis(num_seeds, NETWORK, batching)
    replay = axis.put(np.arange(num_seeds * 4, dtype=np.float32).reshape(num_seeds, 4))
    added = axis.put(np.arange(num_seeds, dtype=np.float32))

    def add(item, shared):
        replay, number = item
        return replay + number, {"sum": shared * replay.sum()}

    newer, told = axis.over_seeds(add, consumes=True)((replay, added), jnp.float32(2))
    assert replay.is_deleted()
    rows = np.arange(num_seeds * 4).reshape(num_seeds, 4)
    np.testing.assert_array_equal(axis.get(newer), rows + np.arange(num_seeds)[:, None])
    np.testing.assert_array_equal(axis.get(told)["sum"], 2 * rows.sum(1))


def test_seeds_in_turn_hold_what_is_donated_once():
    """Beside it, there is room for what one seed reads and leaves."""
    replay, number = jax.ShapeDtypeStruct((8, 2**16), jnp.float32), jax.ShapeDtypeStruct((8,), jnp.float32)

    def add(item):
        return jax.lax.fori_loop(0, 3, lambda i, replay: replay.at[i].add(item[1]), item[0]), item[1]

    program = jax.jit(functools.partial(_in_turn, add), donate_argnums=0).lower(replay, number).compile()
    one = 4 * 2**16
    assert program.memory_analysis().alias_size_in_bytes >= 8 * one
    assert program.memory_analysis().temp_size_in_bytes < 3 * one


def test_seeds_are_spread_over_the_devices():
    assert jax.device_count() == 2
    axis = seed_axis(4, NETWORK)
    assert len(axis.put(np.zeros(4)).sharding.device_set) == 2


@pytest.mark.parametrize(
    ("width", "platform", "expected"), [(64, "cpu", "vmap"), (65, "cpu", "map"), (4096, "gpu", "vmap")]
)
def test_choice_of_batching(width, platform, expected):
    assert choose_batching(mlp((3,), 2, widths=(width,)), platform) == expected
