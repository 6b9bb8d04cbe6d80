"""The hyperparameters of a method, read off the signatures of its parts, so a default is written once."""

import inspect
from collections.abc import Mapping

import numpy as np

from pliant.errors import UserError, unknown_name
from pliant.methods._parts import explanations, parameters, parts, shaping
from pliant.settings import Value, cast
from pliant.types import LogUniform, Method, Range

_RATES = LogUniform(1e-4, 1e-2)


def defaults(method: Method, learning_rate: float = 1e-3) -> dict[str, Value]:
    """Returns the method's hyperparameters by name, with their defaults.

    Args:
      method: from the registry, or of your own.
      learning_rate: the default of `learning_rate`, which no method sets.

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
            do=f"Write for example {missing[0]}=0.1 in its signature. What comes from the network is called wiring, "
            "mask or output_axes there, and in wrap network; targets gets nothing of it.",
        )
    return values


def search_space(method: Method) -> dict[str, Range]:
    """Returns what the method's hyperparameters are tuned over, by name: the learning rate, and what its row says.

    Raises:
      UserError: if the row names a hyperparameter that the method does not have.

    Example:
      >>> from pliant.methods import METHODS
      >>> search_space(METHODS["adamo"])["learning_rate"]
      LogUniform(low=0.0001, high=0.01, is_whole=False)
    """
    known = _parameters(method)
    for name in method.space:
        if name not in known:
            raise unknown_name(f"hyperparameter of {method.name!r} in its space", name, known, "Correct its row.")
    space = {"learning_rate": _RATES, **method.space}
    return {name: space[name] for name in known if name in space}


def option_meanings(method: Method) -> dict[str, str]:
    """Returns what the method's hyperparameters mean, by name, from the docstrings of its parts.

    Example:
      >>> from pliant.methods import METHODS
      >>> option_meanings(METHODS["sgd"])["momentum"]
      'decay rate of the sum of gradients, in [0, 1); 0 for none'
    """
    found = {name: meaning for part in parts(method) for name, meaning in explanations(part).items()}
    return {name: found.get(name, "") for name in _parameters(method)}


def as_arrays(values: Mapping[str, Value]) -> dict[str, np.ndarray]:
    """Converts hyperparameters to the arrays that a compiled program takes: whole numbers int32, others float32.

    Example:
      >>> as_arrays({"every": 16, "strength": 0.1})["every"].dtype
      dtype('int32')
    """
    return {
        name: np.asarray(value, np.int32 if isinstance(value, int) else np.float32) for name, value in values.items()
    }


def with_settings(method: Method, settings: Mapping[str, Value], learning_rate: float) -> dict[str, Value]:
    """Returns the defaults with some values replaced, each checked against the method's parameters.

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
    """Splits hyperparameters into those that shape the program and those that are traced.

    Returns:
      (static, traced): static ones are texts, or annotated `int` or `bool` in the factory.

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
    names |= {name for part in shaping(method) for name in parameters(part)}
    static = {name: value for name, value in values.items() if name in names}
    return static, {name: value for name, value in values.items() if name not in names}


def _parameters(method: Method) -> dict[str, inspect.Parameter]:
    return {name: each for part in parts(method) for name, each in parameters(part).items()}
