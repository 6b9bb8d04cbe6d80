import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.interventions import slot_mask
from pliant.networks import ACTIVATIONS
from pliant.networks._t5 import relative_buckets, t5
from pliant.types import Text, Traits, leaf_path

SMALL = {"width": 8, "num_heads": 2, "head_width": 3, "mlp_width": 6, "num_buckets": 4, "max_distance": 5}


def run(network, params, text, *, train=False, key=None):
    return jax.jit(functools.partial(network.apply, train=train))(params, {}, text, key=key)


def output(network, params, text):
    return run(network, params, text)[0]


def by_path(params):
    return {leaf_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def with_leaves(params, leaves):
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaves.get(leaf_path(path), leaf), params)


def perturbed_everywhere(key, params, size=0.3):
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    moved = [leaf + size * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, moved)


def texts(key, num_tokens, batch=3, source=6, target=5):
    """The first text fills its source, the second half of it, and so on."""
    a, b = jax.random.split(key)
    lengths = source // (1 + jnp.arange(batch))
    is_text = jnp.arange(source)[None] < lengths[:, None]
    written = jax.random.randint(b, (batch, target), 1, num_tokens).at[:, 0].set(0)
    return Text(jnp.where(is_text, jax.random.randint(a, (batch, source), 1, num_tokens), 0), written)


@pytest.mark.parametrize(
    ("name", "gated", "traits"),
    [
        ("relu", False, Traits(silences=True, is_kinked=True)),
        ("relu", True, Traits(silences=True)),  # its product with a number of any sign is not straight on either side
        ("tanh", True, Traits()),
        ("gelu", True, Traits()),
    ],
)
def test_traits_behind_a_gate(name, gated, traits):
    layers = t5((6, 5), 11, activation=name, gated=gated, **SMALL).wiring.layers
    assert {layer.traits for layer in layers} == {traits}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_shapes(key, name, tied):
    network = t5((6, 5), 11, activation=name, tie_embeddings=tied, num_decoder_blocks=2, **SMALL)
    params, state = jax.eval_shape(network.init, key)
    apply = functools.partial(network.apply, train=True, key=key)
    out, features, new_state = jax.eval_shape(apply, params, state, texts(key, 11))
    expansion = ACTIVATIONS[name].expansion
    assert out.shape == (3, 5, 11)
    assert {name: feature.shape for name, feature in features.items()} == {
        "encoder_0_mlp": (3, 6, 6 * expansion),
        "decoder_0_mlp": (3, 5, 6 * expansion),
        "decoder_1_mlp": (3, 5, 6 * expansion),
        "decoder": (3, 5, 8),
    }
    assert params["tokens"]["embedding"].shape == (11, 8)
    assert params["encoder"]["position_bias"].shape == (4, 2)
    assert params["decoder"]["block_1"]["cross"]["query"]["kernel"].shape == (8, 6)
    assert params["decoder"]["block_1"]["cross"]["out"]["kernel"].shape == (6, 8)
    assert ("head" in params) == (not tied)
    assert network.wiring.head_reads() == "decoder"
    assert state == new_state == {}


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_every_leaf_has_a_role(key, gated, tied):
    network = t5((6, 5), 11, gated=gated, tie_embeddings=tied, num_encoder_blocks=2, **SMALL)
    params, _ = jax.eval_shape(network.init, key)
    roles = network.wiring.roles
    assert set(roles) == set(by_path(params))
    for path, role in roles.items():
        special = {"tokens/embedding": "embed", "head/kernel": "head"}
        special |= {f"{stack}/position_bias": "embed" for stack in ("encoder", "decoder")}
        assert role == special.get(path, "norm" if path.endswith("scale") else "matrix"), path
    assert ("head/kernel" in roles) == (not tied)
    assert ("encoder/block_1/mlp/gate/kernel" in roles) == gated


def test_the_head_reads_the_decoder_feature(key):
    text = texts(key, 11)
    tied, untied = (t5((6, 5), 11, tie_embeddings=tie, **SMALL) for tie in (True, False))
    params = untied.init(key)[0]
    out, features, _ = run(untied, params, text)
    np.testing.assert_allclose(features["decoder"] @ params["head"]["kernel"], out, atol=1e-5)
    tied_out, tied_features, _ = run(tied, {name: params[name] for name in ("tokens", "encoder", "decoder")}, text)
    np.testing.assert_allclose(tied_features["decoder"] * 8**0.5, features["decoder"], atol=1e-6)
    np.testing.assert_allclose(tied_features["decoder"] @ params["tokens"]["embedding"].T, tied_out, atol=1e-5)


