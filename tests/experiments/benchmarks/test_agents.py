"""The published numbers of the benchmarks of agents, pinned; every scale of each is planned, none is trained."""

import dataclasses
import functools
from importlib.util import find_spec

import pytest

from pliant.experiments import BENCHMARKS, SCALES, with_choices
from pliant.problems import kind_of, settings_in_use
from pliant.rl import AgentConfig, make_plan

VARIANTS = ("easy", "hard", "sparse")
WIDTHS = (16, 32, 64, 128, 192, 256)
OF_AGENTS = [name for name, benchmark in BENCHMARKS.items() if kind_of(benchmark.configs["paper"]) == "environment"]

# name: environment, agent, data set, steps a task, tasks, seeds, batch, learning rate, network, widths
MDP = ("classification-mdp", "dqn", "mnist", 1000, 100, 5, 512, 1e-3, "mlp", (512, 512))
ON_CIFAR = (*MDP[:2], "cifar10", *MDP[3:])
CNN = ("cnn", (256, 256))
PUBLISHED = (
    {
        "isometry/continual-minatar": ("minatar", "ppo", None, 15_000_000, 80, 8, 2048, 2.5e-4, "mlp", (64,) * 4),
        "isometry/continual-octax": ("octax", "ppo", None, 5_000_000, 24, 8, 512, 5e-4, "octax-cnn", (64,) * 4),
        "lyle/interventions/mlp": ON_CIFAR,
        "lyle/interventions/cnn": (*ON_CIFAR[:8], *CNN),
        "lyle/interventions/resnet18": (*ON_CIFAR[:8], "resnet18", None),
        "lyle/interventions/vit": (*ON_CIFAR[:8], "lyle-vit", None),
        "lyle/brownian": ("classification-mdp", "dqn", "mnist", 5000, 20, 4, 512, 1e-3, "mlp", (512, 512)),
        "predictors/mdp-mnist": ("classification-mdp", "dqn", "mnist", 20_000, 30, 8, 32, 1e-3, "mlp", (256, 256)),
        "lyle/atari-double-dqn": ("atari", "dqn", None, 250_000, 200, 3, 32, 0.00025, "cnn", (512,)),
    }
    | {f"lyle/width/{width}": (*MDP[:9], (width, width)) for width in WIDTHS}
    | {
        f"lyle/mdp-{variant}-{data}": (*MDP[:2], data, *MDP[3:])
        for variant in VARIANTS
        for data in ("digits", "mnist", "cifar10")
    }
    | {
        f"lyle/falsification/{variant}-{data}-{network}": (*MDP[:2], data, *MDP[3:5], 4, *MDP[6:8], *of_network)
        for variant in VARIANTS
        for data in ("mnist", "cifar10")
        for network, of_network in {"mlp": MDP[8:], "cnn": CNN}.items()
    }
)
NEEDS = {"minatar": "gymnax", "octax": "octax", "atari": "ale_py"}


def _paper(name):
    return BENCHMARKS[name].configs["paper"]


def _settings(name, scale="paper"):
    return dict(setting.split("=") for setting in BENCHMARKS[name].configs[scale].settings)


def _updates(plan):
    return plan.methods[0].source.num_updates(0)


@functools.cache
def _plan(name, scale, dataset=None):
    """Digits stand in for data that must be downloaded."""
    config = BENCHMARKS[name].configs[scale]
    if config.environment in NEEDS and find_spec(NEEDS[config.environment]) is None:
        pytest.skip(f"{NEEDS[config.environment]} is not installed")
    config = dataclasses.replace(config, settings=settings_in_use(config.settings, config))
    return make_plan(dataclasses.replace(config, dataset=config.dataset and (dataset or "digits")))


