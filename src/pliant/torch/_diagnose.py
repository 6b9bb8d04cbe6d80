"""Measures a PyTorch network: PyTorch observes and differentiates, `pliant.diagnostics` does the rest."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from pliant.diagnostics import DIAGNOSTICS, NTK, MeasuredNTK, choose, gradient_norm, one_blas_thread
from pliant.results import diagnosis_table
from pliant.sampling import evenly
from pliant.torch._called import as_it_was, inputs_for, number_of, require_real, some, unwrapped
from pliant.torch._calls import running
from pliant.torch._derivatives import Captured, jacobians, tangent_kernel
from pliant.torch._loss import loss_of
from pliant.torch._seen import NotMeasuredError, Seen, is_close, is_kernel_layer, kernels, known, notes, reason, see
from pliant.torch._trace import Layer
from pliant.types import Batch, Diagnostic, Head, HiddenLayer, Measured, Network, Subject, Wiring

_OF_FEATURES = ("dormant", "dead", "saturated", "effective-rank", "srank", "stable-rank", "feature-rank")
_OF_KERNELS = ("isometry-deviation", "weight-spectra")
_MEASURED = (*_OF_FEATURES, *_OF_KERNELS, "weight-norm", "gradient-norm", "jacobian", "ntk")
_MOST_EXAMPLES = 64  # of the NTK and the Jacobians
_MOST_ROWS = 1024  # examples × outputs of a full NTK
_LARGEST_BLOCK = 2**26  # derivatives at once
_LARGE, _ENTRIES = 2**20, 2**25  # entries of one Jacobian, and of all together
_WORK = 2**32  # Σ min(m, n)² max(m, n) of all that are decomposed


def diagnose(
    module: nn.Module,
    x: Any,
    y: Any = None,
    *,
    head: str | None = None,
    layers: Sequence[str] | None = None,
    diagnostics: Sequence[str | Diagnostic] = _MEASURED,
    title: str = "diagnosis",
    console: Console | None = None,
) -> Measured:
    """Measures a network's plasticity, prints a report, and returns the numbers: `pliant.diagnose` for PyTorch.

    Use it to ask whether a network that you train is losing plasticity, at any moment of its training.

    The network runs in evaluation mode and on copies of its tensors; gradients, random states and everything else are
    restored afterwards. Hidden layers are found by following the operations of a forward pass: every activation that
    weights read later, whether it is a module or a function. An activation that is called twice is two layers. Units
    are on the last axis after linear layers, and on axis 1 after convolutions. Singular values, ranks and fractions are
    computed by the same functions as those of JAX networks. The report gives the reason for whatever could not be
    measured. Requires JAX.

    Args:
      module: called as `module(x)`. The output is (batch, out): what it returns, the first entry of a tuple, or
        "logits" or "last_hidden_state". Behind `torch.compile` and `DataParallel` the module itself is measured.
      x: examples, (batch, …), a few hundred that are kept for this; a dictionary is passed as keyword arguments.
      y: their targets: classes (integers, cross-entropy) or values (floating-point, mean squared error). Without, what
        needs a loss is left out.
      head: name of the output layer, whose weight is no hidden kernel; what comes behind it is output. By default the
        layer whose product is the output, if no other contributes; the report names it.
      layers: names of the modules whose outputs are the hidden layers, by default all activations that are found.
      diagnostics: names, `path/to/file.py:name`, or diagnostics of your own; by default all that are measured here.
        Yours see features, weights and the output, but no loss, no derivatives, and no other parameters or inputs.
      title: of the report.
      console: to print on; by default the terminal.

    Returns:
      `Measured`: numbers by metric, and arrays by DIAGNOSTIC/ARRAY. Frozen parameters are left out of everything that
      is said of parameters, unless all are frozen.

    Raises:
      UserError: for no examples, a module that cannot be called, an output without a batch axis, and unknown modules.

    Example:
      >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
      >>> with torch.no_grad():
      ...     _ = net[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0, 9.0]))  # the first unit never fires
      >>> found = diagnose(net, torch.ones(8, 2), head="2", console=Console(quiet=True))
      >>> found.numbers["dead_fraction"]
      0.25

    References:
      See each diagnostic.

    Differs from:
      `pliant.diagnose`, which also measures what needs second derivatives, an optimizer, or an earlier moment.
    """
    chosen = choose(diagnostics)
    with torch.inference_mode(mode=False):
        module, prefix = unwrapped(module)
        require_real(module)
        x = inputs_for(module, x)
        head = None if head is None else known(module, head, prefix)
        names = None if layers is None else [known(module, name, prefix) for name in layers]
        with as_it_was(module), one_blas_thread():
            seen = see(module, x, head, names)
            found, reasons, gaps = _measured(seen, y, chosen)
            said = {**notes(seen), **gaps}
    summaries = {each.name: each.summary for each in chosen}
    numbers = {name: each.numbers for name, each in found.items()}
    (console or Console()).print(diagnosis_table(title, numbers, summaries, reasons, said))
    arrays = {f"{name}/{key}": array for name, each in found.items() for key, array in each.arrays.items()}
    return Measured({metric: value for each in numbers.values() for metric, value in each.items()}, arrays)


def _measured(
    seen: Seen, y: Any, chosen: Sequence[Diagnostic]
) -> tuple[dict[str, Measured], dict[str, str], dict[str, str]]:
    """Runs every part: what was found, why the others failed, and which single Jacobians are missing."""
    gaps: dict[str, str] = {}
    features = functools.cache(lambda: _of_features(seen))
    weights = functools.cache(lambda: _of_weights(seen, kernels(seen)))
    makers: dict[str, Callable[[], Measured]] = {
        name: functools.partial(lambda name: _observe(name, features()), name) for name in _OF_FEATURES
    }
    makers |= {name: functools.partial(lambda name: _observe(name, weights()), name) for name in _OF_KERNELS}
    makers["weight-norm"] = lambda: _observe("weight-norm", _of_weights(seen, seen.counted))
    makers["jacobian"] = lambda: _jacobian(seen, gaps)
    makers["gradient-norm"] = lambda: _gradient_norm(seen, loss_of(y, seen.output))
    makers["ntk"] = lambda: _ntk(seen, loss_of(y, seen.output))
    known = {each.name for each in chosen if each is DIAGNOSTICS.get(each.name)}
    others = [each for each in chosen if each.name not in known or each.name not in makers]
    makers = {name: make for name, make in makers.items() if name in known}
    makers |= {each.name: functools.partial(_own, each, seen, is_known=each.name in known) for each in others}
    found, reasons = {}, {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except Exception as error:  # whatever it is, the other parts do not need this one
            reasons[name] = reason(error)
    return found, reasons, gaps


def _of_features(seen: Seen) -> Subject:
    """A subject with the features that PyTorch computed, for diagnostics that do not differentiate."""
    layers = seen.trace.layers
    if not layers:
        raise NotMeasuredError("no hidden layer was found: name modules with layers=")
    features = {layer.name: jnp.asarray(_array(layer.values)) for layer in layers}
    hidden = tuple(
        HiddenLayer(
            layer.name, layer.values.shape[-1], (), (), layer.activation, elementwise=layer.activation != "maxmin"
        )
        for layer in layers
    )
    return _subject({}, Wiring(hidden, {}, {"output": Head(None, seen.trace.last)}), features, len(seen.output))


def _of_weights(seen: Seen, tensors: Mapping[str, Tensor]) -> Subject:
    """A subject with weights, or kernels, and nothing else."""
    params, roles, parts = {}, {}, dict(seen.module.named_modules())
    for name, tensor in tensors.items():
        owner, _, own = name.rpartition(".")
        is_kernel = own == "weight" and is_kernel_layer(parts[owner])
        params[name] = jnp.asarray(_kernel(_array(tensor)) if is_kernel else _array(tensor))
        is_head = any(owner == head or (head and owner.startswith(f"{head}.")) for head in seen.trace.heads)
        roles[name] = ("head" if is_head else "matrix") if is_kernel else "other"
    return _subject(params, Wiring((), roles), {}, len(seen.output))  # type: ignore[arg-type]


def _subject(params: Any, wiring: Wiring, features: Any, num: int) -> Subject:
    zeros = jnp.zeros((num, 1))
    network = Network(lambda _: (params, {}), lambda *_, **__: (zeros, features, {}), wiring)
    return Subject(network, params, {}, Batch(zeros, jnp.zeros(num)), lambda output, _: output[:, 0], jax.random.key(0))


def _observe(name: str, subject: Subject) -> Measured:
    diagnostic = DIAGNOSTICS[name]
    assert diagnostic.measure is not None
    return _summary(name, diagnostic.measure(subject))


def _own(diagnostic: Diagnostic, seen: Seen, *, is_known: bool) -> Measured:
    """Runs a user's own diagnostic on what PyTorch has computed."""
    if is_known or diagnostic.measure is None or diagnostic.summarize is None or diagnostic.needs:
        raise NotMeasuredError("needs a network in JAX or a run: pliant.diagnose or pliant.run measures it")
    weights, features = _of_weights(seen, seen.counted), _of_features(seen) if seen.trace.layers else None
    layers = features.network.wiring.layers if features else ()
    activations = features.network.apply(None)[1] if features else {}
    output, inputs = jnp.asarray(_array(seen.output)), weights.probe.inputs

    def apply(params: Any, state: Any, x: Any, **_: Any) -> Any:
        same = zip(jax.tree.leaves(params), jax.tree.leaves(weights.params), strict=True)
        if x is not inputs or any(given is not own for given, own in same):
            raise NotMeasuredError("asks for derivatives, or for other parameters or inputs than those of PyTorch")
        return output, activations, state

    def losses(*_: Any) -> Any:
        raise NotMeasuredError("asks for the loss, which PyTorch computes")

    network = weights.network._replace(apply=apply, wiring=weights.network.wiring._replace(layers=layers))
    found = diagnostic.measure(weights._replace(network=network, probe=Batch(inputs, None), losses=losses))
    return diagnostic.summarize(jax.tree.map(np.asarray, found))


