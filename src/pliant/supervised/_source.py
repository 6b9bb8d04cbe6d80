"""A stream of tasks as a source: order, pace, evaluation and the best epoch."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from pliant.sampling import batch_indices
from pliant.supervised._config import RunConfig
from pliant.supervised._evaluate import evaluate, mean_score, numbers
from pliant.supervised._pace import epoch_ends, micro_steps, num_steps
from pliant.types import (
    Batch,
    Fed,
    Info,
    Key,
    Learned,
    Lesson,
    Network,
    Now,
    Params,
    Scalar,
    Scene,
    Selection,
    Source,
    State,
    Stream,
)

_PROBE_SEED = 0  # the probe examples are the same for all seeds, tasks and methods


class Facts(NamedTuple):
    """What the host knows of a task."""

    num_train: np.int32
    num_test: np.int32
    """0 without a test."""
    num_validation: np.int32
    """0 without validation examples."""
    probe: Int[np.ndarray, " probe"]
    """The training examples that diagnostics look at."""


def source_of(stream: Stream, config: RunConfig) -> Source:
    """Makes the source of a stream: batches in a fresh order every epoch, scores over all examples of a task.

    Args:
      stream: of the tasks.
      config: updates of a task, batch size, probe size, and which weights a task ends with.

    Example:
      >>> from pliant.streams import load_dataset, random_labels
      >>> source = source_of(random_labels(load_dataset("digits")), RunConfig(epochs=2, batch_size=100))
      >>> source.num_updates(0), source.feed([0, 1], 0, 0, 4).own.shape, int(source.facts(0).num_train)
      (32, (2, 4, 100), 1621)
    """
    score = stream.objective.score
    size = probe_size(config, stream)
    moments = functools.cache(functools.partial(micro_steps, config, stream))

    def facts(index: int) -> Facts:
        num_train = stream.train.num(index)
        num_test, num_validation = (split.num(index) if split else 0 for split in (stream.test, stream.validation))
        probe = probe_indices(num_train, size)
        return Facts(np.int32(num_train), np.int32(num_test), np.int32(num_validation), probe)

    def feed(seeds: Sequence[int], index: int, start: int, stop: int) -> Fed:
        order = functools.partial(batch_indices, num_examples=stream.train.num(index), batch_size=config.batch_size)
        own = np.stack([order(seed, index, start, stop) for seed in seeds])
        return Fed(own, moments(index)[start:stop].astype(np.int32))

    def draw(network: Network, now: Now, state: State, learned: Learned) -> tuple[State, Lesson, Info]:
        del network, learned
        task = stream.at(now.task, now.fed.shared) if stream.at else now.task
        batch = stream.train.batch(now.data, task, now.fed.own)
        if stream.augment:
            batch = batch._replace(inputs=stream.augment(now.key, batch.inputs))

        def examples(key: Key, num_examples: int) -> Batch:
            indices = jax.random.randint(key, (num_examples,), 0, now.facts.num_train)
            return stream.train.batch(now.data, task, indices)

        return state, Lesson(batch, task, examples), {}

    def probe(network: Network, scene: Scene, state: State) -> tuple[Batch, Any]:
        del network, state
        return stream.train.batch(scene.data, scene.task, jnp.asarray(scene.facts.probe)), scene.task

    def evaluated(network: Network, weights: tuple[Params, State], scene: Scene, state: State) -> Any:
        del state
        sizes = scene.facts.num_train, scene.facts.num_test
        return evaluate(stream, network, weights, scene.data, scene.task, *sizes)

    def validation_score(network: Network, weights: tuple[Params, State], scene: Scene, state: State) -> Scalar:
        del state
        assert stream.validation is not None

        def apply(inputs: Any) -> Array:
            return network.apply(*weights, inputs, train=False, key=None)[0]

        return mean_score(stream, apply, stream.validation, scene.facts.num_validation, scene.data, scene.task)

    selection = Selection(functools.partial(epoch_ends, config, stream), validation_score, metric=f"validation_{score}")
    return Source(
        name=stream.name,
        inputs=stream.inputs,
        num_outputs=stream.num_outputs,
        objective=stream.objective,
        progress=f"online_{score}",
        data=stream.data,
        task=stream.task,
        num_updates=functools.partial(num_steps, config, stream),
        facts=facts,
        feed=feed,
        draw=draw,
        probe=probe,
        evaluate=evaluated,
        summarize=functools.partial(numbers, stream),
        selection=selection if config.weights_at_end == "best-validation" else None,
    )


def probe_size(config: RunConfig, stream: Stream) -> int:
    """Training examples that diagnostics look at: the same number in all tasks, since it is a shape."""
    return min(config.probe_size, *map(stream.train.num, range(config.tasks)))


def probe_indices(num_train: int, probe_size: int) -> Int[np.ndarray, " probe"]:
    """The fixed training examples that diagnostics look at: `probe_size` of them, or all."""
    order = np.random.default_rng(_PROBE_SEED).permutation(num_train)
    return np.sort(order[:probe_size]).astype(np.int32)
