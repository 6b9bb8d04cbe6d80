"""Gradual transitions: each task changes into the next in equal small steps."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from pliant.errors import UserError, require_range
from pliant.keys import Draw
from pliant.streams._objectives import mean_over_tokens, smoothed
from pliant.types import Batch, Key, Split, Stream


class Between(NamedTuple):
    """A point between two tasks."""

    old: PyTree[Array]
    new: PyTree[Array]
    micro_step: Int[Array, ""]
    """m of M, 1 ≤ m ≤ M: the mixing weight of the new task is α = m/M. At M the task is the new one alone."""
    subsets: PyTree[Array] = ()
    """What a transition samples for the task."""


def output_interpolation(stream: Stream, *, micro_steps: int) -> Stream:
    r"""Makes a change of labels gradual: the old ones fade into the uniform distribution, and that into the new ones.

    .. math:: y_\alpha = (1-2\alpha)\,\mathrm{onehot}(y_{old}) + 2\alpha/C \quad (\alpha \le \tfrac12), \qquad
              y_\alpha = (2\alpha-1)\,\mathrm{onehot}(y_{new}) + (2-2\alpha)/C \quad (\alpha \ge \tfrac12)

    Here α = m/M after micro-step m of M; the loss is the cross-entropy against y. Texts fade token by token. Scores
    compare with the nearer hard labels: the old ones before α = ½, then the new ones.

    Args:
      stream: classification or text whose inputs stay the same from task to task.
      micro_steps: M ≥ 1; 1 is the abrupt stream itself.

    Returns:
      A `Stream` whose tasks are `Between` two tasks.

    Raises:
      UserError: if the stream's inputs change, or its targets are values or a growing set of classes.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> stream = output_interpolation(random_labels(load_dataset("digits")), micro_steps=4)
      >>> task = stream.at(stream.task(jax.random.key(0), 1), 2)  # half way: the uniform distribution
      >>> batch = stream.train.batch(stream.data, task, jnp.arange(3))
      >>> losses = stream.objective.losses(jnp.zeros((3, 10)), batch.targets, task)
      >>> bool(jnp.allclose(losses, jnp.log(10.0)))
      True

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 4, "Output Interpolation".

    Differs from:
      The authors' code, which increments α as a float and also trains on α = 0, so that it sometimes has one micro-task
      more.
    """
    if stream.keeps != "inputs" or stream.objective.score not in ("accuracy", "token_accuracy"):
        raise _refused(
            stream,
            "output interpolation",
            "a stream whose inputs stay the same while their classes change, such as random-labels",
        )
    if (same := _check(stream, micro_steps)) is not None:
        return same

    def train_batch(data: Any, task: Between, indices: Array) -> Batch:
        old, new = (stream.train.batch(data, each, indices) for each in (task.old, task.new))
        is_new = 2 * task.micro_step >= micro_steps
        return jax.tree.map(lambda a, b: jnp.where(is_new, b, a), old, new)

    def losses(output: Array, targets: Array, task: Between) -> Array:
        alpha = task.micro_step / micro_steps
        fading = smoothed(output, targets, 1 - jnp.abs(2 * alpha - 1))
        return fading if fading.ndim == 1 else mean_over_tokens(fading, targets)

    gradual = _between(stream, micro_steps, train_batch)
    return gradual._replace(objective=gradual.objective._replace(losses=losses))


def input_interpolation(stream: Stream, *, micro_steps: int) -> Stream:
    r"""Makes a change of inputs gradual: the inputs of a task fade into those of the next, example by example.

    .. math:: x_\alpha = (1-\alpha)\,x_{old} + \alpha\,x_{new}

    Here α = m/M after micro-step m of M. Inputs are normalised, and targets stay the same.

    Args:
      stream: one whose targets stay the same from task to task, and whose inputs are arrays.
      micro_steps: M ≥ 1; 1 is the abrupt stream itself.

    Returns:
      A `Stream` whose tasks are `Between` two tasks.

    Raises:
      UserError: if example i of a task is not the same thing in every task.

    Example:
      >>> from pliant.streams import load_dataset, permuted_pixels
      >>> stream = input_interpolation(permuted_pixels(load_dataset("digits")), micro_steps=4)
      >>> task, at = stream.task(jax.random.key(0), 1), jnp.arange(3)
      >>> ends = [stream.train.batch(stream.data, stream.at(task, m), at).inputs for m in (0, 2, 4)]
      >>> bool(jnp.allclose(ends[1], (ends[0] + ends[2]) / 2, atol=1e-6))
      True

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 4, "Input Interpolation".

    Differs from:
      The authors' code, which increments α as a float and also trains on α = 0.
    """
    if stream.keeps != "targets":
        raise _refused(
            stream,
            "input interpolation",
            "a stream in which example i is the same thing in every task, such as permuted-pixels",
        )
    if (same := _check(stream, micro_steps)) is not None:
        return same

    def train_batch(data: Any, task: Between, indices: Array) -> Batch:
        old, new = (stream.train.batch(data, each, indices) for each in (task.old, task.new))
        alpha = task.micro_step / micro_steps
        inputs = jax.tree.map(lambda a, b: (1 - alpha) * a + alpha * b, old.inputs, new.inputs)
        return new._replace(inputs=inputs)

    return _between(stream, micro_steps, train_batch)


def task_sampling(stream: Stream, *, micro_steps: int) -> Stream:
    r"""Makes any change gradual: mixes examples of the old and the new task, with a growing share of the new one.

    After micro-step m of M, :math:`n = \lfloor (mN + M/2)/M \rfloor` of the N examples are of the new task and N − n of
    the old one. They are two independent random subsets; the first grows and the second shrinks.

    Args:
      stream: one whose tasks have training sets of equal size.
      micro_steps: M ≥ 1; 1 is the abrupt stream itself.

    Returns:
      A `Stream` whose tasks are `Between` two tasks.

    Raises:
      UserError: if tasks have training sets of different sizes.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> stream = task_sampling(random_labels(load_dataset("digits")), micro_steps=4)
      >>> task = stream.task(jax.random.key(0), 1)
      >>> [int(num_new(stream.at(task, m), 1621, 4)) for m in (0, 1, 2, 3, 4)]
      [0, 405, 811, 1216, 1621]

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 4, "Task Sampling".

    Differs from:
      The authors' code for images, which takes the first examples of each task; its code for text samples new subsets
      in every micro-task.
    """
    sizes = {stream.train.num(index) for index in range(stream.num_tasks)}
    if len(sizes) > 1:
        raise UserError(
            got=f"task sampling of {stream.name}, whose tasks have {min(sizes)} to {max(sizes)} training examples",
            wanted="a stream whose tasks have equally many examples",
            do="See `pliant list transitions` for what each needs.",
        )
    if (same := _check(stream, micro_steps)) is not None:
        return same
    (size,) = sizes

    def task(key: Key, index: Any) -> Between:
        draws = jax.random.split(jax.random.fold_in(key, index + Draw.TRANSITION.number))
        subsets = tuple(jax.random.permutation(draw, size) for draw in draws)
        return gradual.task(key, index)._replace(subsets=subsets)

    def train_batch(data: Any, task: Between, indices: Array) -> Batch:
        old, new = (
            stream.train.batch(data, each, subset[indices])
            for each, subset in zip((task.old, task.new), task.subsets, strict=True)
        )
        is_new = indices < num_new(task, size, micro_steps)

        def pick(old: Array, new: Array) -> Array:
            return jnp.where(is_new.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(pick, old, new)

    gradual = _between(stream, micro_steps, train_batch)
    return gradual._replace(task=task)


def num_new(task: Between, size: int, micro_steps: int) -> Int[Array, ""]:
    """Examples of the new task among `size`, in exact integer arithmetic; all of them after the last micro-step."""
    whole, rest = divmod(size, micro_steps)
    return task.micro_step * whole + (task.micro_step * rest + micro_steps // 2) // micro_steps


def abrupt(stream: Stream, *, micro_steps: int) -> Stream:
    """Changes tasks abruptly: the stream itself.

    Raises:
      UserError: for more than one micro-step.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> abrupt(random_labels(load_dataset("digits")), micro_steps=1).name
      'random-labels'

    References:
      *Do Neural Networks Lose Plasticity in a Gradually Changing World?*, section 3.
    """
    if micro_steps != 1:
        raise UserError(
            got=f"micro_steps={micro_steps} with the transition 'abrupt'",
            wanted="1, or a gradual transition",
            do="Add --transition output-interpolation, input-interpolation or task-sampling.",
        )
    return stream


def _between(stream: Stream, micro_steps: int, train_batch: Callable[[Any, Between, Array], Batch]) -> Stream:
    """The stream whose tasks hold the task before as well, with a transition's training batches."""

    def task(key: Key, index: Any) -> Between:
        old, new = (stream.task(key, i) for i in (jnp.maximum(index - 1, 0), index))
        return Between(old, new, jnp.int32(micro_steps))

    def of_new(split: Split | None) -> Split | None:
        return split and split._replace(batch=lambda data, task, indices: split.batch(data, task.new, indices))

    pure = stream.objective
    return stream._replace(
        task=task,
        objective=pure._replace(
            losses=lambda output, targets, task: pure.losses(output, targets, task.new),
            scores=lambda output, targets, task: pure.scores(output, targets, task.new),
        ),
        train=stream.train._replace(batch=train_batch),
        test=of_new(stream.test),
        validation=of_new(stream.validation),
        micro_steps=micro_steps,
        at=lambda task, micro_step: task._replace(micro_step=jnp.asarray(micro_step, jnp.int32)),
    )


def _check(stream: Stream, micro_steps: int) -> Stream | None:
    """Raises for a granularity out of range; returns the stream itself for one step."""
    require_range("micro_steps", micro_steps, 1, 10_000, do="Use a number of steps between two tasks, such as 20.")
    return stream if micro_steps == 1 else None


def _refused(stream: Stream, transition: str, wanted: str) -> UserError:
    kept = stream.keeps or "neither inputs nor targets"
    return UserError(
        got=f"{transition} of {stream.name}, in which example i keeps its {kept} from task to task (score: "
        f"{stream.objective.score})",
        wanted=wanted,
        do="See `pliant list transitions` for what each needs.",
    )


TRANSITIONS: Mapping[str, Callable[..., Stream]] = {
    "abrupt": abrupt,
    "output-interpolation": output_interpolation,
    "input-interpolation": input_interpolation,
    "task-sampling": task_sampling,
}
"""`(stream, *, micro_steps) -> Stream` by name."""
