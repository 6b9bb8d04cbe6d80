import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from parquet_files import encoded
from pliant.errors import UserError
from pliant.streams._image_files import decode, together

GREY = np.array([[0, 7], [200, 255]], np.uint8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)
WORDS = np.array([[0, 300], [40000, 65535]], np.uint16)


def _read(data):
    return decode(data, "image 3 in train")


def _palette(*colours, **options):
    picture = PIL.Image.new("P", (len(colours), 1))
    picture.putpalette([value for colour in colours for value in colour])
    picture.putdata(range(len(colours)))
    return encoded(picture, **options)


def _png_of_words(array, colour_type):
    """16 bits for each of several channels, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("data", "mode", "pixels", "largest"),
    [
        (encoded(GREY), "L", GREY[..., None], 255),
        (encoded(GREY > 100), "1", [[[0], [0]], [[255], [255]]], 255),
        (encoded(COLOUR), "RGB", COLOUR, 255),
        (_palette((9, 8, 7), (200, 0, 3)), "P", [[[9, 8, 7], [200, 0, 3]]], 255),
        (encoded(WORDS), "I;16", WORDS[..., None], 65535),
        (encoded(WORDS, "TIFF"), "I;16", WORDS[..., None], 65535),
        (encoded(WORDS.astype(np.int32), "TIFF"), "I", WORDS[..., None], np.nan),
        (encoded(np.float32([[0.25, -1.5]]), "TIFF"), "F", [[[0.25], [-1.5]]], 1),
        (encoded(COLOUR, "TIFF", "CMYK"), "CMYK", COLOUR, 255),
        (encoded(COLOUR, mode="RGBA"), "RGBA", COLOUR, 255),
        (encoded(GREY, mode="LA"), "LA", GREY[..., None], 255),
        (encoded(GREY, transparency=13), "L", GREY[..., None], 255),
        (encoded(WORDS, transparency=13), "I;16", WORDS[..., None], 65535),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_modes(data, mode, pixels, largest):
    picture = _read(data)
    assert picture.mode == mode
    np.testing.assert_array_equal(picture.pixels, pixels)
    np.testing.assert_equal(picture.depth.largest, largest)


def test_16_bits_are_not_clipped():
    assert _read(encoded(WORDS)).pixels.dtype == np.uint16
    assert _read(encoded(WORDS.astype(np.int32), "PPM")).depth.name == "16-bit"


def _tiff(array, *changes):
    """A TIFF whose tags are changed."""
    data = encoded(array, "TIFF")
    for tag, before, after in changes:
        entry = struct.pack("<HHII", tag, 3, 1, before)
        assert data.count(entry) == 1
        data = data.replace(entry, struct.pack("<HHII", tag, 3, 1, after))
    return data


def test_integers_of_32_bits_are_not_wrapped():
    """Pillow reads unsigned ones as signed."""
    values = np.array([[1, -5]], np.int32)
    assert _read(_tiff(values)).pixels.ravel().tolist() == [1, -5]
    with pytest.raises(
        UserError, match="got numbers from 2³¹ in image 3 in train, which Pillow would read as negative"
    ):
        _read(_tiff(values, (339, 2, 1)))


def test_12_bits_have_a_range_of_their_own():
    picture = _read(_tiff(np.full((1, 2), 0x3412, np.uint16), (258, 16, 12)))
    assert (picture.depth.largest, picture.depth.dtype) == (4095, np.uint16)
    assert picture.pixels.max() <= 4095


def test_luma_and_chroma_become_colours():
    picture = _read(encoded(np.full((8, 8, 3), (10, 200, 30), np.uint8), "TIFF", "YCbCr"))
    assert (picture.mode, picture.pixels.shape) == ("YCbCr", (8, 8, 3))
    np.testing.assert_allclose(picture.pixels, np.full((8, 8, 3), (10, 200, 30)), atol=2)


def test_orientation_of_a_photo_is_applied():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture = _read(encoded(GREY[:1], exif=exif))
    assert picture.pixels[..., 0].tolist() == [[0], [7]]


@pytest.mark.parametrize(
    "data",
    [
        encoded(np.dstack([COLOUR, GREY])),
        encoded(np.dstack([GREY, GREY])),
        encoded(GREY, transparency=7),
        encoded(COLOUR, transparency=(7, 248, 3)),
        encoded(WORDS, transparency=300),
        _palette((9, 8, 7), (200, 0, 3), transparency=1),
        _palette((9, 8, 7), (200, 0, 3), transparency=b"\xff\x80"),
        encoded(PIL.Image.new("PA", (2, 2)), "TIFF"),
    ],
)
def test_transparent_pixels_are_refused(data):
    with pytest.raises(UserError, match="got transparent pixels in image 3 in train; wanted opaque images"):
        _read(data)


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_16_bits_are_refused(kind, channels):
    array = np.full((2, 2, channels), 65535)
    with pytest.raises(UserError, match=r"got 16 bits for each of several channels in image 3.*Pillow would keep 8"):
        _read(_png_of_words(array, kind))
    assert _read(_png_of_words(array[..., 0], 0)).depth.name == "16-bit"


def test_several_frames_are_refused():
    file = io.BytesIO()
    PIL.Image.fromarray(GREY).save(file, "GIF", save_all=True, append_images=[PIL.Image.fromarray(255 - GREY)])
    with pytest.raises(UserError, match="got 2 frames in image 3 in train; wanted one"):
        _read(file.getvalue())


def test_other_modes_are_refused():
    with pytest.raises(UserError, match="got the mode LAB of image 3 in train; wanted grey or RGB"):
        _read(encoded(PIL.Image.new("LAB", (2, 2)), "TIFF"))


@pytest.mark.parametrize("data", [b"", b"aGVsbG8=", b"\x00" * 50, b"<html>"])
def test_no_image(data):
    with pytest.raises(UserError, match=rf"got image 3 in train, whose {len(data)} bytes are no image; wanted PNG"):
        _read(data)


def test_damaged_images():
    whole = encoded(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8))
    for damaged in (whole[:500], whole[:100] + b"\x55" * 50 + whole[150:], encoded(COLOUR, "JPEG")[:-40]):
        with pytest.raises(UserError, match=r"got image 3 in train, which cannot be decoded: .*Remove the cache"):
            decode(damaged, "image 3 in train", "Remove the cache.")


def _together(*splits):
    return together([[_read(data) for data in split] for split in splits], ["train", "test"])


def test_grey_among_colour_is_repeated():
    """Also if all colour is in the other split; nothing is lost."""
    (train, test), depth = _together([encoded(GREY), encoded(GREY > 100)], [encoded(COLOUR)])
    assert train.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(train[0], np.repeat(GREY[..., None], 3, axis=-1))
    np.testing.assert_array_equal(test[0], COLOUR)
    assert depth.largest == 255


def test_ranges_that_differ():
    with pytest.raises(UserError, match=r"got images of several ranges: train: L \(2\), RGB \(1\); test: I;16 \(1\)"):
        _together([encoded(GREY), encoded(GREY), encoded(COLOUR)], [encoded(WORDS)])


def test_sizes_that_differ():
    with pytest.raises(UserError, match=r"got images of several sizes: train: 2×2 \(2\); test: 1×2 \(1\)"):
        _together([encoded(GREY), encoded(GREY)], [encoded(GREY[:1])])
