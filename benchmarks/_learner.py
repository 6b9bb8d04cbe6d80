"""A chunk of pliant's own training loop as a function to time."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from pliant.methods import METHODS, as_arrays, split_static, with_settings
from pliant.networks import mlp
from pliant.training import MethodPlan, make_learner
from pliant.types import Stream


def chunk(
    stream: Stream,
    method: str,
    *,
    widths: Sequence[int],
    batch_size: int,
    num_seeds: int,
    num_steps: int,
    settings: dict[str, Any] | None = None,
) -> Callable[[], Any]:
    """`num_steps` updates of a method on an MLP for all seeds, each call from the same fresh state."""
    recipe = METHODS[method]
    network = mlp(stream.input_shape, stream.num_classes, **{"widths": widths} | dict(recipe.network))
    static, traced = split_static(recipe, with_settings(recipe, settings or {}, learning_rate=1e-3))
    learner = make_learner(stream, MethodPlan(recipe, method, static, traced, {}, network), num_seeds)
    axis = learner.axis
    numbers = as_arrays(traced)
    shared = axis.share((numbers, stream.data, np.int32(0), np.int32(num_steps)))
    state, keys = learner.init(axis.put(np.arange(num_seeds, dtype=np.int32)), numbers)
    task = learner.make_task(keys, np.int32(0))
    shape = (num_seeds, num_steps, batch_size)
    indices = axis.put(np.random.default_rng(0).integers(0, stream.num_train, shape, dtype=np.int32))
    return lambda: jax.block_until_ready(learner.train((state, keys, task, indices), shared))
