import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import slot_mask
from pliant.networks import ACTIVATIONS, vit
from pliant.types import leaf_path

SMALL = {"patch_size": 2, "width": 8, "num_blocks": 2, "num_heads": 2, "mlp_width": 6}
ONE_BLOCK = SMALL | {"num_blocks": 1}
EXACT = {"gelu": "gelu_pytorch_tanh", "gelu-exact": "gelu", "relu": "relu"}
"""What transformers calls our activations."""


def start(network, key):
    return network.init(key)[0]


def run(network, params, x, *, train=False, key=None):
    return jax.jit(functools.partial(network.apply, train=train))(params, {}, x, key=key)


def output(network, params, x):
    return run(network, params, x)[0]


def by_path(params):
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def with_leaves(params, leaves):
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(leaf_path(path), leaf), params)


def perturbed_everywhere(key, params, size=0.3):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [leaf + size * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, moved)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_shapes(key, name, pool):
    network = vit((4, 6, 3), 5, activation=name, pool=pool, **SMALL)
    params, state = jax.eval_shape(network.init, key)
    apply = functools.partial(network.apply, train=True, key=key)
    out, features, new_state = jax.eval_shape(apply, params, state, jnp.zeros((7, 4, 6, 3)))
    tokens = 6 + (pool == "token")
    expansion = ACTIVATIONS[name].expansion
    assert out.shape == (7, 5)
    assert {name: feature.shape for name, feature in features.items()} == {
        "block_0_mlp": (7, tokens, 6 * expansion),
        "block_0": (7, tokens, 8),
        "block_1_mlp": (7, tokens, 6 * expansion),
        "block_1": (7, tokens, 8),
        "pooled": (7, 8),
    }
    assert params["patch"]["kernel"].shape == (12, 8)
    assert params["positions"].shape == (tokens, 8)
    assert params["block_1"]["attention"]["query"]["kernel"].shape == (8, 8)
    assert params["block_1"]["mlp"]["down"]["kernel"].shape == (6 * expansion, 8)
    assert network.wiring.head_reads() == "pooled"
    assert state == new_state == {}


def test_default_mlp_is_four_times_as_wide(key):
    params, _ = jax.eval_shape(vit((8, 8, 1), 3, width=12).init, key)
    assert params["block_3"]["mlp"]["up"]["kernel"].shape == (12, 48)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_every_leaf_has_a_role(key, norm, use_bias, pool):
    network = vit((4, 4, 1), 3, norm=norm, use_bias=use_bias, pool=pool, **SMALL)
    params, _ = jax.eval_shape(network.init, key)
    roles = network.wiring.roles
    assert set(roles) == set(by_path(params))
    for path, role in roles.items():
        module, _, leaf = path.rpartition("/")
        matrix = {"": "embed", "patch": "embed", "head": "head"}.get(module, "matrix")
        assert role == ("norm" if "norm" in module else "bias" if leaf == "bias" else matrix), path
    assert ("head/bias" in roles) == ("block_1/attention/out/bias" in roles) == use_bias
    assert ("block_0/norm_mlp/scale" in roles) == ("norm/bias" in roles) == (norm == "layer")
    assert ("class_token" in roles) == (pool == "token")


def softmax(scores):
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reference(params, images, *, num_heads, norm, skip, pool):
    """One image at a time, one head at a time, in float64."""
    leaves = {path: np.asarray(leaf, np.float64) for path, leaf in by_path(params).items()}

    def dense(path, x):
        return x @ leaves[f"{path}/kernel"] + leaves[f"{path}/bias"]

    def normed(path, x):
        if norm == "none":
            return x
        z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return z * leaves[f"{path}/scale"] + leaves[f"{path}/bias"]

    outs = []
    for image in np.asarray(images, np.float64):
        rows, columns = image.shape[0] // 2, image.shape[1] // 2
        patches = [image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].ravel() for i in range(rows) for j in range(columns)]
        h = dense("patch", np.stack(patches))
        h = (np.concatenate([leaves["class_token"], h]) if pool == "token" else h) + leaves["positions"]
        for i in range(2):
            y = normed(f"block_{i}/norm_attention", h)
            q, k, v = (dense(f"block_{i}/attention/{name}", y) for name in ("query", "key", "value"))
            heads = [
                softmax(a @ b.T / np.sqrt(a.shape[1])) @ c
                for a, b, c in zip(*(np.split(z, num_heads, axis=1) for z in (q, k, v)), strict=True)
            ]
            h = skip * h + dense(f"block_{i}/attention/out", np.concatenate(heads, axis=1))
            hidden = np.tanh(dense(f"block_{i}/mlp/up", normed(f"block_{i}/norm_mlp", h)))
            h = skip * h + dense(f"block_{i}/mlp/down", hidden)
        h = normed("norm", h)
        outs.append(dense("head", h[0] if pool == "token" else h.mean(0)))
    return np.stack(outs)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_computes_what_it_says(key, norm, skip, pool):
    network = vit((4, 6, 3), 5, activation="tanh", norm=norm, skip=skip, pool=pool, **SMALL)
    params = perturbed_everywhere(key, start(network, key))
    images = jax.random.normal(key, (3, 4, 6, 3))
    wanted = reference(params, images, num_heads=2, norm=norm, skip=skip, pool=pool)
    np.testing.assert_allclose(output(network, params, images), wanted, atol=2e-5)


