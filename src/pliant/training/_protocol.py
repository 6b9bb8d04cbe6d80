"""How methods are trained and compared, whatever the problem."""

import dataclasses
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Methods that learn the same sequence of tasks, each with several seeds."""

    methods: tuple[str, ...] = ("adam", "l2-init", "redo", "adamo", "adamo-maxmin")
    """Methods; see `pliant list methods`. Several as one: redo+layernorm. Your own is path/to/file.py:name. On the
    command line "all" stands for every one that suits the run."""
    seeds: int = 4
    """Number of seeds: first_seed and those that follow it."""
    first_seed: int = 0
    """The first seed. A seed decides the initial network, the tasks, their data order and the method's noise."""
    tasks: int = 20
    """Number of tasks."""
    batch_size: int = 32
    """Examples in a batch."""
    network: str = "mlp"
    """Network; see `pliant list networks`. Your own is path/to/file.py:name."""
    widths: tuple[int, ...] | None = None
    """Units of the hidden dense layers; by default the network's own."""
    use_bias: bool = False
    """Whether layers have biases. Without, as in the code of AdamO's authors, isometric kernels say all of a layer."""
    learning_rate: float = 1e-3
    """Learning rate of every method that is not given its own with --set."""
    rate_drops: tuple[float, ...] = ()
    """Fractions of each task after which the learning rate is multiplied by rate_drop_factor, such as 0.3 0.6."""
    rate_drop_factor: float = 0.2
    """See rate_drops."""
    optimizer_at_switch: Literal["keep", "reset"] = "keep"
    """What becomes of the optimizer's state when the task changes."""
    head_at_switch: Literal["keep", "zero", "fresh"] = "keep"
    """What becomes of the output layer when the task changes: kept, zero, or initialised again."""
    probe_size: int = 512
    """Training examples on which dormant units and ranks are measured at the end of a task."""
    diagnostics: tuple[str, ...] = ("basic",)
    """What else is measured: basic, standard, full, or names; see `pliant list diagnostics`. Your own is
    path/to/file.py:name. Options follow the name, as in probe-plasticity:num_steps=500. Numbers go to the metrics,
    spectra and matrices to the arrays."""
    diagnose_after: tuple[int, ...] = ()
    """Tasks, counted from 1, after which diagnostics of the classes per-task and rare are measured; by default the
    former after all, the latter after 1, 2, 5, 10, 20, 50, … and the last."""
    checkpoints: Literal["last", "all"] = "last"
    """Which are kept when a task is finished: the newest, or one of every task, for `pliant diagnose`."""
    headline: str | None = None
    """Metric of the table and the figure, such as online_accuracy; by default the problem's own."""
    settings: tuple[str, ...] = ()
    """NAME.OPTION=VALUE for any option of a method, of the stream or of the network, such as
    adamo.isometry_strength=0.03, random-labels.labels=iid or mlp.norm=layer."""
    grid: tuple[str, ...] = ()
    """METHOD.OPTION=VALUE,VALUE,… for numbers of a method to try, all combinations and seeds in one compiled program,
    such as adamo.isometry_strength=0.01,0.1,1. Without METHOD. for all methods: learning_rate=1e-4,1e-3. Options that
    are joined by a colon vary together: adamo.learning_rate:isometry_strength=1e-4:1,1e-3:0.1."""

    def __post_init__(self) -> None:
        """Turns NumPy's numbers into Python's, alone or in a list: a configuration is stored as text."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple | list):
                value = tuple(map(_as_python, value))
            object.__setattr__(self, field.name, _as_python(value))


def _as_python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
