import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import plasticity_injection, with_injection
from pliant.networks import cnn, mlp, resnet18, t5
from pliant.penalties import with_auxiliary_heads
from pliant.types import Fresh, Learned, Text, leaf_path
from wiring_checks import assert_wiring_is_true

X = jax.random.normal(jax.random.key(7), (16, 3))
Y = jax.random.normal(jax.random.key(8), (16, 2))
BARE = mlp((3,), 2, widths=(5, 4))
NETWORK = with_injection(BARE)
TX = optax.adam(1e-2)
FRESH = Fresh(NETWORK.init, TX.init)
METHOD = plasticity_injection(NETWORK.wiring, at_task=2)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def _loss(params, state):
    return jnp.mean((NETWORK.apply(params, state, X, train=True)[0] - Y) ** 2)


def _output(learned):
    return NETWORK.apply(learned.params, learned.statistics, X, train=False)[0]


@functools.partial(jax.jit, static_argnums=2)
def _train(learned, state, num_steps, weight_decay=0.0):
    def step(_, carry):
        learned, state = carry
        gradients = jax.grad(_loss)(learned.params, learned.statistics)
        updates, optimizer = TX.update(gradients, learned.optimizer, learned.params)
        params = jax.tree.map(lambda p, u: (1 - weight_decay) * p + u, learned.params, updates)
        return Learned(params, learned.statistics, optimizer), state

    return jax.lax.fori_loop(0, num_steps, step, (learned, state))


@functools.cache
def _aged():
    """After a hundred updates of the first tasks."""
    params, network = NETWORK.init(jax.random.key(0))
    learned = Learned(params, network, TX.init(params))
    return _train(learned, METHOD.init(learned), 100)


def _injected(index=2, key=3):
    learned, state = _aged()
    return METHOD.switch(jax.random.key(key), index, learned, state, FRESH)


def test_before_the_injection_the_network_is_as_without():
    params, network = NETWORK.init(jax.random.key(0))
    bare, _ = BARE.init(jax.random.key(0))
    same(params, bare)
    same(NETWORK.apply(params, network, X, train=False)[0], BARE.apply(bare, {}, X, train=False)[0])
    learned, _ = _aged()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(learned.statistics["injection"]))


def test_the_output_is_the_same_at_the_injection():
    before, _ = _aged()
    after, _, info = _injected()
    same(_output(after), _output(before))
    drawn = NETWORK.init(jax.random.key(3))[0]["head"]
    frozen = after.statistics["injection"]
    same(after.params["head"], drawn)
    for name in ("kernel", "bias"):
        same(frozen["added"][f"head/{name}"], before.params["head"][name])
        same(frozen["subtracted"][f"head/{name}"], drawn[name])
    assert int(info["injections"]) == 1


def test_moments_of_the_head_begin_again_and_no_others():
    before, after = (learned.optimizer[0] for learned in (_aged()[0], _injected()[0]))
    for name in ("mu", "nu"):
        old, new = getattr(before, name), getattr(after, name)
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(new["head"]))
        same((new["dense_0"], new["dense_1"]), (old["dense_0"], old["dense_1"]))
    assert int(after.count) == 100


@pytest.mark.parametrize("index", [1, 3])
def test_it_happens_once(index):
    learned, state = _aged()
    after, kept, info = METHOD.switch(jax.random.key(3), index, learned, state, FRESH)
    same((after, kept), (learned, state))
    assert int(info["injections"]) == 0


def test_it_never_happens_for_task_zero():
    learned, state = _aged()
    never = plasticity_injection(NETWORK.wiring, at_task=0)
    for index in (1, 2, 3):
        same(never.switch(jax.random.key(3), index, learned, state, FRESH)[0], learned)


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_old_heads_are_frozen_and_all_else_learns(weight_decay):
    learned, state, _ = _injected()
    after = _train(learned, state, 100, weight_decay)[0]
    same(after.statistics, learned.statistics)
    for name in ("kernel", "bias"):
        assert np.all(np.asarray(after.params["head"][name] != learned.params["head"][name]))
    assert np.any(np.asarray(after.params["dense_0"]["kernel"] != learned.params["dense_0"]["kernel"]))
    assert float(_loss(after.params, after.statistics)) < float(_loss(learned.params, learned.statistics))


