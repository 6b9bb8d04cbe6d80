"""Hidden units that hardly learn, judged by their gradients."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pliant.diagnostics._as_measured import as_measured
from pliant.diagnostics._layer_fractions import LayerFractions, layer_fractions, named
from pliant.diagnostics._subject import gradient, some, widened
from pliant.errors import UserError, require_range
from pliant.types import Batch, Diagnostic, Number, Params, Subject, Wiring, by_path

_MOST = 64  # examples with a gradient of their own: each costs a backward pass


def incoming_gradients(wiring: Wiring, gradients: Params) -> Mapping[str, Float[Array, "fan_in width"]]:
    r"""Collects the gradients of each unit's incoming kernels.

    Use it as the input of `gradient_scores` and `zero_gradient`.

    .. math:: G_{ji} = \frac{\partial L}{\partial W_{ji}}

    for all weights j of unit i. A unit with several kernels (gate and value of a gated one) has them one below the
    other; biases and norms are not among them.

    Args:
      wiring: the network's layer graph.
      gradients: of the parameters, or any tree of their shapes.

    Returns:
      By hidden layer, (weights of a unit, units), in float32 or wider.

    Raises:
      UserError: if the wiring names no kernel of a hidden layer, since there is nothing to collect.

    Example:
      >>> from pliant.networks import mlp
      >>> network = mlp((3,), 2, widths=(4, 5))
      >>> params, _ = network.init(jax.random.key(0))
      >>> {name: kernel.shape for name, kernel in incoming_gradients(network.wiring, params).items()}
      {'dense_0': (3, 4), 'dense_1': (4, 5)}

    References:
      Liu et al. 2025, see `gradient_scores`.

    Differs from:
      Nothing known.
    """
    leaves = by_path(gradients)
    found = {}
    for layer in wiring.layers:
        slots = [feed.slot for feed in layer.feeds if wiring.roles[feed.slot.path] == "matrix"]
        entries = [widened(slot.by_unit(leaves[slot.path])) for slot in slots]
        if entries:
            found[layer.name] = jnp.concatenate(entries)
    if not found:
        raise UserError(
            got=f"a wiring of {len(wiring.layers)} hidden layers that names no kernel of theirs",
            wanted="at least one hidden layer with the kernel that feeds it",
            do="Give the wiring of the network: it says which parameters feed each unit.",
        )
    return found


def gradient_scores(gradient_of_kernel: Float[Array, "*kernel"], axis: int = -1) -> Float[Array, " width"]:
    r"""Scores units by the mean absolute gradient of their incoming weights relative to their layer's.

    Use it to rank the units of a layer by how much they learn, for any activation.

    .. math:: s_i = \frac{g_i}{\frac1N \sum_k g_k}, \qquad
              g_i = \operatorname{mean}_j \Big| \frac{\partial L}{\partial W_{ji}} \Big|

    The score has no scale: neither the loss' nor the learning rate's changes it.

    Args:
      gradient_of_kernel: of a layer's kernel, or of the kernel on several examples, with an axis of examples in front.
      axis: the one that the units index; for dense and convolution kernels the last.

    Returns:
      One score ≥ 0 a unit. They average to 1, or are all 0 in a layer without any gradient. NaN where a gradient is
      NaN, for the whole layer.

    Raises:
      UserError: for an empty kernel, since nothing was measured.

    Example:
      >>> gradient_scores(jnp.array([[0.0, 1.0, -3.0], [0.0, -1.0, 1.0]])).tolist()
      [0.0, 1.0, 2.0]

    References:
      Liu et al., `Measure gradients, not activations! Enhancing neuronal activity in deep reinforcement learning
      <https://arxiv.org/abs/2505.24061>`_, 2025. The gradient magnitude of GraMa.

    Differs from:
      A reimplementation (LucMc), which adds 10⁻⁹ to the layer's mean: with it the score depends on the scale of the
      loss.
    """
    if gradient_of_kernel.size == 0:
        raise UserError(
            got=f"a gradient of shape {gradient_of_kernel.shape}",
            wanted="at least one weight of at least one unit",
            do="Pass the gradient of a kernel.",
        )
    by_unit = jnp.moveaxis(widened(gradient_of_kernel), axis, -1)
    sizes = jnp.abs(by_unit).mean(axis=tuple(range(by_unit.ndim - 1)))
    mean = sizes.mean()
    return sizes / jnp.where(mean == 0, 1.0, mean)


def grama(gradients: Mapping[str, Float[Array, "*kernel width"]], threshold: Number = 0.01) -> LayerFractions:
    """Measures the fraction of units that hardly learn: those whose `gradient_scores` are at most `threshold`.

    Use it where `dormant` means little, for instance with activations that are never near 0.

    A unit can be active and not learn, since nothing reads it; `dormant` does not see that.

    Args:
      gradients: of the incoming kernel, by hidden layer, units last, see `incoming_gradients`. For a mean over examples
        of the absolute gradient of each, which do not cancel, give those of every example with their axis in front.
      threshold: τ ≥ 0.

    Returns:
      `LayerFractions`, in [0, 1]; 1 in a layer without any gradient. Gradients that are not finite give NaN.

    Raises:
      UserError: if there is no layer or an empty kernel, since nothing was measured, and for a negative threshold.

    Example:
      >>> float(grama({"dense_0": jnp.array([[0.0, 1.0, -3.0, 0.01]])}).pooled)
      0.5

    References:
      Liu et al. 2025, see `gradient_scores`. τ is that of a reimplementation: the paper's was not read.

    Differs from:
      `pliant.interventions.regrama`, which leaves layers without any gradient alone.
    """
    _require(gradients)
    require_range("threshold", threshold, 0, do="0.01 is usual.")
    flags = {name: gradient_scores(gradient) <= threshold for name, gradient in gradients.items()}
    return layer_fractions(flags, gradients)


def zero_gradient(gradients: Mapping[str, Float[Array, "*kernel width"]]) -> LayerFractions:
    """Measures the fraction of units that do not learn at all: the gradient of every incoming weight is exactly 0.

    Use it to count the units that no gradient step on this batch can move.

    Gradients of a batch can cancel; those of its examples cannot. Behind ReLU a unit that never fires is among them,
    and so is one that nothing reads.

    Args:
      gradients: of the incoming kernel, by hidden layer, units last, see `incoming_gradients`; of a batch, or of every
        example with their axis in front.

    Returns:
      `LayerFractions`, in [0, 1]. Gradients that are not finite give NaN.

    Raises:
      UserError: if there is no layer or an empty kernel, since nothing was measured.

    Example:
      >>> float(zero_gradient({"dense_0": jnp.array([[0.0, 1.0], [0.0, -1.0]])}).pooled)
      0.5

    References:
      Liu et al. 2025, see `gradient_scores`: the limit of a threshold of 0.

    Differs from:
      Nothing known.
    """
    _require(gradients)
    flags = {name: (gradient == 0).all(axis=tuple(range(gradient.ndim - 1))) for name, gradient in gradients.items()}
    return layer_fractions(flags, gradients)


def _require(gradients: Mapping[str, Array]) -> None:
    if not gradients or any(gradient.size == 0 for gradient in gradients.values()):
        raise UserError(
            got=f"gradients of {len(gradients)} layers, or an empty kernel",
            wanted="at least one hidden layer, each with weights",
            do="Pass what `incoming_gradients` returns.",
        )


def _measure(subject: Subject) -> Mapping[str, Array]:
    wiring, of_loss = subject.network.wiring, gradient(subject)

    def largest(example: Batch) -> Mapping[str, Array]:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        kernels = incoming_gradients(wiring, of_loss(subject.params, alone))
        return {name: jnp.abs(kernel).max(axis=0) for name, kernel in kernels.items()}

    of_batch = incoming_gradients(wiring, of_loss(subject.params, subject.probe))
    of_examples = jax.lax.map(largest, some(subject.probe, _MOST))  # mapped: their kernels do not fit in memory at once
    return named("grama_fraction", grama(of_batch)) | named("zero_gradient_fraction", zero_gradient(of_examples))


GRAMA = Diagnostic(
    name="grama",
    summary="fraction of units whose incoming weights get hardly any gradient (Liu et al.), and none on any example",
    cost="per-task",
    measure=_measure,
    summarize=as_measured,
)
