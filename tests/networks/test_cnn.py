import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, cnn, kumar_cnn, lyle_cnn, octax_cnn
from strict_types import unchecked
from wiring_checks import assert_roles_are_complete, assert_wiring_is_true

SMALL = {"channels": (4, 2), "kernel_sizes": (3, 2), "strides": (1, 2), "pool": (2, 1), "widths": (4,)}


NO_CONV = {"channels": (), "kernel_sizes": (), "strides": (), "pool": ()}


def small(input_shape=(7, 6, 2), num_outputs=3, **options):
    return cnn(input_shape, num_outputs, **(SMALL | options))


def shapes(network, inputs):
    """The shapes of parameters, output and features."""
    params, state = jax.eval_shape(network.init, jax.random.key(0))
    apply = functools.partial(network.apply, train=True, key=jax.random.key(0))
    out, features, after = jax.eval_shape(apply, params, state, inputs)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    return jax.tree.map(lambda leaf: leaf.shape, (params, out, dict(features)))


def test_the_default_is_adamos():
    params, out, features = shapes(cnn((32, 32, 3), 10), jnp.zeros((2, 32, 32, 3)))
    assert {name: module["kernel"] for name, module in params.items()} == {
        "conv_0": (3, 3, 3, 32),
        "conv_1": (3, 3, 32, 32),
        "conv_2": (3, 3, 32, 32),
        "dense_0": (16 * 16 * 32, 256),
        "dense_1": (256, 256),
        "head": (256, 10),
    }
    assert out == (2, 10)
    assert features == {
        "conv_0": (2, 32, 32, 32),
        "conv_1": (2, 32, 32, 32),
        "conv_2": (2, 16, 16, 32),
        "dense_0": (2, 256),
        "dense_1": (2, 256),
    }


@pytest.mark.parametrize(
    ("factory", "input_shape", "kernels"),
    [
        (lyle_cnn, (32, 32, 3), [(5, 5, 3, 64), (3, 3, 64, 64), (8 * 8 * 64, 256), (256, 256), (256, 10)]),
        (kumar_cnn, (32, 32, 3), [(5, 5, 3, 16), (5, 5, 16, 16), (5 * 5 * 16, 100), (100, 100), (100, 10)]),
        (kumar_cnn, (16, 16, 1), [(5, 5, 1, 16), (5, 5, 16, 16), (16, 100), (100, 100), (100, 10)]),
        (octax_cnn, (32, 64, 4), [(8, 4, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (4 * 16 * 64, 256), (256, 10)]),
    ],
)
def test_networks_of_other_papers(factory, input_shape, kernels):
    params, _, _ = shapes(factory(input_shape, 10), jnp.zeros((2, *input_shape)))
    assert [module["kernel"] for module in params.values()] == kernels


def test_kumars_on_small_images():
    _, out, features = shapes(kumar_cnn((8, 8, 1), 10, padding="SAME"), jnp.zeros((2, 8, 8, 1)))
    assert (out, features["conv_1"]) == ((2, 10), (2, 2, 2, 16))


def test_octaxs_screens():
    """Of 32 × 64 with the frames as channels, and of the layout of the authors' code."""
    _, out, features = shapes(octax_cnn((32, 64, 4), 6), jnp.zeros((2, 32, 64, 4)))
    assert out == (2, 6)
    assert features == {
        "conv_0": (2, 8, 32, 32),
        "conv_1": (2, 4, 16, 64),
        "conv_2": (2, 4, 16, 64),
        "dense_0": (2, 256),
    }
    assert shapes(octax_cnn((4, 32, 64), 6), jnp.zeros((2, 4, 32, 64)))[2]["conv_2"] == (2, 1, 8, 64)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_kernels_and_strides_of_two_sizes(key, padding):
    sizes = {"channels": (4, 3), "kernel_sizes": ((4, 2), 2), "strides": ((3, 1), (1, 2)), "pool": (1, 1)}
    network = cnn((12, 7, 2), 3, **sizes, padding=padding, widths=(5,), use_bias=False)
    params, state = network.init(key)
    x = jax.random.normal(key, (5, 12, 7, 2))
    out, features, _ = network.apply(params, state, x, train=False, key=None)
    for name, strides in (("conv_0", (3, 1)), ("conv_1", (1, 2))):
        numbers = ("NHWC", "HWIO", "NHWC")
        kernel = params[name]["kernel"]
        x = jax.nn.relu(jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers))
        np.testing.assert_allclose(features[name], x, atol=1e-5)
    assert out.shape == (5, 3)
    assert_roles_are_complete(network)


