"""Follows the operations of a forward pass: what depends on what, and which unit each entry belongs to.

An activation is a nonlinear function of one tensor, entry by entry, however many operations it takes. What reads it in
any other way ends it.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from pliant.torch._folds import LARGEST, fold
from pliant.torch._info import Core, Info, Operation, Product, activation_in, is_doubling
from pliant.torch._operations import (
    ARITHMETIC_OPS,
    AS_RESHAPE,
    KEEPING,
    LINEAR_OPS,
    MATRICES,
    MIXING,
    MOVES,
    NAMES,
    NORMS,
    REDUCTIONS,
    SAME,
    UNTAGGED,
    ZEROING,
    activation_of,
    is_factory,
    storage_of,
    written,
)
from pliant.torch._units import along, compact, fits, merged, reduced

Watcher: TypeAlias = Callable[["Follower", Operation], None]
"""Is called after every operation, when what is known of its outputs was noted."""


class Follower(TorchDispatchMode):
    """Sees every operation, and keeps an `Info` of every tensor that depends on the inputs."""

    def __init__(self, params: Mapping[str, Tensor], inputs: Iterable[Tensor], watcher: Watcher | None = None):
        super().__init__()
        self.watcher = watcher
        self.num_operations = 0
        self.clock = 0
        self.infos: Any = WeakTensorKeyDictionary()
        self.calls: Any = WeakTensorKeyDictionary()
        """The calls that returned tensors."""
        self.cores: weakref.WeakSet[Core] = weakref.WeakSet()
        self.candidates: dict[Core, None] = {}
        """Activations that something reads."""
        self.read: set[Core] = set()
        """Those that weights read, at once or later."""
        self.products: list[Product] = []
        """All with weights."""
        self.weights: set[str] = set()
        """The parameters that products read."""
        self.unseen: dict[str, str] = {}
        self.is_opaque = self.is_in_head = False
        self.is_paused = False
        """Whether operations are not the network's, but those that follow it."""
        self.left = 0
        """When data last left PyTorch, such as for NumPy."""
        self.scope: Callable[[frozenset[str]], str] = lambda _: ""
        """The module that is running, or that weights belong to."""
        self.is_in_kernel_layer: Callable[[], bool] = lambda: False
        """Whether that is a layer whose every product is with its weight, wherever that comes from."""
        self._rewritten: dict[int, tuple[Any, Info]] = {}
        for name, tensor in params.items():
            self.infos[tensor] = Info(params=frozenset({name}))
        self.num_examples: set[int] = set()
        for tensor in inputs:
            self.num_examples.add(len(tensor))
            self.infos[tensor] = Info(is_data=True, base=self.tick())

    def tick(self) -> int:
        """A number above all that came before."""
        self.clock += 1
        return self.clock

    def info(self, tensor: Tensor) -> Info:
        """What is known of a tensor."""
        found = self.infos.get(tensor)
        if found is None and self._rewritten:
            found = self._rewritten.get(storage_of(tensor), (None, None))[1]
        return found or Info()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.is_paused:
            return func(*args, **kwargs)
        operands = [(each, self.info(each)) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        is_data = any(info.is_data for _, info in operands) and not is_factory(func)
        overwritten = written(func, args, kwargs) if is_data else []
        for core in list(self.cores) if overwritten else ():
            if core.kept is None and any(storage_of(core.tensor) == storage_of(each) for each in overwritten):
                core.kept = core.tensor.clone()
        result = func(*args, **kwargs)
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        if is_data:
            try:
                found = self._follow(func, args, kwargs, operands, outputs)
            except Exception as error:  # what is not understood must not end the pass
                self.unseen[func._schema.name] = f"it cannot be followed: {type(error).__name__}"
                found = [self.lost([info for _, info in operands if info.is_data])] * len(outputs)
        else:
            found = [Info(params=frozenset[str]().union(*(info.params for _, info in operands)))] * len(outputs)
        for output, info in zip(outputs, found, strict=True):
            if is_data or info.params:
                self.infos[output] = info
        for tensor in overwritten:
            self._rewrite(tensor)
        if self.watcher is not None:
            name = func._schema.name.partition("::")[2].rstrip("_")
            self.watcher(self, Operation(func, name, args, kwargs, operands, outputs, self.num_operations))
        self.num_operations += 1
        return result

    def _rewrite(self, tensor: Tensor) -> None:
        """Tensors that share memory with one that was written have changed with it."""
        storage, info = storage_of(tensor), self.info(tensor)
        for other in [each for each in list(self.infos) if each is not tensor and storage_of(each) == storage]:
            is_same = other.shape == tensor.shape and other.stride() == tensor.stride()
            own = self.info(other)
            self.infos[other] = info if is_same else self.plain([own, info])._replace(labels=own.labels)
        before = [self._rewritten[storage][1]] if storage in self._rewritten else []
        # The tensor stays alive with this, so that the number of its storage stays its own.
        self._rewritten[storage] = tensor, self.plain([*before, info])

    def _follow(self, func: Any, args: Any, kwargs: Any, operands: Any, outputs: list[Tensor]) -> list[Info]:
        """What is known of the outputs of an operation on data."""
        if not outputs:
            return []
        name = func._schema.name.partition("::")[2].rstrip("_")
        data = [(tensor, info) for tensor, info in operands if info.is_data]
        infos = [info for _, info in data]
        first, output = data[0][0], outputs[0]
        is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if self.is_opaque:
            return [self.product(infos)] * len(outputs)
        if name == "copy" and operands[-1][0].shape == output.shape:
            return [operands[-1][1]]
        if name in SAME or (is_view and output.shape == first.shape and output.stride() == first.stride()):
            return infos[:1] * len(outputs)
        if is_view or name in MOVES:
            places = self._moved(func, name, args, kwargs)
            if name == "cat" and len(infos) > 1 and is_doubling(infos):
                return [self._doubled(infos, output, places[0])]
            plain = self.plain(infos)
            if len(infos) == 1 and infos[0].core is not None and infos[0].core.is_weak:
                plain = plain._replace(core=infos[0].core)  # weights may read it behind this
            places = places if len(places) == len(outputs) else [None] * len(outputs)
            return [plain._replace(base=self.tick(), labels=labels) for labels in places]
        if torch.Tag.pointwise in func.tags or name in UNTAGGED:
            return [self._pointwise(name, args, kwargs, operands, output)] * len(outputs)
        return [self._other(func, name, args, kwargs, operands, output)] * len(outputs)

    def plain(self, infos: Sequence[Info], *, by_weights: bool = False) -> Info:
        """A new tensor, of which only is known what it depends on."""
        return Info(
            is_data=True,
            is_learned=any(info.is_learned for info in infos),
            base=self.tick(),
            above=frozenset[Core]().union(*(self._escape(info, by_weights) for info in infos)),
            frontier=frozenset[int]().union(*(info.frontier for info in infos)),
            from_head=self.is_in_head or any(info.from_head for info in infos),
        )

    def product(self, infos: Sequence[Info], params: frozenset[str] = frozenset()) -> Info:
        """A product of data with weights."""
        found = self.plain(infos, by_weights=True)
        self.read |= found.above
        self.weights |= params
        for number in found.frontier:
            self.products[number] = self.products[number]._replace(is_read=True)
        self.products.append(Product(self.scope(params), found.above))
        return found._replace(is_learned=True, frontier=frozenset({len(self.products) - 1}))

    def lost(self, infos: Sequence[Info]) -> Info:
        """What is known of a tensor that was computed out of PyTorch's sight."""
        found = self.plain(infos, by_weights=True)
        self.read |= found.above
        return found._replace(is_learned=True, frontier=frozenset())

    def core(self, tensor: Tensor, info: Info, activation: str, name: str) -> Core:
        """Notes a tensor that may be a hidden layer."""
        core = Core(tensor, info, activation, name, self.tick())
        self.cores.add(core)
        return core

    def _escape(self, info: Info, by_weights: bool) -> frozenset[Core]:
        """The activations above what reads this tensor; itself among them if it is one."""
        core = activation_in(info, by_weights)
        if core is None:
            return info.above
        if core.tensor.is_complex():
            core.why = "it is complex"
        elif not core.tensor.is_floating_point():
            return info.above
        self.candidates[core] = None
        return info.above | {core}

    def _pointwise(self, name: str, args: Any, kwargs: Any, operands: Any, output: Tensor) -> Info:
        infos = [info for _, info in operands if info.is_data]
        is_learned = any(info.is_learned or info.params for _, info in operands)
        is_full = all(tensor.shape == output.shape for tensor, info in operands if info.is_data)
        if len({info.base for info in infos}) > 1 or not is_full:
            labels = merged([info.labels for info in infos], output)
            mixed = self.plain(infos)._replace(is_learned=is_learned, labels=labels)
            return self._mixed(name, output, mixed) if name in MIXING and len(infos) > 1 else mixed
        latest = infos[-1]._replace(is_learned=is_learned, from_head=self.is_in_head or infos[-1].from_head)
        operation, cores = activation_of(name, args, kwargs, operands), {info.core for info in infos}
        is_scaling = len(infos) == 1 and (name == "mul" or (name == "div" and operands[0][1].is_data))
        is_linear = name in LINEAR_OPS or is_scaling
        if is_linear and (len(infos) == 1 or cores == {None}):
            return latest
        is_activation = not is_linear and operation not in ARITHMETIC_OPS
        has_zeros = operation in ZEROING or any(info.has_zeros for info in infos)
        words = [operation] if is_activation else [info.word for info in infos if info.word] or [operation]
        found = latest._replace(
            has_zeros=has_zeros,
            word=words[-1],
            above=frozenset[Core]().union(*(info.above for info in infos)),
        )
        known = NAMES.get(operation) if len(infos) == 1 and cores == {None} else None
        core = self.core(output, found, known or ("unknown" if has_zeros else "smooth"), self._title(found.word))
        core.under = infos[-1].core
        strong = [each for each in cores if each is not None and not each.is_weak]
        core.is_weak = not is_activation and (not strong or (len(cores) == 1 and not is_linear))
        return found._replace(core=core)

    def _title(self, word: str) -> str:
        """The name of a function, with the module that calls it."""
        where = self.scope(frozenset())
        return f"{where}.{word}" if where else word

    def _doubled(self, infos: Sequence[Info], output: Tensor, labels: Tensor | None) -> Info:
        """Several functions of each unit, one after the other, as CReLU has them: one layer, whose units come twice."""
        found = Info(
            is_data=True,
            is_learned=any(info.is_learned for info in infos),
            base=self.tick(),
            has_zeros=any(info.has_zeros for info in infos),
            word=infos[0].word,
            labels=labels,
            above=frozenset[Core]().union(*(info.above for info in infos)),
            frontier=frozenset[int]().union(*(info.frontier for info in infos)),
            from_head=self.is_in_head or any(info.from_head for info in infos),
        )
        activation = "unknown" if found.has_zeros else "smooth"
        return found._replace(core=self.core(output, found, activation, self._title(found.word)))

    def _mixed(self, name: str, output: Tensor, info: Info) -> Info:
        """An activation that mixes units."""
        core = self.core(output, info, "unknown", self._title(name))
        core.why = "it mixes units"
        return info._replace(core=core)

    def _other(self, func: Any, name: str, args: Any, kwargs: Any, operands: Any, output: Tensor) -> Info:
        infos = [info for _, info in operands if info.is_data]
        weights = [(tensor, info) for tensor, info in operands if not info.is_data and info.params]
        params = frozenset[str]().union(*(info.params for _, info in weights))
        is_foreign = func.namespace not in ("aten", "prims")
        if name in MATRICES or "convolution" in name or name in ("mv", "_trilinear") or is_foreign:
            is_read = is_foreign or self.is_in_kernel_layer() or any(tensor.ndim > 1 for tensor, _ in weights)
            found = self.product(infos, params) if is_read else self.plain(infos)
            return found._replace(labels=self._units_of_product(name, args, output))
        labels = None
        if "embedding" in name:
            labels = along(output, -1)
        elif any(word in name for word in KEEPING):
            labels = infos[0].labels
            if labels is None and any(word in name for word in NORMS):
                labels = along(output, -1 if "layer" in name or "rms" in name else 1)
        elif name in REDUCTIONS and infos[0].labels is not None and len(args) > 1:
            keepdim = bool(kwargs.get("keepdim", args[2] if len(args) > 2 else False))
            labels = reduced(infos[0].labels, args[1], keepdim=keepdim)
        plain = self.plain(infos)
        is_learned = plain.is_learned or bool(params)
        found = plain._replace(is_learned=is_learned, labels=labels if fits(labels, output) else None)
        is_over_units = name in LARGEST and infos[0].labels is not None and labels is None
        if len(infos) == 1 and infos[0].core is None:
            folded = fold(name, args, kwargs, operands[0][0], infos[0].labels)
            if folded is not None:
                found = found._replace(labels=folded.labels)
                return found._replace(core=self.core(output, found, "smooth", self._title(name)))
        return self._mixed(name, output, found) if name in MIXING or is_over_units else found

    def _units_of_product(self, name: str, args: Any, output: Tensor) -> Tensor | None:
        if "convolution" in name:
            return along(output, 1)
        if name == "_trilinear":
            return along(output, -1)
        if name not in MATRICES:
            return None
        left, right = args[MATRICES[name] : MATRICES[name] + 2]
        if self.info(left).is_data == self.info(right).is_data:
            return None
        weight, axis = (right, -1) if self.info(left).is_data else (left, -2)
        labels = along(output, axis)
        assert labels is not None
        if weight.ndim == 3 and weight.shape[0] > 1 and weight.stride(0) != 0:  # a matrix of its own for each entry
            units = torch.arange(output.shape[0], device=output.device) * output.shape[axis]
            labels = labels + units[:, None, None]
        return labels

    def _moved(self, func: Any, name: str, args: Any, kwargs: Any) -> list[Tensor | None]:
        """The labels behind an operation that only moves entries: it moves those of its operands likewise."""
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor) and self.info(each).is_data]
        labels = [self.info(each).labels for each in tensors]
        step = 0
        if name == "cat":
            tensors = [each for each in args[0] if each.ndim == args[0][-1].ndim]
            axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % tensors[0].ndim
            labels = [self.info(each).labels for each in tensors]
            known = [each for each in labels if each is not None]
            if all(each.shape[axis] == 1 for each in known):  # such as a token beside others: the same units
                labels = [
                    known[0] if each is None and known and fits(known[0], of) else each
                    for each, of in zip(labels, tensors, strict=True)
                ]
            elif len(known) == len(labels) and not is_doubling([self.info(each) for each in tensors]):
                step = 1 + max(int(each.max()) for each in known)
        if any(each is None for each in labels):
            return [None]
        moving = [each + step * number for number, each in enumerate(labels) if each is not None]
        return moved(func, name, args, kwargs, zip(tensors, moving, strict=True))


def moved(func: Any, name: str, args: Any, kwargs: Any, labels: Iterable[tuple[Tensor, Tensor]]) -> list[Tensor | None]:
    """Moves the labels of tensors as an operation moved the tensors; None where that cannot be done."""
    places = {id(tensor): each.expand(tensor.shape) for tensor, each in labels}
    args, kwargs = tree_map(lambda each: places.get(id(each), each), (args, kwargs))
    try:
        found = args[0].reshape(args[1]) if name in AS_RESHAPE else func(*args, **kwargs)
    except (RuntimeError, TypeError):
        return [None]
    return [compact(each) for each in tree_leaves(found)] if name != "as_strided" else [None]
