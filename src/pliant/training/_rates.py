"""How the learning rate changes within a task, and which updates diagnostics sample."""

import numpy as np
from jaxtyping import Float

from pliant.sampling import evenly
from pliant.training._protocol import Protocol

_SAMPLED = 16  # updates of a task: norms of all parameters at each of them cost a small network half its training


def rates(protocol: Protocol, total: int) -> Float[np.ndarray, " step"]:
    """What the learning rate of every update of a task is multiplied by: it drops after the fractions in `rate_drops`.

    Example:
      >>> rates(Protocol(rate_drops=(0.5,), rate_drop_factor=0.1), 4).tolist()
      [1.0, 1.0, 0.1, 0.1]
    """
    drops = np.sort(np.asarray(protocol.rate_drops, float))
    return protocol.rate_drop_factor ** np.searchsorted(drops, np.arange(total) / total, side="right")


def sampled_weights(total: int) -> Float[np.ndarray, " step"]:
    """The weight of every update of a task in means over those that diagnostics sample: 16, evenly spaced, or all.

    The sum over the task divided by `total` is the mean over those sampled.

    Example:
      >>> sampled_weights(46).nonzero()[0].tolist()
      [0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45]
    """
    weights = np.zeros(total)
    weights[evenly(total, _SAMPLED)] = total / min(total, _SAMPLED)
    return weights
