"""Evenly spaced subsampling."""

import numpy as np
from jaxtyping import Int


def evenly(number: int, most: int) -> Int[np.ndarray, " chosen"]:
    """At most `most` of the indices 0, …, number − 1, evenly spaced and ascending; with more than one the ends are.

    Example:
      >>> evenly(10, 4).tolist(), evenly(3, 4).tolist()
      ([0, 3, 6, 9], [0, 1, 2])

    References:
      None.

    Differs from:
      A random choice: data sets may be sorted by class, and evenly spaced examples are of all of them.
    """
    return np.linspace(0, number - 1, min(most, number)).round().astype(np.int32)
