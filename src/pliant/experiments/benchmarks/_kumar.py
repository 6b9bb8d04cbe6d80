"""The benchmarks of *Maintaining Plasticity in Continual Learning via Regenerative Regularization* (L2 Init)."""

from typing import Any

from pliant.experiments.benchmarks._benchmark import Benchmark, make_benchmark

_REFERENCE = "Kumar, Marklund, Van Roy 2023 (arXiv 2308.11958), table 1"
_COMMON = {
    "methods": ("adam", "l2-init", "weight-decay", "redo"),
    "use_bias": True,
    "standardize": "half",
    "learning_rate": 1e-3,
    "seeds": 10,
    "headline": "online_accuracy",
}
_MLP = {"network": "mlp", "widths": (100, 100)}
_CNN = {"network": "kumar-cnn"}
_SMOKE = {"dataset": None, "train_size": 200, "seeds": 2, "tasks": 2, "methods": ("adam", "l2-init")}

_NOTES = """\
Published: images a task, batches, updates, numbers of tasks, networks, scaling of pixels to [−1, 1], ten seeds,
the average online accuracy over all tasks as the metric, Adam's 1e-3 as one of two learning rates.

Ours: the methods' default strengths; that of L2 Init, 1e-2, is in Kumar's grid. Continual pairs are from Tiny-ImageNet
(500 images a class) instead of a downscaled ImageNet (600).
"""


def _one(name: str, summary: str, *, paper: dict[str, Any], cpu: dict[str, Any], smoke: dict[str, Any]) -> Benchmark:
    return make_benchmark(
        f"kumar/{name}",
        summary,
        _REFERENCE,
        _NOTES,
        paper=_COMMON | paper,
        cpu={"seeds": 2} | cpu,
        smoke=_SMOKE | smoke,
    )


BENCHMARKS = (
    _one(
        "permuted-mnist",
        "permuted pixels of 10,000 MNIST digits, each seen once",
        paper=_MLP
        | {
            "stream": "permuted-pixels",
            "dataset": "mnist",
            "train_size": 10_000,
            "batch_size": 16,
            "epochs": 1,
            "tasks": 500,
        },
        cpu={"tasks": 100},
        smoke={"test_size": 100},
    ),
    _one(
        "random-label-mnist",
        "random labels of 1,200 MNIST digits, 400 epochs each",
        paper=_MLP
        | {
            "stream": "random-labels",
            "dataset": "mnist",
            "train_size": 1200,
            "batch_size": 16,
            "epochs": 400,
            "tasks": 50,
        }
        | {"settings": ("random-labels.labels=iid",)},
        cpu={"tasks": 20, "epochs": 100},
        smoke={"epochs": 10},
    ),
    _one(
        "random-label-cifar",
        "random labels of 1,200 CIFAR-10 images, 400 epochs each, CNN",
        paper=_CNN
        | {
            "stream": "random-labels",
            "dataset": "cifar10",
            "train_size": 1200,
            "batch_size": 16,
            "epochs": 400,
            "tasks": 50,
        }
        | {"settings": ("random-labels.labels=iid",)},
        cpu={"tasks": 8, "epochs": 20, "methods": ("adam", "l2-init")},
        smoke={"epochs": 3, "settings": ("random-labels.labels=iid", "kumar-cnn.padding=SAME")},
    ),
    _one(
        "5+1-cifar",
        "CIFAR-100: five new classes, then one, in turns, CNN",
        paper=_CNN | {"stream": "five-plus-one", "dataset": "cifar100", "batch_size": 32, "steps": 780, "tasks": 30},
        cpu={
            "tasks": 20,
            "steps": 200,
            "methods": ("adam", "l2-init"),
            "settings": ("five-plus-one.images_per_class=200",),
        },
        smoke={
            "steps": 20,
            "batch_size": 10,
            "settings": ("five-plus-one.images_per_class=20", "kumar-cnn.padding=SAME"),
        },
    ),
    _one(
        "continual-pairs",
        "two new classes of Tiny-ImageNet a task, CNN",
        paper=_CNN
        | {"stream": "class-pairs", "dataset": "tiny-imagenet", "batch_size": 100, "epochs": 10, "tasks": 500},
        cpu={"tasks": 20, "methods": ("adam", "l2-init")},
        smoke={"epochs": 3, "batch_size": 20, "settings": ("kumar-cnn.padding=SAME",)},
    ),
)
