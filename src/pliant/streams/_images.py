"""What the streams over images share: the device arrays, and normalised batches."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from pliant.streams._datasets import Dataset, Images


class ImageData(NamedTuple):
    """A data set's arrays, shared by all tasks and seeds."""

    train: Images
    test: Images
    mean: Float[np.ndarray | Array, "#height #wide #channels"]
    std: Float[np.ndarray | Array, "#height #wide #channels"]


def image_data(dataset: Dataset) -> ImageData:
    """The arrays of a data set, without its name."""
    return ImageData(dataset.train, dataset.test, dataset.mean, dataset.std)


def normalized(
    data: ImageData, split: Images, indices: Int[Array, " batch"]
) -> Float[Array, "batch height wide channels"]:
    """Gathers images as stored, then makes them float32 with mean 0 and variance 1 over the training set."""
    images: Shaped[Array, "batch height wide channels"] = jnp.asarray(split.images)[indices]
    return (images.astype(jnp.float32) - data.mean[None]) / data.std[None]
