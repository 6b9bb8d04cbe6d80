"""What PPO has learned after equal steps: pliant beside rejax, an independent implementation.

    pip install -e '.[rl]'
    python benchmarks/ppo_parity.py --rejax rejax-env/bin/python      # an interpreter with `rejax gymnax==0.0.9`

The same copies, rollouts, epochs, minibatches, networks and numbers; returns of 128 episodes with the policy sampled,
after the last update. Seeds and initial weights differ, so the two agree within the noise of seeds: the table has
the difference of the means in standard errors. pliant does here as rejax does: gradients are clipped element by
element, values are clipped, hidden kernels begin with a gain of 1. What stays different: rejax draws normal kernels,
with a larger one for the policy's head, and takes the end of an episode at its time limit for a terminal state.
"""

import json
import subprocess
import tempfile
import textwrap
from pathlib import Path

import numpy as np

from _timing import options, report
from pliant.rl import AgentConfig, make_plan
from pliant.rl.environments import from_gymnax
from pliant.specs import Objects
from pliant.training import train
from pliant.xla import guard

STEPS = {"CartPole-v1": 131_072, "Breakout-MinAtar": 491_520}
ENVS, LENGTH, EPOCHS, BATCH, RATE, WIDTHS = 64, 64, 4, 512, 5e-4, (64, 64)

_REJAX = """
    import json, sys, jax, numpy
    from rejax import PPO
    name, steps, seeds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    made = PPO.create(
        env=name, num_envs={envs}, num_steps={length}, num_epochs={epochs}, num_minibatches={minibatches},
        learning_rate={rate}, max_grad_norm=0.5, ent_coef=0.01, vf_coef=0.5, clip_eps=0.2, gamma=0.99,
        gae_lambda=0.95, agent_kwargs=dict(activation="relu", hidden_layer_sizes={widths}), total_timesteps=steps,
        eval_freq=steps, skip_initial_evaluation=True,
    )
    _, (lengths, returns) = jax.jit(jax.vmap(made.train))(jax.random.split(jax.random.PRNGKey(0), seeds))
    print(json.dumps(numpy.asarray(returns)[:, -1].mean(axis=-1).tolist()))
"""


def of_rejax(python: str, name: str, env_steps: int, seeds: int) -> list[float]:
    """Final returns, one for each seed."""
    numbers = {"envs": ENVS, "length": LENGTH, "epochs": EPOCHS, "minibatches": ENVS * LENGTH // BATCH, "rate": RATE}
    code = textwrap.dedent(_REJAX).format(**numbers, widths=WIDTHS)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", code, name, str(env_steps), str(seeds)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    returns: list[float] = json.loads(done.stdout.splitlines()[-1])
    return returns


def of_pliant(name: str, env_steps: int, seeds: int) -> list[float]:
    """Final returns, one for each seed, in the environment of gymnax as it is."""
    import gymnax  # which computes when it is imported: too early for the flags that pliant sets

    config = AgentConfig(
        environment=name,
        methods=("adam",),
        seeds=seeds,
        env_steps=env_steps,
        batch_size=BATCH,
        widths=WIDTHS,
        learning_rate=RATE,
        eval_episodes=128,
        settings=("ppo.grad_clip=elementwise", "ppo.clips_values=true", "mlp.gain=1"),
    )
    plan = make_plan(config, objects=Objects(environment={name: from_gymnax(*gymnax.make(name))}))
    with tempfile.TemporaryDirectory() as out:
        metrics = train(plan, Path(out) / "run").metrics
    values: list[float] = metrics[metrics["metric"] == "eval_return"]["value"].tolist()
    return values


if __name__ == "__main__":
    guard.use_every_core()
    parser = options(__doc__ or "")
    parser.add_argument("--rejax", required=True, help="a Python with rejax")
    parser.add_argument("--seeds", type=int, default=8)
    chosen = parser.parse_args()
    rows = []
    for name, steps in STEPS.items():
        both = {
            "pliant": of_pliant(name, steps, chosen.seeds),
            "rejax": of_rejax(chosen.rejax, name, steps, chosen.seeds),
        }
        errors = {who: np.std(values, ddof=1) / np.sqrt(len(values)) for who, values in both.items()}
        means = {who: np.mean(values) for who, values in both.items()}
        apart = float((means["pliant"] - means["rejax"]) / np.hypot(errors["pliant"], errors["rejax"]))
        shown = {who: f"{means[who]:.2f} ± {errors[who]:.2f}" for who in both}
        rows.append({"environment": name, "steps": steps} | shown | {"apart, in standard errors": apart})
    report(rows, chosen.json)
