"""Terms of the loss that preserve plasticity."""

from pliant.penalties._gram import gram
from pliant.penalties._l2_init import l2_init

__all__ = ["gram", "l2_init"]
