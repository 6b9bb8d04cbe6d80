"""Which networks take texts."""

from collections.abc import Callable
from typing import get_args, get_type_hints

from pliant.types import Network, TextLengths


def takes_texts(factory: Callable[..., Network]) -> bool:
    """Whether a network factory makes networks for texts: its `input_shape` is then annotated as `TextLengths`.

    Args:
      factory: `(input_shape, num_outputs, **options) -> Network`.

    Example:
      >>> from pliant.networks import mlp, t5
      >>> takes_texts(mlp), takes_texts(t5)
      (False, True)
    """
    hint = get_type_hints(factory).get("input_shape")
    return TextLengths in (hint, *get_args(hint))
