"""ReDo: recycling dormant units."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from pliant.diagnostics import is_dormant
from pliant.errors import UserError, require_range
from pliant.interventions._surgery import reset_units
from pliant.types import Info, Intervention, Key, Number, Params, Signals, State, Wiring


def redo(wiring: Wiring, *, threshold: Number = 0.025, every: Number = 1000, num_examples: int = 64) -> Intervention:
    r"""Resets dormant units at regular intervals (ReDo).

    At updates F, 2F, … a unit i of a hidden layer is reset (see `pliant.interventions.reset_units`) if

    .. math:: s_i = \frac{\mathbb E_x |h_i(x)|}{\frac1N \sum_k \mathbb E_x |h_k(x)| + 10^{-9}} \le \tau

    on examples drawn for the purpose, all layers being scored before any is reset.

    Args:
      wiring: the network's layer graph.
      threshold: τ; 0 resets units that are exactly silent, a negative one none.
      every: F ≥ 1, a period in updates.
      num_examples: examples for the scores, ≥ 1, drawn with replacement from the current task.

    Returns:
      A stateless `Intervention`; `info` counts the `units_reset`.

    Raises:
      UserError: for numbers out of range, and for networks in which no unit owns an output (MaxMin).

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(4,))
      >>> params, state = network.init(jax.random.key(0))
      >>> params["dense_0"]["bias"] = jnp.array([-9.0, 0.0, 0.0, 0.0])  # the first unit never fires
      >>> x = jnp.ones((8, 2))
      >>> probe = lambda key, num_examples: network.apply(params, state, x, train=False, key=key)[1]
      >>> signals = Signals(gradients=params, features={}, probe=probe)
      >>> method = redo(network.wiring, threshold=0.0, every=1)
      >>> new, _, _, info = method.update(jax.random.key(1), 1, params, (), (), signals)
      >>> float(new["dense_0"]["bias"][0]), bool(info["units_reset"] >= 1)
      (0.0, True)

    References:
      Sokar et al., `The Dormant Neuron Phenomenon in Deep Reinforcement Learning
      <https://arxiv.org/abs/2302.12902>`_, 2023. Equation 1 and algorithm 1.

    Differs from:
      Dopamine's code: incoming weights come from the layer's own initialiser, not always Xavier uniform; the bias'
      moments and the unit's own norm are reset as well. PyTorch ports that set the whole tensor's step count to
      zero.
    """
    require_range("every", every, 1, do="Use the period in updates, 1000 by default.")
    require_range("num_examples", num_examples, 1, do="Use 64, as published.")
    mixed = sorted({layer.activation for layer in wiring.layers if not layer.elementwise})
    if mixed or not wiring.layers:
        raise UserError(
            got=f"ReDo behind {', '.join(mixed)}" if mixed else "ReDo on a network without hidden layers",
            wanted="hidden layers in which every unit owns its output",
            do="Use an elementwise activation such as relu: sorted outputs belong to no unit, and none of them dies.",
        )

    def init(params: Params) -> State:
        del params
        return ()

    def recycle(
        key: Key, params: Params, opt_state: optax.OptState, signals: Signals
    ) -> tuple[Params, optax.OptState, Info]:
        probe_key, draw_key = jax.random.split(key)
        features = signals.probe(probe_key, num_examples)
        units = {layer.name: is_dormant(features[layer.name], threshold, layer.width) for layer in wiring.layers}
        params, opt_state = reset_units(draw_key, params, opt_state, wiring, units)
        num_reset = jnp.stack([jnp.sum(flags, dtype=jnp.int32) for flags in units.values()]).sum()
        return params, opt_state, {"units_reset": num_reset}

    def update(
        key: Key, step: Any, params: Params, opt_state: optax.OptState, state: State, signals: Signals
    ) -> tuple[Params, optax.OptState, State, Info]:
        params, opt_state, info = jax.lax.cond(
            step % every == 0,
            lambda params, opt_state: recycle(key, params, opt_state, signals),
            lambda params, opt_state: (params, opt_state, {"units_reset": jnp.int32(0)}),
            params,
            opt_state,
        )
        return params, opt_state, state, info

    return Intervention(init, update)
