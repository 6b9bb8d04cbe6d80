"""PPO's environment steps a second: pliant's engine, a loop written by hand, CleanRL's way in PyTorch, and rejax.

    pip install -e '.[rl,parity]'
    python benchmarks/rl.py                                        # MinAtar's Breakout, 10 × 10 × 10
    python benchmarks/rl.py --environment octax --rollouts 1       # octax's brix, 64 × 32 × 4
    python benchmarks/rl.py --rejax rejax-env/bin/python           # an interpreter with `rejax gymnax==0.0.9`

All run the same algorithm: 64 copies, rollouts of 64 steps, four epochs of eight minibatches of 512, an actor and a
critic with four hidden layers of 64, Adam, the global norm clipped. One learner with all cores.
rejax is run in a process of its own, in turn with the others, with gymnax's form of the game.
"""

import subprocess
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from _timing import alternate, options, report
from pliant.rl import AgentConfig, environment_factory, make_plan, view
from pliant.training import Trainer
from pliant.types import EnvironmentStream, World

ENVS, LENGTH, EPOCHS, BATCH, RATE = 64, 64, 4, 512, 1e-3
SIZE = ENVS * LENGTH
SETTINGS = {"minatar": ("minatar.games=breakout",), "octax": ("octax.games=brix",), "cartpole": ()}
WIDTHS = (64,) * 4


def engine(environment: str, rollouts: int, seeds: int = 1, **choices: Any) -> Callable[[], None]:
    """A task of `pliant run`, without its files."""
    config = AgentConfig(
        environment=environment,
        methods=("adam",),
        seeds=seeds,
        tasks=10**6,
        env_steps=rollouts * SIZE,
        batch_size=BATCH,
        widths=WIDTHS,
        learning_rate=RATE,
        eval_episodes=0,
        settings=(*SETTINGS[environment], "adam.eps=1e-5"),
        **choices,
    )
    plan = make_plan(config)
    trainer, index = Trainer(config, plan.methods[0], range(seeds), {}), iter(range(10**6))

    def run() -> None:
        trainer.learn(next(index), lambda *_: None)

    return run


class Carry(NamedTuple):
    """Of the loop by hand."""

    params: Any
    optimizer: Any
    state: Any
    observation: Any
    key: Any


def by_hand(stream: EnvironmentStream, rollouts: int) -> Callable[[], None]:
    """The shortest loop: one function, `lax.scan` over rollouts, steps, epochs and minibatches."""
    (environment,) = stream.environments
    task = stream.task(jax.random.key(0), 0)
    world = World(stream.data, task)
    tx = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(RATE, eps=1e-5))
    num_inputs = int(np.prod(stream.inputs.shape))

    def mlp(key: Any, out: int) -> list[Any]:
        sizes = (num_inputs, *WIDTHS, out)
        keys = jax.random.split(key, len(sizes))
        return [
            (jax.nn.initializers.he_normal()(keys[i], sizes[i : i + 2]), jnp.zeros(sizes[i + 1]))
            for i in range(len(sizes) - 1)
        ]

    def apply(layers: list[Any], x: Any) -> Any:
        for kernel, bias in layers[:-1]:
            x = jax.nn.relu(x @ kernel + bias)
        return x @ layers[-1][0] + layers[-1][1]

    def outputs(params: Any, observation: Any) -> tuple[Any, Any]:
        x = view(environment, observation, world).reshape(len(observation), -1)
        return apply(params["actor"], x), apply(params["critic"], x)[:, 0]

    reset, step = jax.vmap(environment.reset, (0, None)), jax.vmap(environment.step, (0, 0, 0, None))

    def loss(params: Any, batch: Any) -> Any:
        observation, action, old, _, advantage, target = batch
        logits, value = outputs(params, observation)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], 1)[:, 0]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = jnp.exp(log_prob - old)
        gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage)
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
        return (-gain + 0.25 * (value - target) ** 2 - 0.01 * entropy).mean()

    def rollout(carry: Carry, _: Any) -> tuple[Carry, Any]:
        def act(moving: tuple[Any, Any], key: Any) -> tuple[Any, Any]:
            state, observation = moving
            of_action, of_step, of_reset = jax.random.split(key, 3)
            logits, value = outputs(carry.params, observation)
            action = jax.random.categorical(of_action, logits)
            log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), action[:, None], 1)[:, 0]
            state, outcome = step(jax.random.split(of_step, ENVS), state, action, world)
            done = outcome.terminated | outcome.truncated
            fresh = reset(jax.random.split(of_reset, ENVS), world)

            def chosen(new: Any, old: Any) -> Any:
                return jnp.where(done.reshape(-1, *([1] * (new.ndim - 1))), new, old)

            state, after = jax.tree.map(chosen, fresh, (state, outcome.observation))
            return (state, after), (observation, action, log_prob, value, outcome.reward, done)

        key, of_steps, of_order = jax.random.split(carry.key, 3)
        moving = carry.state, carry.observation
        (state, observation), taken = jax.lax.scan(act, moving, jax.random.split(of_steps, LENGTH))
        *_, value, reward, done = taken

        def back(later: tuple[Any, Any], now: tuple[Any, Any, Any]) -> tuple[Any, Any]:
            advantage, following = later
            now_value, now_reward, now_done = now
            delta = now_reward + 0.99 * (1 - now_done) * following - now_value
            advantage = delta + 0.99 * 0.95 * (1 - now_done) * advantage
            return (advantage, now_value), advantage

        last = outputs(carry.params, observation)[1]
        _, advantage = jax.lax.scan(back, (jnp.zeros(ENVS), last), (value, reward, done), reverse=True)
        flat = jax.tree.map(
            lambda leaf: leaf.reshape(SIZE, *leaf.shape[2:]), (*taken[:4], advantage, advantage + value)
        )

        def update(learner: Any, chosen: Any) -> tuple[Any, Any]:
            params, optimizer = learner
            value, gradients = jax.value_and_grad(loss)(params, jax.tree.map(lambda leaf: leaf[chosen], flat))
            updates, optimizer = tx.update(gradients, optimizer, params)
            return (optax.apply_updates(params, updates), optimizer), value

        orders = jax.vmap(lambda k: jax.random.permutation(k, SIZE))(jax.random.split(of_order, EPOCHS))
        learner, losses = jax.lax.scan(update, (carry.params, carry.optimizer), orders.reshape(-1, BATCH))
        return Carry(*learner, state, observation, key), losses.mean()

    of_actor, of_critic, of_reset, key = jax.random.split(jax.random.key(0), 4)
    params = {"actor": mlp(of_actor, stream.num_actions), "critic": mlp(of_critic, 1)}
    state, observation = jax.jit(reset)(jax.random.split(of_reset, ENVS), world)
    holder = [Carry(params, tx.init(params), state, observation, key)]
    train = jax.jit(lambda carry: jax.lax.scan(rollout, carry, length=rollouts))

    def run() -> None:
        holder[0], losses = train(holder[0])
        jax.block_until_ready(losses)

    return run


