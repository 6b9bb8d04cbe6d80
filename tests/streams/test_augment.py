import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.streams import Dataset, Images, augmented, load_dataset, random_labels, random_seq2seq, upgd_toy
from pliant.streams._augment import _rotated
from strict_types import unchecked

STREAM = random_labels(load_dataset("digits", train_size=50))


def _numbered(height=15, wide=14, channels=2):
    """Every pixel is another number, so a change says where it is from; too large for a mirror image of a cut to be
    another cut."""
    return jnp.arange(height * wide * channels, dtype=jnp.float32).reshape(height, wide, channels)


def _crops(image):
    """All images that crop-flip can make of one, and how: cut at (row, column), mirrored or not."""
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    height, wide, _ = image.shape
    for row in range(9):
        for column in range(9):
            cut = padded[row : row + height, column : column + wide]
            yield cut.tobytes(), (row, column, False)
            yield cut[:, ::-1].tobytes(), (row, column, True)


def test_crops_are_cut_anywhere_and_mirrored_half_of_the_time(key):
    image = _numbered()
    how = dict(_crops(np.asarray(image)))
    images = augmented(STREAM, "crop-flip").augment(key, jnp.broadcast_to(image[None], (600, *image.shape)))
    rows, columns, flips = zip(*[how[np.asarray(each).tobytes()] for each in images], strict=True)
    for places in (rows, columns):
        assert np.abs(np.bincount(places, minlength=9) - 600 / 9).max() < 4 * np.sqrt(600 / 9)
    assert abs(np.mean(flips) - 0.5) < 4 * 0.5 / np.sqrt(600)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 4 / np.sqrt(600)


@pytest.mark.parametrize("kind", ["crop-flip", "crop-flip-rotate"])
def test_every_image_and_every_key_has_its_own_change(key, kind):
    augment = jax.jit(augmented(STREAM, kind).augment)
    images = jnp.broadcast_to(_numbered(8, 7)[None], (8, 8, 7, 2))
    first, second = (np.asarray(augment(each, images)) for each in (key, jax.random.key(1)))
    assert first.shape == (8, 8, 7, 2)
    assert len({image.tobytes() for image in first}) > 5
    assert (first != second).any()
    np.testing.assert_array_equal(augment(key, images), first)


def test_a_quarter_turn():
    image = _numbered(6, 6)
    np.testing.assert_allclose(_rotated(image, jnp.float32(np.pi / 2)), np.rot90(image, -1), atol=1e-3)
    np.testing.assert_allclose(_rotated(image, jnp.float32(0.0)), image, atol=1e-5)


def test_a_turn_is_about_the_centre_and_leaves_zeros_outside():
    """A disc about the centre stays, the corners are lost, and a plane is turned as planes are."""
    y, x = np.mgrid[:15, :15] - 7.0
    disc = jnp.asarray(np.exp(-(x**2 + y**2) / 8)[..., None], jnp.float32)
    np.testing.assert_allclose(_rotated(disc, jnp.float32(0.2))[4:11, 4:11], disc[4:11, 4:11], atol=0.03)
    turned = np.asarray(_rotated(jnp.ones((15, 15, 1)), jnp.float32(np.deg2rad(15.0))))
    assert turned[0, 0, 0] == turned[-1, -1, 0] == 0.0
    np.testing.assert_allclose(turned[4:11, 4:11], 1.0, rtol=1e-5)
    plane = _rotated(jnp.asarray(x[..., None], jnp.float32), jnp.float32(0.2))[4:11, 4:11, 0]
    np.testing.assert_allclose(plane, (np.sin(0.2) * y + np.cos(0.2) * x)[4:11, 4:11], atol=1e-4)


def test_angles_are_from_0_to_15_degrees(key):
    """Read off a plane: behind any crop its slopes are those of the angle, up to the mirror's sign."""
    x = np.mgrid[:41, :41][1] - 20.0
    plane = jnp.asarray(np.broadcast_to(x[None, ..., None], (300, 41, 41, 1)), jnp.float32)
    turned = np.asarray(augmented(STREAM, "crop-flip-rotate").augment(key, plane))[:, 17:24, 17:24, 0]
    slopes = np.diff(turned, axis=1).mean(axis=(1, 2)), np.diff(turned, axis=2).mean(axis=(1, 2))
    angles = np.rad2deg(np.arctan(slopes[0] / slopes[1]))
    assert 0 <= angles.min() < 1
    assert 14 < angles.max() <= 15
    assert abs(angles.mean() - 7.5) < 4 * 15 / np.sqrt(12 * 300)


def test_without_augmentation_the_stream_is_itself():
    assert augmented(STREAM, "none") is STREAM
    assert STREAM.augment is None


def test_unknown_kind():
    with pytest.raises(UserError, match="got augment='flip'; wanted one of none, crop-flip, crop-flip-rotate"):
        unchecked(augmented)(STREAM, "flip")


def _small_images():
    images = Images(np.zeros((10, 4, 9, 1), np.uint8), np.arange(10, dtype=np.int32))
    return random_labels(Dataset("small", 10, images, images, np.zeros((1, 1, 1)), np.ones((1, 1, 1))))


@pytest.mark.parametrize(
    ("stream", "shape"),
    [
        (random_seq2seq(num_examples=4, source_words=2), r"\(12, 30\)"),
        (upgd_toy(), r"\(\d+,\)"),
        (_small_images(), r"\(4, 9, 1\)"),
    ],
)
def test_what_is_no_image_or_too_small(stream, shape):
    with pytest.raises(UserError, match=rf"inputs of shape {shape}; wanted images of more than 4 × 4.*Leave --augment"):
        augmented(stream, "crop-flip")
