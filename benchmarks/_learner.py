"""A chunk of pliant's own training loop as a function to time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pliant.methods import METHODS, as_arrays, split_static, with_settings, wrapped
from pliant.supervised import RunConfig, source_of
from pliant.training import Begun, MethodPlan, Pace, Shared, make_learner
from pliant.types import Network, Stream


def chunk(
    stream: Stream,
    method: str,
    *,
    network: Callable[..., Network],
    batch_size: int,
    num_seeds: int,
    num_steps: int,
    settings: dict[str, Any] | None = None,
) -> Callable[[], Any]:
    """`num_steps` updates of a method on a network for all seeds, each call from the same fresh state."""
    recipe = METHODS[method]
    made = network(stream.input_shape, stream.num_outputs, **recipe.network)
    static, traced = split_static(recipe, with_settings(recipe, settings or {}, learning_rate=1e-3))
    source = source_of(stream, RunConfig(steps=num_steps, batch_size=batch_size, tasks=1, probe_size=1))
    plan = MethodPlan(recipe, method, static, traced, "", {}, wrapped(recipe, made, static), source)
    learner = make_learner(plan, num_seeds)
    axis = learner.axis
    fed = source.feed(range(num_seeds), 0, 0, num_steps)
    facts, pace = source.facts(0), Pace.steady(num_steps)
    shared = axis.share(Shared(as_arrays(traced), source.data, facts, pace=pace, fed=fed.shared))
    carry, slot = learner.init(axis.put((np.arange(num_seeds, dtype=np.int32), {})), shared)
    begun = Begun(carry, slot, learner.make_task(slot, np.int32(0)), axis.put(fed.own))
    return lambda: jax.block_until_ready(learner.train(((), begun), shared))
