"""The hyperparameters of a method: read off its builders' signatures, so a default is written once."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import optax

from pliant.errors import UserError, unknown_name
from pliant.interventions import keep_frozen
from pliant.optimizers import hold_frozen
from pliant.settings import Value, cast, meanings, options
from pliant.types import Intervention, Method, Network, Penalty, Stream, Wiring


class Parts(NamedTuple):
    """A method's parts, built for one network."""

    optimizer: optax.GradientTransformationExtraArgs
    penalty: Penalty | None
    intervention: Intervention | None


def defaults(method: Method, learning_rate: float = 1e-3) -> dict[str, Value]:
    """The method's hyperparameters by name, with their defaults.

    Args:
      method: the recipe.
      learning_rate: the default of `learning_rate`, which no recipe sets.

    Example:
      >>> from pliant.methods import METHODS
      >>> defaults(METHODS["l2-init"], learning_rate=0.5)
      {'learning_rate': 0.5, 'b1': 0.9, 'b2': 0.999, 'eps': 1e-08, 'strength': 0.01, 'norm': 'l2'}
    """
    values = {name: parameter.default for name, parameter in _parameters(method).items()}
    if "learning_rate" in values:
        values["learning_rate"] = learning_rate
    missing = [name for name, value in values.items() if value is inspect.Parameter.empty]
    if missing:
        raise UserError(
            got=f"the method {method.name!r}, whose {', '.join(missing)} has no default",
            wanted="a default for every hyperparameter but learning_rate",
            do=f"Write for example {missing[0]}=0.1 in its signature.",
        )
    return values


def option_meanings(method: Method) -> dict[str, str]:
    """What the method's hyperparameters mean, by name, as the documentation of its parts says.

    Example:
      >>> from pliant.methods import METHODS
      >>> option_meanings(METHODS["sgd"])["momentum"]
      'decay rate of the sum of gradients, in [0, 1); 0 for none'
    """
    found = {name: meaning for builder in _builders(method) for name, meaning in meanings(builder).items()}
    return {name: found.get(name, "") for name in _parameters(method)}


def as_arrays(values: Mapping[str, Value]) -> dict[str, np.ndarray]:
    """Traced hyperparameters as the arrays that a compiled program takes: whole numbers int32, others float32.

    Example:
      >>> as_arrays({"every": 16, "strength": 0.1})["every"].dtype
      dtype('int32')
    """
    return {
        name: np.asarray(value, np.int32 if isinstance(value, int) else np.float32) for name, value in values.items()
    }


def with_settings(method: Method, settings: Mapping[str, Value], learning_rate: float) -> dict[str, Value]:
    """The defaults with some values replaced, each checked against the method's parameters.

    Raises:
      UserError: for a name that the method does not have or a value of the wrong type.

    Example:
      >>> from pliant.methods import METHODS
      >>> with_settings(METHODS["adamo"], {"isometry_every": 1}, learning_rate=1e-3)["isometry_every"]
      1
    """
    values = defaults(method, learning_rate)
    for name, value in settings.items():
        if name not in values:
            do = f"`pliant list methods` shows what can be set for {method.name!r}."
            raise unknown_name(f"hyperparameter of {method.name!r}", name, values, do)
        values[name] = cast(f"{method.name}.{name}", value, values[name])
    return values


def split_static(method: Method, values: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value]]:
    """Parts hyperparameters into those that shape the program and those that are traced.

    Returns:
      (static, traced): static ones are texts, or annotated `int` or `bool` in the builder.

    Example:
      >>> from pliant.methods import METHODS
      >>> static, traced = split_static(METHODS["redo"], defaults(METHODS["redo"]))
      >>> static["source"], traced["threshold"]
      ('fresh', 0.025)
    """
    names = {
        name
        for name, parameter in _parameters(method).items()
        if parameter.annotation in (int, bool) or isinstance(parameter.default, str | bool)
    }
    names |= {name for builder in _shaping(method) for name in options(builder)}
    static = {name: value for name, value in values.items() if name in names}
    return static, {name: value for name, value in values.items() if name not in names}


