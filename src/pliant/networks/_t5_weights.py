"""Reading the weights of a pre-trained T5 from the files of Hugging Face."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pliant.errors import UserError, extra, require_range
from pliant.networks._t5 import t5
from pliant.types import Key, Network, Params, State, TextLengths, leaf_path

WEIGHTS, CONFIG = "model.safetensors", "config.json"

_ACTIVATIONS = {"relu": ("relu", False), "gated-gelu": ("gelu", True), "gated-relu": ("relu", True)}
"""The published `feed_forward_proj`: (activation, gated). "gated-gelu" has the approximate gelu, as here."""

_Tensors = Mapping[str, Callable[[], np.ndarray]]
"""By published name; a tensor is read when it is asked for."""


class PretrainedT5(NamedTuple):
    """What `t5_pretrained` returns: `t5(input_shape, num_outputs, **options)` takes `params`."""

    num_outputs: int
    """Size of the vocabulary."""
    options: dict[str, Any]
    params: Params


def t5_weights(file: str | Path, *, num_encoder_blocks: int = 1, num_decoder_blocks: int = 1) -> Params:
    """Reads the first blocks of a T5 from a `model.safetensors` of Hugging Face as parameters of `t5`.

    Sizes are those of the tensors. A file without `lm_head.weight`, or in which that is the token embedding, is for a
    network with `tie_embeddings`. `t5_pretrained` also tells the options.

    Args:
      file: the path of the file.
      num_encoder_blocks: how many blocks to take, ≥ 1, from the first on.
      num_decoder_blocks: the same for the decoder.

    Returns:
      The parameters, nested dicts of float32 arrays.

    Raises:
      UserError: for a file that is not there or not of this format, missing tensors (other networks, fewer blocks), or
        shapes that don't fit each other.

    Example:
      >>> try:
      ...     t5_weights("no/model.safetensors")
      ... except UserError as error:
      ...     print(error)
      got no file no/model.safetensors; wanted the weights of a T5. Give the path of a model.safetensors.

    References:
      `The safetensors format <https://huggingface.co/docs/safetensors>`_.

    Differs from:
      `T5ForConditionalGeneration.from_pretrained`, which takes all blocks, and draws at random what a file lacks.
    """
    tensors = _open(Path(os.path.expanduser(file)))
    tied = _is_tied(tensors)
    return _read(tensors, num_encoder_blocks, num_decoder_blocks, None, tied=tied, scale_head=False)[1]


def t5_pretrained(folder: str | Path, *, num_encoder_blocks: int = 1, num_decoder_blocks: int = 1) -> PretrainedT5:
    """Reads the first blocks of a T5 from a folder with `config.json` and `model.safetensors`, and their options.

    Args:
      folder: as `save_pretrained` writes it, or a downloaded snapshot such as that of google-t5/t5-small.
      num_encoder_blocks: how many blocks to take, ≥ 1, from the first on.
      num_decoder_blocks: the same for the decoder.

    Returns:
      `PretrainedT5`: the size of the vocabulary, the options of `t5` and its parameters. Dropout is left at 0. A head
      that the configuration ties in a way that `t5` doesn't have is returned as a separate one that computes the same.

    Raises:
      UserError: as `t5_weights`, and for a configuration that is not a T5's or that has what `t5` lacks.

    Example:
      >>> try:
      ...     t5_pretrained("no")
      ... except UserError as error:
      ...     print(error)
      got no file no/config.json; wanted the configuration of a T5. Give the folder of a T5 with both of its files.

    References:
      Raffel et al. 2020 (arXiv 1910.10683), whose models are published in this form.

    Differs from:
      `T5ForConditionalGeneration.from_pretrained`, as `t5_weights` does.
    """
    folder = Path(os.path.expanduser(folder))
    config, tensors = _config(folder / CONFIG), _open(folder / WEIGHTS)
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    same = _is_tied(tensors)
    tied = same and scaled
    max_distance = config.get("relative_attention_max_distance", 128)
    options, params = _read(
        tensors, num_encoder_blocks, num_decoder_blocks, max_distance, tied=tied, scale_head=scaled and not same
    )
    activation, gated = _ACTIVATIONS[config.get("feed_forward_proj", "relu")]
    if gated != options["gated"]:
        raise UserError(
            got=f"feed_forward_proj={config.get('feed_forward_proj', 'relu')!r} with other tensors",
            wanted=f"{CONFIG} and {WEIGHTS} of one model",
            do="Download both again.",
        )
    told = config.get("relative_attention_num_buckets", options["num_buckets"])
    if told != options["num_buckets"]:
        raise UserError(
            got=f"relative_attention_num_buckets={told} with {options['num_buckets']} in the tensors",
            wanted=f"{CONFIG} and {WEIGHTS} of one model",
            do="Download both again.",
        )
    options |= {"activation": activation}
    return PretrainedT5(params["tokens"]["embedding"].shape[0], options, params)


def pretrained_t5(
    input_shape: TextLengths | Sequence[int],
    num_outputs: int,
    *,
    folder: str = "",
    num_encoder_blocks: int = 1,
    num_decoder_blocks: int = 1,
) -> Network:
    """Builds a `t5` whose blocks start from pre-trained ones: by default the first of each stack.

    What belongs to the vocabulary (token embedding, separate head) is pre-trained too if the vocabulary has the same
    size, and drawn otherwise, as for the letters of pliant's own streams.

    Args:
      input_shape: (source, target) lengths.
      num_outputs: size of the vocabulary.
      folder: as for `t5_pretrained`.
      num_encoder_blocks: as for `t5_pretrained`.
      num_decoder_blocks: as for `t5_pretrained`.

    Returns:
      A `Network`; only what is drawn depends on the key.

    Raises:
      UserError: as `t5_pretrained`.

    Example:
      >>> try:
      ...     pretrained_t5((8, 8), 29, folder="no")
      ... except UserError as error:
      ...     print(error)
      got no file no/config.json; wanted the configuration of a T5. Give the folder of a T5 with both of its files.

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, appendix B.1: the first block of T5-small.

    Differs from:
      See `t5_weights`.
    """
    loaded = t5_pretrained(folder, num_encoder_blocks=num_encoder_blocks, num_decoder_blocks=num_decoder_blocks)
    network = t5(input_shape, num_outputs, **loaded.options)

    def init(key: Key) -> tuple[Params, State]:
        drawn, state = network.init(key)
        if num_outputs == loaded.num_outputs:
            return jax.tree.map(jnp.asarray, loaded.params), state
        return jax.tree.map(
            lambda new, old: jnp.asarray(old) if new.shape == old.shape else new, drawn, loaded.params
        ), state

    return network._replace(init=init)


def _config(path: Path) -> dict[str, Any]:
    """The configuration, of a T5 that this package can compute."""
    if not path.is_file():
        raise UserError(
            got=f"no file {path}",
            wanted="the configuration of a T5",
            do="Give the folder of a T5 with both of its files.",
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(got=f"{path}: {error}", wanted="JSON", do="Download it again.") from None
    if not isinstance(config, dict) or config.get("model_type") != "t5":
        kind = config.get("model_type") if isinstance(config, dict) else None
        raise UserError(got=f"{path} with model_type {kind!r}", wanted="'t5'", do="Give the folder of a T5.")
    kind = config.get("feed_forward_proj", "relu")
    if kind not in _ACTIVATIONS:
        raise UserError(
            got=f"feed_forward_proj={kind!r}", wanted=f"one of {', '.join(_ACTIVATIONS)}", do="Choose another T5."
        )
    if config.get("layer_norm_epsilon", 1e-6) != 1e-6:
        raise UserError(
            got=f"layer_norm_epsilon={config['layer_norm_epsilon']}", wanted="1e-6", do="Choose another T5."
        )
    return config


def _open(path: Path) -> _Tensors:
    """The tensors of the file."""
    if not path.is_file():
        raise UserError(got=f"no file {path}", wanted="the weights of a T5", do=f"Give the path of a {WEIGHTS}.")
    with extra("text", "weights of a T5"):
        import safetensors
    try:
        file = safetensors.safe_open(path, framework="numpy")
    except safetensors.SafetensorError as error:
        raise UserError(
            got=f"{path}: {error}", wanted="a file in the safetensors format", do=f"Give the {WEIGHTS} of a T5."
        ) from None

    def reader(name: str) -> Callable[[], np.ndarray]:
        return lambda: file.get_tensor(name).astype(np.float32)

    return {name: reader(name) for name in file.keys()}  # noqa: SIM118 (not a dict)


def _tensor(tensors: _Tensors, name: str) -> np.ndarray:
    if name not in tensors:
        raise UserError(
            got=f"{len(tensors)} tensors without {name!r}",
            wanted="the weights of a T5 with at least as many blocks as are taken",
            do="Take fewer blocks, or give the file of another model.",
        )
    return tensors[name]()


def _matrix_shape(tensors: _Tensors, name: str) -> tuple[int, int]:
    shape = _tensor(tensors, name).shape
    if len(shape) != 2 or 0 in shape:
        raise UserError(
            got=f"the tensor {name!r} of shape {shape}", wanted="a matrix", do=f"Give the {WEIGHTS} of a T5."
        )
    return shape


def _is_tied(tensors: _Tensors) -> bool:
    """True if the head is the token embedding."""
    head, tokens = "lm_head.weight", "shared.weight"
    return head not in tensors or np.array_equal(_tensor(tensors, head), _tensor(tensors, tokens))


def _read(
    tensors: _Tensors,
    num_encoder_blocks: int,
    num_decoder_blocks: int,
    max_distance: int | None,
    *,
    tied: bool,
    scale_head: bool,
) -> tuple[dict[str, Any], Params]:
    """The options that the tensors' sizes tell, and the parameters, of which every leaf is checked.

    The largest distance is not among what sizes tell: None is for one that suits the number of buckets.
    """
    for name, number in (("num_encoder_blocks", num_encoder_blocks), ("num_decoder_blocks", num_decoder_blocks)):
        require_range(name, number, 1, do="Take at least the first block.")
    block = "encoder.block.0.layer"
    num_outputs, width = _matrix_shape(tensors, "shared.weight")
    num_buckets, num_heads = _matrix_shape(tensors, f"{block}.0.SelfAttention.relative_attention_bias.weight")
    options: dict[str, Any] = {
        "width": width,
        "num_heads": num_heads,
        "head_width": _matrix_shape(tensors, f"{block}.0.SelfAttention.q.weight")[0] // num_heads,
        "mlp_width": _matrix_shape(tensors, f"{block}.1.DenseReluDense.wo.weight")[1],
        "num_encoder_blocks": num_encoder_blocks,
        "num_decoder_blocks": num_decoder_blocks,
        "num_buckets": num_buckets,
        "max_distance": max(128, num_buckets // 2) if max_distance is None else max_distance,
        "gated": f"{block}.1.DenseReluDense.wi_0.weight" in tensors,
        "tie_embeddings": tied,
    }
    shapes, _ = jax.eval_shape(t5((1, 1), num_outputs, **options).init, jax.random.key(0))

    def leaf(path: Any, wanted: jax.ShapeDtypeStruct) -> np.ndarray:
        ours = leaf_path(path)
        name = _published_name(ours, gated=options["gated"])
        if ours == "head/kernel" and name not in tensors:
            name = "shared.weight"
        tensor = _tensor(tensors, name)
        tensor = tensor.T if ours.endswith("kernel") else tensor
        if tensor.shape != wanted.shape:
            raise UserError(
                got=f"the tensor {name!r} as {tensor.shape}",
                wanted=f"{wanted.shape}, as the sizes of the other tensors say",
                do=f"Download {WEIGHTS} again, or give that of a T5.",
            )
        return tensor * np.float32(width**-0.5) if ours == "head/kernel" and scale_head else tensor

    return options, jax.tree.map(jax.numpy.asarray, jax.tree_util.tree_map_with_path(leaf, shapes))


def _published_name(path: str, *, gated: bool) -> str:
    """What Hugging Face calls the leaf at `path`.

    Example:
      >>> _published_name("decoder/block_0/cross/query/kernel", gated=False)
      'decoder.block.0.layer.1.EncDecAttention.q.weight'
    """
    fixed = {"tokens/embedding": "shared.weight", "head/kernel": "lm_head.weight"}
    if path in fixed:
        return fixed[path]
    stack, part, *rest = path.split("/")
    if part == "position_bias":
        return f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    if part == "norm":
        return f"{stack}.final_layer_norm.weight"
    module, leaf = rest[:2]
    places = ("attention", "cross", "mlp") if stack == "decoder" else ("attention", "mlp")
    layer = f"{stack}.block.{part.removeprefix('block_')}.layer.{places.index(module.removeprefix('norm_'))}"
    if module.startswith("norm_"):
        return f"{layer}.layer_norm.weight"
    modules = {"attention": "SelfAttention", "cross": "EncDecAttention", "mlp": "DenseReluDense"}
    kernels = {"query": "q", "key": "k", "value": "v", "out": "o", "gate": "wi_0", "down": "wo"}
    kernels["up"] = "wi_1" if gated else "wi"
    return f"{layer}.{modules[module]}.{kernels[leaf]}.weight"
