import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.networks import ACTIVATIONS, resnet18
from pliant.types import Feed, HiddenLayer, Slot, leaf_path
from strict_types import unchecked
from wiring_checks import assert_roles_are_complete, assert_wiring_is_true

WIDTH = 16
SAME_WIDTH = [name for name, activation in ACTIVATIONS.items() if activation.expansion == 1]


def small(input_shape=(6, 5, 2), num_outputs=3, **options):
    """An identity shortcut and one with a kernel."""
    return resnet18(input_shape, num_outputs, **({"width": 4, "num_blocks": (1, 1)} | options))


def run(network, params, state, x, train=False):
    return jax.jit(lambda params, state, x: network.apply(params, state, x, train=train, key=None))(params, state, x)


def disturbed(key, tree):
    """The same tree with every leaf moved at random; positive ones stay so."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(1, len(leaves)))
    return structure.unflatten(
        leaf * jax.random.uniform(k, leaf.shape, minval=0.5, maxval=1.5)
        + (leaf == 0) * 0.3 * jax.random.normal(k, leaf.shape)
        for k, leaf in zip(keys, leaves, strict=False)
    )


@pytest.mark.parametrize(
    ("options", "num_parameters"),
    [
        ({"input_shape": (32, 32, 3), "num_outputs": 10}, 11_173_962),
        ({"input_shape": (224, 224, 3), "num_outputs": 1000, "stem": "imagenet"}, 11_689_512),  # as torchvision's
    ],
)
def test_has_as_many_parameters_as_it_should(options, num_parameters):
    params, _ = jax.eval_shape(resnet18(**options).init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_parameters


@pytest.mark.parametrize(
    ("stem", "sizes"), [("cifar", [(32, 24), (16, 12), (8, 6), (4, 3)]), ("imagenet", [(8, 6), (4, 3), (2, 2), (1, 1)])]
)
def test_shapes(key, stem, sizes):
    network = resnet18((32, 24, 3), 10, stem=stem)
    params, state = jax.eval_shape(network.init, key)
    out, features, after = jax.eval_shape(
        lambda *arguments: network.apply(*arguments, train=True, key=None), params, state, jnp.zeros((5, 32, 24, 3))
    )
    assert out.shape == (5, 10)
    wanted = {"stem": (5, *sizes[0], 64), "pooled": (5, 512)}
    for i in range(8):
        wanted[f"block_{i}_inner"] = wanted[f"block_{i}"] = (5, *sizes[i // 2], 64 * 2 ** (i // 2))
    assert {name: layer.shape for name, layer in features.items()} == wanted
    assert params["stem"]["kernel"].shape == ((7, 7, 3, 64) if stem == "imagenet" else (3, 3, 3, 64))
    with_kernel = [i for i in range(8) if "shortcut" in params[f"block_{i}"]]
    assert with_kernel == [2, 4, 6]
    assert jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, state, after)
    assert network.wiring.head_reads() == "pooled"


def pairs(network, hugging_face):
    """(our module, their convolution, our norm, their norm) of every convolution."""
    resnet = hugging_face.resnet
    yield ("stem",), resnet.embedder.embedder.convolution, ("stem_norm",), resnet.embedder.embedder.normalization
    blocks = [block for stage in resnet.encoder.stages for block in stage.layers]
    for i, block in enumerate(blocks):
        name = f"block_{i}"
        for j, layer in enumerate(block.layer):
            yield (name, f"conv_{j}"), layer.convolution, (name, f"norm_{j}"), layer.normalization
        if hasattr(block.shortcut, "convolution"):
            yield (name, "shortcut"), block.shortcut.convolution, (name, "shortcut_norm"), block.shortcut.normalization


def put(tree, path, leaves):
    *above, last = path
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = {name: jnp.asarray(np.array(leaf)) for name, leaf in leaves.items()}


def ours_of(network, hugging_face, gradients=False):
    """Their weights (or gradients) and running statistics as our parameters and state."""

    def value(parameter):
        return (parameter.grad if gradients else parameter).detach().numpy()

    params, state = {}, {}
    for conv, convolution, norm, normalization in pairs(network, hugging_face):
        put(params, conv, {"kernel": value(convolution.weight).transpose(2, 3, 1, 0)})
        put(params, norm, {"scale": value(normalization.weight), "bias": value(normalization.bias)})
        put(state, norm, {"mean": normalization.running_mean.numpy(), "var": normalization.running_var.numpy()})
    head = hugging_face.classifier[1]
    put(params, ("head",), {"kernel": value(head.weight).T, "bias": value(head.bias)})
    return params, state


def hugging_face_of(torch, transformers, stem, width):
    """A ResNet of transformers with random weights, norms and running statistics."""
    config = transformers.ResNetConfig(
        layer_type="basic",
        embedding_size=width,
        hidden_sizes=[width, 2 * width, 4 * width, 8 * width],
        depths=[2, 2, 2, 2],
        downsample_in_first_stage=False,
        num_labels=7,
    )
    torch.manual_seed(0)
    model = transformers.ResNetForImageClassification(config)
    if stem == "cifar":
        layer = type(model.resnet.embedder.embedder)(3, width, kernel_size=3, stride=1)
        model.resnet.embedder.embedder, model.resnet.embedder.pooler = layer, torch.nn.Identity()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
            torch.nn.init.normal_(module.running_mean, 0.0, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model


def assert_close(ours, theirs, tolerance=1e-5):
    """Within `tolerance` of the largest entry."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 64), ("cifar", 16)])
