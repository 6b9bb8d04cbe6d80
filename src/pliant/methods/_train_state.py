"""What a method and its network carry from update to update."""

from typing import NamedTuple

import optax

from pliant.methods._parts import Parts
from pliant.types import Key, Learned, Network, Params, State


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


class View(NamedTuple):
    """The network that a method reports: what is scored and measured."""

    params: Params
    statistics: State


def init_state(network: Network, parts: Parts, key: Key) -> TrainState:
    """The state before the first update, of a new network."""
    return begin_training(parts, *network.init(key))


def begin_training(parts: Parts, params: Params, statistics: State) -> TrainState:
    """The state before the first update, of a network that exists."""
    learned = Learned(params, statistics, parts.optimizer.init(params))
    return TrainState(
        *learned,
        penalty=parts.penalty.init(params) if parts.penalty else (),
        intervention=parts.intervention.init(learned) if parts.intervention else (),
    )


def view(parts: Parts, state: TrainState) -> View:
    """The parameters and running statistics that a method is scored by."""
    if parts.intervention and parts.intervention.reported:
        return View(*parts.intervention.reported(state.learned(), state.intervention))
    return View(state.params, state.statistics)
