import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, residual_mlp
from wiring_checks import assert_wiring_is_true


def output(network, params, x):
    return network.apply(params, {}, x, train=False, key=None)[0]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_wiring_is_true(key, name, norm):
    network = residual_mlp((5,), 3, width=4, num_blocks=2, hidden_width=6, activation=name, norm=norm)
    assert_wiring_is_true(network, jax.random.normal(key, (32, 5)))


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_wiring_without_biases_is_true(key, norm):
    network = residual_mlp((5,), 3, width=4, num_blocks=2, hidden_width=3, norm=norm, use_bias=False)
    assert "bias" not in network.wiring.roles.values()
    assert_wiring_is_true(network, jax.random.normal(key, (32, 5)))


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_computes_what_it_says(key, norm):
    network = residual_mlp((2, 2), 3, width=4, num_blocks=2, hidden_width=6, activation="tanh", norm=norm)
    params, state = network.init(key)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    x = jax.random.normal(key, (5, 2, 2))
    out, features, state = network.apply(params, state, x, train=True, key=None)
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)

    def dense(x, layer):
        return x @ layer["kernel"] + layer["bias"]

    def normed(x, layers):
        if norm == "none":
            return x
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
        return x * layers["norm"]["scale"] + layers["norm"]["bias"]

    stream = dense(np.asarray(x, np.float64).reshape(5, 4), p["stem"])
    for name in ("block_0", "block_1"):
        hidden = np.tanh(dense(normed(stream, p[name]), p[name]["up"]))
        np.testing.assert_allclose(features[name], hidden, atol=5e-6)
        stream = stream + dense(hidden, p[name]["down"])
    np.testing.assert_allclose(features["stream"], normed(stream, p), atol=1e-5)
    np.testing.assert_allclose(out, dense(normed(stream, p), p["head"]), atol=2e-5)
    assert set(features) == {"block_0", "block_1", "stream"}
    assert state == {}


@pytest.mark.parametrize(
    ("options", "stream", "hidden"),
    [
        ({}, 128, (128,) * 4),
        ({"width": 6}, 6, (6,) * 4),
        ({"width": 6, "num_blocks": 2}, 6, (6, 6)),
        ({"width": 6, "hidden_width": 8, "num_blocks": 1}, 6, (8,)),
        ({"widths": (8, 6, 4)}, 8, (8, 6, 4)),
        ({"widths": (8, 6), "width": 4}, 4, (8, 6)),
        ({"widths": ()}, 128, ()),
    ],
)
def test_sizes(options, stream, hidden):
    network = residual_mlp((5,), 3, **options)
    params, _ = jax.eval_shape(network.init, jax.random.key(0))
    assert params["stem"]["kernel"].shape == (5, stream)
    assert params["head"]["kernel"].shape == (stream, 3)
    assert {name for name in params if name.startswith("block")} == {f"block_{i}" for i in range(len(hidden))}
    for i, width in enumerate(hidden):
        assert params[f"block_{i}"]["up"]["kernel"].shape == (stream, width)
        assert params[f"block_{i}"]["down"]["kernel"].shape == (width, stream)
    assert tuple(layer.width for layer in network.wiring.layers) == hidden


def test_wiring_of_blocks_of_several_sizes_is_true(key):
    assert_wiring_is_true(residual_mlp((5,), 3, widths=(4, 6)), jax.random.normal(key, (32, 5)))


def test_the_head_reads_the_stream(key):
    network = residual_mlp((5,), 3, width=4, num_blocks=1, norm="layer")
    params, _ = network.init(key)
    x = jax.random.normal(key, (6, 5))
    out, features, _ = network.apply(params, {}, x, train=False, key=None)
    assert network.wiring.head_reads() == "stream"
    np.testing.assert_allclose(out, features["stream"] @ params["head"]["kernel"], atol=1e-6)