def test_computes_what_hugging_face_does(stem, size):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = hugging_face_of(torch, transformers, stem, WIDTH)
    network = resnet18((size, size, 3), 7, stem=stem, width=WIDTH)
    params, state = ours_of(network, theirs)
    assert jax.tree.structure((params, state)) == jax.tree.structure(jax.eval_shape(network.init, jax.random.key(0)))
    x = jnp.float32(np.random.default_rng(0).normal(size=(6, size, size, 3)))
    images = torch.tensor(np.array(x)).permute(0, 3, 1, 2)

    with torch.no_grad():
        wanted = theirs.eval()(images).logits.numpy()
    out, _, after = run(network, params, state, x)
    assert_close(out, wanted)
    assert jax.tree.all(jax.tree.map(np.array_equal, after, state))

    counts = {}
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_hook(lambda m, inputs, _: counts.update({m: inputs[0].numel() // m.num_features}))
    wanted = theirs.train()(images).logits
    (wanted**2).sum().backward()

    def loss(params):
        out, _, after = network.apply(params, state, x, train=True, key=None)
        return (out**2).sum(), (out, after)

    gradients, (out, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert_close(out, wanted.detach().numpy())
    assert_close(gradients, ours_of(network, theirs, gradients=True)[0], tolerance=1e-4)
    _, their_state = ours_of(network, theirs)
    for _, _, path, normalization in pairs(network, theirs):
        new, old, their_new = (find(tree, path) for tree in (after, state, their_state))
        np.testing.assert_allclose(new["mean"], their_new["mean"], atol=1e-5)
        n = counts[normalization]
        unbiased = 0.9 * old["var"] + (new["var"] - 0.9 * old["var"]) * n / (n - 1)
        np.testing.assert_allclose(unbiased, their_new["var"], rtol=1e-5, atol=1e-6)


def find(tree, path):
    for name in path:
        tree = tree[name]
    return tree


def test_running_statistics_by_hand(key):
    """A tenth of the way to the mean and the (biased) variance of the batch, over examples and positions."""
    network = small()
    params, state = network.init(key)
    x = jax.random.normal(key, (4, 6, 5, 2))
    assert jax.tree.map(lambda leaf: leaf.shape, state["stem_norm"]) == {"mean": (4,), "var": (4,)}
    _, _, after = run(network, params, disturbed(key, state), x, train=True)
    wide, kernel = np.pad(np.float64(x), ((0, 0), (1, 1), (1, 1), (0, 0))), np.float64(params["stem"]["kernel"])
    z = sum(wide[:, r : r + 6, s : s + 5] @ kernel[r, s] for r, s in np.ndindex(3, 3))
    before = disturbed(key, state)["stem_norm"]
    mean, var = 0.9 * before["mean"] + 0.1 * z.mean((0, 1, 2)), 0.9 * before["var"] + 0.1 * z.var((0, 1, 2))
    np.testing.assert_allclose(after["stem_norm"]["mean"], mean, atol=1e-6)
    np.testing.assert_allclose(after["stem_norm"]["var"], var, rtol=1e-5)


def test_statistics_are_moved_in_training_only_and_used_otherwise(key):
    network = small()
    params, fresh = network.init(key)
    assert type(fresh) is dict
    assert all(type(module) is dict for module in fresh.values())
    x = jax.random.normal(key, (4, 6, 5, 2))
    state = disturbed(key, fresh)
    in_eval, _, same = run(network, params, state, x)
    assert jax.tree.all(jax.tree.map(np.array_equal, same, state))
    assert not np.array_equal(in_eval, run(network, params, fresh, x)[0])
    np.testing.assert_allclose(run(network, params, state, x[:2])[0], in_eval[:2], rtol=1e-5, atol=1e-6)
    in_training, _, after = run(network, params, state, x, train=True)
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, after, state)))
    np.testing.assert_array_equal(in_training, run(network, params, fresh, x, train=True)[0])
    assert jax.tree.structure(after) == jax.tree.structure(state) == jax.tree.structure(same)


@pytest.mark.parametrize("norm", ["layer", "none"])
def test_other_norms_have_no_state(key, norm):
    network = small(norm=norm)
    params, state = network.init(key)
    x = jax.random.normal(key, (4, 6, 5, 2))
    out, _, after = run(network, params, state, x)
    assert state == after == {}
    np.testing.assert_array_equal(out, run(network, params, state, x, train=True)[0])
    np.testing.assert_allclose(out[:1], run(network, params, state, x[:1])[0], rtol=1e-5, atol=1e-6)


def test_layer_norm_acts_on_the_channels_of_a_position(key):
    network = small(norm="layer", activation="identity", num_blocks=(1,))
    params, _ = network.init(key)
    _, features, _ = network.apply(params, {}, jax.random.normal(key, (4, 6, 5, 2)), train=False, key=None)
    np.testing.assert_allclose(features["stem"].mean(-1), np.zeros((4, 6, 5)), atol=1e-6)
    np.testing.assert_allclose(features["stem"].var(-1), np.ones((4, 6, 5)), rtol=1e-3)


def test_the_head_reads_the_mean_over_positions(key):
    network = small()
    params, state = network.init(key)
    out, features, _ = run(network, params, state, jax.random.normal(key, (4, 6, 5, 2)))
    np.testing.assert_allclose(features["pooled"], np.float64(features["block_1"]).mean((1, 2)), rtol=1e-5, atol=1e-7)
    wanted = features["pooled"] @ params["head"]["kernel"] + params["head"]["bias"][None]
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"activation": "maxmin"}, {"gain": 0.7}, {"norm": "none"}])
def test_kernels_start_orthogonal(key, options):
    params, _ = small(**options).init(key)
    hidden = options.get("gain", 1.0 if "activation" in options else 2**0.5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if leaf_path(path).endswith("kernel"):
            sigma = np.linalg.svd(leaf.reshape(-1, leaf.shape[-1]), compute_uv=False)
            gain = 1.0 if leaf_path(path) == "head/kernel" else hidden
            np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=3e-6)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_roles(norm, use_bias):
    network = small(norm=norm, use_bias=use_bias, num_blocks=(2, 1))
    assert_roles_are_complete(network)
    roles = network.wiring.roles
    for path, role in roles.items():
        *_, module, name = path.split("/")
        wanted = "norm" if "norm" in module else "bias" if name == "bias" else "head" if module == "head" else "matrix"
        assert role == wanted
    assert ("head/bias" in roles) == use_bias
    assert ("block_0/conv_0/bias" in roles) == (use_bias and norm == "none")
    assert ("block_0/norm_0/scale" in roles) == (norm != "none")