def test_padding_is_not_read(key):
    """A longer source with padding is the same source."""
    network = t5((6, 5), 11, **SMALL)
    params = perturbed_everywhere(key, network.init(key)[0])
    text = texts(key, 11)
    longer = Text(jnp.pad(text.source, ((0, 0), (0, 3))), text.decoder)
    np.testing.assert_allclose(output(network, params, longer), output(network, params, text), atol=1e-6)
    other = Text(text.source.at[0, -1].set(0), text.decoder)
    assert not np.allclose(output(network, params, other)[0], output(network, params, text)[0], atol=1e-3)


def test_an_empty_source_is_no_nan(key):
    network = t5((6, 5), 11, **SMALL)
    params = network.init(key)[0]
    text = Text(jnp.zeros((2, 6), jnp.int32), texts(key, 11, batch=2).decoder)
    gradient = jax.jit(jax.grad(lambda params: network.apply(params, {}, text, train=True, key=None)[0].sum()))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_the_decoder_does_not_look_ahead(key):
    network = t5((6, 5), 11, num_decoder_blocks=2, **SMALL)
    params = perturbed_everywhere(key, network.init(key)[0])
    text = texts(key, 11)
    changed = Text(text.source, text.decoder.at[:, 3].set(text.decoder[:, 3] % 10 + 1))
    before, after = output(network, params, text), output(network, params, changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert np.all(np.any(before[:, 3:] != after[:, 3:], axis=2))


def test_large_scores_are_no_overflow(key):
    network = t5((6, 5), 11, **SMALL)
    params = jax.tree.map(lambda leaf: 300.0 * leaf, network.init(key)[0])
    text = texts(key, 11)
    gradient = jax.jit(jax.grad(lambda params: network.apply(params, {}, text, train=True, key=None)[0].mean()))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def from_transformers(model, num_blocks, *, gated, tied):
    """The parameters of a `T5ForConditionalGeneration` under our names."""
    tensors = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}

    def dense(prefix, names):
        return {ours: {"kernel": tensors[f"{prefix}.{theirs}.weight"].T} for ours, theirs in names.items()}

    def block(stack, i):
        layers = f"{stack}.block.{i}.layer"
        last = 2 if stack == "decoder" else 1
        projections = {"query": "q", "key": "k", "value": "v", "out": "o"}
        mlp = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
        params = {
            "norm_attention": {"scale": tensors[f"{layers}.0.layer_norm.weight"]},
            "attention": dense(f"{layers}.0.SelfAttention", projections),
            "norm_mlp": {"scale": tensors[f"{layers}.{last}.layer_norm.weight"]},
            "mlp": dense(f"{layers}.{last}.DenseReluDense", mlp),
        }
        if stack == "decoder":
            params["norm_cross"] = {"scale": tensors[f"{layers}.1.layer_norm.weight"]}
            params["cross"] = dense(f"{layers}.1.EncDecAttention", projections)
        return params

    params = {
        stack: {
            "position_bias": tensors[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"],
            "norm": {"scale": tensors[f"{stack}.final_layer_norm.weight"]},
            **{f"block_{i}": block(stack, i) for i in range(num_blocks)},
        }
        for stack in ("encoder", "decoder")
    }
    params["tokens"] = {"embedding": tensors["shared.weight"]}
    if not tied:
        params["head"] = {"kernel": tensors["lm_head.weight"].T}
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize(("gated", "tied"), [(False, True), (True, False)], ids=["v1.0", "v1.1"])
def test_agrees_with_transformers(key, gated, tied):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        vocab_size=19,
        d_model=24,
        d_kv=5,
        d_ff=40,
        num_layers=2,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj="gated-gelu" if gated else "relu",
        decoder_start_token_id=0,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        if not tied:  # transformers 5 ties the head whatever the configuration says, and only leaves out the scale
            model.lm_head.weight = torch.nn.Parameter(torch.randn(19, 24))
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        text = texts(key, 19, batch=3, source=23, target=17)
        source, decoder = (torch.tensor(np.asarray(tokens, np.int64)) for tokens in text)
        wanted = model(input_ids=source, attention_mask=source != 0, decoder_input_ids=decoder).logits.numpy()
    options = {"width": 24, "num_heads": 3, "head_width": 5, "mlp_width": 40, "num_buckets": 8, "max_distance": 20}
    options |= {"gated": gated, "activation": "gelu" if gated else "relu", "tie_embeddings": tied}
    network = t5((23, 17), 19, num_encoder_blocks=2, num_decoder_blocks=2, **options)
    found = output(network, from_transformers(model, 2, gated=gated, tied=tied), text)
    scale = np.abs(wanted).max()
    assert scale > 1.0
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(scale, 1.0))


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    ("num_buckets", "max_distance"), [(32, 128), (8, 20), (4, 5), (10, 100), (300, 512), (33, 128)]
)
def test_buckets_are_those_of_transformers(bidirectional, num_buckets, max_distance):
    torch = pytest.importorskip("torch")
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    positions = torch.arange(600)
    wanted = modeling.T5Attention._relative_position_bucket(
        positions[None] - positions[:, None], bidirectional, num_buckets, max_distance
    )
    found = relative_buckets(600, num_buckets, max_distance, bidirectional=bidirectional)
    np.testing.assert_array_equal(found, wanted.numpy())
    assert found.min() == 0
    assert found.max() == (num_buckets // 2 * 2 if bidirectional else num_buckets) - 1


def test_buckets_that_are_all_of_one_distance():
    """Where the nearest distances fill all buckets up to the largest, one bucket has all others."""
    found = relative_buckets(7, 8, 4, bidirectional=False)
    assert found[-1].tolist() == [7, 7, 7, 3, 2, 1, 0]


def test_buckets_by_hand():
    causal = relative_buckets(7, 4, 8, bidirectional=False)
    assert causal[6].tolist() == [3, 3, 3, 2, 2, 1, 0]  # 4 is half-way from 2 to 8 on a logarithmic scale
    assert causal[0].tolist() == [0] * 7
    both = relative_buckets(3, 4, 8, bidirectional=True)
    assert both.tolist() == [[0, 3, 3], [1, 0, 3], [1, 1, 0]]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "crelu"},
        {"activation": "gelu", "gated": True},
        {"tie_embeddings": False},
        {"num_encoder_blocks": 2},
    ],
    ids=str,
)
def test_a_unit_speaks_to_its_readers_only(key, options):
    """With the declared readers' rows at zero the output is independent of a unit's feeds, and of no other unit's."""
    network = t5((6, 5), 11, **(SMALL | {"mlp_width": 3} | options))
    params = perturbed_everywhere(key, network.init(key)[0])
    text = texts(key, 11)
    compute = jax.jit(lambda params: network.apply(params, {}, text, train=False, key=None)[0])

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
        assert len(feeds) == 1 + options.get("gated", False)
        for unit in range(layer.width):
            cut = changed(params, layer.readers, unit, jnp.zeros_like)
            before = compute(cut)
            for other in range(layer.width):
                same = np.array_equal(compute(changed(cut, feeds, other, moved)), before)
                assert same == (other == unit), f"{layer.name}: unit {other} with {unit} cut off"
            for slot in feeds:
                assert not np.array_equal(compute(changed(params, [slot], unit, moved)), compute(params))


