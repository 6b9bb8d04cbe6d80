"""What to run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A supervised run: methods that learn the same stream of tasks, each with several seeds."""

    dataset: str = "digits"
    """Data set; see `pliant list datasets`."""
    methods: tuple[str, ...] = ("adam", "l2-init", "redo", "adamo", "adamo-maxmin")
    """Methods; see `pliant list methods`. Your own is path/to/file.py:name."""
    seeds: int = 4
    """Number of seeds: 0, 1, 2, …"""
    tasks: int = 20
    """Number of tasks."""
    epochs: int = 15
    """Passes over the training data in each task."""
    batch_size: int = 32
    """Examples in a batch."""
    network: str = "mlp"
    """Network; see `pliant list networks`."""
    widths: tuple[int, ...] = (128, 128, 128, 128)
    """Units of the hidden layers."""
    use_bias: bool = False
    """Whether layers have biases. Without, as in the code of AdamO's authors, isometric kernels say all of a layer."""
    learning_rate: float = 1e-3
    """Learning rate of every method that is not given its own with --set."""
    train_size: int | None = None
    """Balanced subset of the training images."""
    test_size: int | None = None
    """Balanced subset of the test images."""
    probe_size: int = 512
    """Training examples on which dormant units and ranks are measured at the end of a task."""
    stream: str = "random-labels"
    """Stream of tasks; see `pliant list streams`."""
    settings: tuple[str, ...] = ()
    """NAME.OPTION=VALUE for any option of a method, of the stream or of the network, such as
    adamo.isometry_strength=0.03, random-labels.labels=iid or mlp.norm=layer."""
