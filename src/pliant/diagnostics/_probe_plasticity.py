"""Probe plasticity: how well copies of the network still fit random functions."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

from pliant.diagnostics._fit import fit
from pliant.diagnostics._subject import images_only, outputs, some
from pliant.errors import UserError, require_range, require_whole
from pliant.types import (
    Batch,
    Coded,
    Diagnostic,
    Key,
    Measured,
    Network,
    Params,
    Scalar,
    State,
    Subject,
    leaf_path,
)

_FREQUENCY = 1e5
_NUM_SPANS = 20  # between the points of a learning curve
_SEED = 0  # of targets and batches: the same for all networks, tasks and seeds, whose results can so be compared


class ProbePlasticity(NamedTuple):
    """What `probe_plasticity` returns."""

    plasticity: Scalar
    """P = `baseline` − mean of `final_losses`; at most `baseline`."""
    baseline: Scalar
    """Mean variance of the targets, about 1/2: the loss of the best constant."""
    final_losses: Float[Array, " targets"]
    """Mean squared error of each copy on all examples, after its last update; ≥ 0."""
    curves: Float[Array, "targets points"]
    """The same at `steps`."""
    steps: Int[Array, " points"]
    """Numbers of updates, from 0 to the last."""


class Probed(NamedTuple):
    """What the diagnostic measures."""

    now: ProbePlasticity
    initial: ProbePlasticity | None
    """Of the network as it began, if that was asked for."""


def sine_targets(
    function: Callable[[Params, Any], Array], params: Params, initial_params: Params, inputs: Shaped[Array, "batch ..."]
) -> Float[Array, "batch *space out"]:
    r"""Makes a regression target for which a network must tell all inputs apart.

    Use it to test a network on functions that no task has taught it.

    .. math:: g(x) = a + \sin(10^5 f(x; \theta')), \qquad a = \mathbb E_x f(x; \theta)

    with one a and one sine for each output. Computed in float32, with products of matrices in full float32 too, since
    an error ε of f is one of 10⁵ε in the phase. Even so nearly equal programs agree to two digits or so only.

    Args:
      function: `function(params, inputs) -> output`, (batch, …), in float32 or wider.
      params: θ, of the network whose plasticity is asked.
      initial_params: θ', newly sampled.
      inputs: x.

    Returns:
      g, in [a − 1, a + 1]; no gradient flows through it. NaN where f(x; θ') is not finite, and throughout if a is not.

    Raises:
      UserError: for no inputs, or an output narrower than float32, of which the sine would be noise of rounding.

    Example:
      >>> def function(params, x):
      ...     return params * x
      >>> found = sine_targets(function, jnp.float32(2.0), jnp.float32(1e-5), jnp.array([[0.0], [1.0]]))
      >>> [round(value, 4) for value in found[:, 0].tolist()]
      [1.0, 1.8415]

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Section 2.2.

    Differs from:
      The authors' text, which speaks of one output; here every output has its own sine and its own a.
    """
    if len(inputs) == 0:
        raise UserError(got="no inputs", wanted="at least one example", do="Pass examples to fit.")
    with jax.default_matmul_precision("float32"):
        drawn, output = function(initial_params, inputs), function(params, inputs)
    if jnp.finfo(drawn.dtype).bits < 32:
        raise UserError(
            got=f"an output of {drawn.dtype.name}",
            wanted="float32 or wider",
            do="Cast parameters and inputs to float32 first: the sine of 10⁵ times the output needs its digits.",
        )
    offset = output.astype(drawn.dtype).mean(axis=0, keepdims=True)
    return jax.lax.stop_gradient(offset + jnp.sin(_FREQUENCY * drawn))


def probe_plasticity(
    function: Callable[[Params, Any], Array],
    params: Params,
    init: Callable[[Key], Params],
    optimizer: optax.GradientTransformation,
    inputs: Shaped[Array, "batch ..."],
    key: Key,
    *,
    num_targets: int = 10,
    num_steps: int = 2000,
    batch_size: int = 32,
) -> ProbePlasticity:
    r"""Measures plasticity as how well copies of the network can be trained to fit random targets.

    Use it for plasticity itself, the ability to fit new targets, where training copies is affordable.

    .. math:: P(\theta) = \frac1n \sum_j \Big(\mathrm{Var}(g_j) - \mathbb E_x (f(x; \theta_j^*) - g_j(x))^2\Big)

    where :math:`g_j` are `sine_targets` and :math:`\theta_j^*` are the parameters of a trained copy; variance and
    error are averaged over examples and outputs. Copies start with a fresh state of the optimizer, one after the other.
    Targets and batches depend on the key alone, but for the offset a: compare networks under the same key.

    Args:
      function: `function(params, inputs) -> output`, (batch, …), deterministic.
      params: θ; not changed.
      init: `init(key) -> new parameters`, for the targets.
      optimizer: that the network learns with; its update is handed `step` and `key` if it takes them.
      inputs: examples.
      key: for targets and batches.
      num_targets: n ≥ 1.
      num_steps: updates of each copy, ≥ 1.
      batch_size: examples in an update, drawn with replacement.

    Returns:
      `ProbePlasticity`; P is at most about 1/2, about 0 for a network that fits no more than a constant, and below 0
      for one that does not even get there. NaN parameters give NaN, and so does a copy that diverges.

    Raises:
      UserError: for no inputs, targets, updates or examples in an update, or an output narrower than float32.

    Example:
      >>> def table(params, x):
      ...     return x @ params
      >>> def init(key):
      ...     return jax.random.normal(key, (4, 1))
      >>> params, x = jnp.zeros((4, 1)), jnp.eye(4)
      >>> found = probe_plasticity(table, params, init, optax.sgd(0.5), x, jax.random.key(0), num_steps=200)
      >>> round(float(found.plasticity / found.baseline), 4)  # a table can be given any values
      1.0

    References:
      Lyle et al., `Understanding plasticity in neural networks <https://arxiv.org/abs/2303.01486>`_, 2023. Equation 4
      and section 2.2.

    Differs from:
      The authors' text leaves open what the final loss is (here: of all examples, not of the last batch), and whether
      the optimizer keeps its state (here: not). They learn on a replay buffer, with one output. In runs copies are
      trained with the method's optimizer alone: its penalties, interventions and schedules take no part. Outputs that
      stand for distributions over values (two-hot) learn by their own cross-entropy there, and errors are of the means.
    """

    def draw(key: Key) -> Array:
        return sine_targets(function, params, init(key), inputs)

    return _probe(
        function, params, draw, optimizer, inputs, key, num_targets=num_targets, num_steps=num_steps, size=batch_size
    )


def _probe(
    function: Callable[[Params, Any], Array],
    params: Params,
    draw: Callable[[Key], Array],
    optimizer: optax.GradientTransformation,
    inputs: Array,
    key: Key,
    *,
    num_targets: int,
    num_steps: int,
    size: int,
    coded: Coded | None = None,
) -> ProbePlasticity:
    """`probe_plasticity` for any way to draw targets, and for outputs that stand for distributions over values."""
    losses, scores = (coded.losses, _errors_of(coded)) if coded else (_squared_errors, None)
    require_range("num_targets", num_targets, 1, do="10 is the authors'.")
    require_range("num_steps", num_steps, 1, do="2000 is the authors'.")
    points = tuple(np.unique(np.linspace(0, num_steps, _NUM_SPANS + 1).round().astype(int)).tolist())

    def one(number: Int[Array, ""]) -> tuple[Scalar, Float[Array, " points"]]:
        of_target, of_fit = jax.random.split(jax.random.fold_in(key, number))
        targets = draw(of_target)
        batch = Batch(inputs, targets)
        found = fit(function, losses, params, optimizer, batch, of_fit, batch_size=size, points=points, scores=scores)
        return targets.var(axis=0).mean(), found.losses

    # One target after the other bounds the memory, and keeps QR decompositions in `draw` from being batched.
    variances, curves = jax.lax.map(one, jnp.arange(num_targets))
    final, baseline = curves[:, -1], variances.mean()
    return ProbePlasticity(baseline - final.mean(), baseline, final, curves, jnp.asarray(points))


def _errors_of(coded: Coded) -> Callable[[Array, Array], Array]:
    return lambda output, targets: _squared_errors(coded.values(output), targets)


def _with_live_heads(network: Network) -> Callable[[Key], tuple[Params, State]]:
    """`network.init`, with normal kernels for heads that begin at zero: else what it computes would be a constant."""
    heads = {path for path, role in network.wiring.roles.items() if role == "head"}

    def init(key: Key) -> tuple[Params, State]:
        params, state = network.init(key)

        def live(path: Any, leaf: Array) -> Array:
            name = leaf_path(path)
            if name not in heads or leaf.size == 0:
                return leaf
            own = jax.random.fold_in(key, zlib.crc32(name.encode()))
            normal = jax.random.normal(own, leaf.shape, leaf.dtype) * (leaf.shape[-1] / leaf.size) ** 0.5
            return jnp.where((leaf == 0).all(), normal, leaf)

        return jax.tree_util.tree_map_with_path(live, params), state

    return init


def _squared_errors(output: Array, targets: Array) -> Float[Array, " batch"]:
    return jnp.square(output - targets).reshape(len(output), -1).mean(axis=1)


def _diagnostic(
    *,
    num_targets: int = 10,
    num_steps: int = 2000,
    num_examples: int = 512,
    batch_size: int | None = None,
    initial: bool = False,
) -> Diagnostic:
    """Makes the diagnostic of runs; all copies and their whole learning curves are on the same examples.

    Args:
      num_targets: random functions to fit, one after the other, ≥ 1.
      num_steps: updates for each, ≥ 1. The loss after a quarter of them is reported too.
      num_examples: at most so many of the probe's, evenly spaced, ≥ 1.
      batch_size: examples in an update, ≥ 1; by default as in training.
      initial: whether copies of the network as it began are trained, too, on the same examples: for the increase of the
        loss over training. Costs twice as much.

    Raises:
      UserError: for numbers out of range.
    """
    for name, number in {"num_targets": num_targets, "num_steps": num_steps, "num_examples": num_examples}.items():
        require_whole(f"probe-plasticity:{name}", number, 1, do="Leave it out for the default.")
    if batch_size is not None:
        require_whole("probe-plasticity:batch_size", batch_size, 1, do="Leave it out for that of training.")

    def probed(subject: Subject, params: Params, state: State) -> ProbePlasticity:
        """Targets are of new networks with their own running statistics; copies keep the subject's, in eval mode."""
        assert subject.rule is not None
        inputs = images_only(subject._replace(probe=some(subject.probe, num_examples)))

        init = _with_live_heads(subject.network)

        def whole(both: tuple[Params, State], inputs: Array) -> Array:
            output = outputs(subject._replace(state=both[1]))(both[0], inputs)
            return subject.coded.values(output) if subject.coded else output

        def draw(key: Key) -> Array:
            return sine_targets(whole, (params, state), init(key), inputs)

        return _probe(
            outputs(subject._replace(state=state)),
            params,
            draw,
            subject.rule.optimizer,
            inputs,
            jax.random.key(_SEED),
            num_targets=num_targets,
            num_steps=num_steps,
            size=batch_size or subject.rule.batch_size,
            coded=subject.coded,
        )

    def measure(subject: Subject) -> Probed:
        """Trains copies on random functions of the probe's inputs.

        Targets and batches are the same for all networks, tasks and seeds. A number of updates is part of the
        definition: with fewer the order of methods may reverse, so that the loss after a quarter is reported too.
        """
        assert subject.initial is not None or not initial
        now = probed(subject, subject.params, subject.state)
        return Probed(now, probed(subject, *subject.initial) if initial and subject.initial else None)

    return Diagnostic(
        name="probe-plasticity",
        summary="how much better than a constant copies of the network fit random functions (Lyle et al.)",
        cost="rare",
        measure=measure,
        summarize=_summarize,
        needs=("rule", "initial") if initial else ("rule",),
        make=_diagnostic,
    )


def _summarize(found: Probed) -> Measured:
    now, quarter = found.now, len(found.now.steps) // 4
    numbers = {
        "probe_plasticity": float(now.plasticity),
        "probe_final_loss": float(now.final_losses.mean(dtype=np.float64)),
    }
    if quarter:
        numbers[f"probe_final_loss/{int(now.steps[quarter])}"] = float(now.curves[:, quarter].mean(dtype=np.float64))
    arrays = {"curves": np.asarray(now.curves), "steps": np.asarray(now.steps)}
    if found.initial is not None:
        began = float(found.initial.final_losses.mean(dtype=np.float64))
        numbers |= {"probe_initial_loss": began, "probe_loss_increase": numbers["probe_final_loss"] - began}
        arrays["initial_curves"] = np.asarray(found.initial.curves)
    return Measured(numbers, arrays)


PROBE_PLASTICITY = _diagnostic()
