"""A preset: a published benchmark as configurations at three scales."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from pliant.supervised import RunConfig

Scale = Literal["smoke", "cpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Preset(NamedTuple):
    """A published benchmark with its whole protocol configured."""

    name: str
    summary: str
    reference: str
    notes: str
    """Which choices are published, and which are ours."""
    configs: Mapping[Scale, RunConfig]


def preset(
    name: str,
    summary: str,
    reference: str,
    notes: str,
    *,
    paper: Mapping[str, Any],
    cpu: Mapping[str, Any],
    smoke: Mapping[str, Any],
) -> Preset:
    """Makes a preset: `cpu` and `smoke` list what they change in `paper`; lines of `notes` are joined to paragraphs.

    Example:
      >>> sizes = {"paper": {"tasks": 9}, "cpu": {"tasks": 3}, "smoke": {"tasks": 2}}
      >>> made = preset("a/b", "a test", "none", "Published: all.", **sizes)
      >>> [made.configs[scale].tasks for scale in SCALES]
      [2, 3, 9]
    """
    full = RunConfig(**paper)
    configs: dict[Scale, RunConfig] = {
        "smoke": dataclasses.replace(full, **smoke),
        "cpu": dataclasses.replace(full, **cpu),
        "paper": full,
    }
    paragraphs = (" ".join(text.split()) for text in notes.split("\n\n"))
    return Preset(name, summary, reference, "\n\n".join(paragraphs), configs)
