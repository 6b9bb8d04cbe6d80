"""The hash of an object's content: code, constants and what they refer to, never a memory address."""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import os
import site
import sys
import sysconfig
import tokenize
import types
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_INSTALLED = tuple(
    str(Path(each).resolve()) + os.sep
    for each in {
        *(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
)
_PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes, type(...)))
_NOT_CONTENT = frozenset(
    ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__")
)
"""Of classes and wrappers: entries that say where they stand, or are in an order that differs between processes."""


def content_hash(value: object) -> str:
    """The SHA-256 of what an object is made of, the same in every process.

    Functions of the user's are hashed by their source, or by their bytecode where there is no source (in a REPL or
    behind `python -c`), together with their defaults, closures and the globals that they name. What is installed is
    hashed by its name, functions made inside of it also by their closures. Arrays are hashed by type, shape and bytes;
    tuples, dataclasses, mappings, sequences, sets, partial functions and other objects by their entries.

    Args:
      value: any object; it may refer to itself.

    Returns:
      64 hexadecimal digits.

    Example:
      >>> def scaled_by(factor):
      ...     return lambda x: factor * x
      >>> len({content_hash(scaled_by(factor)) for factor in (2, 2, 3)})
      2
    """
    return _Walk().digest(value)


class _Walk:
    """One pass over an object; what was met before is named by its number."""

    def __init__(self, met: Mapping[int, tuple[int, object]] | None = None) -> None:
        self.met = dict(met or {})
        """By id, the number and the object, which is kept alive so that its id stays its own."""

    def digest(self, value: object) -> str:
        """Every entry says its kind and its length, so that no two values read the same."""
        content, waiting = hashlib.sha256(), [value]
        while waiting:  # no recursion: graphs of objects are deep
            value = waiting.pop()
            if _is_plain(value):
                content.update(_text(type(value).__name__, repr(value)))
            elif id(value) in self.met:
                content.update(_text("met", str(self.met[id(value)][0])))
            else:
                if not isinstance(value, jax.Array | np.ndarray):  # equal arrays may be one or two
                    self.met[id(value)] = len(self.met), value
                kind, entries = self.parts(value)
                content.update(_text(kind, str(len(entries))))
                waiting += reversed(entries)
        return content.hexdigest()

    def aside(self, value: object) -> str:
        """A digest that depends on nothing before it in a set or mapping, because these have no order of their own."""
        return _Walk(None if _is_plain(value) else self.met).digest(value)

    def parts(self, value: Any) -> tuple[str, Sequence[Any]]:
        """The kind of a value, and what it consists of."""
        match value:
            case jax.Array() | np.ndarray():
                return _array(value)
            case types.ModuleType():
                return "module", [value.__name__, *_file(value)]
            case types.FunctionType():
                return self.function(value)
            case types.MethodType():
                return "method", [value.__func__, value.__self__]
            case types.BuiltinFunctionType():
                owner = [] if isinstance(value.__self__, types.ModuleType | None) else [value.__self__]
                return "builtin", [str(value.__module__), value.__qualname__, *owner]
            case jax.stages.Wrapped(__wrapped__=function):  # besides, it says in which line the function stands
                return "jit", [function]
            case functools.partial():
                return "partial", [value.func, value.args, value.keywords]
            case types.CodeType():
                return "code", _code(value)
            case staticmethod() | classmethod():
                return type(value).__name__, [value.__func__]
            case property():
                return "property", [value.fget, value.fset, value.fdel]
            case type():
                return self.class_(value)
            case Set():
                return "set", sorted(map(self.aside, value))
        own = [] if type(value) in (dict, list, tuple) else [type(value)]
        match value:
            case Mapping():
                items = sorted(value.items(), key=lambda item: self.aside(item[0]))
                return "mapping", [*own, *(each for item in items for each in item)]
            case list() | tuple():
                return type(value).__name__ if not own else "sequence", [*own, *value]
        return "object", [*own, *_state(value)]

    def function(self, value: types.FunctionType) -> tuple[str, Sequence[Any]]:
        code, globals_ = value.__code__, value.__globals__
        closure = [_contents(cell) for cell in value.__closure__ or ()]
        bound = [value.__defaults__, value.__kwdefaults__, closure]
        if _is_installed(code.co_filename, globals_.get("__name__", "")):
            name = [globals_.get("__name__"), code.co_qualname]
            return "library", [*name, *bound] if "<locals>" in code.co_qualname else name
        named = {name: globals_[name] for name in _names(code) if name in globals_}
        return "function", [*_source(value), *bound, named]

    def class_(self, value: type) -> tuple[str, Sequence[Any]]:
        module = sys.modules.get(value.__module__)
        if _is_installed(getattr(module, "__file__", None) or "", value.__module__):
            return "library", [value.__module__, value.__qualname__]
        entries = {name: each for name, each in vars(value).items() if name not in _NOT_CONTENT}
        return "class", [value.__name__, value.__bases__, entries]


