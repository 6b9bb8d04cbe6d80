"""One method's learning as compiled functions over all seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pliant.methods import build
from pliant.training._evaluate import evaluate
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Batching, SeedAxis, seed_axis
from pliant.training._step import init_state, seed_keys, train_chunk
from pliant.types import Stream


class Learner(NamedTuple):
    """Compiled functions; their first argument has a slot axis, their second is shared by all seeds."""

    axis: SeedAxis
    init: Callable[[Any, Any], Any]
    """(seeds, shared) -> state, keys"""
    make_task: Callable[[Any, Any], Any]
    """(keys, task index) -> task"""
    train: Callable[[Any, Any], Any]
    """((state, keys, task, indices), shared) -> state, metric sums"""
    evaluate: Callable[[Any, Any], Any]
    """((state, keys, task), shared) -> results"""


def make_learner(stream: Stream, method: MethodPlan, num_seeds: int, batching: Batching | None = None) -> Learner:
    """Compiles (on first use) what one method needs. Hyperparameters are arguments, so other values reuse the programs.

    Args:
      stream: the tasks.
      method: the method with its network.
      num_seeds: ≥ 1.
      batching: see `seed_axis`.
    """
    network = method.network

    def parts(traced: Any) -> Any:
        return build(method.method, network.wiring, method.static | traced)

    def init(seed: Any, traced: Any) -> Any:
        keys = seed_keys(seed)
        return init_state(network, parts(traced), keys.network), keys

    def train(item: Any, shared: Any) -> Any:
        state, keys, task, indices = item
        traced, data, first_step, num_steps = shared
        return train_chunk(network, parts(traced), stream, state, keys, data, task, indices, first_step, num_steps)

    def measure(item: Any, shared: Any) -> Any:
        state, keys, task = item
        data, probe, index = shared
        return evaluate(network, stream, state, jax.random.fold_in(keys.probe, index), data, task, probe)

    axis = seed_axis(num_seeds, network, batching)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda keys, index: stream.task(keys.tasks, index)),
        train=axis.over_seeds(train),
        evaluate=axis.over_seeds(measure),
    )
