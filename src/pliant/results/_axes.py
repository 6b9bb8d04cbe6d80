"""Axes that do not mislead: shares begin at 0, or the figure says that they do not."""

import numpy as np

_HIGH = 0.5  # a share that never falls below it may be drawn without its lower half


def is_share(metric: str) -> bool:
    """Whether a metric is a share of a whole, between 0 and 1.

    Example:
      >>> is_share("train_accuracy"), is_share("dormant_fraction/dense_0"), is_share("loss")
      (True, True, False)
    """
    return metric.partition("/")[0].endswith(("accuracy", "_fraction"))


def begins_at_zero(metric: str, drawn: np.ndarray) -> bool:
    """Whether the axis of a metric begins at 0: that of a share does, unless all of its values are high.

    Args:
      metric: its name.
      drawn: every value that is drawn; NaN are skipped.

    Example:
      >>> begins_at_zero("train_accuracy", np.array([0.2, 0.9])), begins_at_zero("train_accuracy", np.array([0.9, 1.0]))
      (True, False)
    """
    finite = drawn[np.isfinite(drawn)]
    return is_share(metric) and bool(finite.size) and bool(0 <= finite.min() < _HIGH)


def said_of_axis(metric: str, drawn: np.ndarray) -> str:
    """What a caption must say of the axis of a share; empty if it begins at 0, and for other metrics.

    Example:
      >>> said_of_axis("train_accuracy", np.array([0.9, 1.0]))
      'the axis does not begin at 0'
    """
    return "the axis does not begin at 0" if is_share(metric) and not begins_at_zero(metric, drawn) else ""
