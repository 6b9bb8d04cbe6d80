"""Environments in the style of gymnax ≥ 1.0 as environments of ours."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from pliant.errors import UserError, require_choice, require_whole
from pliant.types import Environment, Key, Outcome, State, World

_NEEDED = ("reset_env", "step_env", "is_truncated", "action_space")


def from_gymnax(
    environment: Any,
    params: Any = None,
    *,
    name: str | None = None,
    max_episode_steps: int | None = None,
    observation_dtype: Literal["bool", "uint8", "uint16", "float32"] | None = None,
    dead_below: float | None = None,
) -> Environment:
    """Makes an environment of one in the style of gymnax ≥ 1.0: one of its own, or yours.

    Its `reset_env`, `step_env` and `is_truncated` are called, never its `step`, because agents reset. Any object with
    these functions will do, whether or not it inherits from gymnax.

    Args:
      environment: an instance, with discrete actions and one array as its observation.
      params: its parameters; None for its `default_params`. A function `params(task) -> parameters` makes them from the
        arrays of the current task, so that physics can differ between tasks.
      name: None for the environment's own.
      max_episode_steps: a time limit, ≥ 1: longer episodes are truncated. None if the environment has a limit: the
        parameter `max_steps_in_episode`.
      observation_dtype: how observations are stored: "bool" if they are only 0 and 1, "uint8", "uint16" or "float32".
        None leaves bool and uint8 as they are, and stores anything else as float32.
      dead_below: see `pliant.types.Environment`.

    Returns:
      An `Environment`. An episode that ends in the step in which its time is up is terminated, not truncated.

    Raises:
      UserError: for another kind of object, actions that are not discrete, observations that are not one array, states
        that change their shapes, or a missing time limit.

    Example:
      >>> import gymnax
      >>> environment = from_gymnax(*gymnax.make("CartPole-v1"))
      >>> environment.num_actions, environment.observation.shape, environment.max_episode_steps
      (2, (4,), 500)
      >>> world = World(data=(), task=())
      >>> state, _ = environment.reset(jax.random.key(0), world)
      >>> _, outcome = environment.step(jax.random.key(1), state, jnp.int32(1), world)
      >>> float(outcome.reward), bool(outcome.terminated)
      (1.0, False)

    References:
      Lange, `gymnax: A JAX-based Reinforcement Learning Environment Library
      <https://github.com/RobertTLange/gymnax>`_, 2022. Its version 1.0 tells time limits from ends.
    """
    _check_kind(environment)
    fixed = environment.default_params if params is None or callable(params) else params
    params_of: Callable[[PyTree], Any] = params if callable(params) else lambda _: fixed
    name = name or str(getattr(environment, "name", type(environment).__name__))
    num_actions = _num_actions(name, environment.action_space(fixed))
    seen, held = _shapes(name, environment, fixed)
    dtype = _stored(seen.dtype, observation_dtype)

    def reset(key: Key, world: World) -> tuple[State, Array]:
        observation, state = environment.reset_env(key, params_of(world.task))
        return _cast(state, held), jnp.asarray(observation, dtype)

    def step(key: Key, state: State, action: Int[Array, ""], world: World) -> tuple[State, Outcome]:
        now = params_of(world.task)
        observation, state, reward, terminated, _ = environment.step_env(key, state, action, now)
        terminated, is_late = jnp.asarray(terminated, bool), jnp.asarray(environment.is_truncated(state, now), bool)
        outcome = Outcome(
            jnp.asarray(observation, dtype), jnp.asarray(reward, jnp.float32), terminated, is_late & ~terminated
        )
        return _cast(state, held), outcome

    made = Environment(
        name=name,
        observation=jax.ShapeDtypeStruct(seen.shape, dtype),
        num_actions=num_actions,
        reset=reset,
        step=step,
        max_episode_steps=_own_limit(name, fixed, max_episode_steps),
        dead_below=dead_below,
    )
    return made if max_episode_steps is None else _limited(made, max_episode_steps)


class _Counted(NamedTuple):
    """The state of an environment whose steps are counted."""

    state: State
    steps: Int[Array, ""]
    """Since the episode began."""


def _limited(environment: Environment, limit: int) -> Environment:
    """The environment with a time limit, besides the one that it may have."""

    def reset(key: Key, world: World) -> tuple[State, Array]:
        state, observation = environment.reset(key, world)
        return _Counted(state, jnp.int32(0)), observation

    def step(key: Key, state: State, action: Int[Array, ""], world: World) -> tuple[State, Outcome]:
        inner, outcome = environment.step(key, state.state, action, world)
        steps = state.steps + 1
        truncated = (outcome.truncated | (steps >= limit)) & ~outcome.terminated
        return _Counted(inner, steps), outcome._replace(truncated=truncated)

    return environment._replace(
        reset=reset, step=step, max_episode_steps=min(limit, environment.max_episode_steps or limit)
    )


def _check_kind(environment: Any) -> None:
    lacking = [each for each in _NEEDED if not callable(getattr(environment, each, None))]
    if isinstance(environment, type) or lacking:
        kind = type(environment).__name__
        raise UserError(
            got=f"the class {environment.__name__}"
            if isinstance(environment, type)
            else f"a {kind} without {', '.join(lacking)}",
            wanted=f"an object in the style of gymnax ≥ 1.0, with {', '.join(_NEEDED)}",
            do="Pass an instance, as from_gymnax(*gymnax.make('CartPole-v1')) does.",
        )


def _num_actions(name: str, space: Any) -> int:
    number = getattr(space, "n", None)
    if number is None or getattr(space, "shape", ()) != ():
        raise UserError(
            got=f"the actions {space} of {name!r}",
            wanted="discrete actions, a space with their number `n`",
            do="Use an environment with discrete actions, or map a few of them to yours.",
        )
    return int(require_whole(f"number of actions of {name!r}", number, 1, do="Give the environment an action."))


def _own_limit(name: str, params: Any, limit: int | None) -> int:
    """The environment's time limit; 0 if it has none, and another one is set."""
    own = getattr(params, "max_steps_in_episode", None)
    if limit is not None:
        require_whole("max_episode_steps", limit, 1, do="Leave it out for the environment's own limit.")
    elif own is None:
        raise UserError(
            got=f"{name!r} without the parameter max_steps_in_episode",
            wanted="a time limit",
            do="Set max_episode_steps.",
        )
    return int(own or 0)


