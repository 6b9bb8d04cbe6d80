"""The studies of agents of *Understanding Plasticity in Neural Networks*."""

from typing import Any

from pliant.experiments.benchmarks._benchmark import Benchmark, make_benchmark

_REFERENCE = "Lyle et al. 2023 (arXiv 2303.01486)"
_ITERATION = 1000  # updates between two copies of the target network; with one environment step each
_ITERATIONS = 100
_EVERY_FIFTH = tuple(range(5, _ITERATIONS + 1, 5))  # every 5,000 updates
_PROBE = "probe-plasticity:num_targets=10:num_steps=2000:initial=true"
_EPSILON = ("dqn.epsilon_start=0.1", "dqn.epsilon_final=0.1")
_REPLAY = ("dqn.replay_size=100000",)

_MDP: dict[str, Any] = {
    "environment": "classification-mdp",
    "agent": "dqn",
    "dataset": "mnist",
    "network": "mlp",
    "widths": (512, 512),
    "learning_rate": 1e-3,
    "batch_size": 512,
    "env_steps": _ITERATION,
    "tasks": _ITERATIONS,
    "seeds": 5,
    "eval_episodes": 4,
    "diagnostics": ("basic", _PROBE),
    "diagnose_after": _EVERY_FIFTH,
}
_SHORT: dict[str, Any] = {"batch_size": 32, "env_steps": 5000, "tasks": 10, "diagnose_after": (1, 2, 5, 10)}
_MDP_CPU: dict[str, Any] = {"widths": (64, 64)} | _SHORT
_SMALL_PROBE = "probe-plasticity:num_targets=3:num_steps=500:initial=true"
_SHORT_PROBE = "probe-plasticity:num_targets=2:num_steps=100:initial=true"
_MDP_SMOKE: dict[str, Any] = {
    "dataset": "digits",
    "widths": (32, 32),
    "batch_size": 32,
    "env_steps": 500,
    "tasks": 2,
    "seeds": 2,
    "eval_episodes": 2,
    "diagnostics": ("basic", _SHORT_PROBE),
    "diagnose_after": (),
}

_MDP_NOTES = """\
Published: ten states and ten actions, the rewards and transitions of the three variants, 100 iterations of 1,000
updates, two hidden layers of 512, a replay of 100,000 transitions, actions at random with probability 0.1, and the
probe: every 5,000 updates copies are trained for 2,000 updates on each of 10 random functions. The target network is
copied every 1,000 updates (section 4.1); appendix A.2 says every 10,000: --set dqn.target_every=10000.

Ours: double Q-learning with Adam at 1e-3, discount 0.99, batches of 512 as in section 3.2, one step of the environment
an update, the whole training set{data}, five seeds. Copies of the initial network are trained on the same functions, so
that the increase of the probe's loss is reported beside the loss. At the scale cpu: two layers of 64, batches of 32,
50,000 updates.
"""


def _settings(variant: str = "easy", *others: str) -> tuple[str, ...]:
    return (f"classification-mdp.variant={variant}", "dqn.target_every=1000", *_REPLAY, *_EPSILON, *others)


def _mdp(variant: str, dataset: str) -> Benchmark:
    data = ", and digits of 8 × 8 pixels, for runs without a download" if dataset == "digits" else ""
    return make_benchmark(
        f"lyle/mdp-{variant}-{dataset}",
        f"double DQN in the {variant} classification MDP on {dataset}: plasticity by age",
        f"{_REFERENCE}, section 4.1 and appendix A.2",
        _MDP_NOTES.format(data=data),
        paper=_MDP | {"dataset": dataset, "methods": ("adam", "layernorm"), "settings": _settings(variant)},
        cpu=_MDP_CPU,
        smoke=_MDP_SMOKE,
    )


_INTERVENTIONS = ("adam", "two-hot", "head-reset", "optimizer-reset", "l2", "shrink-perturb")
_OF_LAYERS = ("layernorm", "spectral-norm-layer")
_OF_METHODS = ("l2.strength=1e-05", "shrink-perturb.perturb=1", "two-hot.low=0", "two-hot.high=100")
_LYLE_CNN = ("cnn.channels=64,64", "cnn.kernel_sizes=5,3", "cnn.strides=2,2", "cnn.pool=1,1")
_SMALL_CNN = ("cnn.channels=8,8", *_LYLE_CNN[1:])
_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"network": "mlp", "widths": (512, 512)},
    "cnn": {"network": "cnn", "widths": (256, 256)},
    "resnet18": {"network": "resnet18", "widths": None},
    "vit": {"network": "lyle-vit", "widths": None},
}

