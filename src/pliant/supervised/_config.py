"""What a supervised run is."""

import dataclasses
from typing import Literal

from pliant.training import Protocol

Transition = Literal["abrupt", "output-interpolation", "input-interpolation", "task-sampling"]
Budget = Literal["equal-updates", "per-micro-task"]


@dataclasses.dataclass(frozen=True)
class RunConfig(Protocol):
    """A supervised run: methods that learn the same stream of tasks, each with several seeds."""

    dataset: str | None = None
    """Data set: a name that `pliant list datasets` prints; a folder or file of your own, such as images/ or
    table.csv:label=species; a repository of the Hugging Face hub, OWNER/NAME; path/to/file.py:name; or a name of your
    own with --data-dir. By default digits; streams that are generated have none."""
    stream: str = "random-labels"
    """Stream of tasks; see `pliant list streams`. Your own is path/to/file.py:name."""
    epochs: int = 15
    """Passes over the training data in each task."""
    steps: int | None = None
    """Updates in each task, in place of epochs."""
    weights_at_end: Literal["last", "best-validation"] = "last"
    """Which weights each task ends with, and the next begins with: the last, or those with the highest validation score
    at the end of an epoch or of the task. Only of streams that hold out examples, such as
    class-incremental.validation_per_class=50. What the optimizer and the method remember stays as it is."""
    transition: Transition = "abrupt"
    """How one task changes into the next."""
    micro_steps: int = 1
    """Granularity of a gradual transition: the number of equal steps from one task to the next."""
    budget: Budget = "equal-updates"
    """What a gradual task costs: as many updates in all as an abrupt one, or as many in every micro-task."""
    transition_share: float = 0.5
    """Share of a gradual task's updates that the transition takes, when the budget is equal-updates."""
    train_size: int | None = None
    """Balanced subset of the training images."""
    test_size: int | None = None
    """Balanced subset of the test images."""
    standardize: Literal["default", "channel", "pixel", "half"] = "default"
    """Mean 0 and variance 1 of each channel or pixel, or (x − ½)/½ of images in [0, 1]; by default the data set's."""
    augment: Literal["none", "crop-flip", "crop-flip-rotate"] = "none"
    """Random changes of training images."""
