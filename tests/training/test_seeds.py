import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.networks import mlp
from pliant.training import choose_batching, seed_axis

NETWORK = mlp((3,), 2, widths=(8,))


@pytest.mark.parametrize("batching", ["vmap", "map"])
@pytest.mark.parametrize("num_seeds", [1, 2, 3, 5])
def test_every_seed_gets_its_own_result(num_seeds, batching):
    axis = seed_axis(num_seeds, NETWORK, batching)
    items = np.arange(num_seeds * 4, dtype=np.float32).reshape(num_seeds, 4)
    results = axis.over_seeds(lambda row, shift: {"sum": row.sum() + shift})(axis.put(items), jnp.float32(0.5))
    np.testing.assert_allclose(axis.get(results)["sum"], items.sum(1) + 0.5)
    assert axis.get(results)["sum"].shape == (num_seeds,)


def test_seeds_are_spread_over_the_devices():
    assert jax.device_count() == 2
    axis = seed_axis(4, NETWORK)
    assert len(axis.put(np.zeros(4)).sharding.device_set) == 2


@pytest.mark.parametrize(
    ("width", "platform", "expected"), [(64, "cpu", "vmap"), (65, "cpu", "map"), (4096, "gpu", "vmap")]
)
def test_choice_of_batching(width, platform, expected):
    assert choose_batching(mlp((3,), 2, widths=(width,)), platform) == expected