_INTERVENTION_NOTES = """\
Published: the four architectures; 100 iterations of 1,000 updates, with a copy to the target network after each;
values as classes (two-hot), a new head or optimizer state at every copy, weight decay 1e-5, shrunk weights and those of
a new network added at every copy, and for the MLP and the CNN LayerNorm and a spectral norm in the first dense layer;
the increase of the loss on 10 random functions, from the first iteration to the last, on CIFAR-10 (figure 6) and MNIST
(figure 9).

Ours: the easy variant; weights shrunk by 0.4; 51 bins from 0 to 100; and what is ours in lyle/mdp-easy-cifar10. Each
iteration is a task, so methods that act at a task switch act at every copy. At the scale cpu: {cpu}; three random
functions that copies are trained on for 500 updates.
"""
_CPU_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("two layers of 64, 20 iterations, batches of 32", {"widths": (64, 64)}),
    "cnn": (
        "8 channels and two layers of 64, 20 iterations, batches of 32",
        {"widths": (64, 64)},
    ),
    "resnet18": (
        "8 channels in the first stage and one block in each, digits, 10 iterations of 200 updates, batches of 16",
        {"dataset": "digits"},
    ),
    "vit": ("digits, 10 iterations of 200 updates, batches of 16", {"dataset": "digits"}),
}
_SMALL_OF: dict[str, tuple[str, ...]] = {
    "mlp": (),
    "cnn": _SMALL_CNN,
    "resnet18": ("resnet18.width=8", "resnet18.num_blocks=1,1,1,1"),
    "vit": (),
}


def _interventions(name: str) -> Benchmark:
    is_plain = name in ("mlp", "cnn")
    methods = (*_INTERVENTIONS, *_OF_LAYERS) if is_plain else _INTERVENTIONS
    settings = (*_settings("easy"), *_OF_METHODS)
    small = (*settings, *_SMALL_OF[name])
    text, of_cpu = _CPU_OF[name]
    return make_benchmark(
        f"lyle/interventions/{name}",
        f"interventions against the loss of plasticity of double DQN, {name} of Lyle et al. 2023",
        f"{_REFERENCE}, section 5.2 and figures 6, 8 and 9",
        _INTERVENTION_NOTES.format(cpu=text),
        paper=_MDP
        | {"dataset": "cifar10", "methods": methods}
        | {"settings": (*settings, *(_LYLE_CNN if name == "cnn" else ()))}
        | _NETWORKS[name],
        cpu={"batch_size": 32 if is_plain else 16, "settings": small, "seeds": 3}
        | {"env_steps": 1000 if is_plain else 200, "tasks": 20 if is_plain else 10}
        | {"diagnose_after": (5, 20) if is_plain else (10,)}
        | {"diagnostics": ("basic", _SMALL_PROBE)}
        | of_cpu,
        smoke=_MDP_SMOKE
        | {
            "methods": ("adam", "two-hot", "head-reset"),
            "env_steps": 100,
            "seeds": 1,
            "batch_size": 16,
            "settings": small,
        }
        | {"widths": (32, 32) if is_plain else None},
    )


_WIDTH_NOTES = """\
Published: hidden layers of 16, 32, 64, 128, 192 and 256 units, MNIST and CIFAR-10, an MLP and a CNN, and copies to the
target network every 1, 100 and 1,000 updates; the increase of the loss on random functions (figure 5). This is the MLP
with two layers of {width}, on MNIST, with copies every 1,000 updates. The others: --dataset cifar10,
--set dqn.target_every=1, and the settings of lyle/interventions/cnn.

Ours: the easy variant, and what is ours in lyle/mdp-easy-mnist. At the scale cpu: batches of 32, 50,000 updates, and
three random functions that copies are trained on for 500 updates.
"""


def _width(width: int) -> Benchmark:
    return make_benchmark(
        f"lyle/width/{width}",
        f"double DQN in the easy classification MDP on MNIST: plasticity of an MLP with layers of {width}",
        f"{_REFERENCE}, section 5.1 and figure 5",
        _WIDTH_NOTES.format(width=width),
        paper=_MDP | {"methods": ("adam",), "widths": (width, width), "settings": _settings()},
        cpu=_SHORT | {"diagnostics": ("basic", _SMALL_PROBE)},
        smoke=_MDP_SMOKE | {"widths": (width, width)},
    )