def _gradient_norm(seen: Seen, loss: Callable[..., Tensor]) -> Measured:
    leaves = _leaves(seen)
    with torch.enable_grad():
        output = seen.outputs(leaves, seen.x)
        _require_dependence(output)
        gradients = torch.autograd.grad(loss(output).mean(), list(leaves.values()), materialize_grads=True)
    found = gradient_norm({name: jnp.asarray(_array(g)) for name, g in zip(leaves, gradients, strict=True)})
    return _summary("gradient-norm", found)


def _leaves(seen: Seen) -> dict[str, Tensor]:
    if not seen.counted:
        raise NotMeasuredError("there are no parameters")
    return seen.call.leaves(seen.counted)


def _require_dependence(output: Tensor) -> None:
    if not output.requires_grad:
        raise NotMeasuredError("the output does not depend on the parameters in a way that autograd sees")


def _ntk(seen: Seen, loss: Callable[..., Tensor]) -> Measured:
    _require_single(seen)
    if seen.output.ndim != 2:
        raise NotMeasuredError(f"the output of shape {tuple(seen.output.shape)} is not (batch, out)")
    chosen = evenly(number_of(seen.x), _MOST_EXAMPLES)
    x, output = some(seen.x, chosen), seen.output[chosen].detach().requires_grad_()

    def one(params: Mapping[str, Tensor], example: int) -> Tensor:
        return seen.outputs(params, some(x, slice(example, example + 1)))

    is_full = output.numel() <= _MOST_ROWS
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(output, chosen).mean(), output)
        leaves = _leaves(seen)
        _require_dependence(one(leaves, 0))
        matrix, traces = tangent_kernel(one, leaves, len(chosen), is_full=is_full, largest=_LARGEST_BLOCK)
    paths = {name: "/".join(filter(None, name.rpartition(".")[::2])) for name in traces}
    kernel = NTK(jnp.asarray(_array(matrix)), {paths[name]: jnp.float32(trace) for name, trace in traces.items()})
    return _summary("ntk", MeasuredNTK(kernel, jnp.asarray(_array(gradient))))


