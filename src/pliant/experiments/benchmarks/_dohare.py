"""The supervised benchmarks of *Loss of plasticity in deep continual learning*."""

from pliant.experiments.benchmarks._benchmark import make_benchmark

_REFERENCE = "Dohare et al., Loss of plasticity in deep continual learning, Nature 2024, and its code"
_INCREMENTAL = ("sgd.momentum=0.9", "sgd.weight_decay=0.0005")

_PERMUTED_NOTES = """\
Published: 60,000 digits, each seen once a task in batches of one, 800 tasks, three hidden layers of 2,000 ReLU
units, SGD with 0.003 (of 0.01, 0.003 and 0.001), ten runs, online accuracy.

Ours: permutations are sampled independently, which gives the same distribution of tasks as the published composition;
an MLP of 200 units at cpu scale.
"""
_REGRESSION_NOTES = """\
Published: 20 bits, of which 15 change slowly (one flips every 10,000 examples), a target network of 100 threshold
units (β = 0.7), a learner of five hidden units, single examples, a million of them, SGD with 0.01 (of 0.01, 0.003
and 0.001), 100 runs, squared error.

Ours: errors are averaged over the 10,000 examples between two flips, half a published bin.
"""
_INCREMENTAL_NOTES = """\
Published: CIFAR-100 in 20 increments of five classes, 200 epochs each, ResNet-18 with a 3×3 stem, SGD 0.1 with
momentum 0.9 and weight decay 5e-4, rates × 0.2 after 60, 120 and 160 epochs, batches of 90, 450 training images a
class and 50 more for validation, flips, crops and rotations up to 15 degrees. Every increment continues from the
weights of the epoch with the best validation accuracy.

Ours: ten seeds.
"""

BENCHMARKS = (
    make_benchmark(
        "dohare/permuted-mnist",
        "online permuted MNIST: every digit once a task, batches of one",
        _REFERENCE,
        _PERMUTED_NOTES,
        paper={
            "stream": "permuted-pixels",
            "dataset": "mnist",
            "headline": "online_accuracy",
            "methods": ("sgd",),
            "network": "mlp",
            "widths": (2000, 2000, 2000),
            "use_bias": True,
            "learning_rate": 3e-3,
            "batch_size": 1,
            "epochs": 1,
            "tasks": 800,
            "seeds": 10,
        },
        cpu={"widths": (200, 200, 200), "train_size": 10_000, "tasks": 60, "seeds": 2},
        smoke={"dataset": None, "widths": (50, 50), "train_size": 1000, "test_size": 100, "tasks": 3, "seeds": 2},
    ),
    make_benchmark(
        "dohare/slowly-changing-regression",
        "bit flipping: a target that never changes, inputs that change slowly",
        _REFERENCE,
        _REGRESSION_NOTES,
        paper={
            "stream": "slowly-changing-regression",
            "methods": ("sgd",),
            "network": "mlp",
            "widths": (5,),
            "use_bias": True,
            "learning_rate": 0.01,
            "batch_size": 1,
            "epochs": 1,
            "tasks": 100,
            "seeds": 100,
        },
        cpu={"seeds": 20, "methods": ("sgd", "adam"), "settings": ("adam.learning_rate=0.001",)},
        smoke={"tasks": 3, "seeds": 2},
    ),
    make_benchmark(
        "dohare/class-incremental-cifar100",
        "CIFAR-100, five more classes every 200 epochs, ResNet-18",
        _REFERENCE,
        _INCREMENTAL_NOTES,
        paper={
            "stream": "class-incremental",
            "dataset": "cifar100",
            "methods": ("sgd",),
            "network": "resnet18",
            "use_bias": True,
            "settings": (*_INCREMENTAL, "class-incremental.validation_per_class=50"),
            "weights_at_end": "best-validation",
            "learning_rate": 0.1,
            "rate_drops": (0.3, 0.6, 0.8),
            "rate_drop_factor": 0.2,
            "augment": "crop-flip-rotate",
            "batch_size": 90,
            "epochs": 200,
            "tasks": 20,
            "seeds": 10,
        },
        cpu={
            "train_size": 2000,
            "test_size": 1000,
            "epochs": 3,
            "tasks": 4,
            "seeds": 2,
            "batch_size": 50,
            "settings": (*_INCREMENTAL, "class-incremental.validation_per_class=2"),
        },
        smoke={
            "dataset": None,
            "train_size": 300,
            "test_size": 100,
            "epochs": 2,
            "tasks": 2,
            "seeds": 1,
            "batch_size": 30,
        }
        | {"settings": (*_INCREMENTAL, "class-incremental.validation_per_class=3", "resnet18.width=8")},
    ),
)