_FALSIFICATION_NOTES = """\
Published: 128 DQN agents with the three rewards, MNIST and CIFAR-10, an MLP and a CNN, several optimizers and seeds;
copies to the target network every 1,000 updates; every 5,000 updates the norm and rank of the weights, the rank of the
features, the number of dead units, and the loss on 10 random functions after 2,000 updates (figure 3).

Ours: how many agents each of the twelve benchmarks lyle/falsification/... has: four seeds each of Adam, Adam with b2 =
0.9 and a damped root, and SGD at 0.01 in easy and hard, and the first two in sparse, which makes 8 × 12 + 4 × 8 = 128;
and what is ours in lyle/mdp-easy-mnist. At the scale cpu: layers of 64, batches of 32, 20,000 updates (CNN: 8 channels,
10,000 updates), and three random functions that copies are trained on for 500 updates.
"""
_STATISTICS = ("basic", "dead", "feature-rank", "srank", "weight-spectra", _PROBE)


def _falsification(variant: str, dataset: str, name: str) -> Benchmark:
    is_cnn = name == "cnn"
    methods = ("adam", "adam-tuned") if variant == "sparse" else ("adam", "adam-tuned", "sgd")
    settings = (*_settings(variant), "sgd.learning_rate=0.01")
    small = (*settings, *(_SMALL_CNN if is_cnn else ()))
    return make_benchmark(
        f"lyle/falsification/{variant}-{dataset}-{name}",
        f"statistics and plasticity of {4 * len(methods)} DQN agents: {variant}, {dataset}, {name}",
        f"{_REFERENCE}, section 4 and figure 3",
        _FALSIFICATION_NOTES,
        paper=_MDP
        | {"dataset": dataset, "methods": methods, "seeds": 4, "diagnostics": _STATISTICS}
        | {"settings": (*settings, *(_LYLE_CNN if is_cnn else ()))}
        | _NETWORKS[name],
        cpu=_SHORT
        | {"tasks": 4, "diagnose_after": (1, 4), "widths": (64, 64), "settings": small}
        | {"diagnostics": (*_STATISTICS[:-1], _SMALL_PROBE)}
        | ({"env_steps": 2500} if is_cnn else {}),
        smoke=_MDP_SMOKE | {"diagnostics": (*_STATISTICS[:-1], _SHORT_PROBE), "settings": small, "env_steps": 200},
    )


_BROWNIAN_NOTES = """\
Published: Q-learning with SGD at 0.001 on batches of 512 transitions of the easy MDP on MNIST, with a copy to the
target network every 5,000 updates; beside it a random walk with steps of the same lengths from the same start. Spectra
of the Hessian of a regression to the network's own perturbed output, and cosines between the gradients of 512
examples, ordered by 10 clusters, after 1, 5 and 20 copies (figure 2).

Ours: two hidden layers of 512, discount 0.99, a replay of 100,000 transitions, actions at random with probability 0.1,
four seeds. Each period of the target network is a task; after tasks 1, 5 and 20 everything is measured, at both
networks. At the scale cpu: two layers of 64, batches of 64, periods of 1,000 updates, five
seeds.
"""
_BROWNIAN = make_benchmark(
    "lyle/brownian",
    "Q-learning with SGD in the easy classification MDP on MNIST, beside a random walk with steps of equal length",
    f"{_REFERENCE}, section 3.2, appendix A.1 and figure 2",
    _BROWNIAN_NOTES,
    paper=_MDP
    | {
        "methods": ("sgd",),
        "settings": (
            "classification-mdp.variant=easy",
            "dqn.double=false",
            "dqn.target_every=5000",
            *_REPLAY,
            *_EPSILON,
        ),
        "env_steps": 5000,
        "tasks": 20,
        "seeds": 4,
        "probe_size": 512,
        "diagnostics": ("basic", "hessian-density", "gradient-cosine", "brownian-twin"),
        "diagnose_after": (1, 5, 20),
    },
    cpu={"widths": (64, 64), "batch_size": 64, "env_steps": 1000, "seeds": 5},
    smoke=_MDP_SMOKE
    | {"diagnostics": ("basic", "gradient-cosine", "brownian-twin"), "probe_size": 32, "widths": (16,), "seeds": 1},
)

