"""The supervised benchmarks of the AdamO paper."""

from typing import Any

from pliant.experiments.benchmarks._benchmark import Benchmark, make_benchmark

_REFERENCE = "Rosseau et al. 2026 (arXiv 2606.09762), section 6.1 and appendices B.1 and B.7"
_METHODS = ("adam", "l2-init", "redo", "nap", "spectral", "adamo", "adamo-maxmin")
_STRENGTHS = ("adamo.isometry_strength=0.001", "l2-init.strength=0.001")
_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"network": "mlp", "widths": (512, 512, 512, 512), "learning_rate": 1e-4},
    "cnn": {"network": "cnn", "learning_rate": 1e-3},
}
_CPU_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (128, 128, 128, 128), "learning_rate": 1e-3, "settings": ()},
    "cnn": {"methods": ("adam", "l2-init", "adamo"), "widths": (64, 64), "settings": ("cnn.channels=8,8,8",)}
    | {"train_size": 500},
}
_SMOKE_NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"widths": (64, 64, 64, 64)},
    "cnn": {"widths": (32, 32), "settings": (*_STRENGTHS, "cnn.channels=8,8,8")},
}
_SMOKE = {
    "methods": ("adam", "adamo"),
    "dataset": None,
    "train_size": 300,
    "test_size": 100,
    "seeds": 2,
    "tasks": 2,
    "epochs": 2,
    "batch_size": 32,
}
_STREAMS: dict[str, dict[str, Any]] = {
    "random-label-cifar10": {"stream": "random-labels", "dataset": "cifar10", "train_size": 10_000, "epochs": 30},
    "permuted-mnist": {"stream": "permuted-pixels", "dataset": "mnist", "epochs": 5},
    "permuted-cifar10": {"stream": "permuted-pixels", "dataset": "cifar10", "epochs": 10}
    | {"diagnostics": ("basic", "dead", "weight-spectra", "jacobian", "ntk")},
    "label-shuffled-cifar100": {"stream": "label-shuffle", "dataset": "cifar100", "epochs": 10},
}
_CPU = {"train_size": 1000, "test_size": 1000, "seeds": 5, "tasks": 15, "batch_size": 32, "epochs": 15}
_CPU_STREAMS: dict[str, dict[str, Any]] = {"label-shuffled-cifar100": {"train_size": 2000, "tasks": 10, "epochs": 10}}

_NOTES = """\
Published: streams, metrics, four hidden layers of 512 (MLP) and three convolutions 3×3 of 32 channels with
strides 1, 1, 2 and two dense layers of 256 (CNN), orthogonal initialisation, learning rates 1e-4 (MLP) and 1e-3
(CNN), eight seeds, ReDo every 1,000 updates on 64 examples, strengths 1e-3 of AdamO and L2 Init.

Ours: batches of 256; 50 tasks; 10,000 images and 30 epochs a task for random labels; whole training sets otherwise,
5 epochs for MNIST and 10 for CIFAR; the ReLU gain √2; padding SAME; no biases, as in the authors' reinforcement
learning code; pixel permutations move all channels together; lazy isometry steps every 16 updates. At the scale cpu:
1,000 images, 15 tasks of 15 epochs, batches of 32; four layers of 128 with learning rate 1e-3 (MLP), or 500 images, 8
channels and two layers of 64 (CNN); five seeds; the methods' default strengths, since 0.001 hardly acts in 7,000
updates. Label shuffles have 2,000 images and 10 tasks of 10 epochs: 500 images of 100 classes teach hardly more than
chance.
"""

_TRANSFORMER_NOTES = """\
Published: four blocks with four heads, MLP sublayers and skip connections, on permuted CIFAR-10.

Ours: patches of 4, width 128, MLPs of 256, LayerNorm, mean pooling, learning rate 1e-3, and the choices of
the other benchmarks of this paper. At the scale cpu: 500 images, patches of 8, two blocks of width 64, 10 tasks of 8
epochs, five seeds.
"""


def _one(stream: str, network: str) -> Benchmark:
    published = _STREAMS[stream]
    return make_benchmark(
        f"isometry/{stream}/{network}",
        f"{published['stream']} on {published['dataset']}, {network.upper()} of the AdamO paper",
        _REFERENCE,
        _NOTES,
        paper={"methods": _METHODS, "settings": _STRENGTHS, "seeds": 8, "tasks": 50, "batch_size": 256}
        | published
        | _NETWORKS[network],
        cpu=_CPU | _CPU_NETWORKS[network] | _CPU_STREAMS.get(stream, {}),
        smoke=_SMOKE | _SMOKE_NETWORKS[network],
    )


_VIT = (
    "vit.patch_size=4",
    "vit.width=128",
    "vit.mlp_width=256",
    "vit.num_blocks=4",
    "vit.num_heads=4",
    "vit.pool=mean",
)
_TRANSFORMER = make_benchmark(
    "isometry/transformer-permuted-cifar10",
    "permuted pixels of CIFAR-10, the transformer of the AdamO paper",
    _REFERENCE,
    _TRANSFORMER_NOTES,
    paper={
        "stream": "permuted-pixels",
        "dataset": "cifar10",
        "network": "vit",
        "use_bias": True,
        "methods": ("adam", "weight-decay", "adamo"),
        "settings": (*_VIT, "adamo.isometry_strength=0.001"),
        "learning_rate": 1e-3,
        "seeds": 8,
        "tasks": 50,
        "epochs": 10,
        "batch_size": 256,
        "diagnostics": ("basic", "weight-spectra", "jacobian"),
    },
    cpu={"train_size": 500, "test_size": 500, "seeds": 5, "tasks": 10, "epochs": 8, "batch_size": 50}
    | {"settings": ("vit.patch_size=8", "vit.width=64", "vit.mlp_width=128", "vit.num_blocks=2", *_VIT[-2:])},
    smoke=_SMOKE | {"settings": ("vit.patch_size=4", "vit.width=32", "vit.mlp_width=64", "vit.num_blocks=2")},
)

_STRENGTH_NOTES = """\
Published: the strength of AdamO is varied on random labels of CIFAR-10 (appendix B.2 and figure 3); which values is not
legible in the text that we have.

Ours: seven strengths from 1e-4 to 100, and what is ours in isometry/random-label-cifar10/mlp.
"""
_STRENGTH = make_benchmark(
    "isometry/strength",
    "random labels of CIFAR-10: how strongly AdamO pulls towards isometry",
    "Rosseau et al. 2026 (arXiv 2606.09762), appendix B.2 and figure 3",
    _STRENGTH_NOTES,
    paper={"methods": ("adamo",), "seeds": 8, "tasks": 50, "batch_size": 256}
    | {"grid": ("adamo.isometry_strength=0.0001,0.001,0.01,0.1,1,10,100",)}
    | _STREAMS["random-label-cifar10"]
    | _NETWORKS["mlp"],
    cpu=_CPU | _CPU_NETWORKS["mlp"],
    smoke={key: value for key, value in (_SMOKE | _SMOKE_NETWORKS["mlp"]).items() if key != "methods"},
)

BENCHMARKS = (*(_one(stream, network) for stream in _STREAMS for network in _NETWORKS), _TRANSFORMER, _STRENGTH)
