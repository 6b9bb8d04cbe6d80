"""Options of a factory, read from its signature and docstring; casting of text such as `0.03` to their types."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_args, get_origin

from docstring_parser import Docstring, ParseError
from docstring_parser.google import DEFAULT_SECTIONS, GoogleParser, Section, SectionType

from pliant.errors import UserError

Value: TypeAlias = float | int | bool | str | tuple[int, ...] | tuple[str, ...] | None
_OWN_SECTIONS = (Section(title, title.lower(), SectionType.SINGULAR) for title in ("References", "Differs from"))
_GOOGLE = GoogleParser([*DEFAULT_SECTIONS, *_OWN_SECTIONS])
_INT32_MAX = 2**31 - 1  # inside a compiled program whole numbers are int32


def options(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a factory: what can be set by name.

    Example:
      >>> def factory(data, *, rate=0.1, kind="a"): ...
      >>> [(name, option.default) for name, option in options(factory).items()]
      [('rate', 0.1), ('kind', 'a')]
    """
    parameters = inspect.signature(factory, eval_str=True).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def meanings(factory: Callable[..., Any]) -> dict[str, str]:
    """The meanings of a factory's parameters, from the section Args of its docstring.

    Example:
      >>> def factory(*, rate=0.1, kind="a"):
      ...     '''Makes one.
      ...
      ...     Args:
      ...       rate: ≥ 0.
      ...       kind: "a" or "b".
      ...     '''
      >>> meanings(factory)
      {'rate': '≥ 0', 'kind': '"a" or "b"'}
    """
    texts = {each.arg_name: plain_text(each.description or "").removesuffix(".") for each in _parsed(factory).params}
    return {name.strip(" *"): text for names, text in texts.items() for name in names.split(",")}


def description(documented: Any) -> list[str]:
    """The paragraphs of a docstring before its sections, without formulas; the first one is the first line.

    Example:
      >>> description(meanings)
      ["The meanings of a factory's parameters, from the section Args of its docstring."]
    """
    parsed = _parsed(documented)
    paragraphs = [parsed.short_description or "", *(parsed.long_description or "").split("\n\n")]
    return [plain_text(each) for each in paragraphs if each.strip() and not each.lstrip().startswith("..")]


def _parsed(documented: Any) -> Docstring:
    """The parts of a docstring; none if it is not in Google style."""
    try:
        return _GOOGLE.parse(inspect.getdoc(documented))
    except ParseError:
        return Docstring()


def plain_text(text: str) -> str:
    """A piece of documentation as one line, without mark-up.

    Example:
      >>> plain_text("a :math:`p_t`  of `snr`")
      'a p_t of snr'
    """
    return " ".join(text.replace(":math:", "").replace("`", "").split())


def cast(name: str, value: Any, default: Any, annotation: Any = float) -> Value:
    """Casts a value, often text, to the type of an option's default.

    Args:
      name: the option, for the message.
      value: text or a value.
      default: the option's default.
      annotation: for the default None: `int | None` makes a whole number, `Sequence[int] | None` several, anything else
        a number.

    Raises:
      UserError: if the value is of another kind.

    Example:
      >>> cast("adamo.isometry_every", "8", default=16), cast("mlp.use_bias", "false", default=True)
      (8, False)
      >>> cast("cnn.channels", "16,32", default=(32, 32)), cast("octax.games", "brix,ufo", default=("tank",))
      ((16, 32), ('brix', 'ufo'))
    """
    kind = type(default)
    if default is None:
        kind = _kind(annotation)
    text = str(value).strip()
    if kind is str:
        return text
    if kind is tuple:
        parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
        if default and isinstance(default[0], str):
            return tuple(part.strip("'\"") for part in parts)  # a tuple's own text has quotes
        return tuple(_integer(name, part, default) for part in parts)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind is float and math.isfinite(float(text)):
            return float(text)
        if kind is int and abs(number := _whole(text)) <= _INT32_MAX:
            return number
    except (ValueError, OverflowError):
        pass
    wanted: Mapping[type, str] = {bool: "true or false", int: "a whole number below 2³¹", float: "a finite number"}
    if kind not in wanted:
        other = "an option whose default is a text, a number, true, false or a tuple"
        raise UserError(got=f"{name}={value}, where the default is {kind.__name__}", wanted=other, do="Set it in code.")
    raise UserError(got=f"{name}={value}", wanted=wanted[kind], do=f"The default is {default}.")


def _kind(annotation: Any) -> type:
    """The type of an option that may also be None."""
    (other,) = set(get_args(annotation)) - {type(None)} or {float}
    return tuple if get_origin(other) in (Sequence, tuple) else int if other is int else float


def _integer(name: str, text: str, default: object) -> int:
    try:
        return _whole(text)
    except ValueError:
        raise UserError(
            got=f"{name}={text}", wanted="whole numbers separated by commas", do=f"The default is {default}."
        ) from None


def _whole(text: str) -> int:
    if float(text) != int(float(text)):
        raise ValueError
    return int(float(text))