def test_only_the_blocks_units_can_be_cut_off():
    wiring = residual_mlp((5,), 3, width=4, num_blocks=2).wiring
    assert [(layer.name, layer.width) for layer in wiring.layers] == [("block_0", 4), ("block_1", 4)]
    assert wiring.roles["stem/kernel"] == wiring.roles["block_1/down/kernel"] == "matrix"
    assert wiring.roles["head/kernel"] == "head"


@pytest.mark.parametrize(
    ("options", "up", "down"),
    [({}, 2**0.5, 0.5), ({"activation": "maxmin"}, 1.0, 0.5), ({"gain": 0.7, "branch_gain": 0.3}, 0.7, 0.3)],
)
def test_kernels_start_orthogonal_and_biases_zero(key, options, up, down):
    params, _ = residual_mlp((12,), 4, width=6, hidden_width=8, num_blocks=4, **options).init(key)
    for i in range(4):
        for part, gain in (("up", up), ("down", down)):
            layer = params[f"block_{i}"][part]
            sigma = np.linalg.svd(layer["kernel"], compute_uv=False)
            np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=2e-6)
            assert not np.any(layer["bias"])
    assert np.all(params["block_0"]["up"]["kernel"] != params["block_1"]["up"]["kernel"])


def test_branches_that_start_at_zero_are_a_linear_model(key):
    network = residual_mlp((5,), 3, width=4, num_blocks=3, branch_gain=0.0)
    params, _ = network.init(key)
    x = jax.random.normal(key, (6, 5))
    np.testing.assert_allclose(
        output(network, params, x), x @ params["stem"]["kernel"] @ params["head"]["kernel"], atol=1e-6
    )


@pytest.mark.parametrize("num_blocks", [1, 4, 16])
def test_the_stream_grows_at_most_by_the_root_of_e(key, num_blocks):
    network = residual_mlp((64,), 3, width=64, num_blocks=num_blocks)
    params, _ = network.init(key)
    x = jax.random.normal(key, (64, 64))
    _, features, _ = network.apply(params, {}, x, train=False, key=None)
    assert 1.0 < jnp.sqrt(jnp.mean(features["stream"] ** 2)) < 1.1 * np.sqrt(np.e)


def test_gradients_of_gradients_under_vmap(key):
    network = residual_mlp((5,), 2, width=4, num_blocks=2, hidden_width=3, activation="tanh", norm="layer")
    params = jax.vmap(lambda key: network.init(key)[0])(jax.random.split(key, 2))
    x = jax.random.normal(key, (6, 5))

    def norm_of_gradient(params):
        gradient = jax.grad(lambda p: jnp.mean(output(network, p, x) ** 2))(params)
        return sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))

    together = jax.jit(jax.vmap(jax.grad(norm_of_gradient)))(params)
    alone = jax.jit(jax.grad(norm_of_gradient))(jax.tree.map(lambda leaf: leaf[1], params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b, rtol=2e-3, atol=1e-5), together, alone)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; .*Did you mean 'relu'\?"),
        ({"norm": "batch"}, "got norm='batch'; wanted 'none' or 'layer'. Leave it out"),
        ({"width": 0}, "got width=0; wanted a finite number ≥ 1. Use 128"),
        ({"widths": (8, 0)}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        (
            {"widths": (8,), "num_blocks": 1},
            r"got num_blocks=1 with widths=\(8,\); wanted one or .* Leave num_blocks out",
        ),
        ({"widths": (8,), "hidden_width": 8}, r"got hidden_width=8 with .*; wanted one or .* Leave hidden_width out"),
        ({"num_blocks": -1}, "got num_blocks=-1; wanted a finite number ≥ 0. Use 0 for"),
        ({"hidden_width": 0}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
        (
            {"activation": "maxmin", "hidden_width": 7},
            "got width 7 with activation 'maxmin'; wanted widths that are multiples of 2. Choose 8",
        ),
        ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
        ({"branch_gain": -1.0}, "got branch_gain=-1.0; wanted a finite number ≥ 0. Leave it out"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        residual_mlp((5,), 2, **options)


def test_refuses_no_outputs():
    with pytest.raises(UserError, match="got num_outputs=0; wanted a finite number ≥ 1"):
        residual_mlp((5,), 0)