def test_the_head_reads_the_pooled_feature(key):
    network = vit((4, 4, 1), 3, **SMALL)
    params = start(network, key)
    out, features, _ = run(network, params, jax.random.normal(key, (5, 4, 4, 1)))
    head = params["head"]
    np.testing.assert_allclose(features["pooled"] @ head["kernel"] + head["bias"][None], out, atol=1e-6)


def test_pad_fills_with_zeros_at_the_bottom_and_on_the_right(key):
    padded = vit((5, 4, 2), 3, **(SMALL | {"patch_size": 3, "pad": True}))
    exact = vit((6, 6, 2), 3, **(SMALL | {"patch_size": 3}))
    params = start(exact, key)
    images = jax.random.normal(key, (2, 5, 4, 2))
    larger = jnp.zeros((2, 6, 6, 2)).at[:, :5, :4].set(images)
    np.testing.assert_array_equal(output(padded, params, images), output(exact, params, larger))


def test_is_the_one_block_transformer_of_lyle_et_al(key):
    options = {"patch_size": 3, "pad": True, "num_blocks": 1, "num_heads": 8, "mlp_width": 1024, "dropout": 0.1}
    params, _ = jax.eval_shape(vit((28, 28, 1), 10, **options).init, key)
    assert params["patch"]["kernel"].shape == (9, 256)
    assert params["positions"].shape == (101, 256)
    assert params["block_0"]["mlp"]["up"]["kernel"].shape == (256, 1024)
    assert "block_1" not in params


