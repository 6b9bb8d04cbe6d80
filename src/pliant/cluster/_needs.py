"""What one seed of a method needs: arithmetic and memory, from traced programs; nothing is computed."""

import math
from typing import Any, NamedTuple

import jax
import numpy as np

from pliant.cluster._arithmetic import Work, count_work
from pliant.keys import seed_keys
from pliant.training import MethodPlan, Pace, Protocol, Setting, first_subject, init_carry, train_chunk
from pliant.types import Diagnostic, Fed, Scene

_STEPS = 2048  # updates over which branches are counted: periods of interventions are shorter


class Needs(NamedTuple):
    """What one seed of a method needs, at one point of a grid."""

    update: Work
    """Of an update, in the mean."""
    evaluation: Work
    """At the end of a task."""
    diagnoses: tuple[tuple[Diagnostic, Work], ...]
    """What each diagnostic computes once; those that share their measurement stand here once."""
    state: int
    """Bytes of the learner and of the state of its source."""
    activations: int
    """Bytes that an update holds beside them, roughly."""
    data: int
    """Bytes of the data, which all seeds share."""


def needs_of(method: MethodPlan, protocol: Protocol) -> Needs:
    """What one seed needs; programs are traced for it, and nothing is computed.

    Args:
      method: planned.
      protocol: how it is trained.
    """
    network, source = method.network, method.source
    following = [each for each in method.diagnostics if each.follow]
    keys = seed_keys(0)
    task = jax.eval_shape(source.task, keys.tasks, 0)
    data = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), source.data)
    carry = jax.eval_shape(lambda: init_carry(network, method.parts({}), keys.network, following))
    own = source.facts(0), dict(source.numbers)  # arguments, so that they are traced as in a run

    def scene(data: Any, task: Any, own: Any) -> Scene:
        return Scene(keys.noise, data, task, *own)

    state: Any = ()
    if source.init:
        init = source.init
        state = jax.eval_shape(
            lambda data, task, own, carry: init(network, scene(data, task, own), carry.learner.learned()),
            *(data, task, own, carry),
        )
    fed = source.feed([0], 0, 0, 1)
    fed = Fed(jax.tree.map(lambda leaf: leaf[0], fed.own), fed.shared)

    def update(step: Any, pace: Pace, traced: Any, own: Any, begun: Any, fed: Any) -> Any:
        def parts_at(rate: Any, fraction: Any) -> Any:
            return method.parts(traced, rate=rate, fraction=fraction)

        data, task, carry, state = begun
        facts, numbers = own
        setting = Setting(keys, data, task, facts, numbers, fed, pace._replace(first_step=step))
        return train_chunk(network, parts_at, source, state, carry, setting, following)

    def evaluate(_: Any, own: Any, begun: Any) -> Any:
        data, task, carry, state = begun
        weights = carry.learner.params, carry.learner.statistics
        return source.evaluate(network, weights, scene(data, task, own), state)

    begun = data, task, carry, state
    of_update = count_work(update, np.arange(_STEPS), Pace.steady(1), dict(method.traced), own, begun, fed)
    of_evaluation = count_work(evaluate, [0], own, begun)
    diagnoses = tuple((each, _of_diagnostic(each, method, protocol, data, own)) for each in _measured_once(method))
    features = _features(method, protocol.batch_size)
    return Needs(of_update, of_evaluation, diagnoses, _bytes((carry, state)), features, _bytes(data))


def _measured_once(method: MethodPlan) -> list[Diagnostic]:
    """The diagnostics that measure networks; of several that share a measurement, the first."""
    return list({each.measure: each for each in reversed(method.diagnostics) if each.measure}.values())


def _of_diagnostic(diagnostic: Diagnostic, method: MethodPlan, protocol: Protocol, data: Any, own: Any) -> Work:
    """What a diagnostic computes for one network."""
    measure = diagnostic.measure
    assert measure is not None

    def measured(_: Any, data: Any, own: Any) -> Any:
        given = data, *own
        batch_size = protocol.batch_size
        return measure(
            first_subject(method.network, method.parts({}), method.source, method.diagnostics, batch_size, given)
        )

    return count_work(measured, [0], data, own)


def _features(method: MethodPlan, batch_size: int) -> int:
    """Bytes of features and outputs for a batch, each held about four times: forward, residuals, gradients."""
    network, source = method.network, method.source

    def forward(inputs: Any) -> Any:
        params, statistics = network.init(jax.random.key(0))
        return network.apply(params, statistics, inputs, train=True, key=jax.random.key(0))[:2], inputs

    batch = jax.tree.map(lambda each: jax.ShapeDtypeStruct((batch_size, *each.shape), each.dtype), source.inputs)
    return 4 * _bytes(jax.eval_shape(forward, batch))


def _bytes(tree: Any) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
