"""Data augmentation of training images."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.errors import UserError
from pliant.types import Key, Stream

_PAD = 4
_DEGREES = 15.0
KINDS = ("none", "crop-flip", "crop-flip-rotate")


def augmented(stream: Stream, kind: str) -> Stream:
    """Augments the training images of a stream at random in every update; evaluation uses them unchanged.

    "crop-flip" pads by 4 reflected pixels, crops to the old size at random, and flips left and right with probability
    ½; "crop-flip-rotate" also rotates by 0 to 15 degrees about the centre (bilinear, zeros from outside).

    Args:
      stream: one whose inputs are images.
      kind: "none", "crop-flip" or "crop-flip-rotate".

    Returns:
      The stream with `augment`.

    Raises:
      UserError: for another kind, and for inputs that are not images of more than 4 × 4 pixels.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> stream = augmented(random_labels(load_dataset("digits")), "crop-flip")
      >>> stream.augment(jax.random.key(0), jnp.zeros((2, 8, 8, 1))).shape
      (2, 8, 8, 1)

    References:
      Dohare et al. 2024, class-incremental CIFAR-100: flip, crop with 4 reflected pixels, rotation by 0–15 degrees.

    Differs from:
      torchvision's transforms, whose rotation takes the nearest pixel by default.
    """
    if kind not in KINDS:
        raise UserError(got=f"augment={kind!r}", wanted=f"one of {', '.join(KINDS)}", do="Leave it out for 'none'.")
    if kind == "none":
        return stream
    if len(stream.input_shape) != 3 or min(stream.input_shape[:2]) <= _PAD:
        raise UserError(
            got=f"augment={kind!r} for {stream.name} with inputs of shape {tuple(stream.input_shape)}",
            wanted=f"images of more than {_PAD} × {_PAD} pixels",
            do="Leave --augment out.",
        )

    def augment(key: Key, images: Array) -> Array:
        crop, turn = jax.random.split(key)
        images = jax.vmap(_crop_and_flip)(jax.random.split(crop, len(images)), images)
        if kind == "crop-flip":
            return images
        angles = jnp.deg2rad(jax.random.uniform(turn, (len(images),), maxval=_DEGREES))
        return jax.vmap(_rotated)(images, angles)

    return stream._replace(augment=augment)


def _crop_and_flip(key: Key, image: Float[Array, "height wide channels"]) -> Float[Array, "height wide channels"]:
    place, flip = jax.random.split(key)
    padded = jnp.pad(image, ((_PAD, _PAD), (_PAD, _PAD), (0, 0)), mode="reflect")
    row, column = jax.random.randint(place, (2,), 0, 2 * _PAD + 1)
    cut = jax.lax.dynamic_slice(padded, (row, column, 0), image.shape)
    return jnp.where(jax.random.bernoulli(flip), cut[:, ::-1], cut)


def _rotated(
    image: Float[Array, "height wide channels"], angle: Float[Array, ""]
) -> Float[Array, "height wide channels"]:
    height, wide, _ = image.shape
    y = jnp.arange(height) - (height - 1) / 2
    x = jnp.arange(wide) - (wide - 1) / 2
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    rows = y[:, None] * cos - x[None, :] * sin + (height - 1) / 2
    columns = y[:, None] * sin + x[None, :] * cos + (wide - 1) / 2

    def turn(channel: Float[Array, "height wide"]) -> Float[Array, "height wide"]:
        return jax.scipy.ndimage.map_coordinates(channel, [rows, columns], order=1)

    return jax.vmap(turn, in_axes=-1, out_axes=-1)(image)
