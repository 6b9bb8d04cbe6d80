"""The published numbers, pinned; and every benchmark run for a few steps."""

import dataclasses

import pytest

from pliant.experiments import BENCHMARKS, SCALES
from pliant.problems import kind_of, settings_in_use
from pliant.streams import load_dataset, random_labels
from pliant.supervised import make_plan, micro_steps, run

# name: stream, data set, training images, batch, epochs (or updates) a task, tasks, seeds, learning rate, network
PUBLISHED = {
    "isometry/random-label-cifar10/mlp": ("random-labels", "cifar10", 10_000, 256, 30, 50, 8, 1e-4, "mlp"),
    "isometry/random-label-cifar10/cnn": ("random-labels", "cifar10", 10_000, 256, 30, 50, 8, 1e-3, "cnn"),
    "isometry/permuted-mnist/mlp": ("permuted-pixels", "mnist", None, 256, 5, 50, 8, 1e-4, "mlp"),
    "isometry/permuted-mnist/cnn": ("permuted-pixels", "mnist", None, 256, 5, 50, 8, 1e-3, "cnn"),
    "isometry/permuted-cifar10/mlp": ("permuted-pixels", "cifar10", None, 256, 10, 50, 8, 1e-4, "mlp"),
    "isometry/permuted-cifar10/cnn": ("permuted-pixels", "cifar10", None, 256, 10, 50, 8, 1e-3, "cnn"),
    "isometry/label-shuffled-cifar100/mlp": ("label-shuffle", "cifar100", None, 256, 10, 50, 8, 1e-4, "mlp"),
    "isometry/label-shuffled-cifar100/cnn": ("label-shuffle", "cifar100", None, 256, 10, 50, 8, 1e-3, "cnn"),
    "isometry/transformer-permuted-cifar10": ("permuted-pixels", "cifar10", None, 256, 10, 50, 8, 1e-3, "vit"),
    "isometry/strength": ("random-labels", "cifar10", 10_000, 256, 30, 50, 8, 1e-4, "mlp"),
    "survey/remedies": ("random-labels", "mnist", 5120, 64, 30, 50, 8, 1e-3, "mlp"),
    "predictors/labels-digits": ("random-labels", "digits", 1500, 32, 15, 30, 8, 1e-3, "mlp"),
    "predictors/labels-mnist": ("random-labels", "mnist", 5120, 32, 15, 30, 8, 1e-3, "mlp"),
    "predictors/pixels-mnist": ("permuted-pixels", "mnist", 5120, 32, 5, 30, 8, 1e-3, "mlp"),
    "predictors/regression": ("slowly-changing-regression", None, None, 1, 1, 30, 8, 3e-3, "mlp"),
    "kumar/permuted-mnist": ("permuted-pixels", "mnist", 10_000, 16, 1, 500, 10, 1e-3, "mlp"),
    "kumar/random-label-mnist": ("random-labels", "mnist", 1200, 16, 400, 50, 10, 1e-3, "mlp"),
    "kumar/random-label-cifar": ("random-labels", "cifar10", 1200, 16, 400, 50, 10, 1e-3, "kumar-cnn"),
    "kumar/5+1-cifar": ("five-plus-one", "cifar100", None, 32, "780 updates", 30, 10, 1e-3, "kumar-cnn"),
    "kumar/continual-pairs": ("class-pairs", "tiny-imagenet", None, 100, 10, 500, 10, 1e-3, "kumar-cnn"),
    "dohare/permuted-mnist": ("permuted-pixels", "mnist", None, 1, 1, 800, 10, 3e-3, "mlp"),
    "dohare/slowly-changing-regression": ("slowly-changing-regression", None, None, 1, 1, 100, 100, 0.01, "mlp"),
    "dohare/class-incremental-cifar100": ("class-incremental", "cifar100", None, 90, 200, 20, 10, 0.1, "resnet18"),
    "lyle/optimizer-instability": ("random-labels", "mnist", 5000, 512, "1000 updates", 100, 4, 1e-3, "mlp"),
} | {
    f"gradual/{name}/{transition}": numbers
    for name, numbers in {
        "random-label-mnist": ("random-labels", "mnist", 5120, 64, 240, 100, 5, 1e-3, "mlp"),
        "random-label-cifar10": ("random-labels", "cifar10", None, 250, 120, 100, 5, 1e-4, "resnet18"),
        "random-label-tiny-imagenet": ("random-labels", "tiny-imagenet", None, 250, 120, 100, 5, 1e-3, "resnet18"),
        "permuted-emnist": ("permuted-pixels", "emnist-balanced", 47_000, 400, 200, 100, 5, 1e-3, "mlp"),
        "seq2seq": ("random-seq2seq", None, None, 64, 900, 100, 5, 1e-4, "t5"),
        "bigram-cipher": ("bigram-cipher", None, None, 64, 200, 100, 5, 1e-3, "t5"),
    }.items()
    for transition in ("abrupt", "interpolation", "sampling")
}
PUBLISHED |= {
    f"{name}-{micro_steps}": PUBLISHED[name]
    for name in ("gradual/random-label-mnist/interpolation", "gradual/bigram-cipher/sampling")
    for micro_steps in (2, 4, 10)
}