def in_torch(stream: EnvironmentStream, rollouts: int) -> Callable[[], None]:
    """CleanRL's way: eager PyTorch, one call to step all copies; these are stepped by one compiled function."""
    import torch

    (environment,) = stream.environments
    world = World(stream.data, stream.task(jax.random.key(0), 0))

    @jax.jit
    def reset(key: Any) -> Any:
        return jax.vmap(environment.reset, (0, None))(jax.random.split(key, ENVS), world)

    @jax.jit
    def pictures(observation: Any) -> Any:
        return view(environment, observation, world)

    @jax.jit
    def step(key: Any, state: Any, action: Any) -> Any:
        state, outcome = jax.vmap(environment.step, (0, 0, 0, None))(jax.random.split(key, ENVS), state, action, world)
        done = outcome.terminated | outcome.truncated
        fresh = reset(jax.random.fold_in(key, 1))

        def chosen(new: Any, old: Any) -> Any:
            return jnp.where(done.reshape(-1, *([1] * (new.ndim - 1))), new, old)

        state, observation = jax.tree.map(chosen, fresh, (state, outcome.observation))
        return state, observation, outcome.reward, done

    def network(out: int) -> Any:
        layers: list[Any] = []
        size = int(np.prod(stream.inputs.shape))
        for width in WIDTHS:
            layers += [torch.nn.Linear(size, width), torch.nn.ReLU()]
            size = width
        return torch.nn.Sequential(*layers, torch.nn.Linear(size, out))

    actor, critic = network(stream.num_actions), network(1)
    parameters = [*actor.parameters(), *critic.parameters()]
    adam = torch.optim.Adam(parameters, lr=RATE, eps=1e-5)

    def as_inputs(observation: Any) -> Any:
        return torch.from_numpy(np.array(pictures(observation)).reshape(ENVS, -1)).float()

    holder = [(*reset(jax.random.key(0)), 0)]

    def run() -> None:
        state, observation, number = holder[0]
        for _ in range(rollouts):
            taken: list[list[Any]] = [[] for _ in range(6)]
            for _ in range(LENGTH):
                x = as_inputs(observation)
                with torch.no_grad():
                    policy, value = torch.distributions.Categorical(logits=actor(x)), critic(x)[:, 0]
                    action = policy.sample()
                    log_prob = policy.log_prob(action)
                state, observation, reward, done = step(jax.random.key(number), state, action.numpy())
                number += 1
                for values, each in zip(
                    taken,
                    (x, action, log_prob, value, torch.from_numpy(np.array(reward)), torch.from_numpy(np.array(done))),
                    strict=True,
                ):
                    values.append(each)
            xs, actions, log_probs, values, rewards, dones = (torch.stack(each) for each in taken)
            with torch.no_grad():
                following, advantage = critic(as_inputs(observation))[:, 0], torch.zeros(ENVS)
                advantages = torch.zeros_like(rewards)
                for t in reversed(range(LENGTH)):
                    goes_on = 1.0 - dones[t].float()
                    delta = rewards[t] + 0.99 * goes_on * following - values[t]
                    advantage = advantages[t] = delta + 0.99 * 0.95 * goes_on * advantage
                    following = values[t]
            flat = [each.reshape(SIZE, *each.shape[2:]) for each in (xs, actions, log_probs, advantages)]
            flat.append((advantages + values).reshape(SIZE))
            for _ in range(EPOCHS):
                for chosen in torch.randperm(SIZE).reshape(-1, BATCH):
                    x, action, old, gain, target = (each[chosen] for each in flat)
                    policy = torch.distributions.Categorical(logits=actor(x))
                    ratio = (policy.log_prob(action) - old).exp()
                    gain = (gain - gain.mean()) / (gain.std() + 1e-8)
                    surrogate = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
                    error = 0.25 * (critic(x)[:, 0] - target).square().mean()
                    loss = surrogate + error - 0.01 * policy.entropy().mean()
                    adam.zero_grad()
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(parameters, 0.5)
                    adam.step()
        holder[0] = (state, observation, number)

    return run


