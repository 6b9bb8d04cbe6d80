import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import weight_clipping
from pliant.networks import NETWORKS, cnn, mlp
from pliant.types import Feed, HiddenLayer, Learned, Slot, Wiring, leaf_path


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def clip(wiring, params, kappa=2.0, **options):
    @jax.jit
    def update(params, kappa):
        method = weight_clipping(wiring, kappa=kappa, **options)
        learned = Learned(params, {}, ())
        return method.update(jax.random.key(0), 1, learned, method.init(learned), None)

    (after, _, _), state, info = update(params, kappa)
    assert state == ()
    return after, info


@functools.cache
def loud(name="mlp"):
    """A network with layers of all kinds, and parameters beyond any bound."""
    if name == "mlp":
        network = mlp((100,), 3, widths=(25, 16), norm="layer")
    elif name == "cnn":
        sizes = {"channels": (4, 3), "kernel_sizes": (3, 2), "strides": (1, 2), "pool": (1, 1), "widths": (5,)}
        network = cnn((6, 6, 2), 3, **sizes)
    else:
        network = NETWORKS[name](*SHAPES[name][:2], **SHAPES[name][2])
    params = jax.eval_shape(network.init, jax.random.key(0))[0]
    return network.wiring, jax.tree.map(lambda leaf: jnp.full(leaf.shape, 9.0), params)


SHAPES = {
    "moe-mlp": ((5,), 3, {"widths": (6,), "num_experts": 2, "expert_width": 4, "mixture_width": 7}),
    "residual-mlp": ((5,), 3, {"width": 6, "num_blocks": 1, "hidden_width": 8}),
    "vit": ((8, 8, 1), 3, {"patch_size": 4, "width": 8, "num_blocks": 1, "num_heads": 2, "mlp_width": 6}),
}


def test_by_hand():
    """A fan-in of 100 and κ = 2: the bound is 0.2, of the bias too."""
    wiring, params = loud()
    small = {"kernel": jnp.zeros((100, 25)).at[0, :3].set(jnp.array([0.3, -0.15, -0.21])), "bias": jnp.zeros(25)}
    small["bias"] = small["bias"].at[:2].set(jnp.array([0.25, -0.1]))
    after, _ = clip(wiring, params | {"dense_0": small})
    np.testing.assert_allclose(after["dense_0"]["kernel"][0, :3], [0.2, -0.15, -0.2], rtol=1e-6)
    np.testing.assert_allclose(after["dense_0"]["bias"][:2], [0.2, -0.1], rtol=1e-6)


def test_bounds_are_of_the_layers_own_fan_in():
    """A bias sorts before its kernel: the bound is not that of what was seen before. Norms stay."""
    wiring, params = loud()
    after, info = clip(wiring, params)
    for module, fan_in in (("dense_0", 100), ("dense_1", 25), ("head", 16)):
        for leaf in after[module].values():
            np.testing.assert_allclose(leaf, 2 / np.sqrt(fan_in), rtol=1e-6)
    for module in ("norm_0", "norm_1"):
        same(after[module], params[module])
    assert float(info["clipped_fraction"]) == 1.0
    sizes = {module: [leaf.size for leaf in params[module].values()] for module in ("dense_0", "dense_1", "head")}
    wanted = sum(
        sum(sizes[module]) * (9 - 2 / fan_in**0.5) ** 2
        for module, fan_in in (("dense_0", 100), ("dense_1", 25), ("head", 16))
    )
    np.testing.assert_allclose(info["norm_moved"], wanted**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "fan_ins"),
    [
        ("cnn", {"conv_0": 18, "conv_1": 16, "dense_0": 27, "head": 5}),
        (
            "moe-mlp",
            {"dense_0": 5, "expert_0": 6, "expert_1": 6, "expert_0_out": 4, "expert_1_out": 4, "head": 7},
        ),
        ("residual-mlp", {"stem": 5, "block_0/up": 6, "block_0/down": 8, "head": 6}),
        ("vit", {"block_0/attention/query": 8, "block_0/mlp/up": 8, "block_0/mlp/down": 6, "head": 8}),
    ],
)
def test_bounds_in_other_networks(name, fan_ins):
    wiring, params = loud(name)
    after, _ = clip(wiring, params, kappa=1.0)
    leaves = {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(after)}
    for module, fan_in in fan_ins.items():
        for leaf in ("kernel", "bias"):
            np.testing.assert_allclose(leaves[f"{module}/{leaf}"], fan_in**-0.5, rtol=1e-6)
    for path, role in wiring.roles.items():
        if role in ("norm", "embed", "other"):
            np.testing.assert_array_equal(leaves[path], 9.0)


