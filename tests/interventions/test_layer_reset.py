import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pliant.errors import UserError
from pliant.interventions import layer_reset
from pliant.networks import mlp, resnet18, t5
from pliant.optimizers import upgd
from pliant.types import Fresh, Learned, leaf_path

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
HEAD = {"head/kernel", "head/bias"}


def _layer(i):
    return {f"dense_{i}/kernel", f"dense_{i}/bias", f"norm_{i}/scale", f"norm_{i}/bias"}


def _trained(network):
    @jax.jit
    def train():
        params, state = network.init(jax.random.key(0))
        params, state = (jax.tree.map(lambda leaf: leaf + 1, tree) for tree in (params, state))
        return Learned(params, state, TX.update(params, TX.init(params), params)[1])

    return train()


def _leaves(tree):
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _changed(before, after):
    pairs = zip(*(jax.tree_util.tree_leaves_with_path(tree) for tree in (before, after)), strict=True)
    return {
        leaf_path(path) for (path, old), (_, new) in pairs if np.asarray(old).tobytes() != np.asarray(new).tobytes()
    }


def _reset(network, learned, **options):
    method, fresh = layer_reset(network.wiring, **options), Fresh(network.init, TX.init)
    return jax.jit(lambda learned: method.switch(jax.random.key(7), 1, learned, (), fresh))(learned)


@pytest.mark.parametrize(
    ("num_layers", "wanted"),
    [
        (1, HEAD),
        (2, HEAD | _layer(2)),
        (3, HEAD | _layer(2) | _layer(1)),
        (4, HEAD | _layer(2) | _layer(1) | _layer(0)),
    ],
)
def test_the_last_layers_and_no_other_bit(num_layers, wanted):
    network = mlp((3,), 2, widths=(5, 4, 6), norm="layer")
    learned = _trained(network)
    after, _, info = _reset(network, learned, num_layers=num_layers)
    assert _changed(learned.params, after.params) == wanted
    drawn, found = (_leaves(params) for params in (jax.jit(network.init)(jax.random.key(7))[0], after.params))
    for path in wanted:
        np.testing.assert_allclose(found[path], drawn[path], atol=1e-6)
    adam, before = after.optimizer[1][0], learned.optimizer[1][0]
    assert _changed(before.mu, adam.mu) == _changed(before.nu, adam.nu) == wanted
    assert all(not np.any(leaf) for path, leaf in _leaves(adam.mu).items() if path in wanted)
    assert int(adam.count) == 1
    assert float(info["norm_moved"]) > 0


def test_running_statistics_of_a_reset_layer_begin_again():
    network = resnet18((4, 4, 1), 2, width=2, num_blocks=(1, 1), norm="batch")
    learned = _trained(network)
    after, _, _ = _reset(network, learned, num_layers=2)
    of_norm = {f"block_1/norm_0/{name}" for name in ("mean", "var")}
    assert _changed(learned.statistics, after.statistics) == of_norm
    assert not np.any(after.statistics["block_1"]["norm_0"]["mean"])
    changed = _changed(learned.params, after.params)
    inner = {"block_1/conv_0/kernel", "block_1/norm_0/scale", "block_1/norm_0/bias"}
    assert changed == HEAD | inner
    assert not _changed(learned, _reset(network, learned, num_layers=2, every_tasks=0)[0])


def test_a_layer_of_sorted_units_can_be_reset_whole():
    network = mlp((3,), 2, widths=(4, 4), activation="maxmin")
    learned = _trained(network)
    assert _changed(learned.params, _reset(network, learned)[0].params) == HEAD | {"dense_1/kernel", "dense_1/bias"}


def test_a_linear_model_has_a_head():
    network = mlp((3,), 2, widths=())
    learned = _trained(network)
    assert _changed(learned.params, _reset(network, learned, num_layers=1)[0].params) == HEAD


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (
            mlp((3,), 2, widths=(4,)),
            {"num_layers": 0},
            r"got num_layers=0; wanted a number in \[1, 2\]\. 1 is the head",
        ),
        (mlp((3,), 2, widths=(4,)), {"num_layers": 3}, r"got num_layers=3; wanted a number in \[1, 2\]"),
        (mlp((3,), 2, widths=(4,)), {"every_tasks": -1}, "got every_tasks=-1"),
        (
            t5((4, 3), 6, width=4, num_heads=1, head_width=4, mlp_width=8),
            {},
            "got a reset of the last layers for a network whose head is tied; wanted a network with an output layer",
        ),
    ],
)
def test_refuses(network, options, message):
    with pytest.raises(UserError, match=message):
        layer_reset(network.wiring, **options)


def test_the_untied_head_of_a_text_network_is_reset():
    network = t5((4, 3), 6, width=4, num_heads=1, head_width=4, mlp_width=8, tie_embeddings=False)
    learned = _trained(network)
    assert _changed(learned.params, _reset(network, learned, num_layers=1)[0].params) == {"head/kernel"}


def test_parameters_keep_their_type():
    network = mlp((3,), 2, widths=(4,))
    learned = _trained(network)
    learned = Learned(jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), learned.params), {}, ())
    after, _, _ = _reset(network, learned)
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype(jnp.bfloat16)}


def test_utilities_of_units_drawn_anew_are_forgotten(key):
    network = mlp((3,), 2, widths=(4, 4))
    params, state = network.init(key)
    tx = upgd(0.1, utility="feature", wiring=network.wiring)
    _, used = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    fresh = Fresh(network.init, tx.init)
    method = layer_reset(network.wiring, num_layers=2)
    after = method.switch(key, 1, Learned(params, state, used), (), fresh)[0].optimizer.trace
    assert not np.any(after["dense_1"])
    np.testing.assert_array_equal(after["dense_0"], used.trace["dense_0"])
    assert np.any(after["dense_0"])