# benchmark: transition by interpolation, its micro-steps, those of sampling, transition : pure updates
GRADUAL = {
    "random-label-mnist": ("output-interpolation", 40, 20, 2),
    "random-label-cifar10": ("output-interpolation", 40, 20, 2),
    "random-label-tiny-imagenet": ("output-interpolation", 40, 20, 2),
    "permuted-emnist": ("input-interpolation", 20, 20, 1),
    "seq2seq": ("output-interpolation", 100, 50, 2),
    "bigram-cipher": ("output-interpolation", 40, 20, 1),
}

ALL_IMAGES = {
    "mnist": 60_000,
    "cifar10": 50_000,
    "tiny-imagenet": 100_000,
    "emnist": 60_000,
    "emnist-balanced": 112_800,
}


OF_STREAMS = [name for name, benchmark in BENCHMARKS.items() if kind_of(benchmark.configs["paper"]) == "stream"]


def test_every_benchmark_is_pinned():
    assert set(PUBLISHED) == set(OF_STREAMS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    config = BENCHMARKS[name].configs["paper"]
    length = f"{config.steps} updates" if config.steps else config.epochs
    numbers = (config.stream, config.dataset, config.train_size, config.batch_size, length)
    assert (*numbers, config.tasks, config.seeds, config.learning_rate, config.network) == PUBLISHED[name]


@pytest.mark.parametrize("name", GRADUAL)
def test_transitions(name):
    abrupt, interpolation, sampling = (
        BENCHMARKS[f"gradual/{name}/{kind}"].configs["paper"] for kind in ("abrupt", "interpolation", "sampling")
    )
    kind, fine, coarse, ratio = GRADUAL[name]
    assert (abrupt.transition, abrupt.micro_steps) == ("abrupt", 1)
    assert (interpolation.transition, interpolation.micro_steps) == (kind, fine)
    assert (sampling.transition, sampling.micro_steps) == ("task-sampling", coarse)
    assert {config.budget for config in (abrupt, interpolation, sampling)} == {"equal-updates"}
    assert interpolation.transition_share == sampling.transition_share == pytest.approx(ratio / (ratio + 1))
    assert len({(config.epochs, config.settings) for config in (abrupt, interpolation, sampling)}) == 1
    assert interpolation.methods == sampling.methods == ("adam",)
    assert abrupt.methods == ("adam", "l2", "shrink-perturb", "spectral", "redo")


def test_networks_as_published():
    mlp = BENCHMARKS["isometry/random-label-cifar10/mlp"].configs["paper"]
    assert (mlp.widths, mlp.use_bias) == ((512,) * 4, False)
    assert {"adamo.isometry_strength=0.001", "l2-init.strength=0.001"} <= set(mlp.settings)
    gradual = BENCHMARKS["gradual/random-label-mnist/abrupt"].configs["paper"]
    assert (gradual.widths, gradual.settings) == ((256,) * 4, ("mlp.norm=layer",))
    assert BENCHMARKS["gradual/bigram-cipher/abrupt"].configs["paper"].settings == ("t5.width=256", "t5.num_heads=4")
    assert BENCHMARKS["kumar/permuted-mnist"].configs["paper"].widths == (100, 100)
    assert BENCHMARKS["dohare/permuted-mnist"].configs["paper"].widths == (2000,) * 3
    assert BENCHMARKS["dohare/slowly-changing-regression"].configs["paper"].widths == (5,)
    assert BENCHMARKS["lyle/optimizer-instability"].configs["paper"].widths == (1024, 1024)


def test_protocols_as_published():
    kumar = [benchmark.configs["paper"] for name, benchmark in BENCHMARKS.items() if name.startswith("kumar/")]
    assert {(config.standardize, config.headline) for config in kumar} == {("half", "online_accuracy")}
    incremental = BENCHMARKS["dohare/class-incremental-cifar100"].configs["paper"]
    validation = "class-incremental.validation_per_class=50"
    assert incremental.settings == ("sgd.momentum=0.9", "sgd.weight_decay=0.0005", validation)
    assert incremental.weights_at_end == "best-validation"
    assert (incremental.rate_drops, incremental.rate_drop_factor) == ((0.3, 0.6, 0.8), 0.2)
    assert incremental.augment == "crop-flip-rotate"
    lyle = BENCHMARKS["lyle/optimizer-instability"].configs["paper"]
    assert (lyle.methods, lyle.settings) == (("adam", "adam-tuned"), ("adam.eps=1e-9",))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_notes_say_what_is_ours(name):
    benchmark = BENCHMARKS[name]
    assert benchmark.notes.startswith("Published")
    assert "Ours:" in benchmark.notes
    assert benchmark.summary
    assert benchmark.reference
    assert tuple(benchmark.configs) == SCALES


@pytest.mark.parametrize("name", OF_STREAMS)
def test_smoke_configurations_make_sense(name):
    """All choices are accepted, and no setting is of something that the run does not have."""
    config = BENCHMARKS[name].configs["smoke"]
    used = dataclasses.replace(config, settings=settings_in_use(config.settings, config))
    plan = make_plan(used)
    total = sum(map(plan.methods[0].source.num_updates, range(used.tasks)))
    assert used.tasks >= 2
    assert 1 <= total * used.seeds * len(used.methods) <= 100_000


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name.startswith("gradual/")])
def test_transitions_have_updates_for_every_micro_step(name, scale):
    """Also where the data are not at hand: then their number stands for them."""
    config = BENCHMARKS[name].configs[scale]
    if config.dataset in ALL_IMAGES:
        num_train = config.train_size or ALL_IMAGES[config.dataset]
        stream = random_labels(load_dataset("digits"))
        train = stream.train._replace(num=lambda _: num_train)
        moments = micro_steps(config, stream._replace(train=train, micro_steps=config.micro_steps), 1)
    else:
        used = dataclasses.replace(config, settings=settings_in_use(config.settings, config))
        source = make_plan(used).methods[0].source
        moments = source.feed([0], 1, 0, source.num_updates(1)).shared
    assert set(moments) == set(range(1, config.micro_steps + 1))


@pytest.mark.parametrize("name", OF_STREAMS)
def test_a_few_steps(name, tmp_path):
    config = BENCHMARKS[name].configs["smoke"]
    few = dataclasses.replace(config, steps=4, tasks=2, seeds=1, probe_size=16, methods=config.methods[:1])
    few = dataclasses.replace(few, micro_steps=min(2, config.micro_steps))
    few = dataclasses.replace(few, settings=settings_in_use(config.settings, few))
    folder = run(few, tmp_path / "run")
    headline = folder.metrics[folder.metrics.metric == folder.headline]
    assert sorted(set(headline.task)) == [1, 2]  # a grid has several points
    assert headline.value.between(0, 10).all()
