"""What a preset is: a published benchmark as configurations of three sizes."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, get_args

from pliant.training import RunConfig

Scale = Literal["smoke", "cpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Preset(NamedTuple):
    """A benchmark with every choice of its protocol made."""

    name: str
    summary: str
    reference: str
    notes: str
    """What is published and what is our choice."""
    configs: Mapping[Scale, RunConfig]


def preset(
    name: str,
    summary: str,
    reference: str,
    notes: Callable[..., Any],
    *,
    paper: Mapping[str, Any],
    cpu: Mapping[str, Any],
    smoke: Mapping[str, Any],
) -> Preset:
    """Makes a preset: `cpu` and `smoke` say what they change of `paper`; `notes` has the docstring.

    Example:
      >>> def notes():
      ...     "Published: all."
      >>> made = preset("a/b", "a test", "none", notes, paper={"tasks": 9}, cpu={"tasks": 3}, smoke={"tasks": 2})
      >>> [made.configs[scale].tasks for scale in SCALES]
      [2, 3, 9]
    """
    full = RunConfig(**paper)
    configs: dict[Scale, RunConfig] = {
        "smoke": dataclasses.replace(full, **smoke),
        "cpu": dataclasses.replace(full, **cpu),
        "paper": full,
    }
    paragraphs = (inspect.getdoc(notes) or "").split("\n\n")
    return Preset(name, summary, reference, "\n\n".join(" ".join(text.split()) for text in paragraphs), configs)
