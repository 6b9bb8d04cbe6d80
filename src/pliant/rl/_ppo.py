"""Proximal policy optimization as a source: rollouts, advantages, and the clipped objective."""

import functools
from collections.abc import Mapping, Sequence
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
from pliant.rl._view import view
from pliant.rl.environments import host_environments
from pliant.sampling import batch_indices, evenly
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
    Scene,
    Source,
    World,
)
from pliant.xla.branches import anywhere


class Rollout(NamedTuple):
    """What the agent has lived through with one version of its weights; one entry a step of a copy."""

    observations: Array
    actions: Int[Array, " step"]
    log_probs: Float[Array, " step"]
    """Of the actions, at the weights that chose them."""
    values: Float[Array, " step"]
    advantages: Float[Array, " step"]
    returns: Float[Array, " step"]
    """Advantages and values together: what the critic learns."""


class PPOState(NamedTuple):
    """What the agent carries between updates, beside its network."""

    episodes: tuple[Episodes, ...]
    """Of every environment; only those of the current one go on."""
    rollout: Rollout
    phase: Phase


def ppo(
    stream: EnvironmentStream,
    budget: Budget,
    values: ValueBins | None = None,
    *,
    num_envs: int = 64,
    rollout_length: int = 64,
    epochs: int = 4,
    discount: float = 0.99,
    gae_decay: float = 0.95,
    clip: float = 0.2,
    entropy_strength: float = 0.01,
    value_strength: float = 0.5,
    max_grad_norm: float = 0.5,
    grad_clip: str = "global",
    clips_values: bool = False,
    trunk: str = "separate",
) -> Source:
    r"""Makes proximal policy optimization a source of batches.

    Use it for discrete actions in environments that are cheap to step. Every `epochs` passes over a rollout the agent
    steps `num_envs` copies of the environment `rollout_length` times; an update learns from one minibatch.

    .. math:: L = \mathrm{mean}\big[-\min(\rho \hat A, \mathrm{clip}(\rho, 1 - c, 1 + c) \hat A)
              + \tfrac{k_v}{2} (V - R)^2 - k_e H(\pi)\big], \qquad \rho = \pi(a \mid s) / \pi_{old}(a \mid s)

    with advantages :math:`A_t = \delta_t + \gamma \lambda (1 - d_t) A_{t+1}`,
    :math:`\delta_t = r_t + \gamma V(s_{t+1}) - V(s_t)`, normalised in every minibatch, and returns
    :math:`R_t = A_t + V(s_t)`. Behind a terminal state V is 0; behind a time limit it is that of the last observation.

    Args:
      stream: environments, task by task.
      budget: of a task; its `batch_size` is that of a minibatch and must divide a rollout.
      values: bins, if the critic learns values as distributions over them, as the methods `two-hot` and `hl-gauss` do:
        (V − R)²/2 is then the cross-entropy, and V the mean of a distribution. None for one output.
      num_envs: copies of the environment, ≥ 1.
      rollout_length: steps of each copy in a rollout, ≥ 1.
      epochs: passes over each rollout, ≥ 1.
      discount: γ in [0, 1].
      gae_decay: λ of generalized advantage estimation, in [0, 1].
      clip: c > 0, how far the probability of an action may move from 1 as a ratio.
      entropy_strength: k_e ≥ 0.
      value_strength: k_v ≥ 0.
      max_grad_norm: > 0, the largest norm of a gradient, see `grad_clip`.
      grad_clip: "global" scales the whole gradient down to `max_grad_norm`; "elementwise" clamps each of its entries,
        as code of octax and rejax does; "none".
      clips_values: whether the value, too, may move at most `clip` from that of the rollout; not with `values`.
      trunk: "separate", an actor and a critic with a network each; "shared", one network with two heads.

    Returns:
      The source. Its network has the outputs "policy", logits of the actions, and "value". The weights that are trained
      act, also with methods that report others.

    Raises:
      UserError: for numbers out of range, and if minibatches or rollouts do not fit into each other or into a task.

    References:
      Schulman et al., `Proximal Policy Optimization Algorithms <https://arxiv.org/abs/1707.06347>`_, 2017, equation 9.
      Schulman et al., `High-Dimensional Continuous Control Using Generalized Advantage Estimation
      <https://arxiv.org/abs/1506.02438>`_, 2016, equation 16. Initial gains of √2, 0.01 and 1, and clipping of the
      global norm: Huang et al., `The 37 Implementation Details of PPO
      <https://iclr-blog-track.github.io/2022/03/25/ppo-implementation-details/>`_, 2022.

    Differs from:
      Most implementations, which give the value behind a time limit as 0, or as that of the next episode.
    """
    size = num_envs * rollout_length
    _check(budget, num_envs, rollout_length, epochs, trunk)
    numbers = {
        "discount": discount,
        "gae_decay": gae_decay,
        "clip": clip,
        "entropy_strength": entropy_strength,
        "value_strength": value_strength,
        "max_grad_norm": max_grad_norm,
    }
    for name, (low, high) in _RANGES.items():
        require_range(f"ppo.{name}", numbers[name], low, high, do="The published one is the default.")
    if values is not None and clips_values:
        raise UserError(
            got="ppo.clips_values=True with values as distributions over bins",
            wanted="values that are numbers, whose change can be clipped",
            do="Set ppo.clips_values=false, or leave the method out.",
        )
    coded = None if values is None else values.coded(1)
    per_rollout = epochs * (size // budget.batch_size)
    num_rollouts = budget.env_steps // size
    environments = [copies(environment, num_envs) for environment in stream.environments]

    def seen(observations: Array, world: World) -> Array:
        return view(stream.environments[0], observations, world)

    def begin(key: Key, world: World) -> tuple[Episodes, ...]:
        return tuple(each.begin(jax.random.fold_in(key, number), world) for number, each in enumerate(environments))

    def init(network: Network, scene: Scene, learned: Learned) -> PPOState:
        del network, learned
        episodes = begin(scene.key, World(scene.data, scene.task))
        first = episodes[0].observation
        zeros = jnp.zeros(size)
        empty = Rollout(
            jnp.zeros((size, *first.shape[1:]), first.dtype), jnp.zeros(size, jnp.int32), zeros, zeros, zeros, zeros
        )
        return PPOState(episodes, empty, no_episodes())

    def switch(network: Network, scene: Scene, state: PPOState, learned: Learned) -> PPOState:
        del network, learned
        for each, episodes in zip(environments, state.episodes, strict=True):
            each.release(episodes)
        return PPOState(begin(scene.key, World(scene.data, scene.task)), state.rollout, no_episodes())

    def collect(network: Network, now: Now, state: PPOState, learned: Learned) -> tuple[PPOState, Info]:
        """A rollout in the current environment."""
        world = World(now.data, now.task)

        def outputs(observations: Array) -> tuple[Array, Array]:
            inputs = seen(observations, world)
            output: Any = network.apply(learned.params, learned.statistics, inputs, train=False, key=None)[0]
            return output["policy"], _value(coded, output)

        def in_environment(number: int, episodes: tuple[Episodes, ...]) -> Any:
            def step(running: Episodes, key: Key) -> tuple[Episodes, Any]:
                of_action, of_step = jax.random.split(key)
                logits, values = outputs(running.observation)
                actions = jax.random.categorical(of_action, logits)
                log_probs = _log_prob(logits, actions)
                observations = running.observation
                running, played = environments[number].play(of_step, running, actions, world)
                truncated, last = played.outcome.truncated, played.outcome.observation

                def behind_cut() -> Array:
                    return jnp.where(truncated, outputs(last)[1], 0.0)

                beyond = jax.lax.cond(anywhere(truncated.any()), behind_cut, lambda: jnp.zeros(num_envs))
                rewards = played.outcome.reward + now.numbers["discount"] * beyond
                return running, ((observations, actions, log_probs, values), rewards, played.done, ended(played))

            keys = jax.random.split(now.key, rollout_length)
            running, (taken, rewards, done, told) = jax.lax.scan(step, episodes[number], keys)
            found = advantages(rewards, taken[3], done, outputs(running.observation)[1], now.numbers)
            flat = jax.tree.map(lambda leaf: leaf.reshape(size, *leaf.shape[2:]), (*taken, found, found + taken[3]))
            told = jax.tree.map(lambda leaf: leaf.sum(axis=0), told)
            return (*episodes[:number], running, *episodes[number + 1 :]), Rollout(*flat), told

        branches = [functools.partial(in_environment, number) for number in range(len(environments))]
        episodes, rollout, told = in_current(now.facts, branches, state.episodes)
        return PPOState(episodes, rollout, count(state.phase, told)), told

    def draw(network: Network, now: Now, state: PPOState, learned: Learned) -> tuple[PPOState, Lesson, Info]:
        def collected() -> tuple[PPOState, Info]:
            return collect(network, now, state, learned)

        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(collected)[1])
        state, told = jax.lax.cond((now.step - 1) % per_rollout == 0, collected, lambda: (state, nothing))
        rollout, world = state.rollout, World(now.data, now.task)

        def examples(key: Key, num_examples: int) -> Batch:
            return batch(rollout, jax.random.randint(key, (num_examples,), 0, size), world)

        return state, Lesson(batch(rollout, now.fed.own, world), dict(now.numbers), examples), told

    def batch(rollout: Rollout, indices: Int[Array, " batch"], world: World) -> Batch:
        chosen = jax.tree.map(lambda leaf: leaf[indices], rollout)
        advantage = (chosen.advantages - chosen.advantages.mean()) / (chosen.advantages.std() + 1e-8)
        return Batch(seen(chosen.observations, world), chosen._replace(observations=(), advantages=advantage))

    def probe(network: Network, scene: Scene, state: PPOState) -> tuple[Batch, Any]:
        del network
        indices = jnp.asarray(evenly(size, budget.probe_size))
        return batch(state.rollout, indices, World(scene.data, scene.task)), dict(scene.numbers)

    def feed(seeds: Sequence[int], index: int, start: int, stop: int) -> Fed:
        order = functools.partial(batch_indices, num_examples=size, batch_size=budget.batch_size)
        return Fed(np.stack([order(seed, index, start, stop) for seed in seeds]), ())

    def policy(network: Network, weights: Any, key: Key, observations: Array, world: World) -> Array:
        output = network.apply(*weights, seen(observations, world), train=False, key=None)[0]
        return jax.random.categorical(key, output["policy"])

    losses = functools.partial(_losses, coded, clips_values)
    return Source(
        name="ppo",
        inputs=stream.inputs,
        num_outputs={"policy": stream.num_actions, "value": 1 if values is None else len(values.centres)},
        objective=Objective(
            "surrogate", losses, None, reports=functools.partial(_reports, coded), can_be_negative=True
        ),
        progress="episode_return",
        data=stream.data,
        task=stream.task,
        num_updates=lambda _: num_rollouts * per_rollout,
        facts=lambda index: np.int32(stream.which(index)),
        feed=feed,
        draw=draw,
        probe=probe,
        evaluate=functools.partial(evaluate, stream, budget.eval_episodes, policy),
        summarize=summarize,
        init=init,
        switch=switch,
        output="policy",
        branches={"policy": "actor", "value": "critic"} if trunk == "separate" else None,
        gains={"policy": 0.01},
        numbers=numbers,
        clip=clipping("ppo.grad_clip", grad_clip),
        points=budget.points(num_rollouts * per_rollout, per_rollout),
        env_steps=size / per_rollout,
        one_by_one=any(environment.together for environment in stream.environments),
        within=host_environments,
    )