def test_every_benchmark_is_pinned():
    assert set(PUBLISHED) == set(OF_AGENTS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    config = _paper(name)
    numbers = (config.environment, config.agent, config.dataset, config.env_steps, config.tasks, config.seeds)
    numbers += (config.batch_size, config.learning_rate, config.network, config.widths)
    assert numbers == PUBLISHED[name]
    assert config.use_bias


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", OF_AGENTS)
def test_every_scale_can_be_planned(name, scale):
    """All choices are accepted, and no setting is of something that the run does not have."""
    plan, config = _plan(name, scale), BENCHMARKS[name].configs[scale]
    assert [method.method.name for method in plan.methods] == list(config.methods)
    assert config.tasks >= 2
    if scale == "smoke":
        assert config.dataset in (None, "digits")
        assert 1 <= _updates(plan) * config.tasks * config.seeds * len(config.methods) <= 10_000


PPO = {
    "ppo.epochs": "4",
    "ppo.discount": "0.99",
    "ppo.gae_decay": "0.95",
    "ppo.clip": "0.2",
    "ppo.entropy_strength": "0.01",
    "ppo.value_strength": "0.5",
    "ppo.max_grad_norm": "0.5",
}
ISOMETRY = {"adamo.isometry_strength": "0.1", "adamo-maxmin.isometry_strength": "0.1"}


def test_continual_minatar():
    """80 games are 20 cycles of four; 2,048 × 128 steps are 128 minibatches of 2,048, and 57 fit into a game."""
    name = "isometry/continual-minatar"
    config, settings = _paper(name), _settings(name)
    assert (config.optimizer_at_switch, config.eval_episodes, config.curve_points) == ("reset", 128, 30)
    assert config.methods == ("adam", "adamo", "adamo-maxmin", "l2-init", "nap", "spectral")
    assert settings == PPO | ISOMETRY | {
        "minatar.games": "breakout,asterix,space-invaders,freeway",
        "ppo.num_envs": "2048",
        "ppo.rollout_length": "128",
        "l2-init.strength": "0.001",
        "spectral.strength": "0.001",
        "nap.every": "1",
        **{f"{method}.eps": "1e-05" for method in config.methods},
    }
    plan = _plan(name, "paper")
    assert _updates(plan) == 57 * 4 * 128
    environment = plan.record.configuration["environment"]
    assert environment["environments"] == ["breakout", "asterix", "space-invaders", "freeway"]
    assert (environment["input_shape"], environment["num_actions"]) == ([10, 10, 10], 6)
    options = environment["options"]
    assert (options["permute"], options["order"], options["num_channels"]) == (True, "random", 10)
    agent = plan.record.configuration["agent"]["options"]
    assert (agent["trunk"], agent["grad_clip"], agent["clips_values"]) == ("separate", "global", False)


def test_continual_minatar_on_two_cores():
    """The setting in which Adam's policy collapses: one game, 40 rollouts a task, the optimizer kept."""
    name = "isometry/continual-minatar"
    config, settings = BENCHMARKS[name].configs["cpu"], _settings(name, "cpu")
    assert (config.env_steps, config.tasks, config.seeds, config.batch_size) == (163_840, 24, 3, 512)
    assert (config.learning_rate, config.optimizer_at_switch, config.widths) == (1e-3, "keep", (64,) * 4)
    assert config.methods == ("adam", "adamo", "adamo-maxmin", "l2-init", "nap")
    assert {name: settings[name] for name in ("minatar.games", "ppo.num_envs", "ppo.rollout_length")} == {
        "minatar.games": "breakout",
        "ppo.num_envs": "64",
        "ppo.rollout_length": "64",
    }
    plan = _plan(name, "cpu")
    assert [label for method in plan.methods for label in method.labels] == list(config.methods)
    assert all(settings[f"{method}.eps"] == "1e-05" for method in (*config.methods, "redo", "layernorm", "full-reset"))
    assert _updates(plan) == 40 * 4 * 8


def test_the_grid_goes_with_its_method():
    benchmark = BENCHMARKS["isometry/strength"]
    choices = vars(benchmark.configs["cpu"]) | {"settings": ()}
    assert with_choices(benchmark, "cpu", choices).grid == benchmark.configs["cpu"].grid != ()
    assert with_choices(benchmark, "cpu", choices | {"methods": ("adam", "redo")}).grid == ()
    own = ("adamo.isometry_strength=0.1,1",)
    assert with_choices(benchmark, "cpu", choices | {"methods": ("adamo",), "grid": own}).grid == own


def test_continual_octax():
    """24 games are three cycles of eight; 512 × 32 steps are 32 minibatches of 512, and 305 fit into a game."""
    name = "isometry/continual-octax"
    config = _paper(name)
    assert (config.optimizer_at_switch, config.eval_episodes, config.curve_points) == ("reset", 128, 20)
    assert config.methods == ("adam", "adamo", "adamo-maxmin")
    assert _settings(name) == PPO | ISOMETRY | {
        "octax.games": "brix,submarine,filter,tank,blinky,missile,ufo,wipe_off",
        "ppo.num_envs": "512",
        "ppo.rollout_length": "32",
        "ppo.trunk": "shared",
        "ppo.grad_clip": "elementwise",
        **{f"{method}.eps": "1e-08" for method in config.methods},
    }
    plan = _plan(name, "paper")
    assert _updates(plan) == 305 * 4 * 32
    assert plan.record.configuration["environment"]["input_shape"] == [32, 64, 4]


MDPS = [name for name in OF_AGENTS if name.startswith("lyle/") and _paper(name).environment == "classification-mdp"]


@pytest.mark.parametrize("name", MDPS)
def test_classification_mdps(name):
    """The target network every 1,000 updates; probes of 10 functions and 2,000 updates every 5,000 of 100,000."""
    config, settings = _paper(name), _settings(name)
    assert settings["dqn.replay_size"] == "100000"
    assert settings["dqn.epsilon_start"] == settings["dqn.epsilon_final"] == "0.1"
    assert settings["classification-mdp.variant"] == next((each for each in VARIANTS if each in name), "easy")
    if name != "lyle/brownian":
        assert settings["dqn.target_every"] == "1000"
        assert "probe-plasticity:num_targets=10:num_steps=2000:initial=true" in config.diagnostics
        assert config.diagnose_after == tuple(range(5, 101, 5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_mdps_on_two_cores(variant):
    config = BENCHMARKS[f"lyle/mdp-{variant}-digits"].configs["cpu"]
    assert (config.methods, config.seeds, config.widths) == (("adam", "layernorm"), 5, (64, 64))
    assert config.env_steps * config.tasks == 50_000
    assert "probe-plasticity:num_targets=10:num_steps=2000:initial=true" in config.diagnostics


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet18", "vit"])
def test_interventions(name):
    config, settings = _paper(f"lyle/interventions/{name}"), _settings(f"lyle/interventions/{name}")
    everywhere = {"adam", "two-hot", "head-reset", "optimizer-reset", "l2", "shrink-perturb"}
    assert set(config.methods) == everywhere | (
        {"layernorm", "spectral-norm-layer"} if name in ("mlp", "cnn") else set()
    )
    assert (settings["l2.strength"], settings["shrink-perturb.perturb"]) == ("1e-05", "1")


@pytest.mark.parametrize("name", ["lyle/interventions/cnn", "lyle/falsification/hard-mnist-cnn"])
def test_the_cnn(name):
    """64 channels 5 × 5, 64 channels 3 × 3."""
    settings = _settings(name)
    assert (settings["cnn.channels"], settings["cnn.kernel_sizes"]) == ("64,64", "5,3")


def test_interventions_act_when_the_target_network_is_copied():
    """Each task is a period of the target network."""
    for name in MDPS:
        assert _paper(name).env_steps == int(_settings(name)["dqn.target_every"])


def test_falsification_has_128_agents():
    configs = [_paper(name) for name in OF_AGENTS if name.startswith("lyle/falsification/")]
    assert sum(config.seeds * len(config.methods) for config in configs) == 128
    assert {"dead", "feature-rank", "weight-spectra"} <= set.intersection(*(set(c.diagnostics) for c in configs))


def test_brownian():
    config, settings = _paper("lyle/brownian"), _settings("lyle/brownian")
    assert (config.methods, settings["dqn.double"], settings["dqn.target_every"]) == (("sgd",), "false", "5000")
    assert {"hessian-density", "gradient-cosine", "brownian-twin"} <= set(config.diagnostics)
    assert (config.diagnose_after, config.probe_size) == ((1, 5, 20), 512)


def test_atari():
    """200 million frames: 4 a step, 4 steps an update; a target period of 120,000 frames."""
    name = "lyle/atari-double-dqn"
    config, settings = _paper(name), _settings(name)
    assert config.env_steps * config.tasks * int(settings["atari.frame_skip"]) == 200_000_000
    assert config.methods == ("rmsprop", "rmsprop+layernorm")
    assert int(settings["dqn.target_every"]) * int(settings["dqn.steps_per_update"]) * 4 == 120_000
    assert {name: value for name, value in settings.items() if name.startswith("dqn.")} == {
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
    assert (settings["cnn.channels"], settings["cnn.kernel_sizes"], settings["cnn.strides"]) == (
        "32,64,64",
        "8,4,3",
        "4,2,1",
    )
    assert (settings["atari.sticky"], settings["atari.life_loss"], settings["atari.clip_rewards"]) == (
        "0",
        "true",
        "true",
    )
    plan = _plan(name, "paper")
    assert plan.methods[0].traced | plan.methods[0].static == {
        "learning_rate": 0.00025,
        "decay": 0.95,
        "eps": 0.01 / 32**2,
        "centered": True,
    }


def test_benchmarks_of_agents_are_configurations_of_agents():
    assert all(isinstance(config, AgentConfig) for name in OF_AGENTS for config in BENCHMARKS[name].configs.values())
