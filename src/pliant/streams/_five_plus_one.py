"""5+1: tasks with five classes and tasks with a single class alternate."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import UserError, require_range
from pliant.streams._class_incremental import ClassData, class_batch, class_data
from pliant.streams._dataset import Dataset
from pliant.streams._images import image_inputs
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Split, Stream

_HARD, _EASY = 5, 1  # classes of a task


def five_plus_one(dataset: Dataset, *, num_tasks: int = 30, images_per_class: int = 0) -> Stream:
    """Hard tasks of five classes and easy tasks of a single class alternate; the first task is hard.

    A network that has learned to give one answer in an easy task may find the next hard task difficult. Classes are
    used once, in random order, until fewer than six are left; then all are shuffled again. The network has an output
    for every class of the data set. The headline is the online accuracy: on each batch before its update, averaged over
    the task.

    Args:
      dataset: the images, of 6 classes or more.
      num_tasks: ≥ 1; even ones (0, 2, …) are hard.
      images_per_class: training images of each class, the first ones; 0 means as many as the smallest class has.

    Returns:
      A `Stream`; a task is its classes, int32 (5,); an easy task repeats its class five times.

    Raises:
      UserError: for `num_tasks` < 1, fewer than 6 classes, or more images of a class than there are.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = five_plus_one(load_dataset("digits"), images_per_class=100)
      >>> [stream.train.num(index) for index in range(4)]
      [500, 100, 500, 100]

    References:
      Kumar et al., `Maintaining Plasticity in Continual Learning via Regenerative Regularization
      <https://arxiv.org/abs/2308.11958>`_, 2023, 5+1 CIFAR.

    Differs from:
      Kumar et al., where all tasks have 780 batches of 32 whatever their size; here that is an option of the run
      (`--steps 780`). Their stream ends when all classes have been used.
    """
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 30.")
    num_classes = dataset.num_classes
    pairs_per_round = num_classes // (_HARD + _EASY)
    if pairs_per_round == 0:
        raise UserError(
            got=f"{dataset.name!r}, which has {num_classes} classes",
            wanted="6 classes or more",
            do="Use cifar100, or digits to try it.",
        )
    data = class_data(dataset, images_per_class)

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " 5"]:
        pair, is_easy = index // 2, index % 2 == 1
        number, place = pair // pairs_per_round, pair % pairs_per_round
        order = jax.random.permutation(jax.random.fold_in(key, number), num_classes)
        return order[place * (_HARD + _EASY) + jnp.where(is_easy, _HARD, jnp.arange(_HARD))]

    def num_classes_of(index: int) -> int:
        return _EASY if index % 2 else _HARD

    def split(part: Literal["train", "test"]) -> Split:
        def batch(data: ClassData, task: Int[Array, " 5"], indices: Int[Array, " batch"]) -> Batch:
            return class_batch(data, part, task, indices)

        return Split(lambda index: num_classes_of(index) * getattr(data, part).shape[1], batch)

    return Stream(
        name="five-plus-one",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=num_classes,
        inputs=image_inputs(dataset),
        train=split("train"),
        test=split("test"),
        objective=CLASSIFICATION,
        headline="online_accuracy",
        chance=None,
        data=data,
        task=task,
    )
