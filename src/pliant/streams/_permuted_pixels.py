"""Permuted pixels: the same images and labels, with pixels in a new order in every task."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import require_choice, require_range
from pliant.streams._dataset import Dataset, Images
from pliant.streams._images import ImageData, all_images, image_data, image_inputs, normalized
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Stream


def permuted_pixels(
    dataset: Dataset, *, num_tasks: int = 20, permute: Literal["spatial", "flat"] = "spatial"
) -> Stream:
    """Classification under a new random permutation of the pixels in every task, the first included.

    All tasks are equally hard for a network that does not use the neighbourhood of pixels. Training and test images of
    a task are permuted alike; the headline is the test accuracy at the end of a task.

    Args:
      dataset: the images.
      num_tasks: ≥ 1.
      permute: "spatial" moves all channels of a pixel together; "flat" permutes all values.

    Returns:
      A `Stream`; a task is its permutation, int32 (values,).

    Raises:
      UserError: for an unknown kind of permutation or `num_tasks` < 1.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = permuted_pixels(load_dataset("digits"))
      >>> stream.task(jax.random.key(0), 3).shape, stream.test.num(3)
      ((64,), 176)

    References:
      Goodfellow et al., `An Empirical Investigation of Catastrophic Forgetting in Gradient-Based Neural Networks
      <https://arxiv.org/abs/1312.6211>`_, 2013; Rosseau et al. 2026 (arXiv 2606.09762), section 6.1.

    Differs from:
      Dohare et al. 2024, whose permutations compose: each task permutes the previous task's images. The distribution of
      tasks is the same.
    """
    require_choice("permute", permute, "spatial", "flat")
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    height, wide, channels = dataset.train.images.shape[1:]
    size = height * wide if permute == "spatial" else height * wide * channels

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " size"]:
        return jax.random.permutation(jax.random.fold_in(key, index), size)

    def batch(data: ImageData, images: Images, task: Int[Array, " size"], indices: Int[Array, " batch"]) -> Batch:
        pixels = normalized(data, images, indices)
        permuted = pixels.reshape(len(indices), size, -1)[:, task].reshape(pixels.shape)
        return Batch(permuted, jnp.asarray(images.labels)[indices])

    return Stream(
        name="permuted-pixels",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=dataset.num_classes,
        inputs=image_inputs(dataset),
        train=all_images(dataset, "train", batch),
        test=all_images(dataset, "test", batch),
        objective=CLASSIFICATION,
        headline="test_accuracy",
        chance=1 / dataset.num_classes,
        data=image_data(dataset),
        task=task,
        keeps="targets",
    )