_ATARI_NOTES = """\
Published: double DQN of DQN Zoo, with and without LayerNorm behind every hidden layer, 57 games with three seeds each;
200 million frames, an update every 4 steps, RMSProp, stacks of 4 frames, a replay of 100,000 transitions, actions at
random with probability 0.1.

Authors' code (DQN Zoo): centred RMSProp at 0.00025 with decay 0.95 and ϵ = 0.01/32² inside the root; batches
of 32, errors clipped to 1, discount 0.99, copies to the target network every 30,000 steps, ϵ-greedy from 1 in the first
million steps, ϵ = 0.01 in evaluations; 4 frames a step, up to 30 without action, rewards clipped to 1, lost lives end
episodes, games of at most half an hour, no sticky actions; convolutions 32 × 8 × 8, 64 × 4 × 4, 64 × 3 × 3 without
padding, and 512 units.

Ours: one game, Space Invaders, where LayerNorm helps (--set atari.games=breakout for another); 200 tasks of a million
frames, with 10 evaluation games and a copy to the target network after each; updates begin after 5,000 random steps
(5 % of the replay, as in DQN Zoo); orthogonal initialisation; a bias for every action. At the scale cpu: 16 and 32
channels, 80,000 frames: it shows what a run costs, not that it learns.
"""
_ATARI_SETTINGS = {
    "atari.games": "space_invaders",
    "atari.sticky": "0",
    "atari.frame_skip": "4",
    "atari.frame_stack": "4",
    "atari.noop_max": "31",
    "atari.max_episode_frames": "108000",
    "atari.clip_rewards": "true",
    "atari.life_loss": "true",
    "cnn.channels": "32,64,64",
    "cnn.kernel_sizes": "8,4,3",
    "cnn.strides": "4,2,1",
    "cnn.pool": "1,1,1",
    "cnn.padding": "VALID",
    "dqn.steps_per_update": "4",
    "dqn.replay_size": "100000",
    "dqn.min_replay": "5000",
    "dqn.target_every": "7500",
    "dqn.epsilon_start": "1",
    "dqn.epsilon_final": "0.1",
    "dqn.epsilon_steps": "1000000",
    "dqn.eval_epsilon": "0.01",
    "dqn.loss": "huber",
}
_ATARI_CPU = {
    "cnn.channels": "16,32",
    "cnn.kernel_sizes": "8,4",
    "cnn.strides": "4,2",
    "cnn.pool": "1,1",
    "dqn.replay_size": "20000",
    "dqn.min_replay": "1000",
    "dqn.target_every": "250",
    "dqn.epsilon_steps": "10000",
}
_ATARI_SMOKE = _ATARI_CPU | {
    "atari.max_episode_frames": "400",
    "cnn.channels": "4",
    "cnn.kernel_sizes": "8",
    "cnn.strides": "8",
    "cnn.pool": "1",
    "dqn.replay_size": "500",
    "dqn.min_replay": "100",
}


def _lines(settings: dict[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in settings.items())


_ATARI = make_benchmark(
    "lyle/atari-double-dqn",
    "double DQN on an Atari game, with and without LayerNorm",
    f"{_REFERENCE}, section 5.3 and appendix A.3; Quan and Ostrovski 2020, DQN Zoo",
    _ATARI_NOTES,
    paper={
        "environment": "atari",
        "agent": "dqn",
        "network": "cnn",
        "widths": (512,),
        "methods": ("rmsprop", "rmsprop+layernorm"),
        "settings": _lines(_ATARI_SETTINGS),
        "learning_rate": 0.00025,
        "batch_size": 32,
        "env_steps": 250_000,
        "tasks": 200,
        "seeds": 3,
        "eval_episodes": 10,
    },
    cpu={"settings": _lines(_ATARI_SETTINGS | _ATARI_CPU), "widths": (256,), "env_steps": 5000, "tasks": 4, "seeds": 1}
    | {"eval_episodes": 2, "probe_size": 128},
    smoke={
        "settings": _lines(_ATARI_SETTINGS | _ATARI_SMOKE),
        "widths": (16,),
        "env_steps": 100,
        "tasks": 2,
        "seeds": 1,
    }
    | {"eval_episodes": 1, "probe_size": 16},
)

BENCHMARKS = (
    *(_mdp(variant, dataset) for variant in ("easy", "hard", "sparse") for dataset in ("digits", "mnist", "cifar10")),
    *map(_interventions, _NETWORKS),
    *map(_width, (16, 32, 64, 128, 192, 256)),
    *(
        _falsification(variant, dataset, name)
        for variant in ("easy", "hard", "sparse")
        for dataset in ("mnist", "cifar10")
        for name in ("mlp", "cnn")
    ),
    _BROWNIAN,
    _ATARI,
)
