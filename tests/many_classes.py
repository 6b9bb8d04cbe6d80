"""A data set of many classes, for streams that use them up."""

import numpy as np

from pliant.streams import Dataset, Images


def many_classes(num_classes=24, num_train=10, num_test=4):
    """Random images in random order, `num_train` and `num_test` of each class, and one more of class 0."""
    draw = np.random.default_rng(0)
    parts = []
    for size in (num_train, num_test):
        labels = draw.permutation(np.append(np.repeat(np.arange(num_classes), size), 0)).astype(np.int32)
        parts.append(Images(draw.integers(0, 256, (len(labels), 4, 4, 1), dtype=np.uint8), labels))
    half = np.full((1, 1, 1), 127.5, np.float32)
    return Dataset("many", num_classes, *parts, half, half)
