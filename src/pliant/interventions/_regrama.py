"""ReGraMa: recycling units that hardly learn."""

import math
from typing import Any

from jaxtyping import Array, Bool, Float

from pliant.diagnostics import gradient_scores, incoming_gradients
from pliant.errors import require_range
from pliant.interventions._redo import recycling
from pliant.interventions._surgery import Units, require_owned_outputs
from pliant.types import Intervention, Key, Learned, LogUniform, Method, Number, Signals, Wiring


def regrama(wiring: Wiring, *, threshold: Number = 0.01, every: Number = 1000) -> Intervention:
    r"""Resets units whose incoming weights get almost no gradient, at regular intervals (ReGraMa).

    Use it in place of `redo` when activations do not show which units are idle.

    At updates F, 2F, … a unit i of a hidden layer is reset (see `pliant.interventions.reset_units`) if

    .. math:: s_i = \frac{g_i}{\frac1N \sum_k g_k} \le \tau, \qquad
              g_i = \operatorname{mean}_j \Big| \frac{\partial L}{\partial W_{ji}} \Big|

    with the gradient of the current batch, before the optimizer transforms it, and the mean over the unit's slice of
    the kernel (`pliant.diagnostics.gradient_scores`). The score has no scale, so loss scaling and clipping by norm do
    not change it. A layer without any gradient is left alone, and so is one with gradients that are not finite.

    Args:
      wiring: the network's layer graph.
      threshold: τ; 0 resets units without any gradient, a negative one none.
      every: F ≥ 1, a period in updates.

    Returns:
      A stateless `Intervention`; `info` counts the `units_reset`.

    Raises:
      UserError: for numbers out of range, and for networks in which no unit owns an output (MaxMin).

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((2,), 1, widths=(4,))
      >>> params, state = network.init(jax.random.key(0))
      >>> gradients = jax.tree.map(jnp.ones_like, params)
      >>> gradients["dense_0"]["kernel"] = jnp.array([[1.0, 0.0, 2.0, 0.01], [1.0, 0.0, 2.0, 0.01]])
      >>> signals = Signals(gradients=gradients, features={}, probe=None, fresh=None)
      >>> learned = Learned(params, state, ())
      >>> new, _, info = regrama(network.wiring, every=1).update(jax.random.key(1), 1, learned, (), signals)
      >>> int(info["units_reset"]), new.params["head"]["kernel"][:, 0].astype(bool).tolist()
      (1, [True, False, True, True])

    References:
      Liu et al., `Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning
      <https://arxiv.org/abs/2505.24061>`_, 2025. τ and F are those of a reimplementation: the paper's were not read.

    Differs from:
      Code that adds 10⁻⁹ to the layer's mean, with which the score depends on the scale of the loss, and that resets
      all of a layer without gradient or makes NaN of it. With a penalty in the loss its gradient counts as well.
    """
    require_range("threshold", threshold, -math.inf, do="0.01 is usual; 0 resets what gets no gradient, -1 nothing.")
    wiring = require_owned_outputs(wiring, "ReGraMa")

    def choose(key: Key, step: Any, learned: Learned, signals: Signals) -> Units:
        del key, step, learned
        kernels = incoming_gradients(wiring, signals.gradients)
        return {name: _is_idle(gradient_scores(kernel), threshold) for name, kernel in kernels.items()}

    return recycling(wiring, choose, every=every)


def _is_idle(scores: Float[Array, " width"], threshold: Number) -> Bool[Array, " width"]:
    return (scores <= threshold) & (scores > 0).any()


REGRAMA = Method(
    name="regrama",
    summary="Adam with a periodic reset of units that get hardly any gradient",
    reference="Liu et al. 2025 (arXiv 2505.24061)",
    intervention=regrama,
    space={"threshold": LogUniform(1e-4, 0.3), "every": LogUniform(100, 5000, is_whole=True)},
    off={"threshold": -1.0},
    lowers="dormant_fraction",
)
