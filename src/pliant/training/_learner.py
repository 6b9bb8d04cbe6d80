"""One method's learning as compiled functions over all seeds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pliant.methods import build
from pliant.training._config import RunConfig
from pliant.training._evaluate import evaluate
from pliant.training._plan import MethodPlan
from pliant.training._seeds import Batching, SeedAxis, seed_axis
from pliant.training._step import init_state, seed_keys, train_chunk
from pliant.training._switch import switch_task
from pliant.types import Stream


class Learner(NamedTuple):
    """Compiled functions; their first argument has a slot axis, their second is shared by all seeds."""

    axis: SeedAxis
    init: Callable[[Any, Any], Any]
    """(seeds, traced) -> state, keys"""
    make_task: Callable[[Any, Any], Any]
    """(keys, task index) -> task"""
    switch: Callable[[Any, Any], Any]
    """((state, keys), (traced, task index)) -> state"""
    train: Callable[[Any, Any], Any]
    """((state, keys, task, indices), (traced, data, pace)) -> state, metrics of every step"""
    evaluate: Callable[[Any, Any], Any]
    """((state, keys, task), (data, probe indices, task index, numbers of examples)) -> results"""


def make_learner(
    stream: Stream,
    method: MethodPlan,
    num_seeds: int,
    batching: Batching | None = None,
    *,
    config: RunConfig | None = None,
) -> Learner:
    """Compiles (on first use) what one method needs. Hyperparameters are arguments, so other values reuse the programs.

    Args:
      stream: the tasks.
      method: the method with its network.
      num_seeds: ≥ 1.
      batching: see `seed_axis`.
      config: what happens when the task changes; by default nothing.
    """
    network = method.network
    config = config or RunConfig()

    def parts(traced: Any, rate: Any = None) -> Any:
        if rate is not None and "learning_rate" in traced:
            traced = traced | {"learning_rate": traced["learning_rate"] * rate}
        return build(method.method, network.wiring, method.static | traced)

    def init(seed: Any, traced: Any) -> Any:
        keys = seed_keys(seed)
        return init_state(network, parts(traced), keys.network), keys

    def switch(item: Any, shared: Any) -> Any:
        traced, index = shared
        return switch_task(
            network, parts(traced), *item, index, optimizer=config.optimizer_at_switch, head=config.head_at_switch
        )

    def train(item: Any, shared: Any) -> Any:
        state, keys, task, indices = item
        traced, data, pace = shared
        return train_chunk(network, lambda rate: parts(traced, rate), stream, state, keys, data, task, indices, pace)

    def measure(item: Any, shared: Any) -> Any:
        state, keys, task = item
        data, probe, index, sizes = shared
        return evaluate(network, stream, state, jax.random.fold_in(keys.probe, index), data, task, probe, sizes)

    axis = seed_axis(num_seeds, network, batching)
    return Learner(
        axis,
        init=axis.over_seeds(init),
        make_task=axis.over_seeds(lambda keys, index: stream.task(keys.tasks, index)),
        switch=axis.over_seeds(switch),
        train=axis.over_seeds(train),
        evaluate=axis.over_seeds(measure),
    )
