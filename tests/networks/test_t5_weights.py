import json

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import safetensors.numpy

from pliant.errors import UserError
from pliant.networks import pretrained_t5, t5, t5_pretrained, t5_weights
from pliant.types import Text

SIZES = {"vocab_size": 19, "d_model": 24, "d_kv": 5, "d_ff": 40, "num_heads": 3}
BUCKETS = {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20}
OPTIONS = {"width": 24, "num_heads": 3, "head_width": 5, "mlp_width": 40, "num_buckets": 8}


def model_of(num_blocks, **options):
    """A T5 of transformers with random weights, and torch."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(num_layers=num_blocks, decoder_start_token_id=0, **SIZES, **BUCKETS, **options)
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model, torch


def logits_of(model, torch, text):
    source, decoder = (torch.tensor(np.asarray(tokens, np.int64)) for tokens in text)
    with torch.no_grad():
        return model(input_ids=source, attention_mask=source != 0, decoder_input_ids=decoder).logits.numpy()


def text_of(key):
    tokens = jax.random.randint(key, (3, 18), 1, 19)
    return Text(tokens[:, :10].at[1, 6:].set(0), tokens[:, 10:].at[:, 0].set(0))


def first_block(model, **options):
    """A model of one block with the weights of the first of `model`."""
    small, _ = model_of(1, **options)
    small.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in small.state_dict()})
    return small


def assert_same_logits(network, params, wanted, text):
    found = network.apply(params, {}, text, train=False, key=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.fixture
def arrays():
    """The tensors of a T5 of two blocks under their published names, all sizes different."""
    leaves = {"shared.weight": (19, 24)}
    for stack, parts in (("encoder", ["SelfAttention"]), ("decoder", ["SelfAttention", "EncDecAttention"])):
        leaves[f"{stack}.final_layer_norm.weight"] = (24,)
        leaves[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (8, 3)
        for i in range(2):
            layers = f"{stack}.block.{i}.layer"
            for j, part in enumerate(parts):
                leaves |= {f"{layers}.{j}.{part}.{name}.weight": (15, 24) for name in "qkv"}
                leaves[f"{layers}.{j}.{part}.o.weight"] = (24, 15)
            leaves |= {f"{layers}.{j}.layer_norm.weight": (24,) for j in range(len(parts) + 1)}
            leaves[f"{layers}.{len(parts)}.DenseReluDense.wi.weight"] = (40, 24)
            leaves[f"{layers}.{len(parts)}.DenseReluDense.wo.weight"] = (24, 40)
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in leaves.items()}


@pytest.fixture
def folder(arrays, tmp_path):
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "tie_word_embeddings": True}))
    return tmp_path


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_the_first_block_of_a_saved_model(key, tmp_path, kind):
    model, torch = model_of(2, feed_forward_proj=kind)
    model.save_pretrained(tmp_path)
    found = t5_pretrained(tmp_path)
    gated = kind != "relu"
    assert found.num_outputs == 19
    assert found.options == OPTIONS | {
        "num_encoder_blocks": 1,
        "num_decoder_blocks": 1,
        "max_distance": 20,
        "activation": "gelu" if gated else "relu",
        "gated": gated,
        "tie_embeddings": True,
    }
    network, text = t5((10, 8), found.num_outputs, **found.options), text_of(key)
    started = jax.eval_shape(network.init, key)[0]
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), started) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), found.params
    )
    wanted = logits_of(first_block(model, feed_forward_proj=kind), torch, text)
    assert_same_logits(network, found.params, wanted, text)
    other = logits_of(model, torch, text)
    assert np.abs(other - wanted).max() > 0.1


def test_all_blocks_of_a_saved_model(key, tmp_path):
    model, torch = model_of(2)
    model.save_pretrained(tmp_path)
    found, text = t5_pretrained(tmp_path, num_encoder_blocks=2, num_decoder_blocks=2), text_of(key)
    network = t5((10, 8), found.num_outputs, **found.options)
    assert_same_logits(network, found.params, logits_of(model, torch, text), text)
    params = t5_weights(tmp_path / "model.safetensors", num_encoder_blocks=2, num_decoder_blocks=2)
    jax.tree.map(np.testing.assert_array_equal, params, found.params)


@pytest.mark.parametrize("separate", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_every_kind_of_head(key, tmp_path, separate, scaled):
    """T5 v1.0 ties the head to the embedding and scales, v1.1 does neither; transformers can mix both."""
    model, torch = model_of(1, tie_word_embeddings=scaled)
    if separate:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(19, 24))
    model.save_pretrained(tmp_path)
    found, text = t5_pretrained(tmp_path), text_of(key)
    assert found.options["tie_embeddings"] == (scaled and not separate)
    network = t5((10, 8), found.num_outputs, **found.options)
    assert_same_logits(network, found.params, logits_of(model, torch, text), text)


def test_weights_under_our_names(arrays, folder):
    params = t5_weights(folder / "model.safetensors")
    wanted = {
        "shared.weight": params["tokens"]["embedding"],
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": params["encoder"]["position_bias"],
        "encoder.block.0.layer.1.DenseReluDense.wi.weight": params["encoder"]["block_0"]["mlp"]["up"]["kernel"].T,
        "decoder.block.0.layer.1.EncDecAttention.k.weight": params["decoder"]["block_0"]["cross"]["key"]["kernel"].T,
        "decoder.block.0.layer.1.layer_norm.weight": params["decoder"]["block_0"]["norm_cross"]["scale"],
        "decoder.block.0.layer.2.layer_norm.weight": params["decoder"]["block_0"]["norm_mlp"]["scale"],
        "decoder.final_layer_norm.weight": params["decoder"]["norm"]["scale"],
    }
    for name, leaf in wanted.items():
        np.testing.assert_array_equal(leaf, arrays[name])
    assert "head" not in params
    assert "block_1" not in params["encoder"]


def test_a_head_that_is_the_embedding_is_tied(arrays, tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(arrays | {"lm_head.weight": arrays["shared.weight"].copy()}, file)
    assert "head" not in t5_weights(file)
    safetensors.numpy.save_file(arrays | {"lm_head.weight": -arrays["shared.weight"]}, file)
    np.testing.assert_array_equal(t5_weights(file)["head"]["kernel"], -arrays["shared.weight"].T)


def test_half_precision_becomes_float32(arrays, tmp_path):
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({name: array.astype(np.float16) for name, array in arrays.items()}, file)
    params = t5_weights(file)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    np.testing.assert_array_equal(params["tokens"]["embedding"], arrays["shared.weight"].astype(np.float16))


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # the tests' type checker would be first


@pytest.mark.usefixtures("unchecked")
class TestRefuses:
    def test_more_blocks_than_there_are(self, folder):
        message = r"got \d+ tensors without 'encoder.block.2.*'; wanted .* at least as many blocks .* Take fewer blocks"
        with pytest.raises(UserError, match=message):
            t5_weights(folder / "model.safetensors", num_encoder_blocks=3)

    def test_no_blocks(self, folder):
        with pytest.raises(UserError, match=r"got num_decoder_blocks=0; wanted .* ≥ 1. Take at least the first block"):
            t5_weights(folder / "model.safetensors", num_decoder_blocks=0)

    def test_a_file_of_another_kind(self, tmp_path):
        file = tmp_path / "model.safetensors"
        file.write_text("no tensors")
        with pytest.raises(UserError, match=r"got .*model.safetensors: .*; wanted a file in the safetensors format"):
            t5_weights(file)

    def test_another_network(self, tmp_path):
        file = tmp_path / "model.safetensors"
        safetensors.numpy.save_file({"dense.weight": np.zeros((2, 2), np.float32)}, file)
        with pytest.raises(UserError, match=r"got 1 tensors without 'shared.weight'; wanted the weights of a T5"):
            t5_weights(file)

    @pytest.mark.parametrize(
        ("name", "shape", "message"),
        [
            ("shared.weight", (19,), r"got the tensor 'shared.weight' of shape \(19,\); wanted a matrix. Give"),
            (
                "decoder.block.0.layer.1.EncDecAttention.o.weight",
                (24, 14),
                r"EncDecAttention.o.weight' as \(14, 24\); wanted \(15, 24\), as the sizes of the other tensors say",
            ),
            ("encoder.final_layer_norm.weight", (23,), r"final_layer_norm.weight' as \(23,\); wanted \(24,\), as the"),
        ],
    )
    def test_shapes_that_do_not_fit(self, arrays, tmp_path, name, shape, message):
        file = tmp_path / "model.safetensors"
        safetensors.numpy.save_file(arrays | {name: np.zeros(shape, np.float32)}, file)
        with pytest.raises(UserError, match=message):
            t5_weights(file)

    def test_folders_without_the_files(self, folder, tmp_path):
        with pytest.raises(UserError, match=r"got no file .*empty.config.json; wanted the configuration of a T5. Give"):
            t5_pretrained(tmp_path / "empty")
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"got no file .*model.safetensors; wanted the weights of a T5. Give"):
            t5_pretrained(folder)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", r"got .*config.json: .*; wanted JSON. Download it again"),
            ("[]", r"got .*config.json with model_type None; wanted 't5'"),
            ('{"model_type": "vit"}', r"got .*config.json with model_type 'vit'; wanted 't5'. Give the folder of a T5"),
            (
                '{"model_type": "t5", "feed_forward_proj": "gated-silu"}',
                r"got feed_forward_proj='gated-silu'; wanted one of relu, gated-gelu, gated-relu. Choose another",
            ),
            (
                '{"model_type": "t5", "feed_forward_proj": "gated-gelu"}',
                r"got feed_forward_proj='gated-gelu' with other tensors; wanted .* of one model. Download both",
            ),
            (
                '{"model_type": "t5", "relative_attention_num_buckets": 32}',
                r"got relative_attention_num_buckets=32 with 8 in the tensors; wanted .* of one model. Download both",
            ),
            (
                '{"model_type": "t5", "relative_attention_max_distance": 3}',
                r"got max_distance=3 with num_buckets=8; wanted a distance ≥ 4",
            ),
            (
                '{"model_type": "t5", "layer_norm_epsilon": 1e-5}',
                r"got layer_norm_epsilon=1e-05; wanted 1e-6. Choose another",
            ),
        ],
    )
    def test_configurations(self, folder, text, message):
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=message):
            t5_pretrained(folder)


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(300, 1000), (256, 128), (9, 20), (33, None)])
def test_any_number_of_buckets(folder, arrays, num_buckets, max_distance):
    """More than the usual largest distance has room for, and odd ones; a file alone does not tell the distance."""
    biases = {name: np.zeros((num_buckets, 3), np.float32) for name in arrays if "attention_bias" in name}
    safetensors.numpy.save_file(arrays | biases, folder / "model.safetensors")
    told = {} if max_distance is None else {"relative_attention_max_distance": max_distance}
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"} | told))
    found = t5_pretrained(folder)
    wanted = {"num_buckets": num_buckets, "max_distance": max_distance or 128}
    assert {name: found.options[name] for name in wanted} == wanted
    assert t5_weights(folder / "model.safetensors")["decoder"]["position_bias"].shape == (num_buckets, 3)
    shapes = jax.eval_shape(t5((4, 4), found.num_outputs, **found.options).init, jax.random.key(0))[0]
    assert shapes["encoder"]["position_bias"].shape == (num_buckets, 3)


@pytest.mark.parametrize("num_outputs", [19, 29])
def test_a_network_starts_from_the_pretrained_blocks(folder, arrays, key, num_outputs):
    network = pretrained_t5((7, 5), num_outputs, folder=str(folder))
    first, second = (network.init(jax.random.fold_in(key, seed))[0] for seed in range(2))
    up = arrays["encoder.block.0.layer.1.DenseReluDense.wi.weight"].T
    assert any(leaf.shape == up.shape and bool((leaf == up).all()) for leaf in jax.tree.leaves(first))
    embedding = first["tokens"]["embedding"]
    assert embedding.shape == (num_outputs, 24)
    if num_outputs == 19:
        np.testing.assert_array_equal(embedding, arrays["shared.weight"])
    else:
        assert bool((embedding != second["tokens"]["embedding"]).any())
    text = text_of(key)
    output, _, _ = network.apply(first, {}, text, train=False, key=None)
    assert output.shape == (*text.decoder.shape, num_outputs)
    assert bool(jnp.isfinite(output).all())
