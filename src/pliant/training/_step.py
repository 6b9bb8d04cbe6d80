"""One step of training, and a chunk of steps, for one seed: pure functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from pliant.diagnostics import random_step
from pliant.methods import Parts
from pliant.optimizers import optimizer_info
from pliant.types import (
    Batch,
    Diagnostic,
    Features,
    Forward,
    Fresh,
    Info,
    Inputs,
    Key,
    Learned,
    Network,
    Objective,
    Params,
    Probe,
    Scalar,
    Signals,
    State,
    Stream,
    Update,
)
from pliant.xla.rounding import rounded, with_rounded_gradient
from pliant.xla.squares import total_norm

_AUGMENT = 2**32 - 1  # apart from the steps: they are int32
# In the stream of method noise, apart from the steps and from _switch.
_OPTIMIZER, _PENALTY, _TWIN = 2**32 - 3, 2**32 - 4, 2**32 - 6


class TrainState(NamedTuple):
    """All that training carries from step to step."""

    params: Params
    statistics: State
    optimizer: optax.OptState
    penalty: State
    intervention: State
    twin: Params = ()
    """Where random steps as long as the optimizer's have led; () if nobody asks."""

    def learned(self) -> Learned:
        """What interventions may rewrite."""
        return Learned(self.params, self.statistics, self.optimizer)


class SeedKeys(NamedTuple):
    """The separate random streams of a seed; data order, drawn on the host, is one more."""

    network: Key
    tasks: Key
    method: Key
    noise: Key
    """For layers that draw, such as dropout."""
    probe: Key
    """For measurements."""


class SeedSlot(NamedTuple):
    """What tells one learner from the next: its random streams, and its point of a grid."""

    keys: SeedKeys
    own: dict[str, Any]
    """Hyperparameters that replace the shared ones."""


def seed_keys(seed: Int[Array, ""] | int) -> SeedKeys:
    """Derives the streams of a seed."""
    root = jax.random.key(seed)
    return SeedKeys(*(jax.random.fold_in(root, stream) for stream in range(len(SeedKeys._fields))))


def init_state(network: Network, parts: Parts, key: Key, *, has_twin: bool = False) -> TrainState:
    """The state before the first step; `has_twin` if a Brownian twin is to go along."""
    params, state = network.init(key)
    learned = Learned(params, state, parts.optimizer.init(params))
    return TrainState(
        *learned,
        penalty=parts.penalty.init(params) if parts.penalty else (),
        intervention=parts.intervention.init(learned) if parts.intervention else (),
        twin=params if has_twin else (),
    )


