import functools

import jax.numpy as jnp
import numpy as np
import pytest

from many_classes import many_classes
from pliant.errors import UserError
from pliant.streams import Images, class_incremental, random_labels

MANY = many_classes(num_classes=3)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("train", lambda images, labels: Images(images[..., 0], labels), r"got train images of shape \(31, 4, 4\)"),
        ("test", lambda images, labels: Images(images[:, 1:], labels), r"got test images of shape \(13, 3, 4, 1\)"),
        (
            "test",
            lambda images, labels: Images(images.repeat(3, 3), labels),
            r"got test images of shape .*of one shape",
        ),
        (
            "train",
            lambda images, labels: Images(images, labels + 1),
            "got train labels from 1 to 3 in 'many'",
        ),
        (
            "test",
            lambda images, labels: Images(images, labels - 1),
            "got test labels from -1 to 1 in 'many'",
        ),
        ("test", lambda images, labels: Images(images, labels[1:]), "wanted a whole number for each of the 13 images"),
        ("train", lambda images, labels: Images(images, labels * 1.0), "got train labels of type float64 and shape"),
    ],
)
@pytest.mark.parametrize("stream", [random_labels, functools.partial(class_incremental, classes_per_task=3)])
def test_data_sets_made_by_hand_are_checked(stream, part, change, message):
    damaged = MANY._replace(**{part: change(*getattr(MANY, part))})
    with pytest.raises(UserError, match=message):
        stream(damaged, num_tasks=1)


def test_images_of_any_type_are_normalised(key):
    for dtype in (np.uint8, np.uint16, np.int32, np.float32):
        images = MANY.train.images.astype(dtype)
        stream = random_labels(MANY._replace(train=Images(images, MANY.train.labels)))
        inputs = stream.train.batch(stream.data, stream.task(key, 0), jnp.arange(31)).inputs
        np.testing.assert_allclose(inputs, MANY.train.images / 127.5 - 1, rtol=1e-6, atol=1e-6)
