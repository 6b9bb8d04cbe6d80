"""Follows which parameters feed the units of an activation, and which weights read them.

Labels that say which unit an entry is move with the data through every operation (`pliant.torch._units`). Where a
parameter meets data, its own entries get the labels of what they meet.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pliant.torch._folds import fold
from pliant.torch._follow import Follower, moved
from pliant.torch._info import Core, Info, Operation, activation_in, is_doubling
from pliant.torch._operations import KEEPING, MATRICES, MOVES, NORMS, REDUCTIONS, SAME, storage_of, written
from pliant.torch._owned import Known, Owned, Read
from pliant.torch._products import CONVOLUTION, fed_by_convolution, read_by_convolution, read_by_matrix
from pliant.torch._slots import Role, Root, Slot, aligned, in_root, mapped, permutation, renamed
from pliant.torch._units import compact, fits, merged, reduced

_MIXING_NORMS = ("layer_norm", "group_norm", "rms_norm")
_SCALES = ("mul", "div")
_SHIFTS = ("add", "sub", "rsub")


class Ownership:
    """A watcher of a `Follower` that notes what feeds and what reads the units of every activation."""

    def __init__(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]):
        self.params = params
        self.buffers = {storage_of(each): name for name, each in buffers.items() if each.numel() > 1}
        self.owned: Any = WeakTensorKeyDictionary()
        self.roots: Any = WeakTensorKeyDictionary()
        self.made: Any = WeakTensorKeyDictionary()
        """The numbers of the operations that made tensors."""
        self.known: dict[Core, Known] = {}
        self.operations: dict[Core, int] = {}
        """The numbers of the operations that made the activations."""
        self.reads: dict[Core, list[Read]] = {}
        self.leaks: dict[Core, str] = {}
        """Why an activation reaches further than what reads it."""
        self.normed: set[Core] = set()
        """Activations behind which a norm over units lies."""
        self.uses: dict[str, set[int]] = {}
        """The operations that read a parameter."""
        self.roles: dict[str, Role] = {}
        self.biases: dict[str, str] = {}
        """The bias that is added to what a kernel makes."""
        self.output_axes: dict[str, int] = {}
        """The axis of a kernel that indexes its outputs."""
        self.kernels: dict[int, str] = {}
        """The kernel of each product, by its place in `Follower.products`."""
        self.norms: dict[str, tuple[str, ...]] = {}
        """The scale and the offset of the norm behind a kernel, with nothing but a bias in between."""
        self.follower: Any = None
        self.num_units = 0

    def __call__(self, follower: Follower, operation: Operation) -> None:
        """Notes what an operation does; what is not understood ends what is known of its outputs."""
        self.follower = follower
        data = [(tensor, info) for tensor, info in operation.operands if info.is_data]
        if not data or all(not follower.info(each).is_data for each in operation.outputs):
            self._parameters(operation)
            return
        for _, info in operation.operands:
            if not info.is_data and len(info.params) == 1:
                self.uses.setdefault(next(iter(info.params)), set()).add(operation.number)
        try:
            found = self._data(follower, operation, data)
        except (IndexError, RuntimeError, TypeError, ValueError):
            self._leak(data, f"{operation.name!r} reads it")
            found = [Owned(why=f"{operation.name!r} is not followed")]
        outputs = operation.outputs
        for tensor in written(operation.function, operation.args, operation.kwargs):
            self._rewrite(tensor)
        for output, owned in zip(outputs, found * len(outputs) if len(found) == 1 else found, strict=False):
            self.owned[output] = owned
            self.made[output] = operation.number
            core = follower.info(output).core
            if core is not None and core.tensor is output and core not in self.known:
                self.operations.setdefault(core, operation.number)
                self._numbered(core, owned)

    def numbers(self, tensor: Tensor, info: Info, *, by_weights: bool = False) -> Tensor | None:
        """The units that a tensor's entries are, numbered over all activations; None if they are none's."""
        core = activation_in(info, by_weights)
        owned = self._of(tensor)
        if core is None:
            return owned.units
        known = self._numbered(core, owned)
        if known is None or not fits(known.labels, tensor):
            return None
        return known.labels.to(tensor.device) + known.offset

    def leave(self, outputs: Iterable[Tensor]) -> None:
        """Notes what the network returns."""
        data = [(each, self.follower.info(each)) for each in outputs]
        self._leak([(each, info) for each, info in data if info.is_data], "the network returns it")

    def _rewrite(self, tensor: Tensor) -> None:
        """Tensors of another shape that share memory with one that was written have changed with it."""
        storage = storage_of(tensor)
        for other in [each for each in list(self.owned) if each is not tensor and storage_of(each) == storage]:
            if other.shape != tensor.shape or other.stride() != tensor.stride():
                self._leak([(other, self.follower.info(other))], "it is written in place")
                self.owned[other] = Owned(why="it is written in place")

    def _of(self, tensor: Tensor) -> Owned:
        return self.owned.get(tensor) or Owned(why="the inputs")

    def _numbered(self, core: Core, owned: Owned) -> Known | None:
        """Numbers the units of an activation when it is first seen."""
        if core not in self.known and core.labels is not None:
            values, places = torch.unique(core.labels.cpu(), return_inverse=True)
            self.operations.setdefault(core, self.made.get(core.tensor, -1))
            feeds = tuple(each._replace(units=renamed(each.units, values)) for each in owned.feeds)
            self.known[core] = Known(self.num_units, len(values), places, feeds, owned.why, owned.mixes)
            self.num_units += len(values)
        return self.known.get(core)

    def _cores(self, units: Tensor | None) -> list[Core]:
        if units is None:
            return []
        present = torch.unique(units)
        starts = [(core, each.offset, each.offset + each.width) for core, each in self.known.items()]
        return [core for core, start, stop in starts if bool(((present >= start) & (present < stop)).any())]

    def _leak(self, data: Iterable[tuple[Tensor, Info]], why: str, *, by_weights: bool = False) -> None:
        for tensor, info in data:
            for core in self._cores(self.numbers(tensor, info, by_weights=by_weights)):
                self.leaks.setdefault(core, why)

    def _parameters(self, operation: Operation) -> None:
        """Follows views and copies of parameters, and look-ups in them."""
        for tensor, info in operation.operands:
            root = self._root(tensor, info)
            if root is None or len(operation.outputs) != 1:
                continue
            if "embedding" in operation.name:
                self.roles[root.parameter] = "embedding"
            (output,) = operation.outputs
            if storage_of(output) == storage_of(tensor):
                self.roots[output] = root
            elif operation.name in SAME and tensor.shape == root.shape == output.shape:
                self.roots[output] = root._replace(stride=output.stride(), offset=int(output.storage_offset()))

    def _root(self, tensor: Tensor, info: Info) -> Root | None:
        found = self.roots.get(tensor)
        if found is None and len(info.params) == 1:
            (name,) = info.params
            own = self.params[name]
            if storage_of(own) == storage_of(tensor):
                found = Root(name, own.shape, own.stride(), int(own.storage_offset()))
                self.roots[tensor] = found
        return found

    def _slot(self, tensor: Tensor, info: Info, labels: Tensor | None, role: Role) -> Slot | None:
        """The entries of a parameter that a view of it shows; None if it is computed, or if nobody owns them."""
        root = self._root(tensor, info)
        if root is None or labels is None:
            return None
        if role == "norm" or sum(size > 1 for size in root.shape) <= 1:  # no positions or tokens
            self.roles.setdefault(root.parameter, role)
        return Slot(root.parameter, in_root(root, tensor, labels.cpu()), role)

    def _data(self, follower: Follower, operation: Operation, data: Any) -> list[Owned]:
        """What is known of the outputs of an operation on data."""
        name, outputs = operation.name, operation.outputs
        first, info = data[0]
        own = self._of(first)
        is_view = any(
            each.alias_info is not None and not each.alias_info.is_write for each in operation.function._schema.returns
        )
        if follower.is_opaque:
            self._leak(data, "a recurrent layer reads it")
            return [Owned(why="a recurrent layer")]
        if name == "copy":
            return [self._of(operation.operands[-1][0])]
        if name in SAME or (is_view and outputs[0].shape == first.shape and outputs[0].stride() == first.stride()):
            return [own]
        if is_view or name in MOVES:
            return self._moved(operation, data, own)
        if "native_dropout" in name:
            return [own]
        if name in MATRICES or "convolution" in name:
            return [self._product(follower, operation, data)]
        if torch.Tag.pointwise in operation.function.tags or follower.info(outputs[0]).base == info.base:
            return [self._pointwise(operation, data, own)]
        units = self.numbers(first, info)
        folded = fold(name, operation.args, operation.kwargs, first, info.labels) if len(data) == 1 else None
        if folded is not None and units is None and info.core is None:
            feeds = tuple(each._replace(units=mapped(each.units, folded.number)) for each in own.feeds)
            return [own._replace(feeds=feeds, product="")]
        if len(data) == 1 and any(word in name for word in NORMS):
            return [self._norm(operation, first, info, own)]
        if len(data) == 1 and "softmax" not in name and any(word in name for word in KEEPING):
            return [own._replace(units=units if fits(units, outputs[0]) else None)]
        if len(data) == 1 and name in REDUCTIONS and info.labels is not None and len(operation.args) > 1:
            keepdim = bool(operation.kwargs.get("keepdim", operation.args[2] if len(operation.args) > 2 else False))
            kept = None if units is None else reduced(units, operation.args[1], keepdim=keepdim)
            if units is None or kept is not None:
                return [own._replace(units=kept)]
        if "embedding" in name:
            for tensor, each in operation.operands:
                root = None if each.is_data else self._root(tensor, each)
                if root is not None:
                    self.roles[root.parameter] = "embedding"
        self._leak(data, f"{name!r} reads it")
        return [Owned(why=f"{name!r} is not followed")]

    def _moved(self, operation: Operation, data: Any, own: Owned) -> list[Owned]:
        function, name, args, kwargs = operation.function, operation.name, operation.args, operation.kwargs
        infos = [info for _, info in data]
        if name == "cat" and len(infos) > 1 and is_doubling(infos):
            return [own]
        units = [self.numbers(tensor, info) for tensor, info in data]
        if len(data) > 1:
            own = Owned(why="it is put together from several tensors")
        if all(each is None for each in units):
            return [own]
        nobody = torch.tensor(-1)
        labels = [
            (tensor, nobody.to(tensor.device).reshape([1] * tensor.ndim) if each is None else each)
            for (tensor, _), each in zip(data, units, strict=True)
        ]
        found = moved(function, name, args, kwargs, labels)
        if len(found) != len(operation.outputs) or found == [None]:
            self._leak(data, f"{name!r} reads it")
            return [own._replace(product="")]
        return [own._replace(units=each, product="") for each in found]

    def _pointwise(self, operation: Operation, data: Any, own: Owned) -> Owned:
        name, output = operation.name, operation.outputs[0]
        infos = [info for _, info in data]
        mine = [self._of(tensor) for tensor, _ in data]
        is_one = len({info.base for info in infos}) == 1
        if is_one:
            found = own._replace(feeds=tuple({each.parameter: each for one in mine for each in one.feeds}.values()))
        else:
            found = self._mixed(operation, data, mine)
        core = self.follower.info(output).core
        if found.units is not None and core is not None and core.tensor is output and not core.is_weak:
            for each in self._cores(found.units):
                self.leaks.setdefault(each, "another activation reads it")
            found = found._replace(units=None)
        labels = infos[0].labels if is_one else merged([info.labels for info in infos], output)
        for tensor, info in operation.operands:
            if info.is_data or not info.params or name == "_prelu_kernel":
                continue
            found = self._with_parameter(name, tensor, info, labels, found)
        if name not in _SCALES + _SHIFTS:
            found = found._replace(product="")
        return found

    def _with_parameter(self, name: str, tensor: Tensor, info: Info, labels: Tensor | None, found: Owned) -> Owned:
        """Adds a parameter that meets data entry by entry."""
        role: Role = "bias" if name in _SHIFTS else "norm"
        places = None if labels is None else aligned(labels, tensor)
        slot = self._slot(tensor, info, places, role)
        if slot is None:
            is_shared = tensor.numel() == 1 or (labels is not None and places is None)
            return found if is_shared else found._replace(why=found.why or "it meets parameters that are computed")
        if found.product and role == "bias":
            self.biases.setdefault(found.product, slot.parameter)
        return found._replace(feeds=(*found.feeds, slot))

    def _mixed(self, operation: Operation, data: Any, mine: Sequence[Owned]) -> Owned:
        """A function of several tensors: a norm written out, a gate, a residual sum, or something else."""
        name = operation.name
        plain = [info.labels is None or info.labels.numel() == 1 for _, info in data]
        if len(data) == 2 and sum(plain) == 1 and name in (*_SCALES, "sub"):
            place = plain.index(False)
            units = self.numbers(*data[place])
            for core in self._cores(units):
                self.normed.add(core)
            self._leak([data[1 - place]], f"{name!r} reads it")
            return mine[place]._replace(units=units, mixes=True, product="")
        if len(data) == 2 and name == "mul":
            carried = [self.numbers(tensor, info, by_weights=True) for tensor, info in data]
            cores = [self._cores(each) for each in carried]
            place = min((0, 1), key=lambda i: (not cores[i], min((core.number for core in cores[i]), default=0)))
            if cores[place] != cores[1 - place] and self._gate(carried[place], data[1 - place], mine[1 - place]):
                for core in cores[1 - place]:
                    self.leaks.setdefault(core, "it is a gate of other units")
                return Owned(units=carried[place], why="it is a gate's product")
        sums = name in _SHIFTS
        if sums and not any(each.why or each.units is not None for each in mine) and _agree(data):
            return Owned(tuple(each for one in mine for each in one.feeds), mixes=any(one.mixes for one in mine))
        self._leak(data, "it goes into a residual sum" if sums else f"{name!r} reads it", by_weights=not sums)
        return Owned(why="it is a sum of several tensors" if sums else "it is computed from several tensors")

    def _gate(self, units: Tensor | None, other: tuple[Tensor, Info], mine: Owned) -> bool:
        """Adds what feeds the other factor to the units that it multiplies; False if it is not theirs alone."""
        labels = other[1].labels
        if mine.why or mine.mixes or units is None or labels is None or labels.shape != units.shape:
            return False
        pairs = torch.stack([labels.cpu().flatten(), units.cpu().flatten()])
        pairs = torch.unique(pairs, dim=1)
        if len(torch.unique(pairs[0])) != pairs.shape[1] or len(torch.unique(pairs[1])) != pairs.shape[1]:
            return False
        cores = self._cores(units)
        if len(cores) != 1:
            return False
        known = self.known[cores[0]]
        number = dict(zip(pairs[0].tolist(), (pairs[1] - known.offset).tolist(), strict=True))
        feeds = tuple(each._replace(units=mapped(each.units, number)) for each in mine.feeds)
        self.known[cores[0]] = known._replace(feeds=(*known.feeds, *feeds))
        return True

    def _norm(self, operation: Operation, tensor: Tensor, info: Info, own: Owned) -> Owned:
        name = operation.name
        is_over_units = any(word in name for word in _MIXING_NORMS)
        units = self.numbers(tensor, info)
        if is_over_units:
            self.normed.update(self._cores(units))
        feeds = list(own.feeds)
        labels = self.follower.info(operation.outputs[0]).labels
        for other, each in operation.operands:
            buffer = self.buffers.get(storage_of(other))
            if each.is_data or (not each.params and buffer is None) or labels is None:
                continue
            trailing = "layer" in name or "rms" in name
            view = other if trailing else other.reshape(-1, *([1] * (tensor.ndim - 2)))
            places = aligned(labels, view)
            if buffer is not None and places is not None:
                feeds.append(Slot(buffer, places.reshape(other.shape).cpu(), "statistic"))
            elif each.params:
                slot = self._slot(other, each, None if places is None else places.reshape(other.shape), "norm")
                if slot is not None:
                    feeds.append(slot)
        if own.product:
            self.norms[own.product] = tuple(each.parameter for each in feeds if each.role == "norm")
        num_kernels = sum(each.role == "kernel" for each in own.feeds)
        why = own.why or ("a norm over units lies behind a sum" if is_over_units and num_kernels > 1 else "")
        return Owned(tuple(feeds), units, why, own.mixes or is_over_units)

    def _product(self, follower: Follower, operation: Operation, data: Any) -> Owned:
        name, output = operation.name, operation.outputs[0]
        is_convolution = "convolution" in name
        named = dict(zip(CONVOLUTION, operation.args, strict=False)) | operation.kwargs if is_convolution else {}
        place = 0 if is_convolution else MATRICES[name]
        left, right = operation.args[place : place + 2]
        infos = {id(tensor): info for tensor, info in operation.operands}
        x, weight = (left, right) if infos[id(left)].is_data else (right, left)
        if infos[id(x)].is_data and infos[id(weight)].is_data:
            self._leak(data, "it is multiplied with other data")
            return Owned(why="it is a product of data with data")
        if not infos[id(weight)].params:
            self._leak(data, "it is multiplied with constants")
            return Owned(why="it is a product with a constant")
        units = self.numbers(x, infos[id(x)], by_weights=True)
        root = self._root(weight, infos[id(weight)])
        if units is not None:
            read = (
                read_by_convolution(units.cpu(), weight, named)
                if is_convolution
                else read_by_matrix(units.cpu(), is_left=x is left)
            )
            if root is None or read is None:
                sources = ", ".join(sorted(infos[id(weight)].params))
                why = f"what reads it is computed from {sources}" if root is None else "a weight reads several units"
                self._leak([(x, infos[id(x)])], why, by_weights=True)
            else:
                self._note_read(units, in_root(root, weight, read), root.parameter, operation.number)
        beta = operation.args[0] if place == 1 else named.get("bias")
        if isinstance(beta, Tensor) and infos[id(beta)].is_data:
            self._leak([(beta, infos[id(beta)])], "it goes into a residual sum")
            return Owned(why="it is a sum of several tensors")
        if root is None:
            return Owned(why=f"its weight is computed from {', '.join(sorted(infos[id(weight)].params))}")
        self.kernels[len(follower.products) - 1] = root.parameter
        axis = int(bool(named.get("transposed"))) if is_convolution else weight.ndim - (1 if x is left else 2)
        order = permutation(root, weight)
        self.output_axes[root.parameter] = 0 if order is None else order.index(axis)
        labels = follower.info(output).labels
        if labels is None:
            return Owned(why="which axes are units is not known")
        fed = fed_by_convolution(labels, weight, named) if is_convolution else labels
        if self.roles.get(root.parameter) not in ("embedding",):
            self.roles[root.parameter] = "kernel"
        feeds = [Slot(root.parameter, in_root(root, weight, fed.cpu()), "kernel")]
        if isinstance(beta, Tensor) and infos[id(beta)].params:
            places = labels.reshape(-1) if is_convolution else aligned(labels, beta)
            bias = self._slot(beta, infos[id(beta)], places, "bias")
            if bias is not None:
                feeds.append(bias)
                self.biases.setdefault(root.parameter, bias.parameter)
        return Owned(tuple(feeds), product=root.parameter)

    def _note_read(self, units: Tensor, places: Tensor, parameter: str, operation: int) -> None:
        for core in self._cores(units):
            known = self.known[core]
            own = places - known.offset
            own = compact(torch.where((own >= 0) & (own < known.width), own, -1))
            self.reads.setdefault(core, []).append(Read(Slot(parameter, own, "kernel"), operation))


def _agree(data: Sequence[tuple[Tensor, Info]]) -> bool:
    """Whether tensors have the same units in the same entries, and no activation among them."""
    labels = [info.labels for _, info in data if info.core is None]
    known = [each for each in labels if each is not None]
    return len(known) == len(data) and all(torch.equal(each, known[0]) for each in known)
