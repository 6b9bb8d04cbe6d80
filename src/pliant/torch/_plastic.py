"""The optimizer that `attach` returns."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from pliant.errors import UserError
from pliant.torch._learner import Batch, Learner
from pliant.torch._mechanism import Mechanism
from pliant.torch._wiring import Wiring

_ATTACHED: Any = weakref.WeakKeyDictionary()
"""The optimizers by the networks that they are attached to."""


class Plastic(torch.optim.Optimizer):
    """The optimizer that `attach` returns: another optimizer, and what a method adds to it."""

    def __init__(
        self, learner: Learner, base: torch.optim.Optimizer, parts: Mapping[str, Mechanism], hooked: Sequence[nn.Module]
    ):
        self._base = base
        super().__setstate__({})  # hooks and profiling, but no groups of its own
        self._learner, self._parts = learner, parts
        self.updates = 0
        """Updates made so far."""
        self.switches = 0
        """Task changes so far."""
        self.info: dict[str, float] = {}
        """What the last update or switch did, for a logger."""
        self._states = {name: part.init(learner) for name, part in parts.items()}
        self._batch: Batch | None = None
        self._is_penalized = False
        keeper = _Keeper(self)
        self._handles = [
            each.register_forward_pre_hook(keeper, with_kwargs=True)
            for each in hooked
            if any(part.needs_batch is not Mechanism._field_defaults["needs_batch"] for part in parts.values())
        ]
        _ATTACHED[learner.module] = weakref.ref(self)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Those of the optimizer that makes the updates; schedulers change them."""
        return self._base.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """That of the optimizer that makes the updates."""
        return self._base.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """Those of the optimizer that makes the updates."""
        return self._base.defaults

    @property
    def methods(self) -> tuple[str, ...]:
        """The names of the methods, without that of the optimizer."""
        return tuple(self._parts)

    @property
    def wiring(self) -> Wiring:
        """The layer graph of the network."""
        return self._learner.wiring

    def penalty(self) -> Tensor:
        """The method's term of the loss; 0 for methods without one. Add it to the loss of every update."""
        self._is_penalized = True
        terms = [part.penalty(self._learner, self._states[name]) for name, part in self._parts.items() if part.penalty]
        if not terms:
            return torch.zeros((), device=next(iter(self._learner.params.values())).device)
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one update, then the method's resets and projections.

        Args:
          closure: evaluates the network again and returns the loss, with the penalty.

        Returns:
          What the closure returned.

        Raises:
          UserError: if the method has a penalty that was not asked for since the last update, if it looks at the batch
            and the network was not called, and from its parts.
        """
        seen = False

        def look() -> None:
            nonlocal seen
            if not seen:
                seen = True
                self._before()

        def evaluate() -> Any:
            assert closure is not None
            loss = closure()
            look()
            return loss

        if closure is None:
            look()
            loss = self._base.step()
        else:
            loss = self._base.step(evaluate)
        self.updates += 1
        batch, self._batch = self._batch, None
        self._is_penalized = False
        told = [
            (name, part.after(self._learner, self._states[name], self.updates, batch))
            for name, part in self._parts.items()
            if part.after
        ]
        self.info = _merged(told)
        return loss

    def switch(self) -> dict[str, float]:
        """Tells the method that the task changes now; returns `info`."""
        self.switches += 1
        told = [
            (name, part.switch(self._learner, self._states[name], self.switches))
            for name, part in self._parts.items()
            if part.switch
        ]
        self.info = _merged(told)
        return self.info

    def detach(self) -> None:
        """Removes the hooks from the network; another method can be attached then."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._batch = None
        if attached_to(self._learner.module) is self:
            del _ATTACHED[self._learner.module]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group to the optimizer that makes the updates. The method acts on the network alone."""
        self._base.add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """The state of the optimizer that makes the updates, and under "pliant" what the method adds."""
        generator = self._learner.generator
        own = {
            "parts": {name: dict(state) for name, state in self._states.items()},
            "updates": self.updates,
            "switches": self.switches,
            "generator": None if generator is None else generator.get_state(),
        }
        return {**self._base.state_dict(), "pliant": own}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continues from a state that `state_dict` made.

        Raises:
          UserError: for the state of another method or another network.
        """
        own = state_dict.get("pliant")
        if own is None or set(own["parts"]) != set(self._parts):
            raise UserError(
                got="a state without that of a method" if own is None else f"a state of {'+'.join(own['parts'])}",
                wanted=f"one of {'+'.join(self._parts)}",
                do="Attach the method that was saved.",
            )
        for name, state in self._states.items():
            _require_alike(name, state, own["parts"][name])
        self._base.load_state_dict({key: value for key, value in state_dict.items() if key != "pliant"})
        for name, state in self._states.items():
            for key, value in own["parts"][name].items():
                state[key] = value.clone().to(state[key]) if isinstance(value, Tensor) else value
        self.updates, self.switches = int(own["updates"]), int(own["switches"])
        if self._learner.generator is not None and own["generator"] is not None:
            self._learner.generator.set_state(own["generator"].cpu())

    def __getstate__(self) -> dict[str, Any]:
        raise UserError(
            got="a copy or a pickle of an attached optimizer",
            wanted="its state_dict: it belongs to one network, in which it has hooks",
            do="Attach the method to the other network, and load the state_dict there.",
        )

    def __repr__(self) -> str:
        return f"{'+'.join(self._parts) or 'plain'}, attached to {self._base!r}"

    def _needs_batch(self) -> bool:
        return any(part.needs_batch(self.updates + 1) for part in self._parts.values())

    def _before(self) -> None:
        unheard = [name for name, part in self._parts.items() if part.penalty]
        if unheard and not self._is_penalized:
            raise UserError(
                got=f"an update of {unheard[0]!r} without its penalty",
                wanted="the penalty in the loss of every update",
                do="Write loss = task_loss + optimizer.penalty() before loss.backward().",
            )
        if not self._needs_batch():
            return
        if self._batch is None:
            raise UserError(
                got=f"update {self.updates + 1} of {'+'.join(self._parts)} without a forward pass before it",
                wanted="the network called with gradients since the last update",
                do="Call the module that the method is attached to: module(x), not module.forward(x) or its parts.",
            )
        for name, part in self._parts.items():
            if part.before:
                part.before(self._learner, self._states[name], self._batch)


