"""Class-incremental learning: every task adds classes to those of the tasks before."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from pliant.errors import UserError, require_choice, require_range
from pliant.streams._dataset import Dataset
from pliant.streams._images import ImageData, image_data, image_inputs, labelled
from pliant.streams._objectives import masked_classification
from pliant.types import Batch, Key, Split, Stream


class ClassData(NamedTuple):
    """Images, and the indices of the images of each class."""

    images: ImageData
    train: Int[np.ndarray | Array, "classes train"]
    """Indices of training images by class, equally many of each."""
    test: Int[np.ndarray | Array, "classes test"]


class SeenClasses(NamedTuple):
    """A task of `class_incremental`."""

    order: Int[Array, " classes"]
    """All classes in the order in which tasks add them; the same in all tasks."""
    seen: Bool[Array, " classes"]
    """True for the classes that have been added."""


def class_incremental(
    dataset: Dataset,
    *,
    num_tasks: int = 20,
    classes_per_task: int = 5,
    order: Literal["random", "natural"] = "random",
    validation_per_class: int = 0,
) -> Stream:
    """Classification among a growing set of classes; task t = 1, 2, … has all images of the first t·`classes_per_task`.

    The network has an output for every class. Outputs of classes that have not been added are neither trained nor
    counted as answers. The headline is the accuracy on the test images of the classes so far; chance level falls from
    task to task.

    Args:
      dataset: the images. Every class has as many as the smallest one, the first ones of the data set.
      num_tasks: ≥ 1.
      classes_per_task: classes that a task adds, ≥ 1; `num_tasks`·`classes_per_task` is at most the number of classes.
      order: "random" shuffles the classes for each seed; "natural" takes them by their numbers.
      validation_per_class: training images of every class, the last ones, that are held out as validation examples (see
        `--weights-at-end`), ≥ 0 and fewer than there are.

    Returns:
      A `Stream`; a task is `SeenClasses`.

    Raises:
      UserError: for an unknown order, numbers below 1, too few classes, a class without images, or too many held-out
        images.

    Example:
      >>> from pliant.streams import load_dataset
      >>> stream = class_incremental(load_dataset("digits"), num_tasks=5, classes_per_task=2, order="natural")
      >>> stream.task(jax.random.key(0), 1).seen.astype(int).tolist()
      [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
      >>> [stream.train.num(index) for index in range(5)]
      [314, 628, 942, 1256, 1570]

    References:
      Dohare et al., `Loss of plasticity in deep continual learning
      <https://www.nature.com/articles/s41586-024-07711-7>`_, 2024, class-incremental CIFAR-100; 50 of
      the 500 training images of a class are held out.
    """
    require_choice("order", order, "random", "natural")
    require_range("tasks", num_tasks, 1, do="Leave it out for the default of 20.")
    require_range("classes_per_task", classes_per_task, 1, do="Leave it out for the default of 5.")
    num_classes = dataset.num_classes
    if num_tasks * classes_per_task > num_classes:
        raise UserError(
            got=f"{num_tasks} tasks of {classes_per_task} new classes each from {dataset.name!r}",
            wanted=f"at most its {num_classes} classes in total",
            do="Lower --tasks, or set class-incremental.classes_per_task.",
        )
    data = class_data(dataset)
    num_kept = data.train.shape[1] - validation_per_class
    if not 0 <= validation_per_class < data.train.shape[1]:
        raise UserError(
            got=f"validation_per_class={validation_per_class}",
            wanted=f"0 to {data.train.shape[1] - 1}, fewer than the training images of a class of {dataset.name!r}",
            do="Leave it out for none.",
        )

    def task(key: Key, index: Int[Array, ""] | int) -> SeenClasses:
        classes = jnp.arange(num_classes)
        if order == "random":
            classes = jax.random.permutation(jax.random.fold_in(key, 0), classes)
        return SeenClasses(classes, jnp.argsort(classes) < (index + 1) * classes_per_task)

    def split(part: Literal["train", "test"], columns: slice, per_class: int) -> Split:
        def batch(data: ClassData, task: SeenClasses, indices: Int[Array, " batch"]) -> Batch:
            return class_batch(data, part, task.order, indices, columns)

        return Split(lambda index: (index + 1) * classes_per_task * per_class, batch)

    return Stream(
        name="class-incremental",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=num_classes,
        inputs=image_inputs(dataset),
        train=split("train", slice(num_kept), num_kept),
        test=split("test", slice(None), data.test.shape[1]),
        validation=split("train", slice(num_kept, None), validation_per_class) if validation_per_class else None,
        objective=masked_classification(lambda task: task.seen),
        headline="test_accuracy",
        chance=None,
        data=data,
        task=task,
    )


def class_data(dataset: Dataset, train_per_class: int = 0, test_per_class: int = 0) -> ClassData:
    """Finds the images of every class; 0 means as many as the smallest class has."""
    images = image_data(dataset)
    train = _positions(dataset, dataset.train.labels, train_per_class, "training")
    return ClassData(images, train, _positions(dataset, dataset.test.labels, test_per_class, "test"))


def class_batch(
    data: ClassData,
    part: Literal["train", "test"],
    chosen: Int[Array, " chosen"],
    indices: Int[Array, " batch"],
    columns: slice = slice(None),
) -> Batch:
    """Examples number `indices` of a task that has the images of the chosen classes, one class after the other."""
    positions = getattr(data, part)[:, columns]
    per_class = positions.shape[1]
    places = jnp.asarray(positions)[chosen[indices // per_class], indices % per_class]
    return labelled(data.images, getattr(data.images, part), (), places)


def _positions(
    dataset: Dataset, labels: Int[np.ndarray, " images"], per_class: int, what: str
) -> Int[np.ndarray, "classes each"]:
    """The first images of each class."""
    smallest = int(np.bincount(labels, minlength=dataset.num_classes).min())
    if smallest == 0:
        raise UserError(
            got=f"a class of {dataset.name!r} without {what} images",
            wanted="images of every class",
            do="Use more of the data set, or another one.",
        )
    if not 0 <= per_class <= smallest:
        raise UserError(
            got=f"{per_class} {what} images of every class of {dataset.name!r}",
            wanted=f"1 to {smallest}, as many as its smallest class has",
            do="Leave it out, or set it to 0, for as many as there are.",
        )
    rows = [np.flatnonzero(labels == label)[: per_class or smallest] for label in range(dataset.num_classes)]
    return np.stack(rows).astype(np.int32)
