"""What training carries from update to update."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optax

from pliant.keys import SeedKeys
from pliant.methods import Parts
from pliant.types import Diagnostic, Key, Learned, Network, Params, State


class TrainState(NamedTuple):
    """The learner's state: all that a method and its network have."""

    params: Params
    statistics: State
    """Running statistics of the network."""
    optimizer: optax.OptState
    penalty: State
    intervention: State

    def learned(self) -> Learned:
        """What interventions may rewrite."""
        return Learned(self.params, self.statistics, self.optimizer)


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


class View(NamedTuple):
    """The network that a method reports: what is scored and measured."""

    params: Params
    statistics: State


def init_state(network: Network, parts: Parts, key: Key) -> TrainState:
    """The state before the first update."""
    params, statistics = network.init(key)
    learned = Learned(params, statistics, parts.optimizer.init(params))
    return TrainState(
        *learned,
        penalty=parts.penalty.init(params) if parts.penalty else (),
        intervention=parts.intervention.init(learned) if parts.intervention else (),
    )


def init_carry(network: Network, parts: Parts, key: Key, diagnostics: Sequence[Diagnostic]) -> Carry:
    """The same, with the states of the diagnostics that follow training."""
    state = init_state(network, parts, key)
    return Carry(state, {each.name: each.init(state.params) for each in diagnostics if each.init})


def view(parts: Parts, state: TrainState) -> View:
    """The parameters and running statistics that a method is scored by."""
    if parts.intervention and parts.intervention.reported:
        return View(*parts.intervention.reported(state.learned(), state.intervention))
    return View(state.params, state.statistics)