def test_the_output_is_that_of_three_heads():
    learned = _train(*_injected()[:2], 20)[0]
    z = BARE.apply(learned.params, {}, X, train=False)[1]["dense_1"]
    frozen = learned.statistics["injection"]

    def head(leaves, prefix=""):
        return z @ leaves[f"{prefix}kernel"] + leaves[f"{prefix}bias"][None]

    three = head(frozen["added"], "head/") + head(learned.params["head"]) - head(frozen["subtracted"], "head/")
    np.testing.assert_allclose(_output(learned), three, atol=1e-6)


def test_the_gradient_flows_through_the_frozen_heads():
    """With θ₁ = θ₂ what reaches the features is the old head's, as if nothing were injected."""
    before, after = _aged()[0], _injected()[0]
    old, new = (jax.grad(_loss)(learned.params, learned.statistics) for learned in (before, after))
    assert np.any(new["dense_1"]["kernel"])
    same(new, old)


def test_the_wiring_is_that_of_the_network():
    assert NETWORK.wiring == BARE.wiring
    assert_wiring_is_true(NETWORK, jnp.tile(X, (4, 1)))


NETWORKS = {
    "mlp": (mlp((3,), 2, widths=(4,), use_bias=False), X),
    "linear": (mlp((3,), 2, widths=()), X),
    "maps": (
        cnn((4, 4, 1), 2, channels=(3,), kernel_sizes=(3,), strides=(1,), pool=(2,), widths=()),
        jnp.ones((5, 4, 4, 1)),
    ),
    "batch norm": (resnet18((4, 4, 1), 2, width=2, num_blocks=(1,), norm="batch"), jnp.ones((5, 4, 4, 1))),
    "text": (
        t5((4, 3), 6, width=4, num_heads=1, head_width=4, mlp_width=8, tie_embeddings=False),
        Text(jnp.ones((2, 4), jnp.int32), jnp.ones((2, 3), jnp.int32)),
    ),
    "auxiliary heads": (with_auxiliary_heads(mlp((3,), 2, widths=(4,)), num_heads=3), X),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_on_other_networks(name):
    bare, inputs = NETWORKS[name]
    network = with_injection(bare)
    method = plasticity_injection(network.wiring)
    params, state = network.init(jax.random.key(0))
    assert set(network.wiring.roles) == {leaf_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    learned = Learned(params, state, ())
    fresh = Fresh(network.init, lambda params: ())
    after, _, _ = jax.jit(lambda: method.switch(jax.random.key(1), 1, learned, method.init(learned), fresh))()
    output = jax.jit(lambda learned: network.apply(learned.params, learned.statistics, inputs, train=False)[0])
    assert jax.tree.structure(after) == jax.tree.structure(learned)
    same(output(after), output(learned))
    without = after._replace(statistics=learned.statistics)
    assert np.any(np.asarray(output(without) != output(learned)))


def test_refuses_a_tied_head():
    network = t5((4, 3), 6, width=4, num_heads=1, head_width=4, mlp_width=8)
    with pytest.raises(UserError, match="whose head is tied to an embedding; wanted an output layer of its own"):
        with_injection(network)


def test_refuses_a_second_pair():
    with pytest.raises(UserError, match="that has the frozen heads already; wanted a network without"):
        with_injection(NETWORK).init(jax.random.key(0))


def test_refuses_a_network_without_frozen_heads():
    params, state = BARE.init(jax.random.key(0))
    with pytest.raises(UserError, match="got plasticity injection into a network without frozen heads"):
        plasticity_injection(BARE.wiring).init(Learned(params, state, ()))


def test_refuses_negative_tasks():
    with pytest.raises(UserError, match=r"got at_task=-1; wanted a finite number ≥ 0\. Use the number of a task"):
        plasticity_injection(NETWORK.wiring, at_task=-1)
