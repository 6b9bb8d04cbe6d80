"""Deep Q-learning as a source: a replay, a target network, and the error of the action taken."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from pliant.errors import UserError, require_choice, require_range, require_whole
from pliant.rl._budget import Budget
from pliant.rl._clip import clipping
from pliant.rl._episodes import Episodes, copies, ended, in_current
from pliant.rl._evaluate import Phase, count, evaluate, no_episodes, summarize
from pliant.rl._replay import Replay, Transitions, buffer
from pliant.rl._view import view
from pliant.rl.environments import host_environments
from pliant.targets import ValueBins
from pliant.types import (
    Batch,
    Coded,
    EnvironmentStream,
    Fed,
    Info,
    Key,
    Learned,
    Lesson,
    Network,
    Now,
    Objective,
    Params,
    Scene,
    Source,
    State,
    World,
)


class DQNState(NamedTuple):
    """What the agent carries between updates, beside its network."""

    episodes: tuple[Episodes, ...]
    """Of every environment; only those of the current one go on."""
    replay: Replay
    target: tuple[Params, State]
    """Parameters and running statistics of the target network."""
    phase: Phase


class Targets(NamedTuple):
    """What the network learns of a batch."""

    actions: Int[Array, " batch"]
    values: Float[Array, " batch"]
    """Of these actions, by the target network."""


def dqn(
    stream: EnvironmentStream,
    budget: Budget,
    values: ValueBins | None = None,
    *,
    num_envs: int = 1,
    steps_per_update: int = 1,
    replay_size: int = 100_000,
    min_replay: int = 1_000,
    discount: float = 0.99,
    epsilon_start: float = 1.0,
    epsilon_final: float = 0.1,
    epsilon_steps: float = 10_000.0,
    eval_epsilon: float = 0.01,
    double: bool = True,
    target_every: int = 1_000,
    loss: str = "mse",
    max_grad_norm: float = 10.0,
    grad_clip: str = "none",
    replay_at_switch: str = "keep",
) -> Source:
    r"""Makes deep Q-learning a source of batches, double by default.

    Use it for discrete actions, where each step of the environment should be learned from many times. Before every
    update the agent acts: at random with probability ε, otherwise as its network values highest. An update learns from
    transitions that are sampled uniformly from the replay,

    .. math:: L = \mathrm{mean}\; \ell\big(Q(s, a) - y\big), \qquad
              y = r + \gamma\, (1 - d)\, \bar Q\big(s', \arg\max_{a'} Q(s', a')\big)

    with the target network :math:`\bar Q`, which also chooses the action a' if `double` is False. d is 1 in a terminal
    state. Behind a time limit, the value of the last observation counts. All networks are in eval mode for targets.

    *The target network* is set equal to the trained one before updates 1, 1 + T, 1 + 2T, …, and when the task changes.
    The latter is done after all that methods and the protocol do then, so resets of a head or of the whole network
    reach it. What a method resets during a task reaches it with the next copy.

    *Steps.* The replay first gets `min_replay` steps with random actions; they come before the steps of a task that the
    budget counts. ε changes linearly from `epsilon_start` to `epsilon_final` in `epsilon_steps` steps, once in a run.

    Args:
      stream: environments, task by task.
      budget: of a task; its `batch_size` is the number of sampled transitions.
      values: bins, if the network learns values as distributions over them, as the methods `two-hot` and `hl-gauss` do:
        ℓ is then the cross-entropy, and Q(s, a) the mean of a distribution. None for one output an action.
      num_envs: copies of the environment, ≥ 1.
      steps_per_update: steps of the environment for each update, over all copies: a multiple of `num_envs`.
      replay_size: transitions in the replay, ≥ `min_replay`: the newest ones. Observations are stored once, in their
        own type, and of stacks of frames each frame once.
      min_replay: random steps before the first update, over all copies: a multiple of `num_envs`, ≥ 1.
      discount: γ in [0, 1].
      epsilon_start: ε of the first update, in [0, 1].
      epsilon_final: ε from `epsilon_steps` on, in [0, 1].
      epsilon_steps: steps of the environment, ≥ 1.
      eval_epsilon: ε in evaluations, in [0, 1].
      double: whether the trained network chooses the action that is bootstrapped from.
      target_every: T ≥ 1, in updates.
      loss: "mse" is ℓ(δ) = δ²; "huber" is δ²/2 up to |δ| = 1 and |δ| − 1/2 beyond. Not used with `values`.
      max_grad_norm: > 0, the largest norm of a gradient, see `grad_clip`.
      grad_clip: "global" scales the whole gradient down to `max_grad_norm`; "elementwise" clamps each of its entries;
        "none".
      replay_at_switch: "keep" keeps old transitions when the task changes; "clear" drops them, and begins the new task
        with `min_replay` random steps.

    Returns:
      The source. Its network has one output for each action, or `values`' bins for each. The weights that are trained
      act, also with methods that report others. In what diagnostics measure, the target network chooses a', too.

    Raises:
      UserError: for numbers out of range, and if steps and copies do not fit into each other or into a task.

    References:
      Mnih et al., `Human-level control through deep reinforcement learning
      <https://doi.org/10.1038/nature14236>`_, 2015. van Hasselt et al., `Deep Reinforcement Learning with Double
      Q-learning <https://arxiv.org/abs/1509.06461>`_, 2016, equation 4. Values as classes: Farebrother et al., `Stop
      Regressing <https://arxiv.org/abs/2403.03950>`_, 2024, section 3.

    Differs from:
      Most implementations, which give the value behind a time limit as 0. DQN's published code, which counts the
      period of the target network in frames, and clips δ rather than the loss.
    """
    numbers = {
        "discount": discount,
        "epsilon_start": epsilon_start,
        "epsilon_final": epsilon_final,
        "epsilon_steps": epsilon_steps,
        "eval_epsilon": eval_epsilon,
        "max_grad_norm": max_grad_norm,
    }
    for name, value in numbers.items():
        require_range(f"dqn.{name}", value, *_RANGES.get(name, (0.0, 1.0)), do="See `pliant show dqn`.")
    whole = {"num_envs": num_envs, "replay_size": replay_size, "min_replay": min_replay, "target_every": target_every}
    for name, number in (whole | {"steps_per_update": steps_per_update}).items():
        require_whole(f"dqn.{name}", number, 1, do="See `pliant show dqn`.")
    require_choice("dqn.loss", loss, "mse", "huber")
    require_choice("dqn.replay_at_switch", replay_at_switch, "keep", "clear")
    clip = clipping("dqn.grad_clip", grad_clip)
    _check(budget, num_envs, steps_per_update, replay_size, min_replay)
    environments = [copies(environment, num_envs) for environment in stream.environments]
    of_replay = buffer(_strictest(stream), num_envs, replay_size)
    num_updates = budget.env_steps // steps_per_update
    coded = None if values is None else values.coded(stream.num_actions)

    def seen(observations: Array, world: World) -> Array:
        return view(stream.environments[0], observations, world)

    def action_values(network: Network, weights: tuple[Params, State], observations: Array, world: World) -> Array:
        output = network.apply(*weights, seen(observations, world), train=False, key=None)[0]
        return _values(coded, output)

    def begin(key: Key, world: World) -> tuple[Episodes, ...]:
        return tuple(each.begin(jax.random.fold_in(key, number), world) for number, each in enumerate(environments))

    def live(
        keys: Array,
        scene: Scene | Now,
        episodes: tuple[Episodes, ...],
        replay: Replay,
        act: Callable[[Key, Array], Int[Array, " env"]],
    ) -> tuple[tuple[Episodes, ...], Replay, Info]:
        """Steps in the current environment, one for each key, which go into the replay."""
        world = World(scene.data, scene.task)

        def play(number: int, key: Key, actions: Array, episodes: tuple[Episodes, ...]) -> Any:
            running, played = environments[number].play(key, episodes[number], actions, world)
            return (*episodes[:number], running, *episodes[number + 1 :]), running, played

        def step(carry: tuple[tuple[Episodes, ...], Replay], key: Key) -> tuple[Any, Info]:
            episodes, replay = carry
            of_action, of_step = jax.random.split(key)
            observed = [functools.partial(lambda number, e: e[number].observation, n) for n in range(len(episodes))]
            actions = act(of_action, in_current(scene.facts, observed, episodes))
            plays = [functools.partial(play, number) for number in range(len(environments))]
            episodes, running, played = in_current(scene.facts, plays, of_step, actions, episodes)
            return (episodes, of_replay.add(replay, actions, played, running)), ended(played)

        (episodes, replay), told = jax.lax.scan(step, (episodes, replay), keys)
        return episodes, replay, jax.tree.map(lambda leaf: leaf.sum(axis=0), told)

    def at_random(key: Key, observations: Array) -> Int[Array, " env"]:
        return jax.random.randint(key, (len(observations),), 0, stream.num_actions)

    def warmed_up(key: Key, scene: Scene, episodes: tuple[Episodes, ...], replay: Replay, learned: Learned) -> DQNState:
        keys = jax.random.split(key, min_replay // num_envs)
        episodes, replay, _ = live(keys, scene, episodes, replay, at_random)
        return DQNState(episodes, replay, (learned.params, learned.statistics), no_episodes())

    def init(network: Network, scene: Scene, learned: Learned) -> DQNState:
        del network
        of_episodes, of_steps = jax.random.split(scene.key)
        episodes = begin(of_episodes, World(scene.data, scene.task))
        return warmed_up(of_steps, scene, episodes, of_replay.begin(episodes[0].observation), learned)

    def switch(network: Network, scene: Scene, state: DQNState, learned: Learned) -> DQNState:
        del network
        for each, old in zip(environments, state.episodes, strict=True):
            each.release(old)
        of_episodes, of_steps = jax.random.split(scene.key)
        episodes = begin(of_episodes, World(scene.data, scene.task))
        observed = [functools.partial(lambda number, e: e[number].observation, n) for n in range(len(episodes))]
        replay = of_replay.cut(state.replay, in_current(scene.facts, observed, episodes))
        if replay_at_switch == "clear":
            return warmed_up(of_steps, scene, episodes, of_replay.clear(replay), learned)
        target = learned.params, learned.statistics
        return DQNState(episodes, replay, target, no_episodes())

    def targets(
        network: Network, transitions: Transitions, scene: Scene | Now, target: Any, chooser: Any, world: World
    ) -> Targets:
        later = action_values(network, target, transitions.next_observations, world)
        chosen = later if chooser is None else action_values(network, chooser, transitions.next_observations, world)
        best = jnp.take_along_axis(later, chosen.argmax(axis=-1)[:, None], axis=-1)[:, 0]
        goes_on = 1.0 - transitions.terminated
        found = transitions.rewards + scene.numbers["discount"] * goes_on * best
        return Targets(transitions.actions, jax.lax.stop_gradient(found))

    def batch(
        network: Network, key: Key, scene: Scene | Now, state: DQNState, number: int, chooser: Any = None
    ) -> Batch:
        world = World(scene.data, scene.task)
        transitions = of_replay.sample(key, state.replay, number)
        learns = targets(network, transitions, scene, state.target, chooser, world)
        return Batch(seen(transitions.observations, world), learns)

    def draw(network: Network, now: Now, state: DQNState, learned: Learned) -> tuple[DQNState, Lesson, Info]:
        weights, numbers = (learned.params, learned.statistics), now.numbers
        target = jax.lax.cond((now.step - 1) % target_every == 0, lambda: weights, lambda: state.target)
        steps = (now.step - 1).astype(jnp.float32) * steps_per_update
        done = jnp.minimum(steps / numbers["epsilon_steps"], 1.0)
        epsilon = numbers["epsilon_start"] + done * (numbers["epsilon_final"] - numbers["epsilon_start"])
        world = World(now.data, now.task)

        def act(key: Key, observations: Array) -> Int[Array, " env"]:
            return _explore(key, action_values(network, weights, observations, world), epsilon)

        of_steps, of_batch = jax.random.split(now.key)
        keys = jax.random.split(of_steps, steps_per_update // num_envs)
        episodes, replay, told = live(keys, now, state.episodes, state.replay, act)
        state = DQNState(episodes, replay, target, count(state.phase, told))
        chooser = weights if double else None

        def examples(key: Key, num_examples: int) -> Batch:
            return batch(network, key, now, state, num_examples, chooser)

        lesson = Lesson(batch(network, of_batch, now, state, budget.batch_size, chooser), (), examples)
        return state, lesson, {**told, "epsilon": jnp.asarray(epsilon, jnp.float32)}

    def probe(network: Network, scene: Scene, state: DQNState) -> tuple[Batch, Any]:
        return batch(network, scene.key, scene, state, budget.probe_size), ()

    def evaluated(network: Network, weights: Any, scene: Scene, state: DQNState) -> Any:
        def policy(network: Network, weights: Any, key: Key, observations: Array, world: World) -> Array:
            return _explore(key, action_values(network, weights, observations, world), scene.numbers["eval_epsilon"])

        return evaluate(stream, budget.eval_episodes, policy, network, weights, scene, state)

    def feed(seeds: Sequence[int], index: int, start: int, stop: int) -> Fed:
        del index
        return Fed(np.zeros((len(seeds), stop - start, 0), np.float32), ())

    losses, reports = functools.partial(_losses, values, loss), functools.partial(_reports, coded)
    return Source(
        name="dqn",
        inputs=stream.inputs,
        num_outputs=stream.num_actions * (1 if values is None else len(values.centres)),
        objective=Objective("td_error", losses, None, reports=reports, coded=coded),
        progress="episode_return",
        data=stream.data,
        task=stream.task,
        num_updates=lambda _: num_updates,
        facts=lambda index: np.int32(stream.which(index)),
        feed=feed,
        draw=draw,
        probe=probe,
        evaluate=evaluated,
        summarize=summarize,
        init=init,
        switch=switch,
        numbers=numbers,
        clip=clip,
        points=budget.points(num_updates),
        env_steps=float(steps_per_update),
        one_by_one=any(environment.together for environment in stream.environments),
        within=host_environments,
    )


def _values(coded: Coded | None, output: Float[Array, "batch out"]) -> Float[Array, "batch action"]:
    return coded.values(output) if coded else output.astype(jnp.float32)


def _taken(array: Float[Array, "batch action ..."], actions: Int[Array, " batch"]) -> Float[Array, "batch ..."]:
    return array[jnp.arange(len(actions)), actions]


def _losses(bins: ValueBins | None, loss: str, output: Array, targets: Targets, task: Any) -> Float[Array, " batch"]:
    del task
    if bins is not None:
        logits = output.reshape(len(output), -1, len(bins.centres))
        return bins.coded(1).losses(_taken(logits, targets.actions), targets.values[:, None])
    error = _taken(output.astype(jnp.float32), targets.actions) - targets.values
    return optax.huber_loss(error) if loss == "huber" else jnp.square(error)


def _reports(coded: Coded | None, output: Array, targets: Targets, task: Any) -> Info:
    del task
    found = _taken(_values(coded, output), targets.actions)
    return {"td_error": jnp.abs(found - targets.values).mean(), "q_value": found.mean()}


def _explore(key: Key, values: Float[Array, "env action"], epsilon: Any) -> Int[Array, " env"]:
    """The best actions, or with probability ε random ones."""
    number, num_actions = values.shape
    bits = jax.random.bits(key, (2, number))  # a draw of many bits costs little more than one of few
    explores = (bits[0] >> 8).astype(jnp.float32) * 2.0**-24 < epsilon
    return jnp.where(explores, (bits[1] % num_actions).astype(jnp.int32), values.argmax(axis=-1))


_RANGES: Mapping[str, tuple[float, float]] = {"epsilon_steps": (1.0, 1e12), "max_grad_norm": (1e-6, 1e6)}


def _strictest(stream: EnvironmentStream) -> Any:
    """What a replay for all environments is made for."""
    first = stream.environments[0]
    if len({each.frames for each in stream.environments}) > 1:
        raise UserError(
            got="environments with and without stacks of frames, or with stacks of different sizes",
            wanted="the same `frames` in all of them, since they share a replay",
            do="State the same Environment.frames.",
        )
    return first._replace(max_episode_steps=min(each.max_episode_steps for each in stream.environments))


def _check(budget: Budget, num_envs: int, steps_per_update: int, replay_size: int, min_replay: int) -> None:
    for name, number in {"steps_per_update": steps_per_update, "min_replay": min_replay}.items():
        if number % num_envs:
            raise UserError(
                got=f"dqn.{name}={number} for {num_envs} copies of the environment, which step together",
                wanted="a multiple of dqn.num_envs",
                do=f"Use {-(-number // num_envs) * num_envs}, for example.",
            )
    if replay_size < min_replay:
        raise UserError(
            got=f"dqn.replay_size={replay_size} with dqn.min_replay={min_replay}",
            wanted="a replay that holds the steps before the first update",
            do="Use a larger replay, or fewer steps before the first update.",
        )
    if budget.env_steps < steps_per_update:
        raise UserError(
            got=f"env_steps={budget.env_steps} for {steps_per_update} steps an update",
            wanted="at least one update in a task",
            do="Give a task more steps, or use a smaller dqn.steps_per_update.",
        )
