"""The families of remedies in Lyle's survey of 2025, side by side on one stream."""

from pliant.experiments.benchmarks._benchmark import make_benchmark

REMEDIES = {
    "full resets": ("full-reset", "reset-distill", "hare-tortoise", "plasticity-injection", "shrink-perturb"),
    "resets of layers": ("last-k-reset", "head-reset"),
    "resets of units": ("redo", "continual-backprop", "regrama"),
    "optimizer resets": ("optimizer-reset", "cyclic-lr"),
    "regularisation": ("l2", "l2-init", "feature-init", "spectral", "adamo"),
    "constraints": ("weight-clipping", "nap", "layernorm", "layernorm-weight-decay"),
    "architecture": ("crelu", "residual"),
}
"""The methods that stand for each family; "regularisation" includes AdamO, which is newer than the survey."""

_NOTES = """\
Published: the families of remedies, as sentences without a protocol.

Ours: everything else. Random labels of 5,120 MNIST digits, four layers of 512 without biases, 30 epochs a task in
batches of 64, learning rate 1e-3, default strengths, 50 tasks, eight seeds; upgd is left out, because it is no Adam. At
the scale cpu: the main job (1,621 digits of 8 × 8 pixels, four layers of 128, 20 tasks of 759 updates), five seeds.
"""

BENCHMARKS = (
    make_benchmark(
        "survey/remedies",
        "random labels, every family of remedies side by side",
        "Lyle 2025, a survey of plasticity in neural networks",
        _NOTES,
        paper={
            "stream": "random-labels",
            "dataset": "mnist",
            "train_size": 5120,
            "network": "mlp",
            "widths": (512,) * 4,
            "methods": ("adam", *(method for family in REMEDIES.values() for method in family)),
            "learning_rate": 1e-3,
            "batch_size": 64,
            "epochs": 30,
            "tasks": 50,
            "seeds": 8,
            "diagnostics": ("basic", "dead"),
        },
        cpu={"dataset": "digits", "train_size": None, "widths": (128,) * 4, "batch_size": 32, "epochs": 15}
        | {"tasks": 20, "seeds": 5},
        smoke={"dataset": "digits", "train_size": 300, "widths": (64, 64), "batch_size": 50, "epochs": 2, "tasks": 2}
        | {"seeds": 1, "methods": ("adam", "full-reset", "layernorm-weight-decay")},
    ),
)
