"""A method that acts on one branch of a network, such as the actor; an optimizer trains the others."""

from collections.abc import Callable
from typing import Any, NamedTuple

import optax
from jaxtyping import Array

from pliant.methods._parts import Parts
from pliant.types import (
    Features,
    Forward,
    Fresh,
    Info,
    Inputs,
    Intervention,
    Key,
    Learned,
    Params,
    Penalty,
    Scalar,
    Signals,
    State,
)


class FocusedState(NamedTuple):
    """The optimizer's state where a method acts on one branch."""

    branch: optax.OptState
    others: optax.OptState


def focus(parts: Parts, others: optax.GradientTransformationExtraArgs, branch: str, output: str) -> Parts:
    """Lets the parts of a method act on one branch of a network.

    They see the branch as a network of its own: its parameters, statistics, gradients, features and output without the
    name of the branch. Nothing else of the network is changed by them.

    Args:
      parts: built for the branch, see `pliant.networks.branch_wiring`.
      others: trains the parameters of all other branches.
      branch: its name.
      output: the name of the branch's output.

    Returns:
      Parts for the whole network.
    """
    lens = _Lens(branch, output)
    penalty, intervention = parts.penalty, parts.intervention
    return Parts(
        _optimizer(parts.optimizer, others, lens),
        penalty and _penalty(penalty, lens),
        intervention and _intervention(intervention, lens, parts.optimizer),
    )


class _Lens(NamedTuple):
    """Between a network and one of its branches."""

    branch: str
    output: str

    def split(self, params: Params) -> tuple[Params, Params]:
        """The branch's parameters, or what has their structure, and those of the others."""
        return params[self.branch], {name: each for name, each in params.items() if name != self.branch}

    def joined(self, params: Params, own: Params) -> Params:
        """The parameters with those of the branch replaced."""
        return {**params, self.branch: own}

    def learned(self, learned: Learned) -> Learned:
        """The branch's part of a learner."""
        statistics = learned.statistics.get(self.branch, {})
        return Learned(learned.params[self.branch], statistics, learned.optimizer.branch)

    def with_learned(self, learned: Learned, own: Learned) -> Learned:
        """The learner with the branch's part replaced."""
        return Learned(
            self.joined(learned.params, own.params),
            self.with_statistics(learned.statistics, own.statistics),
            learned.optimizer._replace(branch=own.optimizer),
        )

    def with_statistics(self, statistics: State, own: State) -> State:
        """Running statistics with those of the branch replaced, if it has any."""
        return {**statistics, self.branch: own} if self.branch in statistics else statistics

    def features(self, features: Features) -> dict[str, Array]:
        """Those of the branch."""
        prefix = f"{self.branch}/"
        return {name.removeprefix(prefix): each for name, each in features.items() if name.startswith(prefix)}

    def fresh(self, fresh: Fresh, init_optimizer: Callable[[Params], optax.OptState]) -> Fresh:
        """The branch's initial network and optimizer."""

        def init_network(key: Key) -> tuple[Params, State]:
            params, statistics = fresh.init_network(key)
            return params[self.branch], statistics.get(self.branch, {})

        return Fresh(init_network, init_optimizer)


def _optimizer(
    own: optax.GradientTransformationExtraArgs, others: optax.GradientTransformationExtraArgs, lens: _Lens
) -> optax.GradientTransformationExtraArgs:
    def init(params: Params) -> FocusedState:
        branch, rest = lens.split(params)
        return FocusedState(own.init(branch), others.init(rest))

    def update(
        updates: Params, state: FocusedState, params: Params | None = None, **extra: Any
    ) -> tuple[Params, FocusedState]:
        of_branch, of_rest = lens.split(updates)
        branch, rest = (None, None) if params is None else lens.split(params)
        of_branch, branch_state = own.update(of_branch, state.branch, branch, **extra)
        of_rest, others_state = others.update(of_rest, state.others, rest, **extra)
        return {**of_rest, lens.branch: of_branch}, FocusedState(branch_state, others_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _penalty(own: Penalty, lens: _Lens) -> Penalty:
    def loss(params: Params, state: State, forward: Forward | None) -> tuple[Scalar, State]:
        seen = None if forward is None else of_branch(params, forward)
        return own.loss(params[lens.branch], state, seen)

    def of_branch(params: Params, forward: Forward) -> Forward:
        def evaluate(branch: Params, inputs: Inputs) -> tuple[Array, Features]:
            """The other branches are computed as well, but nothing reads them: XLA leaves them out."""
            output, features = forward.evaluate(lens.joined(params, branch), inputs)
            return named(output), lens.features(features)

        return forward._replace(
            output=named(forward.output), features=lens.features(forward.features), evaluate=evaluate
        )

    def named(output: Any) -> Array:
        found: Array = output[lens.output]
        return found

    change = own.switch
    return Penalty(
        lambda params: own.init(params[lens.branch]),
        loss,
        None if change is None else lambda params, state: change(params[lens.branch], state),
    )


def _intervention(own: Intervention, lens: _Lens, optimizer: optax.GradientTransformationExtraArgs) -> Intervention:
    update, switch, reported = own.update, own.switch, own.reported

    def updated(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        assert update

        def probe(branch: Learned, key: Key, num_examples: int) -> Features:
            return lens.features(signals.probe(lens.with_learned(learned, branch), key, num_examples))

        seen = Signals(
            signals.gradients[lens.branch],
            lens.features(signals.features),
            probe,
            lens.fresh(signals.fresh, optimizer.init),
        )
        after, state, info = update(key, step, lens.learned(learned), state, seen)
        return lens.with_learned(learned, after), state, info

    def switched(key: Key, index: Any, learned: Learned, state: State, fresh: Fresh) -> tuple[Learned, State, Info]:
        assert switch
        after, state, info = switch(key, index, lens.learned(learned), state, lens.fresh(fresh, optimizer.init))
        return lens.with_learned(learned, after), state, info

    def seen(learned: Learned, state: State) -> tuple[Params, State]:
        assert reported
        params, statistics = reported(lens.learned(learned), state)
        return lens.joined(learned.params, params), lens.with_statistics(learned.statistics, statistics)

    return Intervention(
        lambda learned: own.init(lens.learned(learned)),
        updated if update else None,
        switched if switch else None,
        seen if reported else None,
    )