def build(method: Method, wiring: Wiring, values: Mapping[str, Any], *, rate: Any = None, fraction: Any = 0.0) -> Parts:
    """Builds the method's parts, each with the hyperparameters that it names.

    Args:
      method: the recipe.
      wiring: the layer graph of the network, with the method's network changes already made.
      values: all hyperparameters, numbers or traced scalars.
      rate: what the learning rate is multiplied by, if anything.
      fraction: of the task's updates that are done, for methods with a schedule.

    Returns:
      The optimizer, and the penalty and the intervention or None. None of them changes what the wiring calls frozen.

    Raises:
      UserError: from the builders, for numbers out of range and for networks that the method cannot work on.

    Example:
      >>> from pliant.methods import METHODS
      >>> from pliant.networks import mlp
      >>> method, network = METHODS["l2-init"], mlp((2,), 1, widths=(3,))
      >>> parts = build(method, network.wiring, {**defaults(method), "strength": 0.5})
      >>> params, _ = network.init(jax.random.key(0))
      >>> moved = jax.tree.map(lambda leaf: leaf + 1.0, params)
      >>> value, _ = parts.penalty.loss(moved, parts.penalty.init(params), None)
      >>> round(float(value), 4), parts.intervention
      (6.5, None)
    """

    def part(builder: Callable[..., Any] | None) -> Any:
        if builder is None:
            return None
        return builder(wiring, **_of(builder, values))

    factors = [rate] if rate is not None else []
    if method.schedule:
        factors.append(part(method.schedule)(fraction))
    for factor in factors if "learning_rate" in values else []:
        values = {**values, "learning_rate": values["learning_rate"] * factor}
    intervention = part(method.intervention)
    return Parts(
        hold_frozen(part(method.optimizer), wiring),
        part(method.penalty),
        intervention and keep_frozen(intervention, wiring),
    )


def retarget(method: Method, stream: Stream, values: Mapping[str, Any]) -> Stream:
    """The stream as the method poses it: unchanged, or with other outputs and another loss.

    Args:
      method: the recipe.
      stream: the stream as it is.
      values: the hyperparameters; only static ones are read.

    Returns:
      The stream; the same object for most methods.

    Raises:
      UserError: from the method, for streams that it does not suit and numbers out of range.

    Example:
      >>> from pliant.methods import METHODS
      >>> from pliant.streams import slowly_changing_regression
      >>> method, stream = METHODS["hl-gauss"], slowly_changing_regression()
      >>> stream.num_outputs, retarget(method, stream, defaults(method)).num_outputs
      (1, 51)
    """
    return method.targets(stream, **_of(method.targets, values)) if method.targets else stream


def wrapped(method: Method, network: Network, values: Mapping[str, Any]) -> Network:
    """The network with what the method adds, if it does.

    Args:
      method: the recipe.
      network: as it is built.
      values: the hyperparameters; only static ones are read.

    Returns:
      The network; the same object for most methods.

    Raises:
      UserError: from the method, for networks that it cannot work on and numbers out of range.

    Example:
      >>> from pliant.methods import METHODS
      >>> from pliant.networks import mlp
      >>> method = METHODS["infer"]
      >>> network = wrapped(method, mlp((2,), 1, widths=(3,)), defaults(method))
      >>> sorted(network.init(jax.random.key(0))[0])
      ['dense_0', 'head', 'infer']
    """
    return method.wrap(network, **_of(method.wrap, values)) if method.wrap else network


def _of(builder: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in options(builder)}


def _parameters(method: Method) -> dict[str, inspect.Parameter]:
    return {name: option for builder in _builders(method) for name, option in options(builder).items()}


def _builders(method: Method) -> list[Callable[..., Any]]:
    builders = [*_shaping(method), method.optimizer, method.schedule, method.penalty, method.intervention]
    return [builder for builder in builders if builder]


def _shaping(method: Method) -> list[Callable[..., Any]]:
    """The builders whose hyperparameters all shape the program."""
    return [builder for builder in (method.wrap, method.targets) if builder]
