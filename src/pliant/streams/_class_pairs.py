"""Pairs of classes: every task is to tell two classes apart."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import UserError, require_choice, require_range
from pliant.streams._class_incremental import ClassData, class_batch, class_data
from pliant.streams._dataset import Dataset
from pliant.streams._images import image_inputs
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Split, Stream


def class_pairs(
    dataset: Dataset,
    *,
    num_tasks: int = 20,
    train_per_class: int = 0,
    test_per_class: int = 0,
    rounds: Literal["repeat", "redraw"] = "repeat",
) -> Stream:
    """Classification of two classes, labelled 0 and 1, a new pair in every task: Continual ImageNet for any data set.

    Each seed pairs the classes at random. When all pairs have been used, the next round begins. With an odd number of
    classes, one is left out. The headline is the test accuracy at the end of a task.

    Args:
      dataset: the images, of 2 classes or more.
      num_tasks: ≥ 1.
      train_per_class: training images of each class, the first ones; 0 means as many as the smallest class has. 600 in
        Continual ImageNet.
      test_per_class: the same for test images; 100 in Continual ImageNet.
      rounds: "repeat" has the same pairs in every round; "redraw" pairs the classes again.

    Returns:
      A `Stream`; a task is its two classes, int32 (2,).

    Raises:
      UserError: for an unknown kind of rounds, `num_tasks` < 1, fewer than 2 classes, or more images of a class than
        there are.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = class_pairs(load_dataset("digits"), train_per_class=100)
      >>> pairs = jnp.stack([stream.task(jax.random.key(0), index) for index in range(6)])
      >>> sorted(pairs[:5].ravel().tolist()), bool((pairs[5] == pairs[0]).all())
      ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], True)
      >>> stream.train.batch(stream.data, pairs[0], jnp.array([0, 99, 100, 199])).targets.tolist()
      [0, 0, 1, 1]

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://www.nature.com/articles/s41586-024-07711-7>`_, 2024, Continual ImageNet.

    Differs from:
      Dohare et al., who set the output layer to zero in each task; here that is an option of the run (`--head-at-switch
      zero`). Kumar et al. 2023, who pair classes again in every round ("redraw") and report the online accuracy, which
      every run records too.
    """
    require_choice("rounds", rounds, "repeat", "redraw")
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    num_classes = dataset.num_classes
    pairs_per_round = num_classes // 2
    if pairs_per_round == 0:
        raise UserError(
            got=f"{dataset.name!r}, which has a single class", wanted="2 classes or more", do="Use another data set."
        )
    data = class_data(dataset, train_per_class, test_per_class)

    def task(key: Key, index: Int[Array, ""] | int) -> Int[Array, " 2"]:
        number = index // pairs_per_round if rounds == "redraw" else 0
        order = jax.random.permutation(jax.random.fold_in(key, number), num_classes)
        return order[2 * (index % pairs_per_round) + jnp.arange(2)]

    def split(part: Literal["train", "test"]) -> Split:
        per_class = getattr(data, part).shape[1]

        def batch(data: ClassData, task: Int[Array, " 2"], indices: Int[Array, " batch"]) -> Batch:
            return class_batch(data, part, task, indices)._replace(targets=indices // per_class)

        return Split(lambda _: 2 * per_class, batch)

    return Stream(
        name="class-pairs",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=2,
        inputs=image_inputs(dataset),
        train=split("train"),
        test=split("test"),
        objective=CLASSIFICATION,
        headline="test_accuracy",
        chance=0.5,
        data=data,
        task=task,
    )