class _Keeper:
    """A forward hook that hands the arguments of a call to the optimizer, if its next update looks at them."""

    def __init__(self, optimizer: Plastic | None):
        self.optimizer = (lambda: None) if optimizer is None else weakref.ref(optimizer)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        del module
        optimizer = self.optimizer()
        if optimizer is not None and torch.is_grad_enabled() and optimizer._needs_batch():
            given, named = tree_map_only(Tensor, lambda each: each.detach(), (args, kwargs))
            optimizer._batch = Batch(given, named)

    def __deepcopy__(self, memo: Any) -> "_Keeper":
        return _Keeper(None)  # a copy of the network is not attached

    def __reduce__(self) -> Any:
        return _Keeper, (None,)


def attached_to(module: nn.Module) -> Plastic | None:
    found: Callable[[], Plastic | None] = _ATTACHED.get(module, lambda: None)
    return found()


def _merged(told: Sequence[tuple[str, Mapping[str, float]]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, info in told:
        found |= {f"{name.replace('-', '_')}_{what}" if what in found else what: value for what, value in info.items()}
    return found


def _require_alike(name: str, own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for key in {*own, *given}:
        one, other = (getattr(each.get(key, None), "shape", key in each) for each in (own, given))
        if one != other:
            raise UserError(
                got=f"a state of {name!r} in which {key!r} differs from the network's",
                wanted="the state of the same network with the same options",
                do="Attach the method to the network that was saved.",
            )
