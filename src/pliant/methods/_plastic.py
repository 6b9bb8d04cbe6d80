"""A method at work in somebody's own training loop: pure functions of parameters, gradients and a state."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt32

from pliant.errors import UserError
from pliant.keys import Draw
from pliant.methods._apply_gradients import apply_gradients, begin_task, forward_pass
from pliant.methods._building import build
from pliant.methods._fitting import require_key, require_state, require_tree
from pliant.methods._parts import Parts
from pliant.methods._train_state import TrainState, begin_training, view
from pliant.types import Batch, Features, Forward, Info, Key, Learned, Lesson, Method, Network, Params, State, Wiring
from pliant.xla.rounding import rounded, with_rounded_gradient
from pliant.xla.squares import total_norm


class PlasticState(NamedTuple):
    """What a method carries from update to update: a pytree of arrays of numbers, to be checkpointed."""

    step: Int[Array, ""]
    """Updates so far."""
    task: Int[Array, ""]
    """Number of the current task: calls of `switch` so far."""
    task_step: Int[Array, ""]
    """Updates of the current task so far."""
    key: UInt32[Array, " words"]
    """Data of the method's random key; every draw folds the number of its update or task into it."""
    statistics: State
    """The network's running statistics; {} if it has none."""
    optimizer: Any
    penalty: State
    intervention: State


class Plastic(NamedTuple):
    """A method for one network, as pure functions: they can be jitted, scanned, and vmapped over all arguments."""

    init: Callable[..., PlasticState]
    """`init(params, key, statistics={}) -> state`, before the first update."""
    update: Callable[..., tuple[Params, PlasticState, Info]]
    """`update(grads, state, params, x, *, loss=None, statistics=None, pool=None) -> (params, state, info)`: adds the
    gradient of the penalty, then optimizer, projections and resets. `grads` are gradients of the task's loss at
    `params` on the inputs `x`. `loss` is its value, for methods that scale a penalty by it. `statistics` are the
    running statistics after the forward pass. `pool` are more inputs of the current task: methods that look at
    examples sample from it, or look at `x` without it."""
    switch: Callable[[PlasticState, Params], tuple[Params, PlasticState, Info]]
    """`switch(state, params) -> (params, state, info)`: a task has ended, and another begins."""
    reported: Callable[[Params, PlasticState], Any]
    """`reported(params, state)`: the parameters to evaluate, with methods that average weights others than those that
    are trained; `(params, statistics)` for networks with running statistics."""
    wiring: Wiring
    """The layer graph that the method acts on."""
    notes: Mapping[str, str]
    """What the layer graph's inference has to say, by layer or parameter."""


class Setup(NamedTuple):
    """What `make_plastic` is told."""

    method: Method
    network: Network
    params: Params
    """Shapes of the parameters."""
    x: Any
    """Shapes of the inputs."""
    values: Mapping[str, Any]
    """The hyperparameters."""
    learning_rate: Any
    """A number or a schedule; None if no part of the method has one."""
    task_updates: Any
    """Updates of a task, for methods with a schedule."""
    has_statistics: bool

    def parts(self, step: Any, task_step: Any) -> Parts:
        """The method at one update."""
        values, rate = dict(self.values), self.learning_rate
        if rate is not None:
            values["learning_rate"] = rate(step) if callable(rate) else rate
        fraction: Any = 0.0
        if self.method.schedule:
            fraction = jnp.minimum(jnp.float32(task_step) / jnp.float32(self.task_updates), 1.0)
        return build(self.method, self.network.wiring, values, fraction=fraction)


