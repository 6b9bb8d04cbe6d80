"""Label noise: every task has fewer wrong labels than the one before."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from pliant.errors import require_choice, require_range
from pliant.streams._dataset import Dataset
from pliant.streams._images import ImageData, all_images, image_data, image_inputs, normalized
from pliant.streams._objectives import CLASSIFICATION
from pliant.types import Batch, Key, Split, Stream


class NoisyChunk(NamedTuple):
    """A task of `label_noise`."""

    examples: Int[Array, " examples"]
    """Indices of its training images."""
    labels: Int[Array, " examples"]


def label_noise(
    dataset: Dataset,
    *,
    num_tasks: int = 10,
    first_noise: float = 0.5,
    last_noise: float = 0.0,
    chunks: Literal["disjoint", "cumulative", "all"] = "disjoint",
) -> Stream:
    r"""Classification from noisy labels; the noise changes in equal steps from the first task to the last.

    .. math:: p_t = p_0 + (p_{T-1} - p_0)\,\frac{t}{T-1}

    With probability :math:`p_t` a training label is sampled uniformly from all classes; otherwise it is true. Test
    labels are clean, so the test accuracy, the headline, shows whether the network recovers from the noise of earlier
    tasks.

    Args:
      dataset: the images.
      num_tasks: T ≥ 1.
      first_noise: p of the first task, in [0, 1].
      last_noise: p of the last task, in [0, 1].
      chunks: "disjoint" splits the training images at random into T chunks of equal size, one for each task;
        "cumulative" also keeps the chunks of earlier tasks; "all" uses every image in every task. Every task samples
        new noise.

    Returns:
      A `Stream`; a task is a `NoisyChunk`.

    Raises:
      UserError: for an unknown kind of chunks, noise outside [0, 1], or more tasks than training images.

    Example:
      >>> from pliant.streams import load_dataset
      >>> digits = load_dataset("digits")
      >>> stream = label_noise(digits, first_noise=1.0)
      >>> tasks = [stream.task(jax.random.key(0), index) for index in (0, 9)]
      >>> wrong = [float((task.labels != digits.train.labels[task.examples]).mean()) for task in tasks]
      >>> [round(fraction, 1) for fraction in wrong]  # one random label in ten is right
      [0.9, 0.0]

    References:
      Lee et al., `Slow and Steady Wins the Race: Maintaining Plasticity with Hare and Tortoise Networks
      <https://arxiv.org/abs/2406.02596>`_, 2024, the continual-learning experiment.

    Differs from:
      Lee et al., whose code keeps earlier chunks ("cumulative"), assigns a wrong label to an exact share of the images,
      and uses the shares 0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.
    """
    _check(dataset, num_tasks, first_noise, last_noise, chunks)
    true_labels = dataset.train.labels
    num_classes, num_examples = dataset.num_classes, len(true_labels)
    size = num_examples if chunks == "all" else num_examples // num_tasks

    def task(key: Key, index: Int[Array, ""] | int) -> NoisyChunk:
        order_key, task_key = jax.random.split(key)
        order = jnp.arange(num_examples) if chunks == "all" else jax.random.permutation(order_key, num_examples)
        examples = jax.lax.dynamic_slice_in_dim(order, index * size, size) if chunks == "disjoint" else order
        where, which = jax.random.split(jax.random.fold_in(task_key, index))
        done = index / max(num_tasks - 1, 1)
        noise = (1 - done) * first_noise + done * last_noise
        is_noisy = jax.random.bernoulli(where, noise, examples.shape)
        drawn = jax.random.randint(which, examples.shape, 0, num_classes, jnp.int32)
        return NoisyChunk(examples, jnp.where(is_noisy, drawn, jnp.asarray(true_labels)[examples]))

    def train_batch(data: ImageData, task: NoisyChunk, indices: Int[Array, " batch"]) -> Batch:
        return Batch(normalized(data, data.train, task.examples[indices]), task.labels[indices])

    return Stream(
        name="label-noise",
        dataset=dataset.name,
        num_tasks=num_tasks,
        num_outputs=num_classes,
        inputs=image_inputs(dataset),
        train=Split(lambda index: (index + 1) * size if chunks == "cumulative" else size, train_batch),
        test=all_images(dataset, "test"),
        objective=CLASSIFICATION,
        headline="test_accuracy",
        chance=1 / num_classes,
        data=image_data(dataset),
        task=task,
        keeps="inputs" if chunks == "all" else None,
        depends_on_num_tasks=True,
    )


def _check(dataset: Dataset, num_tasks: int, first_noise: float, last_noise: float, chunks: str) -> None:
    require_choice("chunks", chunks, "disjoint", "cumulative", "all")
    require_range("first_noise", first_noise, 0, 1, do="Leave it out for 0.5.")
    require_range("last_noise", last_noise, 0, 1, do="Leave it out for 0.")
    most = len(dataset.train.labels)
    require_range("tasks", num_tasks, 1, most, do="Every task needs a training image of its own.")
