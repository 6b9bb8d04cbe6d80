"""What the hidden layers of all networks have in common: the parameters of their units, and what widths may be."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import jax
from jaxtyping import Array

from pliant.errors import UserError, require_range, require_whole
from pliant.networks.blocks._activations import Activation, activation
from pliant.types import Feed, Key, Role, Slot


class Owned(NamedTuple):
    """The parameters of a dense or conv layer, with the norm behind it."""

    feeds: tuple[Feed, ...]
    """What each unit owns of them."""
    roles: dict[str, Role]
    biases: dict[str, str]
    """The bias of the kernel."""
    statistics: tuple[Slot, ...] = ()
    """The running statistics of the norm."""
    state: tuple[str, ...] = ()
    """What else is kept of the layer in the network's state."""


def owned(
    module: str,
    kernel_init: Callable[[Key, tuple[int, ...], Any], Array],
    *,
    use_bias: bool = True,
    norm: str | None = None,
    has_statistics: bool = False,
) -> Owned:
    """Lists what the units of a layer own: their slice of the kernel, their bias, their norm's scale and offset.

    Args:
      module: the layer, with the leaves kernel and bias.
      kernel_init: draws the kernel.
      use_bias: whether it has a bias.
      norm: its norm, with the leaves scale and bias; None for none.
      has_statistics: whether the norm keeps a mean and a var in the network's state.

    Example:
      >>> owned("dense_0", jax.nn.initializers.ones, norm="norm_0").roles
      {'dense_0/kernel': 'matrix', 'dense_0/bias': 'bias', 'norm_0/scale': 'norm', 'norm_0/bias': 'norm'}
    """
    feeds = [Feed(Slot(f"{module}/kernel", axis=-1), kernel_init)]
    roles: dict[str, Role] = {f"{module}/kernel": "matrix"}
    biases = {f"{module}/kernel": f"{module}/bias"} if use_bias else {}
    if use_bias:
        feeds.append(Feed(Slot(f"{module}/bias", axis=-1), jax.nn.initializers.zeros))
        roles[f"{module}/bias"] = "bias"
    if norm is not None:
        feeds.append(Feed(Slot(f"{norm}/scale", axis=-1), jax.nn.initializers.ones))
        feeds.append(Feed(Slot(f"{norm}/bias", axis=-1), jax.nn.initializers.zeros))
        roles[f"{norm}/scale"] = roles[f"{norm}/bias"] = "norm"
    statistics = tuple(Slot(f"{norm}/{name}", axis=-1) for name in ("mean", "var") if norm and has_statistics)
    return Owned(tuple(feeds), roles, biases, statistics)


def require_sizes(input_shape: Sequence[int], num_outputs: int, *, images: bool = False) -> None:
    """Raises unless a network can be built for such inputs and outputs.

    Args:
      input_shape: of one example.
      num_outputs: size of the output.
      images: whether inputs have to be (height, wide, channels).

    Raises:
      UserError: for sizes that are not whole numbers ≥ 1, and what is no image where it has to be.

    Example:
      >>> require_sizes((8, 8, 1), 10, images=True)
    """
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else input_shape
    if images and (not isinstance(shape, tuple) or len(shape) != 3):
        raise UserError(
            got=f"inputs of shape {shape}",
            wanted="images (height, wide, channels)",
            do="Use the network 'mlp' for vectors.",
        )
    if not isinstance(shape, tuple) or not all(_is_size(size) for size in shape):
        raise UserError(
            got=f"inputs of shape {shape}",
            wanted="whole numbers ≥ 1, the sizes of one example's axes",
            do="Give a shape such as (28, 28, 1), or (8,), without the axis of examples.",
        )
    require_whole("num_outputs", num_outputs, 1, do="Give the number of classes or values.")


def _is_size(size: object) -> bool:
    return isinstance(size, Integral) and int(size) >= 1


def multiplied(widths: Sequence[int], multiplier: Any) -> tuple[int, ...]:
    """The widths times a factor, rounded.

    Raises:
      UserError: if the factor is not positive, and for widths that are not whole numbers.

    Example:
      >>> multiplied((128, 10), 0.73)
      (93, 7)
    """
    require_range("width_multiplier", multiplier, 1e-12, do="Use 1 for the widths as they are.")
    if not isinstance(widths, Sequence) or not all(isinstance(width, Integral) for width in widths):
        raise UserError(
            got=f"layers of widths {widths}", wanted="a whole number for each", do="Give a tuple, such as (128, 128)."
        )
    return tuple(round(multiplier * width) for width in widths)


def activation_for(name: str, widths: Sequence[int], gain: Any = None) -> Activation:
    """The activation of that name, with `gain` in the place of its own if there is one.

    Args:
      name: a name in `ACTIVATIONS`.
      widths: units of the layers that it is behind.
      gain: singular values of the hidden kernels at the start, > 0; None for the activation's own.

    Raises:
      UserError: for an unknown name, widths that do not suit it, and a gain that is not positive.

    Example:
      >>> activation_for("maxmin", (8, 4)).gain, activation_for("maxmin", (8, 4), 0.5).gain
      (1.0, 0.5)
    """
    chosen = activation(name)
    for width in widths:
        if width < 1:
            raise UserError(got=f"a layer of width {width}", wanted="widths ≥ 1", do="Give positive widths.")
        if width % chosen.group_size:
            raise UserError(
                got=f"width {width} with activation {name!r}",
                wanted=f"widths that are multiples of {chosen.group_size}",
                do=f"Choose {-(-width // chosen.group_size) * chosen.group_size} instead.",
            )
    require_range("gain", gain, 1e-12, do="Leave it out for the activation's own.")
    return chosen if gain is None else chosen._replace(gain=gain)
