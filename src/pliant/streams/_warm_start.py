"""Warm start: part of the data first, then all of them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.errors import require_range
from pliant.streams._dataset import Dataset
from pliant.streams._images import ImageData, all_images, image_data, image_inputs, labelled
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Split, Stream


def warm_start(dataset: Dataset, *, num_tasks: int = 2, first_fraction: float = 0.5) -> Stream:
    r"""Classification from a growing part of the training images, which increases in equal steps up to all of them.

    .. math:: f_t = f_0 + (1 - f_0)\,\frac{t}{T-1}

    Task t has the fraction :math:`f_t` of the images, including those of all earlier tasks. The order of the images is
    random for each seed, and classes are balanced as in the whole set. Compare it with a fresh start on all data: a
    single task. The headline is the test accuracy at the end of a task.

    Args:
      dataset: the images.
      num_tasks: T ≥ 1; a single task has all images.
      first_fraction: :math:`f_0`, in (0, 1].

    Returns:
      A `Stream`; a task is the order of the training images, int32 (examples,), the same in all tasks. Task number t
      has the first `train.num(t)` of them.

    Raises:
      UserError: for `num_tasks` < 1, or a first fraction above 1 or too small for one image.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = warm_start(load_dataset("digits"), num_tasks=4, first_fraction=0.1)
      >>> [stream.train.num(index) for index in range(4)]
      [162, 648, 1135, 1621]

    References:
      Ash and Adams, `On Warm-Starting Neural Network Training <https://arxiv.org/abs/1910.08475>`_, 2020: half, then
      all. Lee et al. 2024 (Hare & Tortoise): a tenth, then all.

    Differs from:
      Ash and Adams, who hold out a third of the training images for the test, and train to 99 % training accuracy. Lee
      et al., who also assign wrong labels to half of the first images. Neither balances the classes of a subset.
    """
    true_labels = dataset.train.labels
    num_examples = len(true_labels)
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 2.")
    require_range("first_fraction", first_fraction, 1 / num_examples, 1, do="Leave it out for 0.5.")
    slots = _even_slots(true_labels)

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " examples"]:
        del index
        shuffled = jax.random.permutation(jax.random.fold_in(key, 0), num_examples)
        by_class = shuffled[jnp.argsort(jnp.asarray(true_labels)[shuffled], stable=True)]
        return by_class[slots]

    def train_batch(data: ImageData, task: Int[Array, " examples"], indices: Int[Array, " batch"]) -> Batch:
        return labelled(data, data.train, (), task[indices])

    def num_train(index: int) -> int:
        still_missing = (1 - first_fraction) * (num_tasks - 1 - index) / max(num_tasks - 1, 1)
        return round((1 - still_missing) * num_examples)

    return Stream(
        name="warm-start",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=dataset.num_classes,
        inputs=image_inputs(dataset),
        train=Split(num_train, train_batch),
        test=all_images(dataset, "test"),
        objective=CLASSIFICATION,
        headline="test_accuracy",
        chance=1 / dataset.num_classes,
        data=image_data(dataset),
        task=task,
        depends_on_num_tasks=True,
    )


def _even_slots(labels: Int[np.ndarray, " examples"]) -> Int[np.ndarray, " examples"]:
    """Indices into a list sorted by class, in an order that spreads every class evenly."""
    counts = np.bincount(labels)
    rank = np.concatenate([np.arange(count) for count in counts])
    return np.argsort((rank + 0.5) / np.repeat(counts, counts), kind="stable")
