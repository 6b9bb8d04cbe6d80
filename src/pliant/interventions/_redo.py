"""ReDo: recycling dormant units."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pliant.diagnostics import dormancy_scores
from pliant.errors import require_choice, require_range, require_whole
from pliant.finite import all_finite
from pliant.interventions._surgery import Units, lowest, num_selected, require_owned_outputs, reset_units
from pliant.types import (
    HiddenLayer,
    Info,
    Intervention,
    Key,
    Learned,
    LogUniform,
    Method,
    Number,
    Signals,
    State,
    Wiring,
    by_path,
)


class ReDoState(NamedTuple):
    """State of `redo` with the source "initial"."""

    start: Mapping[str, Array]
    """What fed the units before the first update, by `leaf_path`."""


def redo(
    wiring: Wiring,
    *,
    threshold: Number = 0.025,
    every: Number = 1000,
    num_examples: int = 64,
    source: str = "fresh",
    relative: bool = True,
    start_after: Number = 0,
    max_fraction: Number = 1.0,
) -> Intervention:
    r"""Resets dormant units at regular intervals (ReDo).

    Use it when units of ReLU networks go dormant.

    At updates F, 2F, … a unit i of a hidden layer is reset (see `pliant.interventions.reset_units`) if

    .. math:: s_i = \frac{\mathbb E_x |h_i(x)|}{\frac1N \sum_k \mathbb E_x |h_k(x)| + 10^{-9}} \le \tau

    on examples sampled for this. All layers are scored before any is reset. A layer with scores that are not finite is
    left alone.

    Args:
      wiring: the network's layer graph.
      threshold: τ; 0 resets units that are exactly silent, a negative one none.
      every: F ≥ 1, a period in updates.
      num_examples: examples for the scores, ≥ 1, drawn with replacement from the current task.
      source: "fresh" samples new incoming weights; "initial" restores those from before the first update.
      relative: False compares a unit's mean absolute activation itself with τ, without the denominator.
      start_after: t₀ ≥ 0, in updates: none is reset up to update t₀.
      max_fraction: in [0, 1], of the units of a layer that are reset at once, rounded down: those with the lowest
        scores. 0 resets none.

    Returns:
      An `Intervention`; `info` counts the `units_reset`. Stateless, or with the source "initial" its state is a copy
      of the parameters that feed units and must be checkpointed.

    Raises:
      UserError: for numbers out of range, and for networks in which no unit owns an output (MaxMin).

    Example:
      >>> from pliant.networks import mlp
      >>> from pliant.types import Fresh
      >>> network = mlp((2,), 1, widths=(4,))
      >>> params, state = network.init(jax.random.key(0))
      >>> params["dense_0"]["bias"] = jnp.array([-9.0, 0.0, 0.0, 0.0])  # the first unit never fires
      >>> x = jnp.ones((8, 2))
      >>> probe = lambda learned, key, num_examples: network.apply(learned.params, state, x, train=False)[1]
      >>> fresh = Fresh(init_network=network.init, init_optimizer=lambda params: ())
      >>> signals = Signals(gradients=params, features={}, probe=probe, fresh=fresh)
      >>> method = redo(network.wiring, threshold=0.0, every=1)
      >>> new, _, info = method.update(jax.random.key(1), 1, Learned(params, state, ()), (), signals)
      >>> float(new.params["dense_0"]["bias"][0]), bool(info["units_reset"] >= 1)
      (0.0, True)

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Equation 1 and algorithm 1.
      The code of `Do Neural Networks Lose Plasticity in a Gradually Changing World?`, 2026: scores that are not
      relative (10⁻⁴ for T5), 1,000 updates before the first reset, at most 5 % of a layer at once.

    Differs from:
      Dopamine's code: incoming weights come from the layer's own initialiser, not always Xavier uniform; the bias'
      moments and the unit's own norm are reset as well. The code of L2 Init, which resets to the initial weights.
      PyTorch ports that set the whole tensor's step count to zero; for a correction of every weight's own see
      `pliant.optimizers.scale_by_adam_per_weight`.
    """
    require_range("threshold", threshold, -math.inf, do="0.025 is usual; 0 resets what is silent, -1 nothing.")
    num_examples = require_whole("num_examples", num_examples, 1, do="Use 64, as published.")
    require_range("start_after", start_after, 0, do="Use the number of updates before the first reset, or 0.")
    require_range("max_fraction", max_fraction, 0, 1, do="1 resets all that are dormant; 0 resets none.")
    wiring = require_owned_outputs(wiring, "ReDo")

    def choose(key: Key, step: Any, learned: Learned, signals: Signals) -> Units:
        features = signals.probe(learned, key, num_examples)

        def dormant(layer: HiddenLayer) -> Array:
            scores = dormancy_scores(layer.units_last(features[layer.name]), layer.width, relative=relative)
            among = lowest(scores, _whole(max_fraction * jnp.float32(layer.width)))
            return (scores <= threshold) & among & (step > start_after) & all_finite(scores)

        return {layer.name: dormant(layer) for layer in wiring.layers}

    return recycling(wiring, choose, every=every, source=source)


def scheduled_redo(
    wiring: Wiring,
    *,
    fraction: Number = 0.3,
    horizon: Number = 100_000,
    every: Number = 1000,
    num_examples: int = 64,
) -> Intervention:
    r"""Resets the least active units at regular intervals, fewer and fewer of them.

    Use it to compare with the scheduled recycler of the authors' code.

    At updates t = F, 2F, … the n units of each hidden layer with the lowest scores of `redo` are reset,

    .. math:: n = \big\lfloor f \cos\!\big(\tfrac{\pi t}{2 T}\big) N \big\rfloor

    of N units, whether they are dormant or not; none from update T on.

    Args:
      wiring: the network's layer graph.
      fraction: f in [0, 1], at the start; 0 resets none.
      horizon: T ≥ 1, in updates.
      every: F ≥ 1, a period in updates.
      num_examples: as in `redo`.

    Returns:
      A stateless `Intervention`; `info` counts the `units_reset`.

    Raises:
      UserError: as `redo`.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(8,))
      >>> params, state = network.init(jax.random.key(0))
      >>> probe = lambda learned, key, num_examples: {"dense_0": jnp.arange(8.0)[None]}
      >>> signals = Signals(gradients=params, features={}, probe=probe, fresh=None)
      >>> method = scheduled_redo(network.wiring, fraction=0.5, horizon=300, every=100)
      >>> for step in (100, 200, 300):  # cos 30° = 0.866, cos 60° = 0.5
      ...     _, _, info = method.update(jax.random.key(1), step, Learned(params, state, ()), (), signals)
      ...     print(int(info["units_reset"]))
      3
      2
      0

    References:
      Sokar et al. 2023, see `redo`: their comparison of scores, which resets as many units whatever their score. The
      numbers are those of Dopamine's `NeuronRecyclerScheduled`.

    Differs from:
      Dopamine's code as `redo` does, and in n: there f cos(…) N is rounded to the nearest whole number, at least one
      unit of a layer is reset each time, and so are all whose scores equal that of the last one chosen.
    """
    require_range("fraction", fraction, 0, 1, do="Use 0.3, as published, or 0 for none.")
    require_range("horizon", horizon, 1, do="Use the number of updates of the run.")
    num_examples = require_whole("num_examples", num_examples, 1, do="Use 64, as published.")
    wiring = require_owned_outputs(wiring, "scheduled ReDo")

    def choose(key: Key, step: Any, learned: Learned, signals: Signals) -> Units:
        features = signals.probe(learned, key, num_examples)
        share = fraction * jnp.cos(0.5 * jnp.pi * jnp.minimum(step / horizon, 1.0))
        scores = {
            layer.name: dormancy_scores(layer.units_last(features[layer.name]), layer.width) for layer in wiring.layers
        }
        return {name: lowest(score, _whole(share * score.size)) & all_finite(score) for name, score in scores.items()}

    return recycling(wiring, choose, every=every)


def recycling(
    wiring: Wiring, choose: Callable[[Key, Any, Learned, Signals], Units], *, every: Number, source: str = "fresh"
) -> Intervention:
    """Resets the units that a function chooses, at every F-th update: the frame of ReDo and its relatives.

    Args:
      wiring: the network's layer graph.
      choose: `choose(key, step, learned, signals) -> True at the units to reset`, called inside the branch that resets.
      every: F ≥ 1, a period in updates.
      source: as in `redo`.
    """
    require_whole("every", every, 1, do="Use the period in updates, 1000 by default.")
    require_choice("source", source, "fresh", "initial")

    def init(learned: Learned) -> State:
        if source == "fresh":
            return ()
        leaves = by_path(learned.params)
        paths = {feed.slot.path for layer in wiring.layers for feed in layer.feeds}
        return ReDoState({path: jnp.copy(leaves[path]) for path in sorted(paths)})

    def recycle(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, Info]:
        choice_key, draw_key = jax.random.split(key)
        units = choose(choice_key, step, learned, signals)
        start = state.start if source == "initial" else None
        return reset_units(draw_key, learned, wiring, units, start=start), {"units_reset": num_selected(units)}

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        learned, info = jax.lax.cond(
            step % every == 0,
            lambda learned: recycle(key, step, learned, state, signals),
            lambda learned: (learned, {"units_reset": jnp.int32(0)}),
            learned,
        )
        return learned, state, info

    return Intervention(init, update)


def _whole(number: Array) -> Array:
    """Rounded down, where a whole number that was just missed is still met."""
    return jnp.floor(number + 1e-5).astype(jnp.int32)


REDO = Method(
    name="redo",
    summary="Adam with a periodic reset of dormant units",
    reference="Sokar et al. 2023, algorithm 1",
    intervention=redo,
    space={"threshold": LogUniform(1e-3, 0.3), "every": LogUniform(100, 5000, is_whole=True)},
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)
REDO_SCHEDULED = Method(
    name="redo-scheduled",
    summary="Adam with a periodic reset of the least active units, fewer and fewer of them",
    reference="Sokar et al. 2023, the code's scheduled recycler",
    intervention=scheduled_redo,
    space={"fraction": LogUniform(0.01, 0.5), "every": LogUniform(100, 5000, is_whole=True)},
    off={"fraction": 0.0},
    lowers="dormant_fraction",
)