def test_the_head_is_left_out_with_its_bias():
    wiring, params = loud()
    after, _ = clip(wiring, params, include_head=False)
    same(after["head"], params["head"])
    np.testing.assert_allclose(after["dense_1"]["bias"], 0.4, rtol=1e-6)


def test_it_is_idempotent_and_counts_what_is_beyond():
    network = mlp((16,), 2, widths=(4,), use_bias=False)
    params = network.init(jax.random.key(0))[0]
    params["dense_0"]["kernel"] = jnp.zeros((16, 4)).at[:2, 0].set(1.0).at[2, 0].set(0.5)
    params["head"]["kernel"] = jnp.zeros((4, 2))
    once, info = clip(network.wiring, params)
    np.testing.assert_allclose(info["clipped_fraction"], 2 / (64 + 8))
    twice, again = clip(network.wiring, once)
    same(twice, once)
    assert (float(again["clipped_fraction"]), float(again["norm_moved"])) == (0.0, 0.0)


@pytest.mark.parametrize("kappa", [1e30, jnp.inf])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_kappa_beyond_all_weights_is_a_bitwise_no_op(key, kappa, dtype):
    network = mlp((4,), 2, widths=(3,))
    params = jax.tree.map(lambda leaf: (1e6 * (leaf + 1)).astype(dtype), network.init(key)[0])
    after, info = clip(network.wiring, params, kappa=jnp.float32(kappa))
    same(after, params)
    assert float(info["clipped_fraction"]) == 0.0


def test_narrow_weights_stay_narrow():
    wiring, params = loud()
    after, _ = clip(wiring, jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params))
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(after["dense_0"]["bias"].astype(jnp.float32), 0.2, rtol=5e-3)


def test_numbers_that_are_not_finite_are_not_hidden():
    wiring, params = loud()
    params = params | {"head": {"kernel": jnp.full((16, 3), jnp.nan), "bias": jnp.full(3, -jnp.inf)}}
    after, _ = clip(wiring, params)
    assert np.isnan(after["head"]["kernel"]).all()
    np.testing.assert_array_equal(after["head"]["bias"], -0.5)


@pytest.mark.parametrize(("kappa", "low", "high"), [(2.0, 0.14, 0.18), (4.0, 0.003, 0.007)])
def test_orthogonal_starts_are_beyond_the_bounds(key, kappa, low, high):
    """As the docstring says, for the gain of ReLU."""
    network = mlp((256,), 2, widths=(256,), use_bias=False)
    params = network.init(key)[0]
    after, _ = clip(network.wiring, params, kappa=kappa)
    assert low < np.mean(np.asarray(after["dense_0"]["kernel"] != params["dense_0"]["kernel"])) < high


def by_hand(feeds, roles):
    slots = tuple(Feed(Slot(path, axis=-1), jax.nn.initializers.zeros) for path in feeds)
    layer = HiddenLayer("h", 4, slots, (Slot("out", axis=-2),), "relu", True)
    return Wiring((layer,), roles)


def test_a_bias_of_its_own_name_has_the_kernels_that_feed_its_layer():
    """As in a recurrent layer: one bias behind two matrices."""
    roles = {"w_x": "matrix", "w_h": "matrix", "b": "bias", "out": "head"}
    params = {
        "w_x": jnp.full((5, 4), 9.0),
        "w_h": jnp.full((4, 4), 9.0),
        "b": jnp.full(4, 9.0),
        "out": jnp.ones((4, 1)),
    }
    after, _ = clip(by_hand(("b", "w_x", "w_h"), roles), params, kappa=1.0)
    np.testing.assert_allclose(after["b"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(after["w_x"], 5**-0.5, rtol=1e-6)


def test_refuses_a_bias_that_belongs_to_no_kernel():
    wiring = by_hand(("w",), {"w": "matrix", "somewhere/b": "bias", "out": "head"})
    params = {"w": jnp.ones((5, 4)), "somewhere": {"b": jnp.ones(4)}, "out": jnp.ones((4, 1))}
    with pytest.raises(
        UserError, match=r"got the bias 'somewhere/b', which belongs to no kernel; .* Add it to the feeds"
    ):
        weight_clipping(wiring).init(Learned(params, {}, ()))


@pytest.mark.parametrize("kappa", [0.0, -1.0])
def test_refuses(kappa):
    with pytest.raises(UserError, match=f"got kappa={kappa}; wanted a finite number ≥ 1e-12. 1 to 5 are usual"):
        weight_clipping(loud()[0], kappa=kappa)