def make_plastic(setup: Setup, notes: Mapping[str, str]) -> Plastic:
    """The functions of a method for one network.

    Args:
      setup: the method and its network.
      notes: see `Plastic`.
    """
    network = setup.network

    def init(params: Params, key: Any, statistics: State = None) -> PlasticState:
        require_tree("params", params, setup.params)
        if setup.has_statistics and statistics is None:
            raise UserError(
                got=f"no running statistics to begin {setup.method.name!r} with",
                wanted="those of the network: it was attached with statistics=",
                do="Write plastic.init(params, key, statistics).",
            )
        own = jax.random.fold_in(require_key(key), Draw.METHOD.number)
        zero = jnp.zeros((), jnp.int32)
        begun = begin_training(setup.parts(zero, zero), params, statistics if setup.has_statistics else {})
        return PlasticState(zero, zero, zero, jax.random.key_data(own), *begun[1:])

    def update(
        grads: Params,
        state: Any,
        params: Params,
        x: Any,
        *,
        loss: Any = None,
        statistics: State = None,
        pool: Any = None,
    ) -> tuple[Params, PlasticState, Info]:
        require_state(state, PlasticState)
        require_tree("params", params, setup.params)
        require_tree("grads", grads, setup.params)
        require_tree("x", x, setup.x, is_batch=True)
        if pool is not None:
            require_tree("pool", pool, setup.x, is_batch=True)
        step, key = state.step + 1, jax.random.wrap_key_data(state.key)
        parts = setup.parts(state.step, state.task_step)
        lesson = Lesson(Batch(x, ()), (), lambda key, num_examples: Batch(_sampled(key, num_examples, x, pool), ()))
        features: Features = {}
        if parts.intervention and parts.intervention.update:
            features = network.apply(params, state.statistics, x, train=True, key=None)[1]
        info: dict[str, Any] = {}
        penalty_state: State = ()
        if parts.penalty:
            extra, (info["penalty"], penalty_state) = _penalty_gradient(
                network, parts, state, params, lesson, loss, step, key
            )
            grads = jax.tree.map(lambda of_loss, of_penalty: of_loss + of_penalty.astype(of_loss.dtype), grads, extra)
        grads = rounded(grads, step)
        learned = Learned(params, state.statistics if statistics is None else statistics, state.optimizer)
        applied = apply_gradients(network, parts, grads, learned, state.intervention, lesson, features, step, key)
        info = {**applied.optimizer_info, "gradient_norm": total_norm(grads), **info, **applied.intervention_info}
        params, *rest = applied.learned
        after = state._replace(step=step, task_step=state.task_step + 1, penalty=penalty_state)
        after = after._replace(statistics=rest[0], optimizer=rest[1], intervention=applied.intervention)
        return params, after, info

    def switch(state: Any, params: Params) -> tuple[Params, PlasticState, Info]:
        require_state(state, PlasticState)
        require_tree("params", params, setup.params)
        index, key = state.task + 1, jax.random.wrap_key_data(state.key)
        parts = setup.parts(state.step, jnp.zeros_like(state.task_step))
        begun, info = begin_task(network, parts, TrainState(params, *state[4:]), key, index)
        params, *rest = begun
        return params, PlasticState(state.step, index, jnp.zeros_like(state.task_step), state.key, *rest), info

    def reported(params: Params, state: Any) -> Any:
        require_state(state, PlasticState)
        require_tree("params", params, setup.params)
        seen = view(setup.parts(state.step, state.task_step), TrainState(params, *state[4:]))
        return tuple(seen) if setup.has_statistics else seen.params

    return Plastic(init, update, switch, reported, network.wiring, notes)


def _penalty_gradient(
    network: Network,
    parts: Parts,
    state: PlasticState,
    params: Params,
    lesson: Lesson,
    loss: Any,
    step: Int[Array, ""],
    key: Key,
) -> tuple[Params, tuple[Any, State]]:
    """The penalty's gradient, its value and its state."""

    def of_penalty(params: Params) -> tuple[Any, tuple[Any, State]]:
        assert parts.penalty
        held = with_rounded_gradient(params, step)
        output, features, _ = network.apply(held, state.statistics, lesson.batch.inputs, train=True, key=None)
        value = jnp.asarray(jnp.nan if loss is None else loss)
        forward = forward_pass(network, state.statistics, lesson, output, features, value, step, key)
        seen = forward if loss is not None else _WithoutLoss(*forward)
        penalty, after = parts.penalty.loss(with_rounded_gradient(params, step), state.penalty, seen)
        return penalty, (penalty, after)

    return jax.grad(of_penalty, has_aux=True)(params)


class _WithoutLoss(Forward):
    """A forward pass of whose loss nobody knows the value."""

    __slots__ = ()

    @property
    def loss(self) -> Any:
        raise UserError(
            got="an update without the value of the loss",
            wanted="that value: this method sets the strength of its penalty by it",
            do="Write plastic.update(grads, state, params, x, loss=loss).",
        )


def _sampled(key: Key, num_examples: int, x: Any, pool: Any) -> Any:
    """Examples of the pool, sampled with replacement; without a pool the batch as it is."""
    if pool is None:
        return x
    indices = jax.random.randint(key, (num_examples,), 0, len(jax.tree.leaves(pool)[0]))
    return jax.tree.map(lambda leaf: leaf[indices], pool)
