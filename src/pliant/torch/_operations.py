"""PyTorch's operations below autograd, grouped by what they do to the entries of a tensor."""

from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

SAME = ("alias", "detach", "lift_fresh", "clone", "_to_copy")
LINEAR_OPS = ("add", "sub", "rsub", "neg", "positive", "masked_fill", "native_dropout", "fill", "zero")
ARITHMETIC_OPS = frozenset(
    """
    mul div pow square sqrt rsqrt reciprocal exp log abs sign clamp clamp_min clamp_max addcmul addcdiv floor ceil
    round isnan isinf eq ne
    """.split()
)
UNTAGGED = ("hardswish", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward", "native_dropout", "masked_fill")
"""Functions of single entries of which PyTorch does not say so."""
ZEROING = frozenset(
    """
    relu relu6 threshold hardswish hardsigmoid hardshrink softshrink where maximum gt ge lt le heaviside
    """.split()
)
NAMES = {"relu": "relu", "leaky_relu": "leaky-relu", "tanh": "tanh", "sigmoid": "sigmoid", "silu": "silu"}
NAMES |= {"elu": "elu", "gelu": "gelu-exact"}
MOVES = frozenset(
    """
    cat stack _unsafe_view _reshape_alias index_select index repeat roll flip constant_pad_nd reflection_pad1d
    reflection_pad2d pixel_shuffle pixel_unshuffle
    """.split()
)
AS_RESHAPE = ("view", "_unsafe_view", "_reshape_alias")
NORMS = ("batch_norm", "layer_norm", "group_norm", "rms_norm")
KEEPING = ("softmax", "pool", "upsample", "cumsum", *NORMS)
REDUCTIONS = ("mean", "sum", "amax", "amin", "logsumexp", "var", "std", "max", "min")
MATRICES = {"mm": 0, "addmm": 1, "bmm": 0, "baddbmm": 1, "_addmm_activation": 1}
"""Where the first factor of a product stands among the arguments."""
MIXING = ("sort", "topk", "glu", "maximum", "minimum")


def activation_of(name: str, args: Any, kwargs: Any, operands: Any) -> str:
    """The name of the activation that an operation computes."""
    bounds = dict(zip(("x", "min", "max"), args, strict=False)) | kwargs
    low, high = bounds.get("min"), bounds.get("max")
    if name in ("clamp", "clamp_min", "hardtanh") and isinstance(low, int | float) and low == 0:
        return "relu" if high is None else "relu6"
    if name == "threshold" and args[1:] == (0, 0):
        return "relu"
    if name == "maximum":
        constants = [tensor for tensor, info in operands if not info.is_data]
        return "relu" if constants and not bool(constants[0].any()) else name
    return name


def is_factory(func: Any) -> bool:
    """Whether an operation takes nothing but the shape of its operand."""
    name = func._schema.name
    return bool(name.endswith("_like") or "::new_" in name)


def written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes over."""
    if not func._schema.is_mutable:
        return []
    named = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | kwargs
    return [
        tensor
        for each in func._schema.arguments
        if each.alias_info is not None and each.alias_info.is_write
        for tensor in tree_leaves(named.get(each.name))
        if isinstance(tensor, Tensor)
    ]


def storage_of(tensor: Tensor) -> int:
    """A number that tensors which share memory have in common."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):  # such as sparse tensors
        return id(tensor)