def test_layers_in_order():
    network = t5((6, 5), 11, num_encoder_blocks=2, **SMALL)
    names = [layer.name for layer in network.wiring.layers]
    assert names == ["encoder_0_mlp", "encoder_1_mlp", "decoder_0_mlp"]
    assert all(layer.width == 6 and layer.activation == "relu" for layer in network.wiring.layers)


@pytest.mark.parametrize("gated", [True, False])
def test_starts_as_published(key, gated):
    network = t5((6, 5), 50, width=64, num_heads=4, head_width=25, mlp_width=80, gated=gated, tie_embeddings=False)
    leaves = by_path(network.init(key)[0])
    for path, leaf in leaves.items():
        if path.endswith("scale"):
            np.testing.assert_array_equal(leaf, jnp.ones(64))
            continue
        deviation = {"tokens/embedding": 1.0, "head/kernel": 64**-0.5}.get(path)
        deviation = deviation or {"query": 1600**-0.5, "out": 100**-0.5, "down": 80**-0.5}.get(path.split("/")[-2])
        error = 4 / (2 * leaf.size) ** 0.5
        np.testing.assert_allclose(np.std(leaf), deviation or 64**-0.5, rtol=error, err_msg=path)
    for layer in network.wiring.layers:
        for feed in layer.feeds:
            drawn = feed.initializer(key, (64, 80), jnp.float32)
            np.testing.assert_allclose(np.std(drawn), 64**-0.5, rtol=0.05)
    assert np.all(leaves["encoder/block_0/mlp/up/kernel"] != leaves["decoder/block_0/mlp/up/kernel"])


