"""Singular values of Jacobians: the distance of each layer and of the whole network from dynamical isometry."""

import functools
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pliant.diagnostics._jacobian import intermediate_jacobian
from pliant.diagnostics._jacobian_moments import JacobianMoments, jacobian_moments
from pliant.diagnostics._singular_values import entropy_rank, singular_values
from pliant.diagnostics._subject import features_of, images_only, some
from pliant.errors import UserError
from pliant.tracing import Function, jacobian_shape, layer_starts, segment
from pliant.types import Diagnostic, Measured, Subject

Found: TypeAlias = Float[Array, "examples out inputs"] | JacobianMoments
_ZERO = 1e-6  # of the largest: Jacobians come in float32, whose rounding (6e-8 an entry) fills exact zeros
_CONDITION_LIMIT = 1e12
_NEAR = 0.1
_MOST_EXAMPLES = 64
_MOST_RANDOMISED = 16  # examples, if any Jacobian is only estimated: that takes whole passes through the network
_LARGE = 2**20  # entries from which on a Jacobian is only estimated
_ENTRIES = 2**25  # of all exact Jacobians together: what a network's measurement may take of the device
_WORK = 2**32  # Σ min(m, n)² max(m, n) of all that are decomposed on the host: 32 of size 512
_IO = "input_output"
_METRICS = {
    "sigma_max": "sigma_max",
    "sigma_mean": "sigma_mean",
    "sigma_rms": "sigma_rms",
    "condition_log10": "condition_nonzero_log10",
    "near_one_fraction": "near_one_fraction",
    "zero_fraction": "zero_fraction",
    "effective_rank": "effective_rank",
    "isometry_deviation": "isometry_deviation",
}
_IO_METRICS = {
    "sigma_max": "sigma_max",
    "condition_log10": "condition_log10",
    "rms": "sigma_rms",
    "effective_rank": "effective_rank",
}


class JacobianSpectrum(NamedTuple):
    """What `jacobian_spectrum` returns: singular values, and numbers averaged over examples."""

    singular_values: Float[np.ndarray, "examples rank"]
    """Descending."""
    sigma_min: float
    sigma_min_nonzero: float
    """The smallest that does not count as zero."""
    sigma_max: float
    sigma_mean: float
    sigma_rms: float
    condition_log10: float
    """log10 of σ_max / σ_min; 12 stands for more."""
    condition_nonzero_log10: float
    """log10 of σ_max over the smallest that does not count as zero; in [0, 6]."""
    effective_rank: float
    """As `effective_rank`, of each Jacobian."""
    isometry_deviation: float
    """Root mean square of σ − 1."""
    near_one_fraction: float
    """Of the singular values within 0.1 of 1."""
    zero_fraction: float
    """Of the singular values that are at most a millionth of the largest."""


