"""What every method must satisfy in agents: two tasks of a few updates each in a tiny environment.

The plans are those of a run, with periods cut to 2 updates; the task changes in the middle (in name only). What the
agent does before an update is a program of its own, which all methods with the same network share.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pliant.keys import Draw, draw_key, seed_keys
from pliant.methods import METHODS, as_arrays, split_static, with_settings
from pliant.rl import AgentConfig, plan_suited
from pliant.training import MethodPlan, TrainState, switch_task, train_step
from pliant.types import Batch, Fed, Lesson, Now, Scene

NUM_TASKS, TASK_STEPS = 2, 8
LEARNING_RATE = 1e-2
AGENTS = {
    "ppo": ("ppo.num_envs=4", "ppo.rollout_length=4", "ppo.epochs=2", "ppo.grad_clip=none"),
    "ppo-shared": ("ppo.num_envs=4", "ppo.rollout_length=4", "ppo.epochs=2", "ppo.trunk=shared"),
    "dqn": ("dqn.min_replay=8", "dqn.replay_size=16", "dqn.steps_per_update=4", "dqn.target_every=3"),
}
"""Agents by name, with their settings."""
ALL = (*METHODS, "redo+l2-init")
FAST = {
    "ppo": ("adam", "adamo", "redo", "l2-init", "infer", "reset-distill", "upgd"),
    "ppo-shared": ("redo",),
    "dqn": ("redo", "two-hot", "l2-init"),
}
"""Methods of the fast tests; the others are left to `make test-all`."""
KEYS = seed_keys(0)


def plan(agent: str, name: str, on: str = "both") -> MethodPlan:
    """The plan of one method. Those of the fast tests are planned without the others, which takes seconds."""
    return plans(agent, on, FAST[agent] if name in FAST[agent] else ALL)[0][name]


@functools.cache
def plans(agent: str, on: str, names: tuple[str, ...]) -> tuple[dict[str, MethodPlan], dict[str, str]]:
    """Plans of methods, and the reasons why others do not suit; equal networks and sources are shared."""
    config = AgentConfig(
        environment="probe",
        agent="dqn" if agent == "dqn" else "ppo",
        methods=names,
        tasks=NUM_TASKS,
        env_steps=32,
        batch_size=8,
        widths=(6, 4),
        eval_episodes=0,
        learning_rate=LEARNING_RATE,
        on=on,  # type: ignore[arg-type] # one of its choices
        settings=AGENTS[agent],
    )
    found, reasons = plan_suited(config)
    return {each.method.name: _short(each) for each in found.methods}, reasons


def _short(plan: MethodPlan) -> MethodPlan:
    """With short periods and young units."""
    values = {name: 2 for name in plan.traced if name.endswith("every")} | {"maturity": 2, "replacement_rate": 0.1}
    return plan._replace(traced=plan.traced | {name: value for name, value in values.items() if name in plan.traced})


def off(plan: MethodPlan) -> MethodPlan:
    """The plan with the mechanism switched off."""
    static, traced = (
        values | {name: value for name, value in plan.method.off.items() if name in values}
        for values in (plan.static, plan.traced)
    )
    return plan._replace(static=static, traced=traced)


def base(plan: MethodPlan) -> MethodPlan:
    """What is left of a method that is switched off, on the same network."""
    optimizer = METHODS[plan.method.base].optimizer
    method = plan.method._replace(optimizer=optimizer, penalty=None, intervention=None, schedule=None, off={})
    static, traced = split_static(method, with_settings(method, {}, LEARNING_RATE))
    name = f"{method.base} on the network of {method.name}"
    return plan._replace(method=method._replace(name=name), static=static, traced=traced)


class Trained(NamedTuple):
    """A method that has learned both tasks, as NumPy arrays."""

    first: TrainState
    """Before the first update."""
    state: TrainState
    """After the last."""
    info: Any
    """What updates report, and what switches do."""
    lessons: Sequence[tuple[Batch, Any]]
    """Batch and task of every update."""


def train(plan: MethodPlan, lessons: Sequence[tuple[Batch, Any]] | None = None) -> Trained:
    """Trains a method; lessons that are given take the place of its own."""
    source, learner, agent = plan.source, _learner(plan), _agent(plan)
    traced = as_arrays(plan.traced)
    params, statistics = agent.init_network()
    state = learner.init(traced, params, statistics)
    first, told, learned = state, [], []
    source_state: Any = None if lessons else agent.init(params, statistics)
    for index in range(NUM_TASKS):
        if index:
            state, info = learner.switch(traced, state, jnp.int32(index))
            told.append(info)
            source_state = None if lessons else agent.switch(source_state, state.params, state.statistics)
        fed = source.feed([0], index, 0, TASK_STEPS).own[0]
        for i in range(TASK_STEPS):
            step = jnp.int32(index * TASK_STEPS + i + 1)
            if lessons:
                lesson = lessons[int(step) - 1]
            else:
                source_state, lesson, info = agent.draw(source_state, state.params, state.statistics, fed[i], step)
                told.append(info)
            learned.append(lesson)
            state, info = learner.step(traced, state, *lesson, step, jnp.float32(i / TASK_STEPS))
            told.append(info)
    return jax.tree.map(np.asarray, jax.device_get(Trained(first, state, told, learned)))


class _Agent(NamedTuple):
    """What an agent does between updates, compiled."""

    init_network: Callable[..., Any]
    init: Callable[..., Any]
    switch: Callable[..., Any]
    draw: Callable[..., Any]


class _Learner(NamedTuple):
    """What a method does, compiled."""

    init: Callable[..., Any]
    step: Callable[..., Any]
    switch: Callable[..., Any]


_made: dict[Any, Any] = {}


def _agent(plan: MethodPlan) -> _Agent:
    network, source = plan.network, plan.source
    numbers, facts = jax.tree.map(jnp.asarray, (as_arrays(source.numbers), source.facts(0)))
    task = source.task(KEYS.tasks, 0)

    def scene(index: int) -> Scene:
        return Scene(draw_key(KEYS.noise, Draw.SOURCE, index), source.data, task, facts, numbers)

    def init(params: Any, statistics: Any) -> Any:
        assert source.init
        return source.init(network, scene(0), TrainState(params, statistics, (), (), ()).learned())

    def switch(state: Any, params: Any, statistics: Any) -> Any:
        assert source.switch
        return source.switch(network, scene(1), state, TrainState(params, statistics, (), (), ()).learned())

    def draw(state: Any, params: Any, statistics: Any, fed: Any, step: Any) -> Any:
        key = draw_key(KEYS.noise, Draw.BATCH, step)
        now = Now(key, source.data, task, facts, numbers, step, Fed(fed, ()))
        learned = TrainState(params, statistics, (), (), ()).learned()
        state, lesson, info = source.draw(network, now, state, learned)
        return state, (lesson.batch, lesson.task), info

    key = id(network), id(source)
    if key not in _made:
        compiled = [jax.jit(each) for each in (lambda: network.init(KEYS.network), init, switch, draw)]
        _made[key] = plan, _Agent(*compiled)  # the plan is kept, so its ids are not given to others
    return _made[key][1]  # type: ignore[no-any-return]


def _learner(plan: MethodPlan) -> _Learner:
    """Programs take hyperparameters as arguments: a method that is switched off shares them."""
    network, objective = plan.network, plan.source.objective

    def init(traced: Any, params: Any, statistics: Any) -> TrainState:
        parts = plan.parts(traced)
        state = TrainState(params, statistics, parts.optimizer.init(params), (), ())
        penalty = parts.penalty.init(params) if parts.penalty else ()
        return state._replace(
            penalty=penalty, intervention=parts.intervention.init(state.learned()) if parts.intervention else ()
        )

    def step(traced: Any, state: TrainState, batch: Batch, task: Any, step: Any, fraction: Any) -> Any:
        def examples(key: Any, number: int) -> Batch:
            """The agent's own are computed where the batch is, in another program."""
            chosen = jax.random.randint(key, (number,), 0, len(batch.inputs))
            return jax.tree.map(lambda leaf: leaf[chosen], batch)

        parts = plan.parts(traced, fraction=fraction)
        stepped = train_step(network, parts, objective, state, Lesson(batch, task, examples), step, KEYS)
        return stepped.state, stepped.info

    def switch(traced: Any, state: TrainState, index: Any) -> Any:
        return switch_task(network, plan.parts(traced), state, KEYS, index)

    key = plan.method.name, plan.branch, id(network), id(plan.source), tuple(plan.static.items())
    if key not in _made:
        _made[key] = plan, _Learner(*map(jax.jit, (init, step, switch)))
    return _made[key][1]  # type: ignore[no-any-return]


