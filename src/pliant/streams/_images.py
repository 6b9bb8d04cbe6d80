"""What the streams of images share: arrays, splits and normalised batches."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from pliant.errors import UserError
from pliant.streams._dataset import Dataset, Images
from pliant.types import Batch, Split


class ImageData(NamedTuple):
    """A data set's arrays, shared by all tasks and seeds."""

    train: Images
    test: Images
    mean: Float[np.ndarray | Array, "#height #wide #channels"]
    std: Float[np.ndarray | Array, "#height #wide #channels"]


def image_data(dataset: Dataset) -> ImageData:
    """The arrays of a data set.

    Raises:
      UserError: if images or labels are not as `Dataset` says, or if train and test differ in kind.

    Example:
      >>> from pliant.streams import load_dataset
      >>> image_data(load_dataset("digits")).train.images.shape
      (1621, 8, 8, 1)
    """
    for which, (images, labels) in (("train", dataset.train), ("test", dataset.test)):
        _require(
            images.ndim == 4 and images.shape[1:] == dataset.train.images.shape[1:],
            f"{which} images of shape {images.shape} in {dataset.name!r}",
            "images (examples, height, wide, channels), of one shape in train and test",
        )
        _require(
            np.issubdtype(labels.dtype, np.integer) and labels.shape == images.shape[:1],
            f"{which} labels of type {labels.dtype} and shape {labels.shape} in {dataset.name!r}",
            f"a whole number for each of the {len(images)} images",
        )
        lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
        _require(
            lowest >= 0 and highest < dataset.num_classes,
            f"{which} labels from {lowest} to {highest} in {dataset.name!r}",
            f"class numbers from 0 to {dataset.num_classes - 1}",
        )
    return ImageData(dataset.train, dataset.test, dataset.mean, dataset.std)


def image_inputs(dataset: Dataset) -> jax.ShapeDtypeStruct:
    """Shape and type of one image as networks get it."""
    return jax.ShapeDtypeStruct(dataset.train.images.shape[1:], jnp.float32)


def _require(condition: bool | np.bool_, got: str, wanted: str) -> None:
    if not condition:
        raise UserError(got=got, wanted=wanted, do="Make the data set with `load_dataset`, or correct its arrays.")


def normalized(
    data: ImageData, split: Images, indices: Int[Array, " batch"]
) -> Float[Array, "batch height wide channels"]:
    """Gathers images as stored, then makes them float32 with mean 0 and variance 1 over the training set.

    Example:
      >>> from pliant.streams import load_dataset
      >>> data = image_data(load_dataset("digits"))
      >>> images = normalized(data, data.train, jnp.arange(1621))
      >>> images.dtype.name, bool(abs(images.mean()) < 1e-6)
      ('float32', True)
    """
    images: Shaped[Array, "batch height wide channels"] = jnp.asarray(split.images)[indices]
    return (images.astype(jnp.float32) - data.mean[None]) / data.std[None]


def labelled(data: ImageData, images: Images, task: Any, indices: Int[Array, " batch"]) -> Batch:
    """Images with their true labels."""
    del task
    return Batch(normalized(data, images, indices), jnp.asarray(images.labels)[indices])


def all_images(
    dataset: Dataset, part: Literal["train", "test"], batch: Callable[[ImageData, Images, Any, Array], Batch] = labelled
) -> Split:
    """All training or all test images, in every task: `batch(data, images, task, indices)`."""
    size = len(getattr(dataset, part).labels)
    return Split(lambda _: size, lambda data, task, indices: batch(data, getattr(data, part), task, indices))
