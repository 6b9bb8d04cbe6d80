import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pliant.diagnostics import find_trained
from pliant.errors import UserError

PARAMS = {
    "half": np.ones((2, 3), np.float16),
    "count": np.arange(3),
    "key": jax.random.key(0),
    "activation": jax.nn.relu,
    "name": "conv",
    "rate": 0.5,
    "nothing": None,
    "list": [jnp.ones(2, jnp.bfloat16), jnp.ones(2) > 0],
}


def test_floating_point_arrays_are_parameters():
    trained = find_trained(PARAMS)
    assert set(trained.paths) == {"half", "list/0"}
    assert set(trained.others) == {"count", "key", "list/1"}
    part = trained.part(PARAMS)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(part)} == {"float32"}
    whole = trained.whole(jax.tree.map(lambda leaf: 2 * leaf, part))
    assert whole["half"].dtype == np.float16
    assert whole["list"][0].tolist() == [2.0, 2.0]
    assert whole["activation"] is jax.nn.relu
    assert (whole["name"], whole["rate"], whole["nothing"]) == ("conv", 0.5, None)


def test_running_statistics_of_flax_are_no_parameters():
    class Module(nnx.Module):
        def __init__(self):
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    module = Module()
    for params in (module, nnx.state(module)):
        trained = find_trained(params)
        assert {path.split("/")[1] for path in trained.paths} == {"scale", "bias"}
        assert {path.split("/")[1] for path in trained.others} == {"mean", "var"}
    statistics = nnx.state(module, nnx.BatchStat)
    assert len(find_trained(statistics).paths) == 2  # whoever asks for nothing else means them
    linen = find_trained({"params": {"scale": np.ones(2)}, "batch_stats": {"mean": np.ones(2)}})
    assert (linen.paths, linen.others) == (("params/scale",), ("batch_stats/mean",))


def test_what_is_frozen_keeps_its_value():
    trained = find_trained(PARAMS).without({"half"})
    part = trained.part(PARAMS)
    assert part["half"] is None
    assert trained.whole(jax.tree.map(jnp.zeros_like, part))["half"] is PARAMS["half"]


@pytest.mark.parametrize("other", [{**PARAMS, "half": np.ones(3)}, {"half": PARAMS["half"]}])
def test_other_parameters_are_refused(other):
    with pytest.raises(UserError, match="got initial= of another structure or other shapes than params"):
        find_trained(PARAMS).part(other, "initial")