OUTPUTS = {"policy": 3, "value": 1}


def branched(**options):
    return octax_cnn((8, 8, 2), OUTPUTS, **{"width_multiplier": 0.0625, "widths": (64, 64)} | options)


def test_outputs_share_convolutions_and_have_dense_layers_of_their_own(key):
    network = branched(norm="layer")
    params, state = network.init(key)
    x = jax.random.normal(key, (5, 8, 8, 2))
    outputs, features, _ = network.apply(params, state, x, train=False, key=None)
    assert {name: output.shape for name, output in outputs.items()} == {"policy": (5, 3), "value": (5, 1)}
    assert sorted(features) == sorted(
        ["conv_0", "conv_1", "conv_2", *(f"{name}/dense_{i}" for name in OUTPUTS for i in (0, 1))]
    )
    assert (params["policy"]["dense_0"]["kernel"] != params["value"]["dense_0"]["kernel"]).any()
    for name, size in OUTPUTS.items():
        alone = octax_cnn((8, 8, 2), size, width_multiplier=0.0625, widths=(64, 64), norm="layer")
        own = {layer: leaf for layer, leaf in params.items() if layer not in OUTPUTS} | params[name]
        wanted, of_own, _ = alone.apply(own, {}, x, train=False, key=None)
        np.testing.assert_allclose(outputs[name], wanted, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(features[f"{name}/dense_1"], of_own["dense_1"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"norm": "layer"}, {"widths": ()}, {"activation": "crelu"}])
def test_wiring_of_several_outputs(options):
    network = branched(**options)

    def apply(*arguments, **keywords):
        outputs, features, state = network.apply(*arguments, **keywords)
        return jnp.concatenate(list(outputs.values()), axis=1), features, state

    x = jnp.asarray(np.random.default_rng(0).normal(size=(48, 8, 8, 2)), jnp.float32)
    assert_wiring_is_true(network._replace(apply=apply), x)
    last = network.wiring.last_layers(1)
    wanted = ["conv_2"] if options == {"widths": ()} else ["policy/dense_1", "value/dense_1"]
    assert [layer.name for layer in last] == wanted
    assert {head.branch for head in network.wiring.heads.values()} == set(OUTPUTS)


@pytest.mark.parametrize("linear", ["newton-schulz", "spectral-norm-first"])
def test_state_of_several_outputs_is_stable(key, linear):
    network = branched(linear=linear)
    assert_roles_are_complete(network)
    params, state = network.init(key)
    assert state
    _, _, after = network.apply(params, state, jnp.ones((2, 8, 8, 2)), train=True, key=None)
    assert jax.tree.structure(after) == jax.tree.structure(state)


@pytest.mark.parametrize("factory", [lyle_cnn, kumar_cnn])
def test_options_are_passed_on(factory):
    options = {"widths": (6,), "activation": "crelu", "norm": "layer", "use_bias": False, "gain": 0.5}
    network = factory((16, 16, 1), 2, **options)
    params, _ = jax.jit(network.init)(jax.random.key(0))
    assert set(params) == {"conv_0", "conv_norm_0", "conv_1", "conv_norm_1", "dense_0", "dense_norm_0", "head"}
    assert set(params["dense_0"]) == set(params["head"]) == {"kernel"}
    assert params["head"]["kernel"].shape == (12, 2)
    sigma = np.linalg.svd(params["dense_0"]["kernel"], compute_uv=False)
    np.testing.assert_allclose(sigma, np.full_like(sigma, 0.5), rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_shapes(name, norm):
    params, out, features = shapes(small(activation=name, norm=norm), jnp.zeros((5, 7, 6, 2)))
    expansion = ACTIVATIONS[name].expansion
    assert out == (5, 3)
    assert features == {
        "conv_0": (5, 3, 3, 4 * expansion),
        "conv_1": (5, 2, 2, 2 * expansion),
        "dense_0": (5, 4 * expansion),
    }
    assert params["conv_1"]["kernel"] == (2, 2, 4 * expansion, 2)
    assert params["dense_0"]["kernel"] == (2 * 2 * 2 * expansion, 4)
    assert params["head"]["kernel"] == (4 * expansion, 3)
    assert ("conv_norm_1" in params) == ("dense_norm_0" in params) == (norm == "layer")


def moved(params):
    """Parameters with biases and scales that are not 0 and 1."""
    return jax.tree.map(lambda leaf: leaf + 0.1, params)


def layer_norm(z):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-6)


