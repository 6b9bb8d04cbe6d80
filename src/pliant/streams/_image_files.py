"""Decoding of image files: channels by the mode, the range by the type of the numbers."""

import io
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageOps
from jaxtyping import Shaped

from pliant.errors import UserError
from pliant.streams._tables import counted, first_line


class Depth(NamedTuple):
    """The range of an image's numbers."""

    name: str
    dtype: Any
    """In memory."""
    largest: float
    """The largest value in a file; NaN for types without a range for images."""


BYTES = Depth("8-bit", np.uint8, 255.0)
WORDS = Depth("16-bit", np.uint16, 65535.0)
TWELVE = Depth("12-bit", np.uint16, 4095.0)
INTEGERS = Depth("integers of no declared range", np.int32, float("nan"))
FLOATS = Depth("floating-point", np.float32, 1.0)
"""Floating-point images declare no range; by convention it is [0, 1]."""

_ORIENTATION = 0x0112  # of EXIF
_SIXTEEN_BITS = re.compile(r"[A-Za-z]+;16[BLN]?")
_TO_COLOUR = ("P", "CMYK", "YCbCr", "RGBX")
_WITH_ALPHA = {"LA": "LA", "La": "LA", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
_WANTED = "images that can be read without loss"


class Picture(NamedTuple):
    """One image as numbers."""

    pixels: Shaped[np.ndarray, "height wide channels"]
    depth: Depth
    mode: str
    """Of the file."""


def decode(data: bytes, what: str, remedy: str = "Store the image again, or leave it out.") -> Picture:
    """Decodes an image file.

    Grey images have one channel and colour images three. Palettes, CMYK and YCbCr are converted to RGB. Pixels of 1-bit
    images are 0 and 255. The EXIF orientation is applied.

    Args:
      data: the bytes of a file.
      what: the image, for messages.
      remedy: what to do if it is damaged.

    Raises:
      UserError: for bytes that are not an image, damaged images, transparent pixels, several frames, and images that
        Pillow would read with fewer bits.

    Example:
      >>> file = io.BytesIO()
      >>> PIL.Image.fromarray(np.array([[True, False]])).save(file, "PNG")
      >>> decode(file.getvalue(), "an image").pixels.ravel().tolist()
      [255, 0]
    """
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            stored = _stored(picture)
            _require_whole(picture, stored, what)
            picture.load()
            return _upright(picture, stored, what)
    except UserError:
        raise
    except PIL.UnidentifiedImageError:
        raise UserError(
            got=f"{what}, whose {len(data)} bytes are no image",
            wanted="PNG, JPEG or another format that Pillow reads",
            do="Store encoded images, or arrays as lists of numbers.",
        ) from None
    except Exception as error:  # Pillow's plugins raise anything
        raise UserError(
            got=f"{what}, which cannot be decoded: {first_line(error) or type(error).__name__}",
            wanted="whole image files",
            do=remedy,
        ) from error


def _stored(picture: PIL.Image.Image) -> str:
    """Pillow's name of the stored numbers before loading, such as "RGB;16B"; "" if it has none."""
    arguments = [tile[3] for tile in getattr(picture, "tile", [])[:1]]
    first = [each[0] if isinstance(each, tuple) and each else each for each in arguments]
    return str(first[0]) if first else ""


def _require_whole(picture: PIL.Image.Image, stored: str, what: str) -> None:
    """Refuses what Pillow would read in part: 16-bit colours, and frames after the first."""
    if picture.mode[0] != "I" and _SIXTEEN_BITS.fullmatch(stored):
        raise UserError(
            got=f"16 bits for each of several channels in {what}, of which Pillow would keep 8",
            wanted=_WANTED,
            do="Store arrays as lists of numbers, or images with 8 bits a channel.",
        )
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # further frames of an MPO photo are previews
        raise UserError(got=f"{frames} frames in {what}", wanted="one", do="Store every frame as an image of its own.")


def _upright(picture: PIL.Image.Image, stored: str, what: str) -> Picture:
    mode = picture.mode
    if picture.format in ("PNG", "PPM") and mode == "I":  # these have 16 bits whatever Pillow says
        stored = "I;16"
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        picture = PIL.ImageOps.exif_transpose(picture)
    pixels, depth = _pixels(picture, stored, what)
    return Picture(pixels if pixels.ndim == 3 else pixels[..., None], depth, mode)


def _pixels(picture: PIL.Image.Image, stored: str, what: str) -> tuple[np.ndarray, Depth]:
    mode = picture.mode
    palette = picture.palette.mode if mode == "P" and picture.palette else ""
    clear = picture.info.get("transparency")
    if mode[0] in "IF":
        if clear is not None and np.any(np.asarray(picture) == clear):
            raise _transparent(what)
        return _numbers(picture, stored, what)
    if mode in _WITH_ALPHA or clear is not None or palette.endswith("A"):
        grey = mode in ("1", "L")
        *channels, alpha = picture.convert(_WITH_ALPHA.get(mode, "LA" if grey else "RGBA")).split()
        if np.asarray(alpha).min() < 255:
            raise _transparent(what)
        return np.stack([np.asarray(channel) for channel in channels], axis=-1), BYTES
    if mode in _TO_COLOUR:
        return np.asarray(picture.convert("RGB")), BYTES
    if mode == "1":
        return np.asarray(picture).astype(np.uint8) * np.uint8(255), BYTES
    if mode in ("L", "RGB"):
        return np.asarray(picture), BYTES
    raise UserError(
        got=f"the mode {mode} of {what}", wanted="grey or RGB images, palettes, CMYK or YCbCr", do="Convert it to RGB."
    )


def _numbers(picture: PIL.Image.Image, stored: str, what: str) -> tuple[np.ndarray, Depth]:
    """Pixels of grey images with more than 8 bits."""
    values = np.asarray(picture)
    if picture.mode == "F":
        return values.astype(np.float32), FLOATS
    if picture.mode.startswith("I;16") or stored == "I;16":
        return values.astype(np.uint16), TWELVE if stored == "I;12" else WORDS
    if "S" not in stored and values.min() < 0:
        raise UserError(
            got=f"numbers from 2³¹ in {what}, which Pillow would read as negative",
            wanted=_WANTED,
            do="Store 16 bits, or floating-point numbers in [0, 1].",
        )
    return values, INTEGERS


def _transparent(what: str) -> UserError:
    return UserError(
        got=f"transparent pixels in {what}",
        wanted="opaque images, since what lies behind is not known",
        do="Put them on a background first, such as with PIL.Image.alpha_composite.",
    )


def together(splits: Sequence[Sequence[Picture]], names: Sequence[str]) -> tuple[list[np.ndarray], Depth]:
    """One array for each split. Grey images are repeated to three channels if there are colour images.

    Raises:
      UserError: for images of several ranges or sizes, within or between splits.
    """
    everything = [picture for split in splits for picture in split]
    depths = {picture.depth.name for picture in everything}
    if len(depths) > 1:
        raise UserError(
            got=f"images of several ranges: {_where(splits, names, lambda picture: picture.mode)}",
            wanted="one range (" + " or ".join(sorted(depths)) + ") for all images",
            do="Convert them to one mode.",
        )
    if len({picture.pixels.shape[:2] for picture in everything}) > 1:
        raise UserError(
            got=f"images of several sizes: {_where(splits, names, _size)}",
            wanted="images of one size",
            do="Resize or crop them to one size.",
        )
    channels = {picture.pixels.shape[2] for picture in everything}
    if not channels <= {1, 3} and len(channels) > 1:
        raise UserError(
            got=f"images of several numbers of channels: {_where(splits, names, _channels)}",
            wanted="one number, or grey and RGB images",
            do="Store all with the same channels.",
        )
    height, wide, depth = *everything[0].pixels.shape[:2], everything[0].depth
    arrays = []
    for split in splits:
        array = np.empty((len(split), height, wide, max(channels)), depth.dtype)
        for row, picture in zip(array, split, strict=True):
            row[...] = picture.pixels
        arrays.append(array)
    return arrays, depth


def _size(picture: Picture) -> str:
    return "{}×{}".format(*picture.pixels.shape[:2])


def _channels(picture: Picture) -> str:
    return f"{picture.pixels.shape[2]} ({picture.mode})"


def _where(splits: Sequence[Sequence[Picture]], names: Sequence[str], what: Any) -> str:
    """The most common kinds in each split, with counts."""
    return "; ".join(
        f"{name}: {counted(Counter(map(what, split)).most_common(5))}"
        for name, split in zip(names, splits, strict=True)
    )
