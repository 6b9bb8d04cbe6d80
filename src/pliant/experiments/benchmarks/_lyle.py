"""The supervised study of *Understanding Plasticity in Neural Networks*."""

from pliant.experiments.benchmarks._benchmark import make_benchmark

_NOTES = """\
Published: 5,000 MNIST digits, labels shuffled again in every iteration, two hidden layers of 1,024
ReLU units, Adam with 1e-3 and ε = 1e-9 against Adam with b2 = 0.9 and a damped root (1e-3).

Ours: batches of 512, 1,000 updates an iteration, 100 iterations, four seeds; accuracy over all 5,000 digits instead
of 4,096. At the scale cpu: five seeds, smaller networks, fewer digits and updates.
"""

BENCHMARKS = (
    make_benchmark(
        "lyle/optimizer-instability",
        "random labels of 5,000 MNIST digits: Adam against a tuned Adam",
        "Lyle et al. 2023 (arXiv 2303.01486), section 3.1 and figure 1",
        _NOTES,
        paper={
            "stream": "random-labels",
            "dataset": "mnist",
            "train_size": 5000,
            "methods": ("adam", "adam-tuned"),
            "network": "mlp",
            "widths": (1024, 1024),
            "use_bias": True,
            "settings": ("adam.eps=1e-9",),
            "learning_rate": 1e-3,
            "batch_size": 512,
            "steps": 1000,
            "tasks": 100,
            "seeds": 4,
            "diagnostics": ("basic", "dead"),
        },
        cpu={"widths": (256, 256), "train_size": 2000, "batch_size": 128, "steps": 500, "tasks": 30, "seeds": 5},
        smoke={"dataset": None, "train_size": 500, "widths": (64, 64), "batch_size": 50, "steps": 50, "tasks": 3}
        | {"seeds": 2},
    ),
)