def _text(kind: str, text: str) -> bytes:
    coded = text.encode("utf-8", "surrogatepass")
    return f"{kind}:{len(coded)}:".encode() + coded


def _is_plain(value: Any) -> bool:
    if type(value) is tuple:  # compilers make one of equal constants, or two
        return all(type(each) in _PLAIN for each in value)
    return type(value) in _PLAIN or isinstance(value, np.dtype | np.number | np.bool)


def _array(value: Any) -> tuple[str, Sequence[Any]]:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return "keys", [str(value.dtype), jax.random.key_data(value)]
    array = np.asarray(value)
    if array.dtype.hasobject:
        return "objects", [array.shape, *array.ravel().tolist()]
    return "array", [str(array.dtype), array.shape, hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()]


def _file(module: types.ModuleType) -> list[str]:
    """The hash of a user's own module."""
    file = getattr(module, "__file__", None)
    if not file or _is_installed(file, module.__name__) or not Path(file).is_file():
        return []
    return [hashlib.sha256(Path(file).read_bytes()).hexdigest()]


def _is_installed(file: str, module: str) -> bool:
    """Whether code belongs to Python, to an installed package or to us, and not to the user."""
    root = module.partition(".")[0]
    if root == "pliant" or file.startswith("<frozen"):
        return True
    if not file:
        return root in sys.stdlib_module_names and root != "__main__"
    return not file.startswith("<") and str(Path(file).resolve()).startswith(_INSTALLED)


def _source(function: types.FunctionType) -> list[Any]:
    """The text of a function, or its bytecode where there is none, as in a REPL, or none of its own, as for lambdas."""
    if function.__code__.co_name != "<lambda>":
        with contextlib.suppress(OSError, TypeError, SyntaxError, IndexError, tokenize.TokenError):
            return [inspect.getsource(function.__code__)]
    return [function.__code__, getattr(function, "__annotations__", {})]


def _code(code: types.CodeType) -> list[Any]:
    """What code does, without where it stands."""
    return [code.co_code, code.co_exceptiontable, code.co_consts, code.co_names, code.co_varnames, code.co_freevars]


def _names(code: types.CodeType) -> list[str]:
    """All names that code and the code inside it look up."""
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    return list(dict.fromkeys([*code.co_names, *(name for each in inner for name in _names(each))]))


def _contents(cell: types.CellType) -> Any:
    """What a closure holds; a function that is being defined does not hold it yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return ...


def _state(value: object) -> list[Any]:
    """The attributes of an object, and what a wrapper wraps."""
    if dataclasses.is_dataclass(value):
        return [{field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}]
    slots = [name for kind in type(value).__mro__ for name in _as_tuple(vars(kind).get("__slots__", ()))]
    attributes = {name: getattr(value, name) for name in slots if not name.startswith("__") and hasattr(value, name)}
    attributes |= {name: each for name, each in getattr(value, "__dict__", {}).items() if name not in _NOT_CONTENT}
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
    wrapped = getattr(value, "__wrapped__", None)
    if not attributes and wrapped is None:
        with contextlib.suppress(Exception):  # some objects cannot be copied; then their type says what they are
            return [name, value.__reduce_ex__(2)]
    return [name, attributes, wrapped]


def _as_tuple(slots: str | Iterable[str]) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)