def check_trains(plan: MethodPlan) -> None:
    """All numbers are finite, and weights of every head and branch move."""
    trained = train(plan)
    for path, leaf in jax.tree_util.tree_leaves_with_path((trained.state, trained.info)):
        assert np.isfinite(leaf).all() or leaf.dtype.kind not in "f", f"{path} is not finite"
    before, after = trained.first.params, trained.state.params
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    kernels = plan.network.wiring.mask(before, "head")
    heads = [is_moved for is_moved, is_head in zip(*map(jax.tree.leaves, (moved, kernels)), strict=True) if is_head]
    assert all(heads), "a head does not move"
    if plan.source.branches:
        assert all(any(jax.tree.leaves(moved[branch])) for branch in plan.source.branches.values())


def check_off_is_its_base(plan: MethodPlan) -> None:
    """To the bit: parameters, statistics, and what the agent has lived through."""
    switched_off, left = train(off(plan)), train(base(plan))
    for what in ("params", "statistics"):
        found, wanted = (getattr(each.state, what) for each in (switched_off, left))
        assert equal(found, wanted), f"switched off, the {what} are not those of {plan.method.base}"
    assert equal(switched_off.lessons, left.lessons), "switched off, the agent does something else"


def check_leaves_the_critic_to_adam(plan: MethodPlan) -> None:
    """Given the same lessons, the critic is trained as by Adam, to the bit."""
    adam = _adam()
    trained = train(plan, adam.lessons)
    assert equal(trained.state.params["critic"], adam.state.params["critic"]), "the critic is not trained by Adam"
    assert jax.tree.structure(trained.first) == jax.tree.structure(trained.state)


@functools.cache
def _adam() -> Trained:
    return train(plan("ppo", "adam"))


def equal(a: Any, b: Any) -> bool:
    return all(bool(np.array_equal(x, y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
