"""The program of a process that trains small runs on simulated devices; `tests/training/test_devices.py` starts it.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/on_devices.py OUT wide ppo-wide
"""

import json
import sys
from pathlib import Path

import jax

from pliant.problems import make_plan
from pliant.rl import AgentConfig
from pliant.supervised import RunConfig
from pliant.training import Trainer, train

IMAGES = {"tasks": 2, "steps": 8, "train_size": 96, "test_size": 32, "batch_size": 16, "probe_size": 16}
STEPS = {"tasks": 2, "env_steps": 512, "batch_size": 64, "probe_size": 16, "eval_episodes": 2}
PPO = ("ppo.num_envs=4", "ppo.rollout_length=32", "redo.every=3")
RUNS = {
    # Wide layers train one seed after another: the program of a seed is the same on every device.
    "wide": RunConfig(
        methods=("redo+l2-init",),
        seeds=5,
        widths=(72,),
        settings=("redo+l2-init.every=3",),
        grid=("learning_rate=0.001,0.01",),
        **IMAGES,
    ),
    "ppo-wide": AgentConfig(methods=("redo",), seeds=11, widths=(72,), settings=PPO, **STEPS),
    # One batch of the seeds of a device, or convolutions: rounding depends on the number of seeds.
    "narrow": RunConfig(
        methods=("redo+l2-init",), seeds=11, widths=(16,), settings=("redo+l2-init.every=3",), **IMAGES
    ),
    "cnn": RunConfig(
        methods=("adam",), network="cnn", seeds=11, widths=(16,), settings=("cnn.channels=4,4,4",), **IMAGES
    ),
    "ppo": AgentConfig(methods=("redo",), seeds=11, widths=(16,), settings=PPO, **STEPS),
}
"""Numbers of seeds, times points of the grid, that eight devices cannot share evenly."""
SIZED = 8
"""Seeds of the learners whose memory is measured."""


def bytes_by_device(config) -> list[int]:
    """What a learner with its source holds on each device after a task."""
    plan = make_plan(config)
    trainer = Trainer(plan.protocol, plan.methods[0], range(SIZED), {})
    trainer.learn(0, lambda *_: None)
    sizes = dict.fromkeys(jax.devices(), 0)
    for leaf in jax.tree.leaves((trainer._carry, trainer._source_state)):
        for shard in leaf.addressable_shards:
            sizes[shard.device] += shard.data.nbytes
    return list(sizes.values())


if __name__ == "__main__":
    folder, *names = sys.argv[1:]
    for name in names:
        train(make_plan(RUNS[name]), Path(folder) / name)
    held = {name: bytes_by_device(RUNS[name]) for name in names if name in ("wide", "ppo-wide")}
    Path(folder, "held.json").write_text(json.dumps({"devices": jax.device_count(), "held": held}))
