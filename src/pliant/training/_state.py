"""What training carries from update to update."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pliant.keys import SeedKeys
from pliant.methods import Parts, TrainState, init_state
from pliant.types import Diagnostic, Key, Network, State


class Carry(NamedTuple):
    """What a learner carries through a run, beside the state of its source."""

    learner: TrainState
    followed: Mapping[str, State]
    """By name, the states of the diagnostics that follow training."""


class SeedSlot(NamedTuple):
    """A slot's random keys, and its point of a grid."""

    keys: SeedKeys
    own: dict[str, Any]
    """Hyperparameters that replace the shared ones."""


def init_carry(network: Network, parts: Parts, key: Key, diagnostics: Sequence[Diagnostic]) -> Carry:
    """The same, with the states of the diagnostics that follow training."""
    state = init_state(network, parts, key)
    return Carry(state, {each.name: each.init(state.params) for each in diagnostics if each.init})