def test_computes_what_it_says(key):
    options = {"channels": (4,), "kernel_sizes": (3,), "strides": (2,), "pool": (2,)}
    network = small((8, 9, 2), activation="tanh", norm="layer", padding="VALID", **options)
    params = moved(network.init(key)[0])
    x = jax.random.normal(key, (5, 8, 9, 2))
    out, features, _ = network.apply(params, {}, x, train=False, key=None)
    p = jax.tree.map(np.float64, params)
    z = np.zeros((5, 3, 4, 4)) + p["conv_0"]["bias"]
    for r, s in np.ndindex(3, 3):
        z += np.float64(x)[:, r : r + 5 : 2, s : s + 7 : 2] @ p["conv_0"]["kernel"][r, s]
    h = np.tanh(layer_norm(z) * p["conv_norm_0"]["scale"] + p["conv_norm_0"]["bias"])
    h = h[:, :2].reshape(5, 1, 2, 2, 2, 4).max(axis=(2, 4))
    np.testing.assert_allclose(features["conv_0"], h, atol=2e-6)
    z = h.reshape(5, -1) @ p["dense_0"]["kernel"] + p["dense_0"]["bias"]
    h = np.tanh(layer_norm(z) * p["dense_norm_0"]["scale"] + p["dense_norm_0"]["bias"])
    np.testing.assert_allclose(features["dense_0"], h, atol=5e-6)
    np.testing.assert_allclose(out, h @ p["head"]["kernel"] + p["head"]["bias"], atol=5e-6)


def test_computes_what_torch_does(key):
    torch = pytest.importorskip("torch")
    network = kumar_cnn((20, 18, 3), 4, widths=(7, 6))
    params = moved(network.init(key)[0])
    x = jax.random.normal(key, (3, 20, 18, 3))
    weights = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), params)

    def run_torch(x):
        for name in ("conv_0", "conv_1"):
            kernel = weights[name]["kernel"].permute(3, 2, 0, 1)
            x = torch.relu(torch.nn.functional.conv2d(x, kernel, weights[name]["bias"]))
            x = torch.nn.functional.max_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)
        for name in ("dense_0", "dense_1"):
            x = torch.relu(x @ weights[name]["kernel"] + weights[name]["bias"])
        return x @ weights["head"]["kernel"] + weights["head"]["bias"]

    theirs = run_torch(torch.tensor(np.asarray(x)).permute(0, 3, 1, 2))
    (theirs**2).sum().backward()

    def loss(params):
        out, _, _ = network.apply(params, {}, x, train=True, key=None)
        return (out**2).sum(), out

    gradients, ours = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert_close(ours, theirs.detach().numpy())
    jax.tree.map(lambda a, b: assert_close(a, b.grad.numpy()), gradients, weights)


def assert_close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("options", [{}, {"activation": "maxmin"}, {"gain": 0.7}])
def test_kernels_start_orthogonal_and_biases_zero(key, options):
    network = small(**options)
    params, _ = network.init(key)
    hidden = options.get("gain", 1.0 if options else 2**0.5)
    for name, module in params.items():
        kernel = module["kernel"].reshape(-1, module["kernel"].shape[-1])
        sigma = np.linalg.svd(kernel, compute_uv=False)
        np.testing.assert_allclose(sigma, np.full_like(sigma, 1.0 if name == "head" else hidden), rtol=2e-6)
        assert not np.any(module["bias"])


def test_convolutions_that_start_as_isometries_of_images(key):
    sizes = {"channels": (4, 8), "kernel_sizes": (3, 5), "strides": (1, 1), "pool": (1, 1), "widths": (8,)}
    plain = cnn((6, 6, 3), 2, **sizes)
    delta = cnn((6, 6, 3), 2, **sizes, activation="identity", linear="delta-orthogonal")
    x = jax.random.normal(key, (7, 6, 6, 3))
    params, _ = delta.init(key)
    _, features, _ = delta.apply(params, {}, x, train=False, key=None)
    for name in ("conv_0", "conv_1"):
        norms = [np.linalg.norm(images.reshape(7, -1), axis=1) for images in (features[name], x)]
        np.testing.assert_allclose(*norms, rtol=1e-5)
    assert delta.wiring.roles == plain.wiring.roles
    for layer in delta.wiring.layers[:2]:
        kernel = params[layer.name]["kernel"]
        fresh = layer.feeds[0].initializer(key, kernel.shape, kernel.dtype)
        np.testing.assert_array_equal(fresh != 0, kernel != 0)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "layers", [{}, {"widths": ()}, {"channels": (), "kernel_sizes": (), "strides": (), "pool": ()}]
)
def test_roles(norm, use_bias, layers):
    network = small(norm=norm, use_bias=use_bias, **layers)
    assert_roles_are_complete(network)
    for path, role in network.wiring.roles.items():
        module, name = path.split("/")
        wanted = "norm" if "norm" in module else "bias" if name == "bias" else "head" if module == "head" else "matrix"
        assert role == wanted
    assert network.wiring.head_reads() == ("conv_1" if layers == {"widths": ()} else "dense_0")