def jacobian_spectrum(jacobians: Float[np.ndarray, "examples out inputs"]) -> JacobianSpectrum:
    r"""Measures Jacobians by their singular values.

    Use it to see how far a layer or a network is from dynamical isometry.

    .. math:: \kappa = \sigma_{max} / \sigma_{min}, \qquad
              \text{deviation} = \sqrt{\tfrac1k \textstyle\sum_i (\sigma_i - 1)^2}, \qquad k = \min(m, n)

    Of each example, then averaged. On the host, in float64. Through ReLU many singular values are exactly 0, so the
    smallest is uninformative: look at `zero_fraction` and at the condition number of the part that is not zero.

    Args:
      jacobians: one matrix an example.

    Returns:
      `JacobianSpectrum`. A Jacobian of zeros has zero fraction 1 and effective rank 0, and is left out of the means of
      condition numbers and `sigma_min_nonzero`; they are NaN if all are zeros. An entry that is not finite makes that
      example's singular values and all means NaN.

    Raises:
      UserError: for an empty array, since nothing was measured.

    Example:
      >>> found = jacobian_spectrum(np.diag([2.0, 1.0, 0.0])[None])
      >>> round(found.sigma_rms, 4), round(found.zero_fraction, 4), round(found.condition_nonzero_log10, 4)
      (1.291, 0.3333, 0.301)

    References:
      Saxe, McClelland, Ganguli, `Exact solutions to the nonlinear dynamics of learning in deep linear neural networks
      <https://arxiv.org/abs/1312.6120>`_, 2013 (dynamical isometry). Rosseau et al. 2026 (arXiv 2606.09762), figure 6.

    Differs from:
      Stoix, the code of Rosseau et al., whose effective rank is the participation ratio (Σσ)²/Σσ².
    """
    if jacobians.size == 0:
        raise UserError(
            got=f"Jacobians of shape {jacobians.shape}",
            wanted="at least one example, output and input",
            do="Pass the Jacobians of a non-empty probe batch.",
        )
    sigma = np.stack([singular_values(each) for each in jacobians])
    sigma_min, sigma_max = sigma[:, -1], sigma[:, 0]
    nonzero = np.logical_not(sigma <= _ZERO * sigma_max[:, None])
    has_nonzero = sigma_max != 0
    smallest = np.where(nonzero, sigma, np.inf).min(axis=1)
    floor = np.maximum(sigma_min, sigma_max / _CONDITION_LIMIT)
    return JacobianSpectrum(
        sigma,
        sigma_min=float(sigma_min.mean()),
        sigma_min_nonzero=_mean(smallest, has_nonzero),
        sigma_max=float(sigma_max.mean()),
        sigma_mean=float(sigma.mean()),
        sigma_rms=_mean_root(sigma),
        condition_log10=_mean_log10(sigma_max, floor, has_nonzero),
        condition_nonzero_log10=_mean_log10(sigma_max, smallest, has_nonzero),
        effective_rank=float(np.mean([entropy_rank(each) for each in sigma])),
        isometry_deviation=_mean_root(sigma - 1),
        near_one_fraction=_fraction(np.abs(sigma - 1) < _NEAR, sigma),
        zero_fraction=_fraction(~nonzero, sigma),
    )


def _mean(values: np.ndarray, where: Bool[np.ndarray, " examples"]) -> float:
    return float(values[where].mean()) if where.any() else float("nan")


def _mean_log10(above: np.ndarray, below: np.ndarray, where: Bool[np.ndarray, " examples"]) -> float:
    return _mean(np.log10(np.where(where, above, 1) / np.where(where, below, 1)), where)


def _mean_root(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean(axis=1)).mean())


def _fraction(flags: np.ndarray, values: np.ndarray) -> float:
    return float(flags.mean()) if np.isfinite(values).all() else float("nan")


class _Segment(NamedTuple):
    """From where to where, and the sides of the Jacobian."""

    start: str | None
    end: str | None
    rows: int
    columns: int

    def is_exact(self) -> bool:
        return self.rows * self.columns <= _LARGE

    def work(self) -> int:
        return self.rows * self.columns * min(self.rows, self.columns)


def _measure(subject: Subject) -> dict[str, Found]:
    """The Jacobian of every layer and of the whole network, or its moments where it is too large; NaN for `gaps`."""
    function = jax.jit(features_of(subject))  # traced once for all segments
    segments = _segments(subject, function)
    probe = some(subject.probe, _num_examples(list(segments.values())))
    inputs = images_only(subject._replace(probe=probe))
    left_out = _gaps(function, inputs, segments)
    found: dict[str, Found] = {}
    for i, (name, each) in enumerate(segments.items()):
        if name in left_out:
            found[name] = jnp.full((1, 1, 1), jnp.nan)
        elif each.is_exact():
            found[name] = intermediate_jacobian(function, inputs, each.start, each.end)
        else:
            key = jax.random.fold_in(subject.key, i)
            found[name] = jacobian_moments(function, inputs, key, each.start, each.end)
    output, features = function(inputs)
    ends = {name: output if each.end is None else features[each.end] for name, each in segments.items()}
    return {name: jax.tree.map(functools.partial(_known, ends[name]), each) for name, each in found.items()}


def _known(end: Array, found: Array) -> Array:
    """NaN for examples on which a layer is not finite: the derivative of a ReLU is 0 even there."""
    is_known = jnp.isfinite(end).reshape(len(end), -1).all(axis=1)
    return jnp.where(is_known[: len(found)].reshape(-1, *[1] * (found.ndim - 1)), found, jnp.nan)