def _shapes(name: str, environment: Any, params: Any) -> tuple[jax.ShapeDtypeStruct, PyTree[jax.ShapeDtypeStruct]]:
    """Shapes and types of observations, and of states once they no longer change from step to step."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.ShapeDtypeStruct((), jnp.int32)
    observation, held = jax.eval_shape(lambda key: environment.reset_env(key, params), key)
    if not isinstance(observation, jax.ShapeDtypeStruct):
        raise UserError(
            got=f"observations of {name!r} that are a {type(observation).__name__}",
            wanted="one array",
            do="Concatenate them in an environment of your own.",
        )
    before: PyTree = None
    while jax.tree.leaves(before) != jax.tree.leaves(held):
        before = held
        outcome = jax.eval_shape(lambda *given: environment.step_env(*given, params), key, held, action)
        if len(outcome) != 5 or not _same_shapes((outcome[:2], *outcome[2:4]), ((observation, held), *(action,) * 2)):
            raise UserError(
                got=f"a step of {name!r} that changes the shapes of observation or state, or whose reward or end is no "
                "scalar",
                wanted="(observation, state, reward, terminated, info), as gymnax ≥ 1.0 returns them from step_env",
                do="Let reset_env and step_env return arrays of the same shapes.",
            )
        held = jax.tree.map(_wider, held, outcome[1])
    return observation, held


def _same_shapes(one: PyTree, other: PyTree) -> bool:
    (leaves, *structure), (others, *other_structure) = jax.tree.flatten(one), jax.tree.flatten(other)
    return structure == other_structure and [leaf.shape for leaf in leaves] == [leaf.shape for leaf in others]


def _wider(one: jax.ShapeDtypeStruct, other: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """A reset that says 0 and a step that says 0.5 have float states: `lax.scan` carries one type."""
    dtype = one.dtype if one.dtype == other.dtype else jnp.promote_types(one.dtype, other.dtype)
    return jax.ShapeDtypeStruct(one.shape, dtype)


def _cast(tree: PyTree, wanted: PyTree[jax.ShapeDtypeStruct]) -> PyTree[Array]:
    """Arrays of these types, never weakly typed."""

    def cast(leaf: Any, to: jax.ShapeDtypeStruct) -> Array:
        return leaf if jnp.issubdtype(to.dtype, jax.dtypes.prng_key) else jnp.asarray(leaf, to.dtype)

    return jax.tree.map(cast, tree, wanted)


def _stored(own: Any, wanted: str | None) -> Any:
    if wanted is not None:
        require_choice("observation_dtype", wanted, "float32", "bool", "uint8", "uint16")
        return jnp.dtype(wanted)
    return own if own in (jnp.bool_, jnp.uint8) else jnp.dtype(jnp.float32)
