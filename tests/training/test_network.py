import jax
import jax.numpy as jnp
import pytest

from pliant.errors import UserError
from pliant.networks import mlp, octax_cnn
from pliant.streams import random_teacher
from pliant.supervised import RunConfig, source_of
from pliant.training._network import make_network, network_factory
from pliant.types import Network

SOURCE = source_of(random_teacher(num_tasks=1), RunConfig(steps=1))
"""32 inputs, 1 output."""


def _own(input_shape, num_outputs, *, wide=8):
    return mlp(input_shape, num_outputs, widths=(wide,))


def _made(factory, **options):
    return make_network("own", factory, options, SOURCE)


def test_names_files_factories_and_networks(tmp_path):
    (tmp_path / "own.py").write_text(
        "from pliant.networks import mlp\ndef net(*shape): return mlp(*shape, widths=(5,))\n"
    )
    network = mlp((32,), 1, widths=(8,))
    assert network_factory("mlp") is mlp
    assert network_factory(_own) is _own
    assert _made(network_factory(network)) is network
    assert _made(network_factory(f"{tmp_path}/own.py:net")).wiring.layers[0].width == 5
    assert _made(_own, wide=3).wiring.layers[0].width == 3


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            lambda *_: {},
            "got the network 'own', whose factory returns dict; wanted a function .*Let the factory return",
        ),
        (
            lambda *_: mlp((32,), 2),
            r"does not fit this problem: its output for 2 examples has shape \(2, 2\); wanted one",
        ),
        (
            lambda *_: mlp((31,), 1),
            r"does not fit this problem: .*; wanted one for inputs of shape \(32,\) with 1 outputs",
        ),
    ],
)
def test_what_is_no_network_for_the_source(factory, message):
    with pytest.raises(UserError, match=message):
        _made(factory)


def test_named_outputs_fit():
    def apply(params, state, inputs, *, train, key):
        return {"policy": inputs @ params, "value": inputs[:, :1]}, {}, state

    network = Network(lambda key: (jnp.ones((32, 3)), {}), apply, mlp((32,), 1).wiring)
    assert _made(lambda *_: network) is network
    assert jax.tree.leaves(network.init(jax.random.key(0)))


def test_factories_that_take_several_outputs_get_all_of_them():
    """Where outputs share a trunk; the gains of the heads come on top."""
    several = SOURCE._replace(
        inputs=jax.ShapeDtypeStruct((8, 8, 1), jnp.float32),
        num_outputs={"policy": 3, "value": 1},
        gains={"policy": 0.01},
    )
    network = make_network("octax-cnn", network_factory("octax-cnn"), {"widths": (4,)}, several)
    params, _ = network.init(jax.random.key(0))
    norms = [jnp.linalg.norm(params[name]["head"]["kernel"], ord=2) for name in ("policy", "value")]
    assert norms == pytest.approx([0.01, 1.0], rel=1e-5)
    apart = several._replace(branches={"policy": "actor", "value": "critic"})
    assert set(make_network("octax-cnn", octax_cnn, {"widths": (4,)}, apart).init(jax.random.key(0))[0]) == {
        "actor",
        "critic",
    }