def test_dropout(key):
    network = t5((6, 5), 11, dropout=0.2, **SMALL)
    params, text = network.init(key)[0], texts(key, 11)
    train = jax.jit(lambda key: network.apply(params, {}, text, train=True, key=key)[0])
    a, b, c = (train(jax.random.key(seed)) for seed in (0, 1, 0))
    np.testing.assert_array_equal(a, c)
    assert not np.array_equal(a, b)
    evaluated = output(network, params, text)
    np.testing.assert_array_equal(evaluated, output(t5((6, 5), 11, **SMALL), params, text))
    assert not np.array_equal(a, evaluated)
    with pytest.raises(UserError, match=r"got dropout=0.2 in training without a key"):
        run(network, params, text, train=True)


def gradient(network, params):
    text = texts(jax.random.key(1), 11)
    return jax.grad(lambda params: (network.apply(params, {}, text, train=True, key=None)[0] ** 2).sum())(params)


def test_second_derivatives_are_symmetric(key):
    network = t5((6, 5), 11, activation="tanh", **SMALL)
    params = network.init(key)[0]
    u, v = (perturbed_everywhere(k, jax.tree.map(jnp.zeros_like, params)) for k in jax.random.split(key))

    def dot(a, b):
        return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    product = jax.jit(lambda v: jax.jvp(lambda params: gradient(network, params), (params,), (v,))[1])
    np.testing.assert_allclose(dot(u, product(v)), dot(v, product(u)), rtol=1e-4)
    reverse = jax.eval_shape(jax.grad(lambda params: dot(gradient(network, params), v)), params)
    assert jax.tree.structure(reverse) == jax.tree.structure(params)


def test_seeds_in_one_program_are_seeds_alone(key):
    network = t5((6, 5), 11, **SMALL)

    def step(_, params):
        return jax.tree.map(lambda p, g: p - 0.001 * g, params, gradient(network, params))

    @jax.jit
    def descend(params):
        return jax.lax.fori_loop(0, 3, step, params)

    starts = [network.init(k)[0] for k in jax.random.split(key, 2)]
    together = jax.vmap(descend)(jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts))
    alone = [by_path(descend(params)) for params in starts]
    for path, leaf in by_path(together).items():
        np.testing.assert_allclose(leaf, np.stack([params[path] for params in alone]), atol=1e-5)


def test_learns_to_copy(key):
    """Two hundred steps of Adam on eight texts: the next token is that of the source."""
    optax = pytest.importorskip("optax")
    network = t5((4, 4), 9, **(SMALL | {"width": 16, "mlp_width": 32}))
    source = jax.random.randint(key, (8, 4), 1, 9)
    text = Text(source, jnp.pad(source, ((0, 0), (1, 0)))[:, :-1])
    tx = optax.adam(1e-2)

    def loss(params):
        logits = network.apply(params, {}, text, train=True, key=None)[0]
        return optax.softmax_cross_entropy_with_integer_labels(logits, source).mean()

    def step(_, carry):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params = network.init(key)[0]
    trained, _ = jax.jit(lambda params: jax.lax.fori_loop(0, 200, step, (params, tx.init(params))))(params)
    assert loss(params) > 1.0
    assert loss(trained) < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "rleu"}, r"got the activation 'rleu'; wanted one of .*Did you mean 'relu'\? See pliant"),
        ({"head_width": 0}, r"got head_width=0; wanted a finite number ≥ 1. Give a positive"),
        ({"num_decoder_blocks": 0}, r"got num_decoder_blocks=0; wanted a finite number ≥ 1. Give a positive"),
        ({"num_buckets": 3}, r"got num_buckets=3; wanted a finite number ≥ 4. Leave it out for 32"),
        ({"num_buckets": 12}, r"got max_distance=5 with num_buckets=12; wanted a distance ≥ 6, .* Leave both out"),
        ({"mlp_width": 7, "activation": "maxmin"}, r"got mlp_width=7 with activation 'maxmin'; .* of 2. Choose 8"),
        ({"gated": True, "activation": "crelu"}, r"got gated=True with activation 'crelu'; .* by 2. Use 'gelu'"),
        ({"dropout": -0.1}, r"got dropout=-0.1; wanted a number in \[0, 0.999\]. 0.1 is usual"),
    ],
)
def test_refuses(options, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first
    with pytest.raises(UserError, match=message):
        t5((6, 5), 11, **(SMALL | options))


@pytest.mark.parametrize("shape", [(28, 28, 1), (20,), (0, 5)])
def test_refuses_what_is_no_text(shape):
    with pytest.raises(
        UserError, match=r"got inputs of shape .*; wanted text, .* lengths ≥ 1. Choose a stream of text"
    ):
        t5(shape, 11)
