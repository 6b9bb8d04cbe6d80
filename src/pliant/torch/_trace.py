"""Finds a module's hidden layers, their units and its head in one forward pass."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pliant.torch._adamo import KERNEL_LAYERS
from pliant.torch._calls import Call, Calls
from pliant.torch._follow import Follower, Watcher
from pliant.torch._info import Core, Info
from pliant.torch._maxmin import MaxMin
from pliant.torch._units import along, declared, units_last

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)
_OUT_OF_SIGHT = "its computation is not PyTorch's"
_LEAVING = (Tensor.numpy, Tensor.__array__, Tensor.tolist, Tensor.__dlpack__)


class Layer(NamedTuple):
    """A hidden layer in one forward pass."""

    name: str
    raw: Tensor
    """As it was computed, whatever wrote over it later."""
    values: Tensor
    """With the units on the last axis."""
    activation: str
    """In the words of `pliant.types.HiddenLayer`; of others "unknown" if they are 0 for many inputs, or "smooth"."""
    start: str | None
    """The nearest earlier layer that it depends on."""
    call: Call | None
    """What returned it; None in compiled code."""


class Trace(NamedTuple):
    """What `trace` returns."""

    output: Any
    """What the module returned."""
    layers: tuple[Layer, ...]
    """In the order in which they are computed."""
    last: str | None
    """The layer that the head reads: of several heads the first."""
    heads: tuple[str, ...]
    """The declared head, or the modules whose products are the outputs; none where that is not clear."""
    behind: tuple[str, ...]
    """Activations behind the head or the last weights."""
    unseen: Mapping[str, str]
    """Layers that could not be followed, and why."""
    called: frozenset[str]
    """The modules that were called."""
    weights: frozenset[str]
    """The parameters that are multiplied with data."""


def trace(
    call: Callable[[], Any],
    module: nn.Module,
    params: Mapping[str, Tensor],
    inputs: Iterable[Tensor],
    head: str | None = None,
    layers: Sequence[str] | None = None,
    watcher: Watcher | None = None,
) -> Trace:
    """Follows a forward pass.

    Args:
      call: runs it.
      module: what is called there.
      params: the tensors that it has for parameters there, by name.
      inputs: the tensors that it is called with.
      head: the output layer; nothing in it or behind it is hidden.
      layers: modules whose outputs are the hidden layers; by default all activations that weights read.
      watcher: is told of every operation.

    Returns:
      A `Trace`.

    Example:
      >>> net, x = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid()), torch.ones(8, 2)
      >>> found = trace(lambda: net(x), net, dict(net.named_parameters()), [x])
      >>> [layer.name for layer in found.layers], found.heads, found.behind
      (['1'], ('2',), ('3',))
    """
    follower = Follower(params, inputs, watcher)
    watch = _Watch(follower, head, layers)
    with watch.on(module), follower, _Calls(watch):
        output = call()
    return watch.result(output)


def _numbered(name: str) -> Iterator[str]:
    """The name, and others for where it is taken."""
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


class _Calls(Calls):
    """Tells a watch what Python calls, and what leaves PyTorch."""

    def __init__(self, watch: "_Watch"):
        super().__init__(watch.returned, lambda: watch.stack[-1][0] if watch.stack else "")
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.watch.follower.is_paused:
            return func(*args, **(kwargs or {}))
        result = super().__torch_function__(func, types, args, kwargs)
        if func in _LEAVING:
            self.watch.left(args[0])
        return result


class _Watch:
    """Knows which module is running, and which activations are modules."""

    def __init__(self, follower: Follower, head: str | None, layers: Sequence[str] | None):
        self.follower = follower
        self.head, self.layers = head, layers
        self.stack: list[tuple[str, nn.Module, int, bool, bool]] = []
        self.called: set[str] = set()
        self.chosen: list[Core] = []
        self.out_of_sight: list[Info] = []
        follower.scope = self.scope
        follower.is_in_kernel_layer = lambda: bool(self.stack) and isinstance(self.stack[-1][1], KERNEL_LAYERS)

    @contextlib.contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        """Adds hooks to every module, which report its calls."""
        handles = []
        for name, part in module.named_modules():
            if isinstance(part, torch.jit.ScriptModule):  # has no hooks; its operations are seen all the same
                continue
            handles += [
                part.register_forward_pre_hook(lambda part, args, name=name: self.enter(name, part, args)),
                part.register_forward_hook(
                    lambda part, args, kwargs, output, name=name: self.leave(name, part, (args, kwargs), output),
                    with_kwargs=True,
                ),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def scope(self, params: frozenset[str]) -> str:
        """The module that is running, or that weights belong to."""
        name, module = self.stack[-1][:2] if self.stack else ("", None)
        if isinstance(module, KERNEL_LAYERS) or not params:
            return name
        weight = min(params).partition(".parametrizations.")[0]
        owner, _, kind = weight.rpartition(".")
        return owner if kind in ("weight", "bias") else weight

    def returned(self, call: Call, tensor: Tensor) -> None:
        """Notes which call made a tensor."""
        self.follower.calls[tensor] = call
        core = self.follower.info(tensor).core
        if core is not None and core.tensor is tensor and core.call is None:
            core.call = call

    def left(self, tensor: Tensor) -> None:
        """Notes that PyTorch loses sight of data, such as in NumPy."""
        info = self.follower.info(tensor)
        if info.is_data:
            self.out_of_sight.append(info)
            self.follower.left = self.follower.tick()

    def enter(self, name: str, module: nn.Module, inputs: Any) -> None:
        """Called before a module runs."""
        follower = self.follower
        for tensor in tree_leaves(inputs) if self.out_of_sight else ():
            if isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor not in follower.infos:
                follower.infos[tensor] = follower.lost(self.out_of_sight)
                follower.unseen[f"before {name}"] = _OUT_OF_SIGHT
        self.called.add(name)
        self.stack.append((name, module, follower.tick(), follower.is_opaque, follower.is_in_head))
        follower.is_opaque |= isinstance(module, _RECURRENT)
        follower.is_in_head |= name == self.head

    def leave(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Called after a module ran."""
        self.follower.is_paused = True
        try:
            self.left_module(name, module, inputs, output)
        finally:
            self.follower.is_paused = False

    def left_module(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        """Looks at what a module returned."""
        follower = self.follower
        _, _, entered, follower.is_opaque, follower.is_in_head = self.stack.pop()
        before = [
            info for each in tree_leaves(inputs) if isinstance(each, Tensor) and (info := follower.info(each)).is_data
        ]
        for tensor in tree_leaves(output) if before else ():
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.look(name, module, entered, before, tensor)

    def look(self, name: str, module: nn.Module, entered: int, before: Any, tensor: Tensor) -> None:
        """Whether what a module returned is an activation."""
        follower = self.follower
        info = follower.info(tensor)
        if not info.is_data:
            if follower.left < entered:
                return
            info = follower.lost(before)
            follower.unseen[name or type(module).__name__] = _OUT_OF_SIGHT
        if isinstance(module, _RECURRENT):
            info = info._replace(labels=along(tensor, -1))
            follower.unseen[name or type(module).__name__] = f"{type(module).__name__} has gates and a state"
        elif info.labels is None:
            info = info._replace(labels=declared(module, tensor))
        core = info.core
        is_own = core is not None and not core.why and info.base <= entered < core.number
        if isinstance(module, MaxMin):
            info = follower.plain(before)._replace(is_learned=info.is_learned, labels=before[0].labels)
            core = follower.core(tensor, info, "maxmin", name)
            core.is_module = True
        elif core is not None and is_own and not (core.is_module and core.tensor is tensor):
            if core.tensor is not tensor:
                core = follower.core(tensor, info._replace(above=core.above), core.activation, name)
            core.name, core.is_module = name, True
        if self.layers is not None and name in self.layers:
            activation = core.activation if core is not None and core.is_module and core.tensor is tensor else "unknown"
            chosen = follower.core(tensor, info, activation, name)
            chosen.call = follower.calls.get(tensor)
            self.chosen.append(chosen)
            info, core = info._replace(base=follower.tick(), above=info.above | {chosen}), None
        if core is not None and core.call is None:
            core.call = follower.calls.get(tensor)
        follower.infos[tensor] = info._replace(core=core, from_head=info.from_head or name == self.head)

    def result(self, output: Any) -> Trace:
        """The result."""
        follower = self.follower
        candidates = sorted(follower.candidates, key=lambda core: core.number)
        hidden = [core for core in candidates if core in follower.read and not core.from_head]
        outputs = [follower.info(each) for each in tree_leaves(output) if isinstance(each, Tensor)]
        last = [
            info.core for info in outputs if info.core is not None and (info.core.is_module or not info.core.is_weak)
        ]
        behind = [core.name for core in dict.fromkeys([*candidates, *last]) if core not in hidden and not core.why]
        heads = [head for info in outputs for head in self._heads(info.frontier)]
        unseen = dict(follower.unseen)
        found: dict[Core, Layer] = {}
        for core in hidden if self.layers is None else self.chosen:
            taken = {layer.name for layer in found.values()} | set(unseen)
            name = next(each for each in _numbered(core.name) if each not in taken)
            raw = core.value
            is_table = core.labels is None and raw.ndim == 2 and len(raw) in follower.num_examples
            values = units_last(raw, along(raw, -1) if is_table else core.labels)
            unknown = f"which axes of {tuple(raw.shape)} are units is not known" if raw.numel() else "it is empty"
            if core.why or values is None or values.numel() == 0:
                unseen[name] = core.why or unknown
                continue
            start = next((found[each].name for each in reversed(found) if each in core.above), None)
            found[core] = Layer(name, raw, values, core.activation, start, core.call)
        heads = list(dict.fromkeys(heads)) if self.head is None else [self.head]
        first = heads[0] if heads else None
        of_head = [each for each in follower.products if f"{each.name}.".startswith(f"{first}.")]
        above = frozenset[Core]().union(*(product.above for product in of_head))
        return Trace(
            output,
            tuple(found.values()),
            next((found[core].name for core in reversed(found) if core in above or not above), None),
            tuple(heads),
            tuple(dict.fromkeys(behind)),
            unseen,
            frozenset(self.called),
            frozenset(follower.weights),
        )

    def _heads(self, frontier: frozenset[int]) -> list[str]:
        """The modules of an output's last products; none if another product reads one, as in a residual stream."""
        products = self.follower.products
        names = [products[number].name for number in sorted(frontier)]
        others = {product.name for number, product in enumerate(products) if number not in frontier}
        return [] if others.intersection(names) or any(products[number].is_read for number in frontier) else names