def test_no_hidden_layers_are_a_linear_model(key):
    network = small(widths=(), **NO_CONV)
    params, state = network.init(key)
    x = jax.random.normal(key, (5, 7, 6, 2))
    out, features, _ = network.apply(params, state, x, train=False, key=None)
    np.testing.assert_allclose(out, x.reshape(5, -1) @ params["head"]["kernel"], rtol=1e-5, atol=1e-6)
    assert features == {}
    assert network.wiring.layers == ()
    assert network.wiring.head_reads() is None


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"norm": "layer", "use_bias": False, "widths": ()}])
def test_wiring_is_true(key, name, options):
    """Through conv, flatten (last conv to dense or head) and dense; the flattened images are 2 × 2."""
    network = small(activation=name, **options)
    assert_wiring_is_true(network, jax.random.normal(key, (24, 7, 6, 2)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wiring_knows_activation_and_tiles(name):
    layers = small(activation=name).wiring.layers
    expansion = ACTIVATIONS[name].expansion
    assert [(layer.name, layer.width) for layer in layers] == [("conv_0", 4), ("conv_1", 2), ("dense_0", 4)]
    assert all(layer.activation == name for layer in layers)
    assert all(layer.elementwise == ACTIVATIONS[name].elementwise for layer in layers)
    readers = [(layer.readers[0].path, layer.readers[0].tiles) for layer in layers]
    assert readers == [("conv_1/kernel", expansion), ("dense_0/kernel", 4 * expansion), ("head/kernel", expansion)]


def test_feeds_draw_what_the_network_starts_with(key):
    network = small(norm="layer", gain=0.7)
    params, _ = network.init(key)
    for layer in network.wiring.layers:
        for feed in layer.feeds:
            module, name = feed.slot.path.split("/")
            leaf = params[module][name]
            fresh = feed.initializer(key, leaf.shape, leaf.dtype)
            np.testing.assert_allclose(np.linalg.norm(fresh), np.linalg.norm(leaf), rtol=1e-5)


def descend(network, params, state, x, steps=3):
    """Gradient steps in a loop."""

    def loss(params, state):
        out, _, state = network.apply(params, state, x, train=True, key=None)
        return (out**2).mean(), state

    def step(_, carry):
        params, state = carry
        gradients, state = jax.grad(loss, has_aux=True)(params, state)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), state

    return jax.lax.fori_loop(0, steps, step, (params, state))


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_seeds_together_are_seeds_alone(key, norm):
    network = small(norm=norm)
    keys = jax.random.split(key, 2)
    x = jax.random.normal(key, (4, 7, 6, 2))
    run = jax.jit(lambda key: descend(network, *network.init(key), x))
    together = jax.jit(jax.vmap(lambda key: descend(network, *network.init(key), x)))(keys)
    alone = [run(key) for key in keys]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), atol=1e-5), together, *alone)
    assert np.all(together[0]["conv_1"]["kernel"][0] != together[0]["conv_1"]["kernel"][1])


def test_curvature(key):
    network = small(activation="tanh")
    params, _ = network.init(key)
    x = jax.random.normal(key, (4, 7, 6, 2))

    def loss(params):
        return (network.apply(params, {}, x, train=True, key=None)[0] ** 2).sum()

    def along(params, direction):
        return jax.jvp(jax.grad(loss), (params,), (direction,))[1]

    def reverse(params, direction):
        return jax.grad(lambda params: jax.jvp(loss, (params,), (direction,))[1])(params)

    direction = jax.tree.map(jnp.cos, params)
    got, wanted = jax.jit(along)(params, direction), jax.jit(reverse)(params, direction)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max()), got, wanted)


@pytest.mark.parametrize("linear", ["spectral-norm", "spectral-norm-first", "weight-norm", "scaled"])
@pytest.mark.parametrize("options", [{"norm": "layer", "activation": "gelu"}, {"activation": "crelu"}])
def test_wiring_of_other_linear_layers_is_true(key, linear, options):
    """Where all columns of a kernel are divided by one number, a bias is all that a unit has for itself."""
    through = ("norm",) if "norm" in options else ("bias",) if "spectral" in linear else None
    network = small(linear=linear, **options)
    assert_wiring_is_true(network, jax.random.normal(key, (24, 7, 6, 2)), through=through)