@pytest.mark.parametrize("name", SAME_WIDTH)
@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_wiring_is_true(key, name, norm):
    """In eval mode BatchNorm ties no units together, so all feeds are moved."""
    network = small(activation=name, norm=norm)
    assert [(layer.name, layer.width) for layer in network.wiring.layers] == [
        ("block_0_inner", 4),
        ("block_1_inner", 8),
    ]
    state = disturbed(key, network.init(key)[1])
    through = ("matrix", "norm") if norm == "batch" else None
    assert_wiring_is_true(network, jax.random.normal(key, (24, 6, 5, 2)), state=state, through=through)


@pytest.mark.parametrize("name", ["stem", "block_0"])
def test_what_skips_carry_on_cannot_be_cut_off(key, name):
    network = small(norm="none")
    own = "stem" if name == "stem" else "block_0/conv_1"
    reader = "block_0/conv_0" if name == "stem" else "block_1/conv_0"
    feeds = tuple(Feed(Slot(f"{own}/{leaf}", axis=-1), jax.nn.initializers.zeros) for leaf in ("kernel", "bias"))
    lie = HiddenLayer(name, 4, feeds, (Slot(f"{reader}/kernel", axis=-2),), "relu", elementwise=True)
    wrong = network._replace(wiring=network.wiring._replace(layers=(lie,)))
    with pytest.raises(AssertionError, match="heard although its readers are zero"):
        assert_wiring_is_true(wrong, jax.random.normal(key, (24, 6, 5, 2)))


