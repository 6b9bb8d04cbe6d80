"""The numbers of a diagnostic whose device part returns them under their metrics' names."""

from collections.abc import Mapping
from typing import Any

from pliant.types import Measured


def as_measured(numbers: Mapping[str, Any]) -> Measured:
    """Turns arrays by metric into the numbers of one seed.

    Example:
      >>> import numpy as np
      >>> as_measured({"dead_fraction": np.array(0.5)}).numbers
      {'dead_fraction': 0.5}
    """
    return Measured({metric: float(value) for metric, value in numbers.items()})
