"""Self-normalized resets: resets units that are silent for longer than is usual for them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pliant.errors import require_range, require_whole
from pliant.interventions._surgery import num_selected, require_owned_outputs, reset_units
from pliant.types import Choice, Info, Intervention, Key, Learned, LogUniform, Method, Number, Signals, State, Wiring
from pliant.xla.branches import anywhere


class SNRState(NamedTuple):
    """State of `snr` for one hidden layer."""

    silence: Int[Array, " width"]
    """Updates since the unit last fired."""
    threshold: Float[Array, " width"]
    """The silence at which the unit is reset, in updates."""
    histogram: Int[Array, "width bins"]
    """How often each silence, of 0 to `max_silence` updates, has ended since the threshold was last set."""


def snr(
    wiring: Wiring,
    *,
    quantile: Number = 0.99,
    expansion: Number = 2.0,
    threshold_every: Number = 1000,
    max_silence: int = 200,
) -> Intervention:
    r"""Resets units that have been silent for longer than is usual for them (self-normalized resets).

    Use it when units die and no single threshold suits all of them.

    After every update, for each hidden unit: it fires if its output is above 0 for any example, at any position, of the
    training batch. If it does, its silence A enters its histogram H and is 0 again, otherwise A grows by one. At
    updates T, 2T, … its threshold follows what it has shown since the last time,

    .. math:: \tau \leftarrow \begin{cases} p & \text{if } p < \tau \\ e \tau & \text{otherwise} \end{cases}
              \quad \text{within } [1, A_{max}], \qquad
              p = \min \Big\{ a \ge 1 : \sum_{k=1}^a H_k \ge q \sum_{k \ge 1} H_k \Big\}

    and H is emptied; where H has nothing but zeros, τ expands. Then, if A ≥ τ, A enters H too, the unit is reset (see
    `pliant.interventions.reset_units`) and A is 0. Thresholds begin at half of A_max. Batches in which a unit's output
    is not finite count neither as firing nor as silence.

    Args:
      wiring: the network's layer graph.
      quantile: q in [0, 1]: of its own silences, the share that a unit survives. With 1 none is reset.
      expansion: e ≥ 1, the factor by which a threshold grows.
      threshold_every: T ≥ 1, a period in updates.
      max_silence: A_max ≥ 1, in updates: times the batch size it is the authors' 20,000 examples.

    Returns:
      An `Intervention`; its state is an `SNRState` by layer, `max_silence` + 3 numbers a unit. `info` counts the
      `units_reset`, and has the `mean_threshold` in updates.

    Raises:
      UserError: for numbers out of range, and for networks in which no unit owns an output (MaxMin).

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(2,))
      >>> params, _ = network.init(jax.random.key(0))
      >>> features = {"dense_0": jnp.array([[1.0, 0.0], [0.0, 0.0]])}  # the second unit never fires
      >>> signals = Signals(gradients=params, features=features, probe=None, fresh=None)
      >>> method, learned = snr(network.wiring, max_silence=6), Learned(params, {}, ())
      >>> state = method.init(learned)
      >>> for step in (1, 2, 3):
      ...     learned, state, info = method.update(jax.random.key(1), step, learned, state, signals)
      ...     print(state["dense_0"].silence.tolist(), int(info["units_reset"]))
      [0, 1] 0
      [0, 2] 0
      [0, 0] 1

    References:
      Farias, Jozefiak, `Self-Normalized Resets for Plasticity in Continual Learning
      <https://arxiv.org/abs/2410.20098>`_, 2025. Algorithm 1; thresholds as in their code.

    Differs from:
      The authors' code: silences are in updates, not in examples, and go by the batches as they are, while the code has
      100 as the least threshold whatever the batch; thresholds follow every 1000 updates, not every 16 tasks, so task
      changes need not be known; a unit with an empty histogram, which fires all the time or never, gets a longer
      threshold, where 0/0 gave it the shortest. The output is looked at, not what is before the activation: the same
      for ReLU, while units that are positive whatever they are fed (a sigmoid) never count as silent.
    """
    require_range("quantile", quantile, 0, 1, do="Use 0.99, as published, or 1 for no resets.")
    require_range("expansion", expansion, 1, do="Use 2, as published.")
    require_whole("threshold_every", threshold_every, 1, do="Use the period in updates, 1000 by default.")
    max_silence = require_whole("max_silence", max_silence, 1, do="Use 200 updates, or more for small batches.")
    wiring = require_owned_outputs(wiring, "SNR")

    def init(learned: Learned) -> State:
        del learned
        return {
            layer.name: SNRState(
                silence=jnp.zeros(layer.width, jnp.int32),
                threshold=jnp.full(layer.width, max(max_silence / 2, 1.0)),
                histogram=jnp.zeros((layer.width, max_silence + 1), jnp.int32),
            )
            for layer in wiring.layers
        }

    def observe(now: SNRState, features: Array) -> SNRState:
        largest = features.reshape(-1, now.silence.size).max(axis=0, initial=-jnp.inf)
        fires = (largest > 0) & jnp.isfinite(largest)
        is_silent = largest <= 0  # NaN is neither
        return now._replace(
            silence=jnp.where(fires, 0, now.silence + is_silent), histogram=_with(now.histogram, now.silence, fires)
        )

    def adapt(now: SNRState) -> SNRState:
        usual = _quantile(now.histogram, quantile)
        threshold = jnp.where(usual < now.threshold, usual, expansion * now.threshold)
        return now._replace(
            threshold=jnp.clip(threshold, 1, max_silence).astype(now.threshold.dtype),
            histogram=jnp.zeros_like(now.histogram),
        )

    def update(key: Key, step: Any, learned: Learned, state: State, signals: Signals) -> tuple[Learned, State, Info]:
        state = {
            layer.name: observe(state[layer.name], layer.units_last(signals.features[layer.name]))
            for layer in wiring.layers
        }
        state = jax.lax.cond(
            step % threshold_every == 0,
            lambda state: {name: adapt(now) for name, now in state.items()},
            lambda state: state,
            state,
        )
        units = {name: (now.silence >= now.threshold) & (quantile < 1) for name, now in state.items()}
        num_reset = num_selected(units)
        learned, state = jax.lax.cond(
            anywhere(num_reset > 0),
            lambda learned, state: (
                reset_units(key, learned, wiring, units),
                {name: _begun_again(now, units[name]) for name, now in state.items()},
            ),
            lambda learned, state: (learned, state),
            learned,
            state,
        )
        mean_threshold = jnp.concatenate([now.threshold for now in state.values()]).mean()
        return learned, state, {"units_reset": num_reset, "mean_threshold": mean_threshold}

    return Intervention(init, update)


def _begun_again(now: SNRState, units: Array) -> SNRState:
    return now._replace(silence=jnp.where(units, 0, now.silence), histogram=_with(now.histogram, now.silence, units))


def _with(histogram: Array, silence: Array, units: Bool[Array, " width"]) -> Int[Array, "width bins"]:
    """The histogram with the silences of some units in it; longer ones than it has room for are its last.

    Compares all bins: XLA:CPU scatters one unit after the other.
    """
    last = histogram.shape[1] - 1
    is_bin = jnp.minimum(silence, last)[:, None] == jnp.arange(last + 1)[None]
    return histogram + (is_bin & units[:, None]).astype(jnp.int32)


def _quantile(histogram: Array, quantile: Number) -> Float[Array, " width"]:
    """For each unit the quantile of its silences, 0 left out; infinite if it has none."""
    below = jnp.cumsum(histogram[:, 1:], axis=1)
    total = below[:, -1:]
    reached = below >= quantile * total * (1.0 - 1e-6)
    return jnp.where(total[:, 0] > 0, 1.0 + jnp.argmax(reached & (below > 0), axis=1), jnp.inf)


SNR = Method(
    name="snr",
    summary="Adam that resets units which are silent for longer than is usual for them",
    reference="Farias and Jozefiak 2025, algorithm 1",
    intervention=snr,
    space={
        "quantile": Choice((0.92, 0.96, 0.98, 0.99, 0.995)),
        "threshold_every": LogUniform(100, 5000, is_whole=True),
    },
    off={"quantile": 1.0},
    remembers="how long units are usually silent",
)