_REJAX = """
    import sys, gymnax, jax
    from rejax import PPO
    rollouts = int(sys.argv[1])
    game, params = gymnax.make("Breakout-MinAtar")
    game.obs_shape = (10, 10, 10)  # with as many channels as the others see
    made = PPO.create(
        env=game, env_params=params, num_envs={envs}, num_steps={length}, num_epochs={epochs},
        num_minibatches={minibatches}, learning_rate={rate}, max_grad_norm=0.5, ent_coef=0.01, vf_coef=0.5,
        clip_eps=0.2, gamma=0.99, gae_lambda=0.95, agent_kwargs=dict(activation="relu", hidden_layer_sizes={widths}),
        total_timesteps=rollouts * {size}, eval_freq=rollouts * {size}, skip_initial_evaluation=True,
    )
    made = made.replace(eval_callback=lambda algo, state, rng: ())
    train = jax.jit(made.train)
    jax.block_until_ready(train(jax.random.PRNGKey(0)))
    print("ready", flush=True)
    for line in sys.stdin:
        jax.block_until_ready(train(jax.random.PRNGKey(int(line))))
        print("done", flush=True)
"""


def in_rejax(python: str, rollouts: int) -> Callable[[], None]:
    """A process of rejax that trains whenever it is asked to."""
    numbers = {"envs": ENVS, "length": LENGTH, "epochs": EPOCHS, "minibatches": SIZE // BATCH, "rate": RATE}
    code = textwrap.dedent(_REJAX).format(**numbers, widths=WIDTHS, size=SIZE)
    process = subprocess.Popen(
        [python, "-c", code, str(rollouts)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    if process.stdout.readline().strip() != "ready":
        raise SystemExit(f"{python} cannot run rejax: install rejax and gymnax==0.0.9 there")

    def run() -> None:
        assert process.stdin
        assert process.stdout
        process.stdin.write("1\n")
        process.stdin.flush()
        process.stdout.readline()

    return run


if __name__ == "__main__":
    parser = options(__doc__ or "")
    parser.add_argument("--environment", choices=list(SETTINGS), default="minatar")
    parser.add_argument("--rollouts", type=int, default=16, help="rollouts of 4,096 steps in every round")
    parser.add_argument("--rejax", help="a Python with rejax")
    parser.add_argument("--without-torch", action="store_true")
    chosen = parser.parse_args()
    name, rollouts = chosen.environment, chosen.rollouts
    factory = environment_factory(name)
    stream = factory(num_tasks=1, **({"games": (SETTINGS[name][0].partition("=")[2],)} if SETTINGS[name] else {}))
    candidates = {
        "pliant, no diagnostics": engine(name, rollouts, diagnostics=()),
        "pliant, basic diagnostics": engine(name, rollouts),
        "by hand": by_hand(stream, rollouts),
    }
    if not chosen.without_torch:
        candidates["PyTorch"] = in_torch(stream, rollouts)
    if chosen.rejax:
        candidates["rejax"] = in_rejax(chosen.rejax, rollouts)
    seconds = alternate(candidates, chosen.repeats)
    first = seconds["pliant, no diagnostics"]
    rows = [
        {"what": what, "env steps/s": rollouts * SIZE / each, "pliant against it": each / first}
        for what, each in seconds.items()
    ]
    report(rows, chosen.json)