def test_feeds_draw_what_the_network_starts_with(key):
    network = small(gain=0.7)
    params, _ = network.init(key)
    for layer in network.wiring.layers:
        for feed in layer.feeds:
            leaf = find(params, feed.slot.path.split("/"))
            fresh = feed.initializer(key, leaf.shape, leaf.dtype)
            np.testing.assert_allclose(np.linalg.norm(fresh), np.linalg.norm(leaf), rtol=1e-5)


def descend(network, params, state, x, steps=3):
    """Gradient steps in a loop; fails if the state changes its structure."""

    def loss(params, state):
        out, _, state = network.apply(params, state, x, train=True, key=None)
        return (out**2).mean(), state

    def step(_, carry):
        params, state = carry
        gradients, state = jax.grad(loss, has_aux=True)(params, state)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients), state

    return jax.lax.fori_loop(0, steps, step, (params, state))


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
def test_seeds_together_are_seeds_alone(key, norm):
    network = small(norm=norm, num_blocks=(1,))
    keys = jax.random.split(key, 2)
    x = jax.random.normal(key, (4, 6, 5, 2))

    def one(key):
        return descend(network, *network.init(key), x)

    together = jax.jit(jax.vmap(one))(keys)
    alone = [jax.jit(one)(key) for key in keys]
    jax.tree.map(lambda a, *b: np.testing.assert_allclose(a, jnp.stack(b), rtol=1e-5, atol=1e-5), together, *alone)
    kernel = np.asarray(together[0]["block_0"]["conv_1"]["kernel"])
    assert np.all(kernel[0] != kernel[1])


def test_curvature(key):
    network = small(activation="tanh")
    params, state = network.init(key)
    x = jax.random.normal(key, (4, 6, 5, 2))
    direction = jax.tree.map(jnp.cos, params)

    def loss(params):
        return (network.apply(params, state, x, train=True, key=None)[0] ** 2).sum()

    got = jax.jit(lambda params: jax.jvp(jax.grad(loss), (params,), (direction,))[1])(params)
    wanted = jax.jit(jax.grad(lambda params: jax.jvp(loss, (params,), (direction,))[1]))(params)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4 * scale), got, wanted)


@pytest.mark.exact
def test_all_convolutions_of_a_loop_are_canonical(key):
    """Images of 12 × 12 end at 1 × 1, where kernels are larger: XLA would turn these convolutions over."""
    network = small((12, 12, 3), stem="imagenet", num_blocks=(1, 1, 1))
    params, state = jax.eval_shape(network.init, key)
    loop = jax.jit(lambda params, state, x: descend(network, params, state, x))
    text = loop.lower(params, state, jnp.zeros((4, 12, 12, 3))).compile().as_text()
    assert set(re.findall(r"convolution\(.*dim_labels=([^\s,]+)", text)) == {"b01f_01io->b01f"}


BAD = [
    (
        {"activation": "crelu"},
        "got activation 'crelu' in a residual network; wanted .* skips add. .* network 'cnn'",
    ),
    ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
    ({"activation": "maxmin", "width": 5}, "got width 5 with activation 'maxmin'; wanted .* of 2. Choose 6"),
    ({"width": 0}, "got a layer of width 0; wanted widths ≥ 1. Give positive"),
    ({"gain": -1.0}, "got gain=-1.0; wanted a finite number ≥ 1e-12. Leave it out"),
    ({"num_blocks": ()}, r"got num_blocks=\(\); wanted at least one stage.*\(2, 2, 2, 2\)"),
    ({"num_blocks": (2, 0)}, r"got num_blocks=\(2, 0\); wanted at least one stage"),
    ({"stem": "mnist"}, "got stem='mnist'; wanted 'cifar' or 'imagenet'. Leave it out"),
    ({"norm": "group"}, "got norm='group'; wanted 'batch', 'layer' or 'none'. Leave it out"),
    ({"input_shape": (64,)}, r"got inputs of shape \(64,\); wanted images .*. Use the network 'mlp'"),
    ({"num_outputs": 0}, "got num_outputs=0; wanted a finite number ≥ 1. Give"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        unchecked(resnet18)(**({"input_shape": (6, 5, 2), "num_outputs": 3} | options))
