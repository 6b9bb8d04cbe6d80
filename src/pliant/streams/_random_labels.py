"""Random labels: the same images with new random labels in every task."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import require_choice, require_range
from pliant.streams._dataset import Dataset
from pliant.streams._images import ImageData, image_data, image_inputs, normalized
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Split, Stream


def random_labels(dataset: Dataset, *, num_tasks: int = 20, labels: Literal["permute", "iid"] = "permute") -> Stream:
    """Memorising random labels: the images stay the same, and every task assigns new labels, the first included.

    It measures trainability alone: there is nothing to generalise, and all tasks are equally hard. The headline is the
    training accuracy at the end of a task.

    Args:
      dataset: the images; only its training part is used.
      num_tasks: ≥ 1.
      labels: "permute" shuffles the true labels, so that classes keep their sizes; "iid" samples each label uniformly.

    Returns:
      A `Stream`; a task is its labels, int32 (examples,).

    Raises:
      UserError: for an unknown kind of labels or `num_tasks` < 1.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = random_labels(load_dataset("digits"))
      >>> task = stream.task(jax.random.key(0), 3)
      >>> batch = stream.train.batch(stream.data, task, jnp.arange(5))
      >>> batch.inputs.shape, task.shape
      ((5, 8, 8, 1), (1621,))

    References:
      Lyle et al. 2023 (arXiv 2303.01486), section 2; Rosseau et al. 2026 (arXiv 2606.09762), section 6.1.

    Differs from:
      Kumar et al. 2023, who sample iid labels. "permute" is what the code of the gradual-change paper does.
    """
    require_choice("labels", labels, "permute", "iid")
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    true_labels = dataset.train.labels
    num_classes = dataset.num_classes

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " examples"]:
        key = jax.random.fold_in(key, index)
        if labels == "permute":
            return jax.random.permutation(key, jnp.asarray(true_labels))
        return jax.random.randint(key, true_labels.shape, 0, num_classes, jnp.int32)

    def train_batch(data: ImageData, task: Int[Array, " examples"], indices: Int[Array, " batch"]) -> Batch:
        return Batch(normalized(data, data.train, indices), task[indices])

    return Stream(
        name="random-labels",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=num_classes,
        inputs=image_inputs(dataset),
        train=Split(lambda _: len(true_labels), train_batch),
        objective=CLASSIFICATION,
        headline="train_accuracy",
        chance=1 / num_classes,
        data=image_data(dataset),
        task=task,
        keeps="inputs",
    )
