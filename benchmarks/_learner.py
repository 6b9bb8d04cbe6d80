"""A chunk of pliant's own training loop as a function to time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pliant.methods import METHODS, as_arrays, split_static, with_settings, wrapped
from pliant.training import MethodPlan, Pace, make_learner
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
    plan = MethodPlan(recipe, method, static, traced, "", {}, wrapped(recipe, made, static), stream)
    learner = make_learner(plan, num_seeds)
    axis = learner.axis
    numbers = as_arrays(traced)
    num_train = stream.train.num(0)
    shared = axis.share((numbers, stream.data, Pace.steady(num_steps, num_train)))
    state, keys = learner.init(axis.put((np.arange(num_seeds, dtype=np.int32), {})), numbers)
    task = learner.make_task(keys, np.int32(0))
    shape = (num_seeds, num_steps, batch_size)
    indices = axis.put(np.random.default_rng(0).integers(0, num_train, shape, dtype=np.int32))
    return lambda: jax.block_until_ready(learner.train((state, keys, task, indices), shared))
