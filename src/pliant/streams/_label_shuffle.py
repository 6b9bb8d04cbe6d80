"""Shuffled classes: the same images in the same classes, which are renumbered in every task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import require_range
from pliant.streams._dataset import Dataset, Images
from pliant.streams._images import ImageData, all_images, image_data, image_inputs, normalized
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Stream


def label_shuffle(dataset: Dataset, *, num_tasks: int = 20) -> Stream:
    r"""Classification under a new random permutation π of the class numbers in every task, the first included.

    .. math:: y_t = \pi_t(y)

    Training and test images are relabelled alike. Images of a class stay together, so a new output layer alone could
    learn a task. The headline is the test accuracy at the end of a task.

    Args:
      dataset: the images.
      num_tasks: ≥ 1.

    Returns:
      A `Stream`; a task is π, int32 (classes,).

    Raises:
      UserError: for `num_tasks` < 1.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = label_shuffle(load_dataset("digits"))
      >>> task = stream.task(jax.random.key(0), 3)
      >>> sorted(task.tolist())
      [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]

    References:
      Rosseau et al. 2026 (arXiv 2606.09762), section 6.1, label-shuffled CIFAR-100; Elsayed and Mahmood,
      `Addressing Loss of Plasticity and Catastrophic Forgetting in Continual Learning
      <https://arxiv.org/abs/2404.00781>`_, 2024, label-permuted tasks.

    Differs from:
      Elsayed and Mahmood, whose first task has the true labels.
    """
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    num_classes = dataset.num_classes

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " classes"]:
        return jax.random.permutation(jax.random.fold_in(key, index), num_classes)

    def batch(data: ImageData, images: Images, task: Int[Array, " classes"], indices: Int[Array, " batch"]) -> Batch:
        return Batch(normalized(data, images, indices), task[jnp.asarray(images.labels)[indices]])

    return Stream(
        name="label-shuffle",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=num_classes,
        inputs=image_inputs(dataset),
        train=all_images(dataset, "train", batch),
        test=all_images(dataset, "test", batch),
        objective=CLASSIFICATION,
        headline="test_accuracy",
        chance=1 / num_classes,
        data=image_data(dataset),
        task=task,
        keeps="inputs",
    )
