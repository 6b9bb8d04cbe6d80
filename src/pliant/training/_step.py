"""One step of training, and a chunk of steps, for one seed: pure functions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Shaped

from pliant.methods import Parts
from pliant.training._rounding import rounded, with_rounded_gradient
from pliant.types import Batch, Features, Key, Network, Params, Probe, Scalar, Signals, State, Stream


class TrainState(NamedTuple):
    """All that training carries from step to step."""

    params: Params
    network: State
    optimizer: optax.OptState
    penalty: State
    intervention: State


class SeedKeys(NamedTuple):
    """The separate random streams of a seed; data order, drawn on the host, is one more."""

    network: Key
    tasks: Key
    method: Key
    noise: Key
    """For layers that draw, such as dropout."""
    probe: Key
    """For measurements."""


def seed_keys(seed: Int[Array, ""] | int) -> SeedKeys:
    """Derives the streams of a seed."""
    root = jax.random.key(seed)
    return SeedKeys(*(jax.random.fold_in(root, stream) for stream in range(len(SeedKeys._fields))))


def init_state(network: Network, parts: Parts, key: Key) -> TrainState:
    """The state before the first step."""
    params, state = network.init(key)
    return TrainState(
        params,
        state,
        parts.optimizer.init(params),
        parts.penalty.init(params) if parts.penalty else (),
        parts.intervention.init(params) if parts.intervention else (),
    )


def is_correct(output: Float[Array, "batch classes"], targets: Int[Array, " batch"]) -> Bool[Array, " batch"]:
    """True where the largest output is the target's; a network that has diverged is right nowhere."""
    return (output.argmax(axis=-1) == targets) & jnp.isfinite(output).all(axis=-1)


def train_step(
    network: Network,
    parts: Parts,
    state: TrainState,
    batch: Batch,
    step: Int[Array, ""],
    keys: SeedKeys,
    probe_batch: Any,
) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
    """Gradients of loss and penalty → optimizer → apply → intervention.

    Args:
      network: what learns.
      parts: the method, built.
      state: before the step.
      batch: the examples.
      step: the number of this update, from 1; the same for all seeds.
      keys: of the seed.
      probe_batch: `(indices' key, number) -> Batch` of the current task.

    Returns:
      The state after the step, and scalars of the step: `online_accuracy` and `loss` before the update, the global norm
      of the gradient of loss and penalty, the `penalty`, and what the intervention reports.
    """
    noise = jax.random.fold_in(keys.noise, step)

    def objective(params: Params) -> tuple[Scalar, tuple[Any, ...]]:
        output, features, network_state = network.apply(
            with_rounded_gradient(params, step), state.network, batch.inputs, train=True, key=noise
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(output, batch.targets).mean()
        penalty, penalty_state = (
            parts.penalty.loss(with_rounded_gradient(params, step), state.penalty, features)
            if parts.penalty
            else (0.0, ())
        )
        return loss + penalty, (loss, penalty, output, features, network_state, penalty_state)

    gradients, (loss, penalty, output, features, network_state, penalty_state) = jax.grad(objective, has_aux=True)(
        state.params
    )
    gradients = rounded(gradients, step)
    updates, optimizer = parts.optimizer.update(gradients, state.optimizer, state.params, step=step)
    params = optax.apply_updates(state.params, rounded(updates, step))

    metrics = {
        "online_accuracy": is_correct(output, batch.targets).mean(),
        "loss": loss,
        "gradient_norm": _global_norm(gradients),
    }
    if parts.penalty:
        metrics["penalty"] = penalty
    intervention = state.intervention
    if parts.intervention:
        probe = _probe(network, params, network_state, probe_batch)
        params, optimizer, intervention, info = parts.intervention.update(
            jax.random.fold_in(keys.method, step),
            step,
            params,
            optimizer,
            intervention,
            Signals(gradients, features, probe),
        )
        metrics |= info
    return TrainState(params, network_state, optimizer, penalty_state, intervention), metrics


def train_chunk(
    network: Network,
    parts: Parts,
    stream: Stream,
    state: TrainState,
    keys: SeedKeys,
    data: Any,
    task: Any,
    indices: Int[Array, "step batch"],
    first_step: Int[Array, ""],
    num_steps: Int[Array, ""],
) -> tuple[TrainState, Mapping[str, Shaped[Array, ""]]]:
    """Runs steps `first_step` + 1 to `first_step` + `num_steps` on the batches in `indices`.

    `num_steps` may be anything up to the length of `indices` without another compilation.

    Returns:
      The state, and the sums of the steps' metrics.
    """

    def probe_batch(key: Key, num_examples: int) -> Batch:
        chosen = jax.random.randint(key, (num_examples,), 0, stream.num_train)
        return stream.train_batch(data, task, chosen)

    def one(state: TrainState, i: Int[Array, ""] | int) -> tuple[TrainState, dict[str, Shaped[Array, ""]]]:
        batch = stream.train_batch(data, task, indices[i])
        return train_step(network, parts, state, batch, first_step + i + 1, keys, probe_batch)

    def body(i: Int[Array, ""], carry: Any) -> Any:
        state, sums = carry
        state, metrics = one(state, i)
        return state, jax.tree.map(jnp.add, sums, metrics)

    _, shapes = jax.eval_shape(one, state, 0)
    zeros = jax.tree.map(lambda metric: jnp.zeros(metric.shape, metric.dtype), shapes)
    return jax.lax.fori_loop(0, num_steps, body, (state, zeros))


def _global_norm(tree: Params) -> Scalar:
    """The L2 norm over all leaves, by dot products: XLA:CPU runs them several times as fast as sums of squares."""
    squares = [jnp.vdot(leaf, leaf, preferred_element_type=jnp.float32) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(jnp.stack(squares).sum())


def _probe(network: Network, params: Params, state: State, probe_batch: Any) -> Probe:
    def probe(key: Key, num_examples: int) -> Features:
        examples, noise = jax.random.split(key)
        batch = probe_batch(examples, num_examples)
        _, features, _ = network.apply(params, state, batch.inputs, train=False, key=noise)
        return features

    return probe