def advantages(
    rewards: Float[Array, "time env"],
    values: Float[Array, "time env"],
    done: Array,
    last: Float[Array, " env"],
    numbers: Mapping[str, Any],
) -> Float[Array, "time env"]:
    """Generalized advantage estimates.

    Args:
      rewards: with what a cut episode would still have earned.
      values: of the observations before the steps.
      done: whether an episode has ended with the step.
      last: values of the observations behind the last step.
      numbers: `discount` and `gae_decay`.

    Example:
      >>> column = lambda *numbers: jnp.array(numbers)[:, None]
      >>> found = advantages(column(1.0, 1.0), column(0.0, 0.5), column(False, True), jnp.array([9.0]),
      ...                    {"discount": 0.5, "gae_decay": 1.0})
      >>> found[:, 0].tolist()
      [1.5, 0.5]
    """
    discount, decay = numbers["discount"], numbers["gae_decay"]

    def back(carry: tuple[Array, Array], step: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        later, next_value = carry
        reward, value, is_done = step
        goes_on = 1.0 - is_done
        found = reward + discount * goes_on * next_value - value + discount * decay * goes_on * later
        return (found, value), found

    return jax.lax.scan(back, (jnp.zeros_like(last), last), (rewards, values, done), reverse=True)[1]


def _log_prob(logits: Float[Array, "batch action"], actions: Int[Array, " batch"]) -> Float[Array, " batch"]:
    return -optax.softmax_cross_entropy_with_integer_labels(logits, actions)


def _value(coded: Coded | None, output: Mapping[str, Array]) -> Float[Array, " batch"]:
    values = coded.values(output["value"]) if coded else output["value"].astype(jnp.float32)
    return values[:, 0]


class _Terms(NamedTuple):
    """Parts of the loss of every example."""

    policy: Float[Array, " batch"]
    value: Float[Array, " batch"]
    entropy: Float[Array, " batch"]
    log_ratio: Float[Array, " batch"]


def _terms(coded: Coded | None, output: Mapping[str, Array], targets: Rollout, numbers: Mapping[str, Any]) -> _Terms:
    logits = output["policy"].astype(jnp.float32)
    log_ratio = _log_prob(logits, targets.actions) - targets.log_probs
    ratio, c = jnp.exp(log_ratio), numbers["clip"]
    gain = jnp.minimum(ratio * targets.advantages, jnp.clip(ratio, 1.0 - c, 1.0 + c) * targets.advantages)
    if coded:
        error = coded.losses(output["value"], targets.returns[:, None])
    else:
        error = jnp.square(_value(coded, output) - targets.returns) / 2
    log_probs = jax.nn.log_softmax(logits)
    return _Terms(-gain, error, -(jnp.exp(log_probs) * log_probs).sum(axis=-1), log_ratio)


def _losses(
    coded: Coded | None, clips_values: bool, output: Mapping[str, Array], targets: Rollout, numbers: Mapping[str, Any]
) -> Float[Array, " batch"]:
    terms = _terms(coded, output, targets, numbers)
    value = terms.value
    if clips_values:
        moved = output["value"][:, 0] - targets.values
        near = targets.values + jnp.clip(moved, -numbers["clip"], numbers["clip"])
        value = jnp.maximum(value, jnp.square(near - targets.returns) / 2)
    return terms.policy + numbers["value_strength"] * value - numbers["entropy_strength"] * terms.entropy


def _reports(coded: Coded | None, output: Mapping[str, Array], targets: Rollout, numbers: Mapping[str, Any]) -> Info:
    terms = _terms(coded, output, targets, numbers)
    ratio = jnp.exp(terms.log_ratio)
    return {
        "policy_loss": terms.policy.mean(),
        "value_loss": terms.value.mean(),
        "entropy": terms.entropy.mean(),
        "approximate_kl": (ratio - 1.0 - terms.log_ratio).mean(),
        "clip_fraction": (jnp.abs(ratio - 1.0) > numbers["clip"]).mean(),
    }


_RANGES: Mapping[str, tuple[float, float]] = {
    "discount": (0.0, 1.0),
    "gae_decay": (0.0, 1.0),
    "clip": (1e-6, 1e6),
    "entropy_strength": (0.0, 1e6),
    "value_strength": (0.0, 1e6),
    "max_grad_norm": (1e-6, 1e6),
}


def _check(budget: Budget, num_envs: int, rollout_length: int, epochs: int, trunk: str) -> None:
    for name, value in {"num_envs": num_envs, "rollout_length": rollout_length, "epochs": epochs}.items():
        require_whole(f"ppo.{name}", value, 1, do="See `pliant show ppo`.")
    require_choice("ppo.trunk", trunk, "separate", "shared")
    size = num_envs * rollout_length
    if size % budget.batch_size:
        raise UserError(
            got=f"batch_size={budget.batch_size} for rollouts of {num_envs} × {rollout_length} = {size} steps",
            wanted="minibatches of equal size: a divisor of the rollout",
            do=f"Use {_divisor(size, budget.batch_size)}, for example.",
        )
    if budget.env_steps < size:
        raise UserError(
            got=f"env_steps={budget.env_steps} for rollouts of {num_envs} × {rollout_length} = {size} steps",
            wanted="at least one rollout in a task",
            do="Give a task more steps, or use fewer or shorter copies: ppo.num_envs, ppo.rollout_length.",
        )


def _divisor(size: int, near: int) -> int:
    return next(each for each in range(min(near, size), 0, -1) if size % each == 0)
