"""Attaches a method to a network: one optimizer that does everything the method does."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from pliant.errors import UserError, unknown_name
from pliant.torch._adamo import KERNEL_LAYERS, AdamO
from pliant.torch._called import require_real, unwrapped
from pliant.torch._continual_backprop import continual_backprop
from pliant.torch._forgetting import optimizers_in
from pliant.torch._hidden_layers import HiddenLayer
from pliant.torch._infer import infer_wiring
from pliant.torch._learner import learner_of
from pliant.torch._mechanism import Mechanism
from pliant.torch._plastic import Plastic, attached_to
from pliant.torch._projecting import nap, weight_clipping
from pliant.torch._pulls import l2_init, spectral
from pliant.torch._recycling import redo, regrama
from pliant.torch._shrink_perturb import shrink_perturb
from pliant.torch._wiring import Wiring

MECHANISMS: Mapping[str, Callable[..., Mechanism]] = {
    "redo": redo,
    "regrama": regrama,
    "continual-backprop": continual_backprop,
    "shrink-perturb": shrink_perturb,
    "l2-init": l2_init,
    "spectral": spectral,
    "nap": nap,
    "weight-clipping": weight_clipping,
}
_OPTIMIZERS: Mapping[str, Any] = {"adam": torch.optim.Adam, "adamo": AdamO}


def attach(
    method: str,
    module: nn.Module,
    x: Any = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    wiring: Wiring | None = None,
    layers: Sequence[HiddenLayer] = (),
    head: str | None = None,
    initializer: Callable[..., Any] | None = None,
    generator: torch.Generator | None = None,
    **options: Any,
) -> Plastic:
    r"""Attaches a method that keeps plasticity to a network, and returns the optimizer that trains it.

    Use it to add resets, penalties or projections to a training loop of your own: it replaces the optimizer, and the
    penalty is added to the loss.

    | method | what it does | moment |
    | --- | --- | --- |
    | redo, regrama | resets units that are dormant, or get hardly any gradient | every `every` updates |
    | continual-backprop | replaces the least useful units | every update |
    | shrink-perturb | shrinks weights and adds new ones | `switch` |
    | l2-init, spectral | pulls weights to their start, spectral norms to 1 | `penalty` |
    | nap, weight-clipping | projects weights | after updates |
    | adamo | keeps kernels near isometry | every update |
    | adam | nothing | |

    Several are joined by "+". Formulas and defaults are those of `pliant.interventions`, `pliant.penalties`, `AdamO`.
    ReDo scores units on the batch of the update, after it and in evaluation mode; continual backprop looks at the batch
    before the update, in the mode of training. The network's arguments are kept from the forward pass to `step`, and
    only if the update needs them. With several forward passes per update the last one counts.

    Args:
      method: a name, or several joined by "+".
      module: the network. A module that is compiled or spread by `DataParallel` may be passed too.
      x: a batch of examples to find the layers with, see `infer_wiring`; may be left out with `wiring`.
      optimizer: what makes the updates, with parameters of the network; by default Adam, or AdamO for "adamo".
      wiring: the network's layer graph, by default `infer_wiring(module, x)`.
      layers: hidden layers that you declare, see `infer_wiring`.
      head: the output layer's name, see `infer_wiring`.
      initializer: draws a kernel in place, such as `torch.nn.init.orthogonal_`; new biases are 0 then. By default the
        network's own `_init_weights` or the module's `reset_parameters` draws. Parameters that neither draws get their
        values from before training.
      generator: for the draws, on the CPU; PyTorch's global one by default.
      options: of the method and of the optimizer, by name. An option that several parts have gets the part's name in
        front: `l2_init_strength`.

    Returns:
      A `torch.optim.Optimizer` with `penalty()`, `switch()`, `info`, `wiring` and `detach()`. Its groups and its state
      are those of the optimizer that makes the updates, so schedulers and `GradScaler` work.

    Raises:
      UserError: for unknown methods and options, numbers out of range, a network that the method cannot act on, and
        one that has a method attached already.

    Example:
      >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1))
      >>> with torch.no_grad():
      ...     _ = net[0].bias.copy_(torch.tensor([-9.0, 9.0, 9.0, 9.0]))  # the first unit never fires
      >>> x = torch.ones(8, 2)
      >>> optimizer = attach("redo+l2-init", net, x, lr=1e-3, every=1)
      >>> loss = net(x).square().mean() + optimizer.penalty()
      >>> loss.backward()
      >>> optimizer.step()
      >>> optimizer.info, net[2].weight[0, 0].item()
      ({'units_reset': 1}, 0.0)

    References:
      See each method in `pliant.interventions`, `pliant.penalties` and `AdamO`.

    Differs from:
      `pliant.attach` for JAX in the source of examples: ReDo scores the batch of the update, not 64 examples drawn from
      the task. Fresh weights come from the modules' own initialisers, whose biases are not 0.
    """
    names = method.split("+") if isinstance(method, str) else [method]
    for name in names:
        if name not in (*MECHANISMS, *_OPTIMIZERS):
            raise unknown_name("method", str(name), (*MECHANISMS, *_OPTIMIZERS), do="Join several by '+'.")
    _require_once(str(method), names)
    inner, _ = unwrapped(module)
    require_real(inner)
    if isinstance(inner, torch.jit.ScriptModule):
        raise UserError(
            got="a network that is compiled by TorchScript",
            wanted="its modules in Python: layers are found in their calls, and reset by their initialisers",
            do="Attach the method to the network that is not compiled, and train that.",
        )
    before = attached_to(inner)
    if before is not None:
        raise UserError(
            got=f"a network with {'+'.join(before.methods) or 'a method'!r} attached",
            wanted="one optimizer for a network",
            do="Join methods by '+', or call detach() of the other optimizer first.",
        )
    makers = {name: MECHANISMS[name] for name in names if name in MECHANISMS}
    base_class = _OPTIMIZERS[next((name for name in names if name in _OPTIMIZERS), "adam")]
    of_parts, of_base = _sorted(makers, None if optimizer is not None else base_class, options)
    parts = {name: make(**of_parts[name]) for name, make in makers.items()}
    if wiring is None:
        if x is None:
            raise UserError(
                got="no examples", wanted="a batch to find the layers with", do="Pass x as for training, or wiring=."
            )
        wiring = infer_wiring(inner, x, head=head, layers=layers)
    params = dict(inner.named_parameters())
    if optimizer is None:
        groups = _groups(inner, wiring) if base_class is AdamO else [p for p in params.values() if p.requires_grad]
        optimizer = base_class(groups, **of_base)
    elif base_class is AdamO and not any(isinstance(each, AdamO) for each in optimizers_in(optimizer)):
        raise UserError(
            got=f"'adamo' with {type(optimizer).__name__}", wanted="AdamO", do="Leave optimizer= out, or 'adamo'."
        )
    learner = learner_of(inner, wiring, optimizers_in(optimizer), initializer, generator)
    return Plastic(learner, optimizer, parts, [inner] if inner is module else [inner, module])


def _require_once(method: str, names: Sequence[str]) -> None:
    twice = [name for name, times in Counter(names).items() if times > 1]
    bases = [name for name in names if name in _OPTIMIZERS]
    if twice or len(bases) > 1:
        raise UserError(
            got=f"the combination {method!r}: {' and '.join(bases) if len(bases) > 1 else twice[0] + ' twice'}",
            wanted="every method once, and one optimizer",
            do="Leave one of them out.",
        )


def _sorted(
    makers: Mapping[str, Any], base: Any, options: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The options of each part, and those of the optimizer."""
    own = {name: set(inspect.signature(make).parameters) for name, make in makers.items()}
    of_base = set(inspect.signature(base).parameters) - {"params"} if base is not None else set()
    number = Counter(option for names in own.values() for option in names)
    known: dict[str, tuple[str, str]] = {option: ("", option) for option in of_base}
    for name, names in own.items():
        for option in names:
            prefix = f"{name.replace('-', '_')}_" if number[option] > 1 or option in of_base else ""
            known[f"{prefix}{option}"] = (name, option)
    parts: dict[str, dict[str, Any]] = {name: {} for name in makers}
    for_base: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known:
            do = "Give the learning rate to your optimizer." if option == "lr" else "See the method's options."
            raise unknown_name("option", option, known, do=do)
        name, short = known[option]
        (parts[name] if name else for_base)[short] = value
    return parts, for_base


def _groups(module: nn.Module, wiring: Wiring) -> list[dict[str, Any]]:
    """AdamO's groups: hidden kernels that are one matrix, and the rest."""
    params = {name: each for name, each in module.named_parameters() if each.requires_grad}
    kernels = [name for name in wiring.of_role("matrix") if name in params and _is_matrix(module, wiring, name)]
    if not kernels:
        raise UserError(
            got="AdamO on a network without hidden kernels",
            wanted="at least one linear layer or convolution that is trained, beside the head",
            do="Name the output layer with head=, or use another method.",
        )
    rest = [each for name, each in params.items() if name not in kernels]
    groups = [{"params": [params[name] for name in kernels], "isometry": True}]
    return [*groups, {"params": rest, "isometry": False}] if rest else groups


def _is_matrix(module: nn.Module, wiring: Wiring, name: str) -> bool:
    owner = module.get_submodule(name.rpartition(".")[0])
    is_layer = isinstance(owner, KERNEL_LAYERS) and getattr(owner, "groups", 1) == 1
    return is_layer or (wiring.output_axes[name] == 1 and module.get_parameter(name).ndim == 2)