def _require_single(seen: Seen) -> None:
    if seen.together:
        raise NotMeasuredError(seen.together)


def _jacobian(seen: Seen, gaps: dict[str, str]) -> Measured:
    """From every layer to the next, where that is not too large, and from the input to the output."""
    _require_single(seen)
    if isinstance(seen.x, Mapping) or not seen.x.is_floating_point():
        kind = "a dictionary" if isinstance(seen.x, Mapping) else seen.x.dtype
        raise NotMeasuredError(f"x is {kind}, which has no derivatives")
    layers = {layer.name: layer for layer in seen.trace.layers}
    sizes = {name: layer.raw[0].numel() for name, layer in layers.items()} | {None: seen.x[0].numel()}
    calls = {name: layer.call for name, layer in layers.items() if layer.call}
    with running(seen.module) as scope, Captured(calls, scope) as alone:
        seen.outputs({}, seen.x[:1])
    kept, sides = {}, [(seen.output[0].numel(), sizes[None])]
    for name, layer in layers.items():
        missing = [
            each
            for each in (name, layer.start)
            if each is not None and not (alone.is_first(each) and len(layers[each].raw) == len(seen.x))
        ]
        rows, columns = sizes[name], sizes[layer.start]
        if missing:
            gaps[f"jacobian/{name}"] = (
                f"not measured: {missing[0]} is in compiled code, or examples are not its first axis"
            )
        elif rows * columns > _LARGE:
            gaps[f"jacobian/{name}"] = f"not measured: {rows} × {columns} is more than {_LARGE} entries"
        else:
            kept[name] = layer
            sides.append((rows, columns))
    if not 0 < math.prod(sides[0]) <= _LARGE:
        raise NotMeasuredError(f"the Jacobian is {sides[0][0]} × {sides[0][1]}; at most {_LARGE} entries")
    entries, work = (sum(math.prod(pair) * min(pair) ** power for pair in sides) for power in (0, 1))
    most = min(_MOST_EXAMPLES, _ENTRIES // entries, _WORK // work)
    chosen = evenly(len(seen.x), max(1, most))
    inputs = seen.x[chosen].clone().requires_grad_()
    found: dict[str, np.ndarray] = {}
    with torch.enable_grad():
        with running(seen.module) as scope, Captured(calls, scope) as captured:
            output = seen.outputs({}, inputs)
        for name, layer in kept.items():
            try:
                _require_same(layer, captured.value(name), chosen)
                start = inputs if layer.start is None else captured.edge(layer.start)
                found[name] = _array(jacobians(captured.value(name), start))
            except Exception as error:
                gaps[f"jacobian/{name}"] = f"not measured: {reason(error)}"
        found["input_output"] = _array(jacobians(output, inputs))
    return _summary("jacobian", found)


def _require_same(layer: Layer, again: Tensor, chosen: Any) -> None:
    """Raises if a second pass did not come by the same place."""
    if not is_close(again, layer.raw[chosen]):
        raise NotMeasuredError(f"{layer.name!r} differs in a second forward pass")


def _summary(name: str, arrays: Any) -> Measured:
    summarize = DIAGNOSTICS[name].summarize
    assert summarize is not None
    return summarize(jax.tree.map(np.asarray, arrays))


def _array(tensor: Tensor) -> np.ndarray:
    """As a NumPy array, in float32 or wider.

    Raises:
      NotMeasuredError: for complex numbers.
    """
    if tensor.is_complex():
        raise NotMeasuredError("the numbers are complex")
    tensor = tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
    return tensor.to_dense().cpu().numpy() if tensor.is_sparse else tensor.cpu().numpy()


def _kernel(weight: np.ndarray) -> np.ndarray:
    """(out, in, …) becomes (…, in, out)."""
    return np.moveaxis(weight, (1, 0), (-2, -1))
