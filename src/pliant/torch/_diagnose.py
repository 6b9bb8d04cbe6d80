"""One call that measures a PyTorch network: PyTorch observes and differentiates, `pliant.diagnostics` does the rest."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional

from pliant.diagnostics import DIAGNOSTICS, NTK, MeasuredNTK, gradient_norm, one_blas_thread
from pliant.errors import UserError
from pliant.results import diagnosis_table
from pliant.sampling import evenly
from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._maxmin import MaxMin
from pliant.types import Batch, HiddenLayer, Measured, Network, Subject, Wiring

OBSERVED = (
    "dormant",
    "dead",
    "saturated",
    "effective-rank",
    "srank",
    "stable-rank",
    "feature-rank",
    "isometry-deviation",
    "weight-spectra",
    "weight-norm",
)
"""What needs features and weights alone."""
DERIVED = ("gradient-norm", "jacobian", "ntk")
_ACTIVATIONS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.LeakyReLU: "leaky-relu",
    nn.Tanh: "tanh",
    nn.GELU: "gelu-exact",
    nn.Sigmoid: "sigmoid",
    nn.ELU: "elu",
    nn.SiLU: "silu",
    MaxMin: "maxmin",
}
_MOST_EXAMPLES = 64  # of the NTK and the Jacobians
_MOST_ROWS = 1024  # examples × outputs of a full NTK
_LARGEST_BLOCK = 2**26  # derivatives at once
_LARGE, _ENTRIES = 2**20, 2**25  # entries of one Jacobian, and of all together


def diagnose(
    module: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    head: str | None = None,
    layers: Sequence[str] | None = None,
    title: str = "diagnosis",
    console: Console | None = None,
) -> Measured:
    """Measures a network's plasticity, prints a report, and returns the numbers: `pliant.diagnose` for PyTorch.

    The network is in eval mode meanwhile, and afterwards as it was; its gradients are not touched. Features are seen by
    forward hooks, Jacobians and the neural tangent kernel come from `torch.func`; singular values, ranks and fractions
    are computed by the same functions as those of JAX networks. Needs JAX, as `pliant` has it.

    Args:
      module: called as `module(x)`, gives (batch, out); examples must not depend on each other.
      x: examples, (batch, …); a few hundred that are kept for this.
      y: their targets: classes (integers, cross-entropy) or values (floating-point, mean squared error). Without, what
        needs a loss is left out.
      head: name of the output layer, whose weight is no hidden kernel.
      layers: names of the modules whose outputs are the hidden layers, in the order in which they are called; by
        default all activation modules (ReLU, LeakyReLU, Tanh, GELU, Sigmoid, ELU, SiLU, MaxMin). Each must be called
        once.
      title: of the report.
      console: to print on; by default the terminal.

    Returns:
      `Measured`: numbers by metric, and arrays by DIAGNOSTIC/ARRAY.

    Raises:
      UserError: for no examples, an output that is not (batch, out), unknown modules, and modules called twice.

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
    if len(x) == 0:
        raise UserError(
            got=f"x of shape {tuple(x.shape)}", wanted="at least one example", do="Pass examples to measure on."
        )
    named = dict(module.named_modules())
    watched = [name for name, part in named.items() if type(part) in _ACTIVATIONS] if layers is None else list(layers)
    unknown = [name for name in (*watched, *([head] if head else [])) if name not in named]
    if unknown:
        raise UserError(
            got=f"the module {unknown[0]!r}", wanted=f"some of {', '.join(named)}", do="See named_modules()."
        )
    with _in_eval_mode(module), one_blas_thread():
        subject = _subject(module, x, watched, head)
        makers: dict[str, Callable[[], Measured]] = {
            name: functools.partial(_observe, name, subject) for name in OBSERVED
        }
        makers["jacobian"] = lambda: _jacobian(module, x, watched)
        makers["gradient-norm"] = lambda: _gradient_norm(module, x, _loss(y))
        makers["ntk"] = lambda: _ntk(module, x, _loss(y))
        found, reasons = {}, {}
        for name, make in makers.items():
            try:
                found[name] = make()
            except UserError as error:
                reasons[name] = str(error)
    summaries = {name: DIAGNOSTICS[name].summary for name in makers}
    numbers = {name: each.numbers for name, each in found.items()}
    (console or Console()).print(diagnosis_table(title, numbers, summaries, reasons))
    arrays = {f"{name}/{key}": array for name, each in found.items() for key, array in each.arrays.items()}
    return Measured({metric: value for each in numbers.values() for metric, value in each.items()}, arrays)