def from_transformers(model, num_blocks):
    """The parameters of a `ViTForImageClassification` under our names."""
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def dense(name):
        return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}

    def norm(name):
        return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}

    patch = "vit.embeddings.patch_embeddings.projection"
    kernel = tensors[f"{patch}.weight"].transpose(2, 3, 1, 0)  # (out, channels, row, column) with PyTorch
    params = {
        "patch": {"kernel": kernel.reshape(-1, kernel.shape[-1]), "bias": tensors[f"{patch}.bias"]},
        "class_token": tensors["vit.embeddings.cls_token"][0],
        "positions": tensors["vit.embeddings.position_embeddings"][0],
        "norm": norm("vit.layernorm"),
        "head": dense("classifier"),
    }
    for i in range(num_blocks):
        layer = f"vit.layers.{i}"
        params[f"block_{i}"] = {
            "norm_attention": norm(f"{layer}.layernorm_before"),
            "attention": {
                ours: dense(f"{layer}.attention.{theirs}_proj")
                for ours, theirs in {"query": "q", "key": "k", "value": "v", "out": "o"}.items()
            },
            "norm_mlp": norm(f"{layer}.layernorm_after"),
            "mlp": {"up": dense(f"{layer}.mlp.fc1"), "down": dense(f"{layer}.mlp.fc2")},
        }
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("name", [name for name in EXACT if name in ACTIVATIONS])
def test_agrees_with_transformers(name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=12,
        patch_size=4,
        num_channels=3,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        hidden_act=EXACT[name],
        num_labels=7,
    )
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # the published start leaves biases at 0 and scales at 1
            parameter.add_(0.2 * torch.randn_like(parameter))
        images = torch.randn(5, 3, 12, 12)
        wanted = model(images).logits.numpy()
    network = vit((12, 12, 3), 7, width=32, num_blocks=3, mlp_width=48, activation=name)
    found = output(network, from_transformers(model, 3), jnp.asarray(images.numpy().transpose(0, 2, 3, 1)))
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu"},
        {"activation": "crelu"},
        {"norm": "none"},
        {"use_bias": False},
        {"skip": False},
        {"norm": "none", "skip": False},
        {"pool": "mean"},
    ],
    ids=str,
)
def test_a_unit_speaks_to_its_readers_only(key, options):
    """With the declared readers' rows at zero the output is independent of a unit's feeds, and of no other unit's."""
    network = vit((4, 4, 1), 2, **(SMALL | {"mlp_width": 3} | options))
    params = perturbed_everywhere(key, start(network, key))
    x = jax.random.normal(key, (8, 4, 4, 1))
    compute = jax.jit(lambda params: output(network, params, x))

    def changed(params, slots, unit, value):
        leaves = by_path(params)
        for slot in slots:
            mask = slot_mask(slot, jnp.arange(3) == unit, leaves[slot.path])
            leaves[slot.path] = jnp.where(mask, value(leaves[slot.path]), leaves[slot.path])
        return with_leaves(params, leaves)

    def moved(leaf):
        return leaf + jax.random.normal(key, leaf.shape)

    for layer in network.wiring.layers:
        feeds = [feed.slot for feed in layer.feeds]
        assert len(feeds) == 1 + options.get("use_bias", True)
        for unit in range(layer.width):
            cut = changed(params, layer.readers, unit, jnp.zeros_like)
            before = compute(cut)
            for other in range(layer.width):
                same = np.array_equal(compute(changed(cut, feeds, other, moved)), before)
                assert same == (other == unit), f"{layer.name}: unit {other} with {unit} cut off"
            assert not np.array_equal(compute(changed(params, feeds, unit, moved)), compute(params))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_wiring_knows_the_activation(name):
    layers = vit((4, 4, 1), 2, activation=name, **SMALL).wiring.layers
    assert [(layer.name, layer.width) for layer in layers] == [("block_0_mlp", 6), ("block_1_mlp", 6)]
    assert all(layer.activation == name for layer in layers)
    assert all(layer.elementwise == (name != "maxmin") for layer in layers)
    assert all(layer.readers[0].tiles == ACTIVATIONS[name].expansion for layer in layers)


def test_feeds_draw_what_the_network_starts_from(key):
    network = vit((4, 4, 1), 2, **SMALL)
    leaves = by_path(start(network, key))
    for layer in network.wiring.layers:
        for feed in layer.feeds:
            leaf = leaves[feed.slot.path]
            drawn = feed.initializer(key, leaf.shape, leaf.dtype)
            assert drawn.shape == leaf.shape
            np.testing.assert_allclose(jnp.linalg.norm(drawn), jnp.linalg.norm(leaf), rtol=1e-5)


def test_kernels_start_orthogonal_and_biases_zero(key):
    params = by_path(start(vit((4, 4, 3), 4, **SMALL), key))
    for path, leaf in params.items():
        if path.endswith("kernel"):
            sigma = np.linalg.svd(leaf, compute_uv=False)
            gain = 2**0.5 if path.endswith("up/kernel") else 1.0
            np.testing.assert_allclose(sigma, np.full_like(sigma, gain), rtol=2e-6)
        elif path.endswith("bias") or path == "class_token":
            assert not np.any(leaf)
    assert 0.01 < np.std(params["positions"]) < 0.03
    assert np.all(params["block_0/attention/query/kernel"] != params["block_0/attention/key/kernel"])
    assert np.all(params["block_0/attention/query/kernel"] != params["block_1/attention/query/kernel"])