@pytest.mark.parametrize("linear", ["newton-schulz", "cans", "spectral-norm"])
def test_orthogonal_layers(key, linear):
    """The singular values of what is applied stay 1, however large the weights are; only the head is plain."""
    network = small(linear=linear, activation="identity", use_bias=False, pool=(1, 1))
    params, state = network.init(key)
    assert bool(state) == (linear != "cans")
    assert_roles_are_complete(network)
    x = jax.random.normal(key, (4, 7, 6, 2))
    before = network.apply(params, state, x, train=False, key=None)[0]
    loud = {name: {"kernel": leaf["kernel"] * (1.0 if name == "head" else 1.5)} for name, leaf in params.items()}
    for _ in range(5):
        after, _, state = network.apply(loud, state, x, train=True, key=None)
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-3 * np.abs(before).max())
    assert jax.tree.structure(jax.eval_shape(functools.partial(descend, network), params, state, x)[1]) == (
        jax.tree.structure(state)
    )


def test_the_spectral_norm_of_the_first_dense_layer(key):
    """Behind convolutions, which stay plain."""
    network, plain = small(linear="spectral-norm-first", widths=(4, 4)), small(widths=(4, 4))
    params, state = network.init(key)
    assert set(state) == {"dense_0"}
    before = plain.init(key)[0]
    np.testing.assert_array_equal(params["conv_1"]["kernel"], before["conv_1"]["kernel"])
    x = jax.random.normal(key, (4, 7, 6, 2))
    loud = params | {"dense_0": {"kernel": 3.0 * params["dense_0"]["kernel"], "bias": params["dense_0"]["bias"]}}
    _, _, state = network.apply(loud, state, x, train=True, key=None)
    after = network.apply(loud, state, x, train=False, key=None)[0]
    np.testing.assert_allclose(after, plain.apply(params, {}, x, train=False, key=None)[0], rtol=0, atol=1e-5)


BAD = [
    ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
    ({"activation": "maxmin", "channels": (4, 3)}, "got width 3 with activation 'maxmin'; wanted .* of 2. Choose 4"),
    ({"activation": "maxmin", "widths": (5,)}, "got width 5 with activation 'maxmin'; wanted .* of 2. Choose 6"),
    ({"channels": (4, 0)}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
    ({"widths": (4, 0)}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
    (
        {"strides": (1,)},
        r"got strides=\(1,\) for 2 convolutions; wanted one .* channels. Give .*\(4, 2\)",
    ),
    ({"pool": (1, 0)}, r"got pool=\(1, 0\) for 2 convolutions; wanted one number ≥ 1"),
    ({"pool": (1, (2, 1))}, r"got pool=\(1, \(2, 1\)\) for 2 convolutions; wanted one number ≥ 1"),
    ({"strides": (1, (2, 0))}, r"got strides=\(1, \(2, 0\)\) for 2 convolutions; wanted one number ≥ 1"),
    ({"kernel_sizes": (3, (2,))}, r"got kernel_sizes=\(3, \(2,\)\) for 2 convolutions; wanted one number ≥ 1"),
    ({"kernel_sizes": (3, 3, 3)}, r"got kernel_sizes=\(3, 3, 3\) for 2"),
    ({"pool": (4, 2)}, "got images of 7 × 6, of which conv_1 leaves nothing; wanted at least one .*. Use smaller"),
    ({"padding": "VALID"}, "got images of 7 × 6, of which conv_1 leaves nothing.*padding='SAME'"),
    ({"padding": "same"}, "got padding='same'; wanted 'SAME' or 'VALID'. Leave it out"),
    ({"norm": "batch"}, "got norm='batch'; wanted 'none' or 'layer'. Leave it out"),
    ({"gain": 0.0}, "got gain=0.0; wanted a finite number ≥ 1e-12. Leave it out"),
    ({"input_shape": (64,)}, r"got inputs of shape \(64,\); wanted images .*. Use the network 'mlp'"),
    ({"num_outputs": 0}, "got num_outputs=0; wanted a finite number ≥ 1. Give"),
    ({"linear": "cayley"}, "got the linear layer 'cayley'; wanted one of"),
    ({"linear": "cans", "linear_iterations": 0}, "got linear_iterations=0"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(cnn)(**({"input_shape": (7, 6, 2), "num_outputs": 3} | SMALL | {"pool": (4, 1)} | options))