@contextlib.contextmanager
def _in_eval_mode(module: nn.Module) -> Iterator[None]:
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def _hooked(module: nn.Module, hooks: Mapping[str, Callable[[Tensor], Tensor | None]]) -> Iterator[None]:
    """Has functions called with the outputs of modules, in whose place they may return others."""
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output, hook=hook: hook(output))
        for name, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(module: nn.Module, x: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and the features."""
    calls: list[tuple[str, Tensor]] = []
    with _hooked(module, {name: lambda output, name=name: calls.append((name, output)) for name in layers}):
        output = module(x)
    if sorted(name for name, _ in calls) != sorted(layers):
        raise UserError(
            got=f"layers {', '.join(layers)}, of which {', '.join(name for name, _ in calls) or 'none'} were called",
            wanted="each called once in a forward pass",
            do="Give every layer an activation module of its own, and name those with layers=.",
        )
    if output.ndim != 2 or len(output) != len(x):
        raise UserError(
            got=f"an output of shape {tuple(output.shape)} for {len(x)} examples",
            wanted="(batch, out)",
            do="Let the module keep the batch axis; a single value is (batch, 1).",
        )
    return output, dict(calls)


def _subject(module: nn.Module, x: Tensor, layers: Sequence[str], head: str | None) -> Subject:
    """A record of what PyTorch computed, in JAX's layouts: for everything that does not differentiate."""
    with torch.no_grad():
        output, features = _run(module, x, layers)
    seen = jax.tree.map(jnp.asarray, (_array(output), {name: _channels_last(each) for name, each in features.items()}))
    params, roles = {}, {}
    for name, parameter in module.named_parameters():
        owner, _, own = name.rpartition(".")
        is_kernel = own == "weight" and isinstance(module.get_submodule(owner), KERNEL_LAYERS)
        params[name] = jnp.asarray(_kernel(_array(parameter)) if is_kernel else _array(parameter))
        roles[name] = ("head" if owner == head else "matrix") if is_kernel else "other"
    hidden = tuple(
        HiddenLayer(name, seen[1][name].shape[-1], (), (), *_activation(module.get_submodule(name)))
        for name in features
    )
    wiring = Wiring(hidden, roles, head_input=hidden[-1].name if hidden else "features")  # type: ignore[arg-type]
    network = Network(lambda _: (params, {}), lambda *_, **__: (*seen, {}), wiring)
    batch = Batch(jnp.asarray(_array(x)), jnp.zeros(len(x)))
    return Subject(network, params, {}, batch, lambda output, _: output.sum(axis=1), jax.random.key(0))


def _activation(part: nn.Module) -> tuple[str, bool]:
    """Its name, and whether a unit owns its output."""
    name = _ACTIVATIONS.get(type(part), "unknown")
    return name, name != "maxmin"


def _observe(name: str, subject: Subject) -> Measured:
    diagnostic = DIAGNOSTICS[name]
    assert diagnostic.measure is not None
    assert diagnostic.summarize is not None
    return diagnostic.summarize(jax.tree.map(np.asarray, diagnostic.measure(subject)))


def _gradient_norm(module: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Measured:
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trained:
        raise UserError(got="no trainable parameters", wanted="at least one", do="Set requires_grad.")
    with torch.enable_grad():
        gradients = torch.autograd.grad(loss(module(x)).mean(), list(trained.values()), materialize_grads=True)
    found = gradient_norm({name: jnp.asarray(_array(g)) for name, g in zip(trained, gradients, strict=True)})
    return _summary("gradient-norm", found)


def _ntk(module: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor]) -> Measured:
    chosen = evenly(len(x), _MOST_EXAMPLES)
    x, of_chosen = x[chosen], lambda output: loss(output, chosen)  # type: ignore[call-arg]
    params = {name: parameter.detach() for name, parameter in module.named_parameters()}
    output = module(x).detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(of_chosen(output).mean(), output)
    rows = output.numel()
    is_full = rows <= _MOST_ROWS
    total, traces = output.new_zeros([rows if is_full else len(x)] * 2), {}
    for name in params:
        own = _ntk_of_leaf(module, params, name, x, output.shape[1], is_full=is_full)
        total += own
        owner, _, last = name.rpartition(".")
        traces[f"{owner}/{last}" if owner else last] = float(own.trace() / len(own))
    kernel = NTK(jnp.asarray(_array(total)), {name: jnp.float32(trace) for name, trace in traces.items()})
    return _summary("ntk", MeasuredNTK(kernel, jnp.asarray(_array(gradient))))


def _ntk_of_leaf(
    module: nn.Module, params: Mapping[str, Tensor], name: str, x: Tensor, num_outputs: int, *, is_full: bool
) -> Tensor:
    """What one parameter contributes, in blocks of examples, so that memory is bounded."""

    def one(leaf: Tensor, example: Tensor) -> Tensor:
        return functional_call(module, {**params, name: leaf}, (example[None],))[0]

    def derivatives(block: Tensor) -> Tensor:
        found = vmap(jacrev(one), in_dims=(None, 0))(params[name], block).flatten(2)
        return found.flatten(0, 1)[None] if is_full else found.transpose(0, 1)

    blocks = x.split(max(1, _LARGEST_BLOCK // (num_outputs * params[name].numel())))
    rows = []
    for i, block in enumerate(blocks):
        left = derivatives(block)
        row = [left @ (left if i == j else derivatives(other)).mT for j, other in enumerate(blocks)]
        rows.append(torch.cat([product.mean(dim=0) for product in row], dim=1))
    return torch.cat(rows)


def _jacobian(module: nn.Module, x: Tensor, layers: Sequence[str]) -> Measured:
    if not x.is_floating_point():
        raise UserError(got=f"x of {x.dtype}", wanted="inputs that are numbers", do="Tokens have no derivatives.")
    with torch.no_grad():
        output, features = _run(module, x[:1], layers)
    names = list(features)
    sizes = [x[0].numel(), *(feature[0].numel() for feature in features.values())]
    steps = [
        (name, start, rows * columns)
        for name, start, rows, columns in zip(names, [None, *names], sizes[1:], sizes, strict=False)
    ]
    steps = [step for step in steps if step[2] <= _LARGE]
    if output.numel() * sizes[0] > _LARGE:
        raise UserError(
            got=f"a Jacobian of {output.numel()} × {sizes[0]}",
            wanted=f"at most {_LARGE} entries",
            do="Use smaller inputs.",
        )
    entries = sum(size for _, _, size in steps) + output.numel() * sizes[0]
    inputs = x[evenly(len(x), max(1, min(_MOST_EXAMPLES, _ENTRIES // entries)))]
    found = {name: _segment(module, inputs, start, name, features) for name, start, _ in steps}
    return _summary("jacobian", found | {"input_output": _segment(module, inputs, None, None, features)})


def _segment(
    module: nn.Module, inputs: Tensor, start: str | None, end: str | None, features: Mapping[str, Tensor]
) -> np.ndarray:
    """The Jacobian of each example from a feature (or the input) to a later one (or the output)."""

    def one(moved: Tensor, example: Tensor) -> Tensor:
        seen: list[Tensor] = []
        hooks: dict[str, Any] = {} if end is None else {end: seen.append}
        if start is not None:
            hooks[start] = lambda output: output + moved
        with _hooked(module, hooks):
            output = module((example + moved if start is None else example)[None])
        return (output if end is None else seen[0])[0].flatten()

    shape = inputs[0].shape if start is None else features[start][0].shape
    jacobians = vmap(jacrev(one), in_dims=(None, 0))(inputs.new_zeros(shape), inputs)
    return _array(jacobians.flatten(2))


def _loss(y: Tensor | None) -> Callable[..., Tensor]:
    """The loss of examples, by default of all."""
    if y is None:
        raise UserError(got="no targets", wanted="one for each example", do="Give y.")

    def loss(output: Tensor, chosen: Any = slice(None)) -> Tensor:
        targets = y[chosen]
        is_class = not y.is_floating_point()
        fits = targets.shape == output.shape[:1] if is_class else targets.numel() == output.numel()
        if not fits or (is_class and not 0 <= int(y.min()) <= int(y.max()) < output.shape[1]):
            raise UserError(
                got=f"y of shape {tuple(y.shape)} from {y.min().item()} to {y.max().item()}",
                wanted=f"a class below {output.shape[1]}, or {output.shape[1]} value(s), for every example",
                do="Integers are classes, floating-point numbers are values.",
            )
        if is_class:
            return functional.cross_entropy(output, targets, reduction="none")
        return (output - targets.reshape(output.shape)).square().mean(dim=1)

    return loss


def _summary(name: str, arrays: Any) -> Measured:
    summarize = DIAGNOSTICS[name].summarize
    assert summarize is not None
    return summarize(jax.tree.map(np.asarray, arrays))


def _array(tensor: Tensor) -> np.ndarray:
    """In float32 what NumPy has no name for."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _kernel(weight: np.ndarray) -> np.ndarray:
    """(out, in, …) becomes (…, in, out)."""
    return np.moveaxis(weight, (1, 0), (-2, -1))


def _channels_last(feature: Tensor) -> np.ndarray:
    """(batch, channels, …) of convolutions becomes (batch, …, channels); tokens (batch, tokens, width) stay."""
    return np.moveaxis(_array(feature), 1, -1) if feature.ndim == 4 else _array(feature)