def train_step(
    network: Network,
    parts: Parts,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    task: Any,
    step: Int[Array, ""],
    keys: SeedKeys,
    probe_batch: Any,
    followed: Sequence[Diagnostic] = (),
    weight: Float[Array, ""] | float = 1.0,
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    """Gradients of loss and penalty → optimizer → apply → intervention.

    Args:
      network: what learns.
      parts: the method, built.
      objective: the loss of the stream.
      state: before the step.
      batch: the examples.
      task: the task that they are of.
      step: the number of this update, from 1; the same for all seeds.
      keys: of the seed.
      probe_batch: `(indices' key, number) -> Batch` of the current task.
      followed: diagnostics that look at the update.
      weight: what their numbers are multiplied by; where it is 0 they are not computed.

    Returns:
      The state after the step, and scalars of the step: the online score and `loss` before the update, the global norm
      of the gradient of loss and penalty, the `penalty`, and what optimizer, intervention and diagnostics report.
    """
    noise = jax.random.fold_in(keys.noise, step)

    def total_loss(params: Params) -> tuple[Scalar, tuple[Any, ...]]:
        output, features, network_state = network.apply(
            with_rounded_gradient(params, step), state.statistics, batch.inputs, train=True, key=noise
        )
        loss = objective.losses(output, batch.targets, task).mean()
        penalty: Any = 0.0
        penalty_state: State = ()
        if parts.penalty:
            forward = _forward(network, state.statistics, batch, output, features, loss, probe_batch, keys, step)
            penalty, penalty_state = parts.penalty.loss(with_rounded_gradient(params, step), state.penalty, forward)
        return loss + penalty, (loss, penalty, output, features, network_state, penalty_state)

    gradients, (loss, penalty, output, features, network_state, penalty_state) = jax.grad(total_loss, has_aux=True)(
        state.params
    )
    gradients = rounded(gradients, step)
    updates, optimizer = parts.optimizer.update(
        gradients, state.optimizer, state.params, step=step, key=_method_key(keys, _OPTIMIZER, step)
    )
    updates = rounded(updates, step)
    params = optax.apply_updates(state.params, updates)

    metrics = dict(optimizer_info(optimizer)) | {
        f"online_{objective.score}": objective.scores(output, batch.targets, task).mean(),
        "loss": loss,
        "gradient_norm": total_norm(gradients),
    }
    if parts.penalty:
        metrics["penalty"] = penalty

    def loss_after() -> Scalar:
        after, _, _ = network.apply(params, state.statistics, batch.inputs, train=True, key=noise)
        return objective.losses(after, batch.targets, task).mean()

    def update() -> Update:
        return Update(state.params, jax.tree.map(jnp.subtract, params, state.params), loss, loss_after)

    metrics |= _follow(followed, update, weight)
    twin = state.twin
    if twin:
        twin = random_step(_method_key(keys, _TWIN, step), twin, total_norm(updates))
    learned, intervention = Learned(params, network_state, optimizer), state.intervention
    if parts.intervention and parts.intervention.update:
        signals = Signals(
            gradients,
            features,
            _probe(network, probe_batch),
            Fresh(network.init, parts.optimizer.init),
        )
        key = jax.random.fold_in(keys.method, step)
        learned, intervention, info = parts.intervention.update(key, step, learned, intervention, signals)
        metrics |= info
    return TrainState(*learned, penalty_state, intervention, twin), metrics


class Pace(NamedTuple):
    """What the host decides for every step of a chunk, the same for all seeds."""

    micro_step: Int[np.ndarray | Array, " step"]
    """The micro-step of the stream's transition."""
    rate: Float[np.ndarray | Array, " step"]
    """What the learning rate is multiplied by."""
    fraction: Float[np.ndarray | Array, " step"]
    """The share of the task's updates done before this one, in [0, 1)."""
    weight: Float[np.ndarray | Array, " step"]
    """Of the update in a mean over those that diagnostics follow, times all updates of the task; 0 for the others."""
    first_step: Int[Array, ""] | np.int32
    """Updates before this chunk."""
    num_steps: Int[Array, ""] | np.int32
    """Steps to run; may be anything up to the length of the arrays without another compilation."""
    num_train: Int[Array, ""] | np.int32
    """Training examples of the task."""

    @classmethod
    def steady(cls, num_steps: int, num_train: int) -> "Pace":
        """The first `num_steps` updates of a stream that changes abruptly, all at the full learning rate."""
        moments, rates = np.ones(num_steps, np.int32), np.ones(num_steps, np.float32)
        fractions = np.arange(num_steps, dtype=np.float32) / num_steps
        return cls(
            moments,
            rates,
            fractions,
            np.ones(num_steps, np.float32),
            np.int32(0),
            np.int32(num_steps),
            np.int32(num_train),
        )


def train_chunk(
    network: Network,
    build_parts: Callable[[Any, Any], Parts],
    stream: Stream,
    state: TrainState,
    keys: SeedKeys,
    data: Any,
    task: Any,
    indices: Int[Array, "step batch"],
    pace: Pace,
    followed: Sequence[Diagnostic] = (),
) -> tuple[TrainState, Mapping[str, Shaped[Array, " step"]]]:
    """Runs steps `first_step` + 1 to `first_step` + `num_steps` on the batches in `indices`.

    Args:
      network: what learns.
      build_parts: `build_parts(factor of the learning rate, fraction of the task) -> the method's parts`.
      stream: the stream.
      state: before the chunk.
      keys: of the seed.
      data: the stream's.
      task: the current one.
      indices: of the examples in each batch.
      pace: see there.
      followed: diagnostics that look at the updates whose weight is not 0.

    Returns:
      The state, and the metrics of every step, 0 beyond `num_steps`.
    """

    def now(i: Int[Array, ""] | int) -> Any:
        return stream.at(task, pace.micro_step[i]) if stream.at else task

    def one(state: TrainState, i: Int[Array, ""] | int) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
        current, step = now(i), jnp.asarray(pace.first_step + i + 1)
        batch = stream.train.batch(data, current, indices[i])
        if stream.augment:
            changes = jax.random.fold_in(jax.random.fold_in(keys.noise, _AUGMENT), step)
            batch = batch._replace(inputs=stream.augment(changes, batch.inputs))

        def probe_batch(key: Key, num_examples: int) -> Batch:
            return stream.train.batch(data, current, jax.random.randint(key, (num_examples,), 0, pace.num_train))

        parts = build_parts(pace.rate[i], pace.fraction[i])
        return train_step(
            network,
            parts,
            stream.objective,
            state,
            batch,
            current,
            step,
            keys,
            probe_batch,
            followed,
            pace.weight[i],
        )

    def body(i: Int[Array, ""], carry: Any) -> Any:
        state, metrics = carry
        state, values = one(state, i)
        return state, jax.tree.map(lambda all, value: all.at[i].set(value), metrics, values)

    _, shapes = jax.eval_shape(one, state, 0)
    zeros = jax.tree.map(lambda metric: jnp.zeros((len(indices),), metric.dtype), shapes)
    return jax.lax.fori_loop(0, pace.num_steps, body, (state, zeros))


def _follow(followed: Sequence[Diagnostic], update: Callable[[], Update], weight: Float[Array, ""] | float) -> Info:
    """What diagnostics say of an update, times its weight."""

    def told() -> Info:  # the change is taken here: as an operand it would be stored at every step
        found = [each.follow(update()) for each in followed if each.follow]
        return {name: weight * value for info in found for name, value in info.items()}

    if not followed:
        return {}
    zeros = jax.tree.map(lambda value: jnp.zeros(value.shape, value.dtype), jax.eval_shape(told))
    return jax.lax.cond(jnp.asarray(weight) > 0, told, lambda: zeros)


def _method_key(keys: SeedKeys, part: int, step: Int[Array, ""]) -> Key:
    return jax.random.fold_in(jax.random.fold_in(keys.method, part), step)


def _forward(
    network: Network,
    state: State,
    batch: Batch,
    output: Array,
    features: Features,
    loss: Scalar,
    probe_batch: Any,
    keys: SeedKeys,
    step: Int[Array, ""],
) -> Forward:
    def evaluate(params: Params, inputs: Inputs) -> tuple[Array, Features]:
        return network.apply(params, state, inputs, train=False, key=_method_key(keys, _PENALTY, step))[:2]

    def sample(num_examples: int) -> Inputs:
        inputs: Inputs = probe_batch(_method_key(keys, _PENALTY, step), num_examples).inputs
        return inputs

    return Forward(batch.inputs, output, features, loss, evaluate, sample)


def _probe(network: Network, probe_batch: Any) -> Probe:
    def probe(learned: Learned, key: Key, num_examples: int) -> Features:
        examples, noise = jax.random.split(key)
        batch = probe_batch(examples, num_examples)
        _, features, _ = network.apply(learned.params, learned.statistics, batch.inputs, train=False, key=noise)
        return features

    return probe