def _segments(subject: Subject, function: Function) -> dict[str, _Segment]:
    """Of the wiring's layers that are among the features, and from the inputs to the output."""
    one = images_only(subject._replace(probe=some(subject.probe, 1)))
    if not jnp.issubdtype(one.dtype, jnp.floating):
        raise UserError(
            got=f"inputs of {one.dtype}",
            wanted="floating-point numbers, by which there are derivatives",
            do="Leave this diagnostic out for tokens; cast images before they are handed in.",
        )
    _, features = jax.eval_shape(function, one)
    layers = [layer.name for layer in subject.network.wiring.layers if layer.name in features]
    starts = layer_starts(function, one, layers) if layers else {}
    ends: list[tuple[str, str | None, str | None]] = [(layer, start, layer) for layer, start in starts.items()]
    ends.append((_IO, None, None))
    return {name: _Segment(start, end, *jacobian_shape(function, one, start, end)) for name, start, end in ends}


def jacobian_gaps(subject: Subject) -> dict[str, str]:
    """The layers whose Jacobian is not measured, and why.

    Example:
      >>> from pliant.networks import mlp
      >>> from pliant.types import Batch
      >>> network = mlp((3,), 2, widths=(4,))
      >>> batch = Batch(jnp.ones((5, 3)), jnp.zeros(5))
      >>> jacobian_gaps(Subject(network, *network.init(jax.random.key(0)), batch, None, jax.random.key(1)))
      {}
    """
    function = features_of(subject)
    return _gaps(function, images_only(subject), _segments(subject, function))


def _gaps(function: Function, inputs: Array, segments: Mapping[str, _Segment]) -> dict[str, str]:
    """Segments that begin at a feature which cannot be perturbed."""
    reasons = {}
    for name, each in segments.items():
        try:
            segment(function, inputs, each.start, each.end)
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def _num_examples(segments: list[_Segment]) -> int:
    """As many as memory and the host's decompositions allow."""
    exact = [each for each in segments if each.is_exact()]
    most = _MOST_EXAMPLES if len(exact) == len(segments) else _MOST_RANDOMISED
    entries = sum(each.rows * each.columns for each in exact)
    work = sum(each.work() for each in exact)
    return max(1, min(most, _ENTRIES // max(entries, 1), _WORK // max(work, 1)))


def _summarize(found: Mapping[str, np.ndarray | JacobianMoments]) -> Measured:
    """Of all layers together the mean over those in which a number is known; NaN if one is broken."""
    measured = {
        name: each if isinstance(each, JacobianMoments) else jacobian_spectrum(each) for name, each in found.items()
    }
    values = {name: _by_metric(each) for name, each in measured.items()}
    whole = values.pop(_IO)
    numbers = {f"{_IO}_{short}": whole[metric] for short, metric in _IO_METRICS.items()}
    is_finite = not any(np.isnan(of_layer["sigma_max"]) for of_layer in values.values())
    for metric in _METRICS:
        of_layers = np.array([of_layer[metric] for of_layer in values.values()])
        is_known = ~np.isnan(of_layers)
        numbers[f"jacobian_{metric}"] = _mean(of_layers, is_known) if is_finite else float("nan")
        numbers |= {f"jacobian_{metric}/{layer}": of_layer[metric] for layer, of_layer in values.items()}
    arrays = {
        name if name == _IO else f"singular_values/{name}": each.singular_values
        for name, each in measured.items()
        if isinstance(each, JacobianSpectrum)
    }
    return Measured(numbers, arrays)


def _by_metric(found: JacobianSpectrum | JacobianMoments) -> dict[str, float]:
    """Means over examples; NaN for what is not known without the Jacobian."""
    return {metric: float(np.mean(getattr(found, field, np.nan))) for metric, field in _METRICS.items()}


JACOBIAN = Diagnostic(
    name="jacobian",
    summary="singular values of the Jacobians from layer to layer and from input to output, on at most 64 examples",
    cost="per-task",
    measure=_measure,
    summarize=_summarize,
)