class TestDropout:
    network = vit((4, 4, 1), 3, dropout=0.25, **ONE_BLOCK)
    plain = vit((4, 4, 1), 3, **ONE_BLOCK)

    @pytest.fixture
    def params(self, key):
        return start(self.network, key)

    @pytest.fixture
    def x(self, key):
        return jax.random.normal(key, (4, 4, 4, 1))

    def test_only_in_training(self, key, params, x):
        wanted = output(self.plain, params, x)
        np.testing.assert_array_equal(output(self.network, params, x), wanted)
        assert not np.array_equal(run(self.network, params, x, train=True, key=key)[0], wanted)

    def test_comes_from_the_key(self, params, x):
        keys = [jax.random.key(seed) for seed in (0, 1, 0)]
        train = jax.jit(lambda key: self.network.apply(params, {}, x, train=True, key=key)[0])
        a, b, c = (train(key) for key in keys)
        np.testing.assert_array_equal(a, c)
        assert not np.array_equal(a, b)

    def test_rate_zero_needs_no_key(self, params, x):
        np.testing.assert_array_equal(run(self.plain, params, x, train=True)[0], output(self.plain, params, x))

    def test_keeps_the_mean(self, key, x):
        """A linear network: no skip, no norm, and attention that reads all tokens alike."""
        network = vit((4, 4, 1), 3, dropout=0.25, activation="identity", norm="none", skip=False, **ONE_BLOCK)
        params = start(network, key)
        params["block_0"]["attention"]["query"]["kernel"] *= 0.0
        keys = jax.random.split(key, 4000)
        outs = jax.vmap(lambda key: run(network, params, x, train=True, key=key)[0])(keys)
        error = np.std(outs, axis=0) / len(keys) ** 0.5
        assert np.all(np.abs(np.mean(outs, axis=0) - output(network, params, x)) < 5 * error)
        assert np.min(np.std(outs, axis=0)) > 0.01

    def test_wants_a_key(self, params, x):
        with pytest.raises(UserError, match=r"got dropout=0.25 in training without a key; wanted a key. Pass key="):
            run(self.network, params, x, train=True)


def test_large_scores_are_no_overflow(key):
    network = vit((4, 4, 1), 2, norm="none", **ONE_BLOCK)
    params = start(network, key)
    x = 1e6 * jax.random.normal(key, (3, 4, 4, 1))
    value, gradient = jax.value_and_grad(lambda params: output(network, params, x).sum() * 1e-6)(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def gradient(network, params):
    x, key = jax.random.normal(jax.random.key(1), (4, 4, 4, 1)), jax.random.key(2)
    return jax.grad(lambda params: (network.apply(params, {}, x, train=True, key=key)[0] ** 2).sum())(params)


def test_second_derivatives_are_symmetric(key):
    network = vit((4, 4, 1), 2, **ONE_BLOCK)
    params = start(network, key)
    u, v = (perturbed_everywhere(k, jax.tree.map(jnp.zeros_like, params)) for k in jax.random.split(key))

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    product = jax.jit(lambda v: jax.jvp(lambda params: gradient(network, params), (params,), (v,))[1])
    np.testing.assert_allclose(dot(u, product(v)), dot(v, product(u)), rtol=1e-4)
    reverse = jax.eval_shape(jax.grad(lambda params: dot(gradient(network, params), v)), params)
    assert jax.tree.structure(reverse) == jax.tree.structure(params)


def test_seeds_in_one_program_are_seeds_alone(key):
    network = vit((4, 4, 1), 2, dropout=0.1, **ONE_BLOCK)

    def step(_, params):
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient(network, params))

    @jax.jit
    def descend(params):
        return jax.lax.fori_loop(0, 3, step, params)

    starts = [start(network, k) for k in jax.random.split(key, 2)]
    together = jax.vmap(descend)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts))
    alone = [by_path(descend(params)) for params in starts]
    for path, leaf in by_path(together).items():
        np.testing.assert_allclose(leaf, np.stack([params[path] for params in alone]), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
        ({"patch_size": 3}, r"got images of 4 × 4 pixels with patch_size=3; wanted a patch .* both sides. .*pad=True"),
        ({"patch_size": 0}, r"got patch_size=0; wanted a finite number ≥ 1. Give a positive"),
        ({"width": 9}, r"got width=9 with num_heads=2; wanted a width that is a multiple .* Choose width=10"),
        ({"num_blocks": 0}, r"got num_blocks=0; wanted a finite number ≥ 1. Give a positive"),
        ({"mlp_width": 7, "activation": "maxmin"}, r"got mlp_width=7 with activation 'maxmin'; .* of 2. Choose 8"),
        ({"norm": "batch"}, r"got norm='batch'; wanted 'layer' or 'none'. Leave it out"),
        ({"pool": "max"}, r"got pool='max'; wanted 'token' or 'mean'. Leave it out"),
        ({"dropout": 1.0}, r"got dropout=1.0; wanted a number in \[0, 0.999\]. 0.1 is usual"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        vit((4, 4, 1), 2, **(SMALL | options))


def test_refuses_what_is_no_image():
    with pytest.raises(UserError, match=r"got inputs of shape \(20,\); wanted images .* Use the network 'mlp'"):
        vit((20,), 2)
