"""Several named outputs: what is side by side is computed apart, what shares a trunk is one network with more heads."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import NETWORKS, cnn, mlp, octax_cnn, resnet18, side_by_side, takes_outputs, with_gains, with_heads
from pliant.types import Head, Wiring, by_path

BRANCHES = {"policy": "actor", "value": "critic"}


def _apart(norm="none", **options):
    parts = {"policy": mlp((3,), 2, widths=(4, 5), norm=norm), "value": mlp((3,), 1, widths=(4, 5), norm=norm)}
    return parts, side_by_side(parts, BRANCHES, **options)


def test_networks_side_by_side_compute_what_each_does(key):
    parts, network = _apart(norm="layer")
    params, state = network.init(key)
    x = jax.random.normal(key, (6, 3))
    output, features, _ = network.apply(params, state, x, train=False, key=None)
    for name, part in parts.items():
        own, of_part, _ = part.apply(params[BRANCHES[name]], {}, x, train=False, key=None)
        np.testing.assert_array_equal(output[name], own)
        np.testing.assert_array_equal(features[f"{BRANCHES[name]}/dense_1"], of_part["dense_1"])
    assert (params["actor"]["dense_0"]["kernel"] != params["critic"]["dense_0"]["kernel"]).any()


def test_every_parameter_has_a_role_and_every_path_exists(key):
    for network in (_apart(norm="layer")[1], with_heads(mlp((3,), 2, widths=(4, 5)), {"policy": 2, "value": 1})):
        leaves, wiring = by_path(network.init(key)[0]), network.wiring
        assert set(leaves) == set(wiring.roles)
        named = {feed.slot.path for layer in wiring.layers for feed in layer.feeds}
        named |= {slot.path for layer in wiring.layers for slot in layer.readers}
        named |= {leaf for head in wiring.heads.values() for leaf in head.leaves}
        assert named == set(leaves)
        assert all(wiring.bias_of(path) in leaves for path, role in wiring.roles.items() if role in ("matrix", "head"))


def test_the_last_layers_are_those_of_each_branch():
    assert [layer.name for layer in _apart()[1].wiring.last_layers(1)] == ["actor/dense_1", "critic/dense_1"]
    shared = with_heads(mlp((3,), 2, widths=(4, 5)), {"policy": 2, "value": 1})
    assert [layer.name for layer in shared.wiring.last_layers(1)] == ["dense_1"]


def test_heads_of_a_trunk_read_the_same_feature(key):
    trunk = cnn((8, 8, 2), 3, channels=(4,), kernel_sizes=(3,), strides=(1,), pool=(1,), widths=(6,))
    network = with_heads(trunk, {"policy": 3, "value": 1})
    params, state = network.init(key)
    output, features, _ = network.apply(params, state, jnp.ones((5, 8, 8, 2)), train=False, key=None)
    read = features[network.wiring.head_reads()]
    head = params["head_value"]
    np.testing.assert_allclose(output["value"], read @ head["kernel"] + head["bias"][None], rtol=1e-5)
    last = network.wiring.layers[-1]
    assert [slot.path for slot in last.readers] == ["head/kernel", "head_value/kernel"]
    np.testing.assert_allclose(jnp.linalg.norm(head["kernel"]), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda gains: _apart(gains=gains)[1],
        lambda gains: with_heads(mlp((3,), 2, widths=(4,)), {"policy": 2, "value": 1}, gains),
        lambda gains: with_gains(octax_cnn((8, 8, 1), {"policy": 2, "value": 1}, widths=(4,)), gains),
    ],
)
def test_gains_scale_the_kernels_of_heads_alone(make, key):
    plain, scaled = (by_path(make(gains).init(key)[0]) for gains in ({}, {"policy": 0.01}))
    heads = make({}).wiring.heads["policy"].leaves
    for path, leaf in plain.items():
        factor = 0.01 if path in heads and path.endswith("kernel") else 1.0
        np.testing.assert_allclose(scaled[path], factor * leaf, rtol=1e-6)


def test_running_statistics_are_kept_by_branch(key):
    parts = {"policy": resnet18((8, 8, 1), 2, width=4), "value": mlp((8, 8, 1), 1, widths=(4,))}
    network = side_by_side(parts, BRANCHES)
    params, state = network.init(key)
    assert list(state) == ["actor"]
    _, _, after = network.apply(params, state, jax.random.normal(key, (4, 8, 8, 1)), train=True, key=key)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    statistics = {slot.path for layer in network.wiring.layers for slot in layer.statistics or ()}
    assert statistics
    assert statistics <= set(by_path(state))


def test_networks_that_do_not_say_what_their_head_is_are_refused():
    unsaid = mlp((3,), 2, widths=(4,))
    unsaid = unsaid._replace(wiring=Wiring(unsaid.wiring.layers, unsaid.wiring.roles, {}))
    with pytest.raises(UserError, match=r"got a network with 0 stated heads for the output 'policy'; wanted a network"):
        side_by_side({"policy": unsaid, "value": unsaid}, BRANCHES)
    with pytest.raises(UserError, match=r"got a network that does not state one head of its own; wanted one output"):
        with_heads(unsaid, {"policy": 2, "value": 1})
    tied = unsaid._replace(wiring=unsaid.wiring._replace(heads={"output": Head(())}))
    with pytest.raises(UserError, match="use separate networks"):
        with_heads(tied, {"policy": 2, "value": 1})


def test_heads_cannot_read_what_is_no_vector(key):
    mixed = mlp((3,), 2, widths=(4,))

    def apply(params, state, inputs, **options):
        output, features, state = mixed.apply(params, state, inputs, **options)
        return output, {name: feature[:, None] for name, feature in features.items()}, state

    network = with_heads(mixed._replace(apply=apply), {"policy": 2, "value": 1})
    params, state = network.init(key)
    with pytest.raises(UserError, match=r"got a head that reads a feature of shape \(2, 1, 4\); wanted a vector of 4"):
        network.apply(params, state, jnp.ones((2, 3)), train=False, key=None)


def _own(input_shape, num_outputs: Mapping[str, int], *, widths=(4,)):
    """One that can only have several."""


def test_factories_say_whether_they_take_several_outputs():
    assert [name for name, factory in NETWORKS.items() if takes_outputs(factory)] == ["octax-cnn"]
    assert takes_outputs(_own)
    assert takes_outputs(functools.partial(octax_cnn, widths=()))
    assert not takes_outputs(lambda input_shape, num_outputs: None)
    assert not takes_outputs(lambda *_: None)
