"""What a run of an agent is."""

import dataclasses
from typing import Literal

from pliant.training import Protocol

Agent = Literal["ppo", "dqn"]


@dataclasses.dataclass(frozen=True)
class AgentConfig(Protocol):
    """A run of an agent: methods that learn the same sequence of environments, each with several seeds."""

    environment: str = "cartpole"
    """Environments; see `pliant list environments`. Your own is path/to/file.py:name."""
    agent: Agent = "ppo"
    """How the agent learns. Its options are set with --set, such as ppo.clip=0.1; see `pliant show ppo`."""
    env_steps: int = 163_840
    """Steps of the environment in each task, over all copies of it; rounded down to whole rollouts."""
    eval_episodes: int = 16
    """Episodes that are played to evaluate at the end of each task; 0 for none."""
    curve_points: int = 1
    """Points of the learning curve of each task, with an evaluation at each."""
    on: Literal["both", "actor", "critic"] = "both"
    """Which of the networks of an agent the methods act on. The other is trained by Adam with the same options."""
    dataset: str | None = None
    """Data set of environments that show images; see `pliant run --help`. By default digits."""
    train_size: int | None = None
    """Balanced subset of the images."""
    standardize: Literal["default", "channel", "pixel", "half"] = "default"
    """Mean 0 and variance 1 of each channel or pixel, or (x − ½)/½ of images in [0, 1]; by default the data set's."""
    methods: tuple[str, ...] = ("adam", "l2-init", "redo", "adamo")
    """Methods; see `pliant list methods`. Several as one: redo+layernorm. Your own is path/to/file.py:name. On the
    command line "all" stands for every one that suits the run."""
    tasks: int = 1
    """Number of tasks: games, one after the other, or stretches of the same environment."""
    batch_size: int = 512
    """Examples in an update: a minibatch of a rollout, or a sample of the replay."""
    widths: tuple[int, ...] | None = (64, 64)
    """Units of the hidden dense layers; by default the network's own."""
    use_bias: bool = True
    """Whether layers have biases."""
