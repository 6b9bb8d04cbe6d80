"""The parts of a method: which of a factory's parameters are hyperparameters, and how a part is made for a network."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from pliant.optimizers import adam
from pliant.settings import meanings
from pliant.types import Intervention, Method, Params, Part, Penalty, Role, Wiring, leaf_path

_OF_THE_NETWORK = ("wiring", "mask", "output_axes", "network")
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Parts(NamedTuple):
    """A method's parts, built for one network."""

    optimizer: optax.GradientTransformationExtraArgs
    penalty: Penalty | None
    intervention: Intervention | None


class Member(NamedTuple):
    """A part of one method in a combination, with the names that its hyperparameters have there."""

    method: str
    part: Any
    names: Mapping[str, str]

    def make(self, values: Mapping[str, Any], **given: Any) -> Any:
        """The part, made with the values of its own hyperparameters."""
        return make(self.part, {name: values[self.names[name]] for name in parameters(self.part)}, **given)


class Joined(NamedTuple):
    """A part of a combination of methods: parts of its members, and how they are made into one."""

    members: tuple[Member, ...]
    join: Callable[[Sequence[Member], Mapping[str, Any], Mapping[str, Any]], Any]
    """`join(members, values of the hyperparameters, what comes from the network) -> part`."""


def parts(method: Method) -> list[Any]:
    """All parts that the method has, in the order in which its hyperparameters are listed.

    Example:
      >>> from pliant.methods import METHODS
      >>> [part.__name__ for part in parts(METHODS["redo"])]
      ['adam', 'redo']
    """
    own = (method.optimizer or adam, method.schedule, method.penalty, method.intervention)
    return [*shaping(method), *(part for part in own if part)]


def shaping(method: Method) -> list[Any]:
    """The parts whose hyperparameters all shape the compiled program.

    Example:
      >>> from pliant.methods import METHODS
      >>> [part.__name__ for part in shaping(METHODS["infer"])]
      ['with_auxiliary_heads']
    """
    return [part for part in (method.wrap, method.targets) if part]


def parameters(part: Any) -> dict[str, inspect.Parameter]:
    """The hyperparameters of a part: what its factory takes, but for what comes from the network or is fixed.

    Example:
      >>> from pliant.penalties import l2_init
      >>> [(name, each.default) for name, each in parameters(Part(l2_init, fixed={"norm": "l1"})).items()]
      [('strength', 0.01)]
    """
    if isinstance(part, Joined):
        return {member.names[name]: each for member in part.members for name, each in parameters(member.part).items()}
    factory, _, fixed = _as_part(part)
    asked = inspect.signature(factory, eval_str=True).parameters
    given = {*_OF_THE_NETWORK, *fixed}
    return {name: each for name, each in asked.items() if name not in given and each.kind not in _VARIADIC}


def explanations(part: Any) -> dict[str, str]:
    """What the hyperparameters of a part mean, as the documentation of its factory says.

    Example:
      >>> explanations(adam)["b1"]
      'decay rate of the first moment, in [0, 1)'
    """
    if isinstance(part, Joined):
        told = [(member, explanations(member.part)) for member in part.members]
        return {member.names[name]: own.get(name, "") for member, own in told for name in parameters(member.part)}
    return meanings(_as_part(part).factory)


def make(part: Any, values: Mapping[str, Any], **given: Any) -> Any:
    """Makes a part for one network.

    Args:
      part: a function, a `Part` or a `Joined`.
      values: its hyperparameters; others are ignored.
      **given: what comes from the network, of which the factory gets what it asks for.

    Example:
      >>> from pliant.penalties import l2_init
      >>> wiring, params = Wiring((), {"w": "matrix", "b": "bias"}), {"w": jax.numpy.ones(1), "b": jax.numpy.ones(1)}
      >>> part = Part(l2_init, roles=("matrix",), fixed={"norm": "l1"})
      >>> penalty = make(part, {"strength": 0.5}, wiring=wiring)
      >>> start = penalty.init({"w": jax.numpy.zeros(1), "b": jax.numpy.zeros(1)})
      >>> float(penalty.loss(params, start, None)[0])
      0.5
    """
    if isinstance(part, Joined):
        return part.join(part.members, values, given)
    factory, roles, fixed = _as_part(part)
    if roles:
        given |= {"mask": lambda params: _learnable(given["wiring"], params, *roles)}
    asked = inspect.signature(factory).parameters
    own = {name: values[name] for name in parameters(part)}
    return factory(**{name: value for name, value in given.items() if name in asked}, **fixed, **own)


def _as_part(part: Any) -> Part:
    return part if isinstance(part, Part) else Part(part)


def _learnable(wiring: Wiring, params: Params, *roles: Role) -> PyTree[bool]:
    """True at the leaves of these roles that are not frozen."""
    return jax.tree_util.tree_map_with_path(
        lambda path, chosen: chosen and leaf_path(path) not in wiring.frozen, wiring.mask(params, *roles)
    )
