"""A published benchmark as configurations at three scales."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from pliant.problems import Config, kind_of, settings_in_use
from pliant.rl import AgentConfig
from pliant.specs import NO_OBJECTS, Objects
from pliant.supervised import RunConfig

Scale = Literal["smoke", "cpu", "paper"]
SCALES: tuple[Scale, ...] = get_args(Scale)


class Benchmark(NamedTuple):
    """A published benchmark with its whole protocol configured."""

    name: str
    summary: str
    reference: str
    notes: str
    """Which choices are published, and which are ours."""
    configs: Mapping[Scale, Config]


def make_benchmark(
    name: str,
    summary: str,
    reference: str,
    notes: str,
    *,
    paper: Mapping[str, Any],
    cpu: Mapping[str, Any],
    smoke: Mapping[str, Any],
) -> Benchmark:
    """Makes a benchmark: `cpu` and `smoke` list what they change in `paper`; lines of `notes` are joined to paragraphs.

    It is of an agent if `paper` has an `environment`, else of a stream.

    Example:
      >>> sizes = {"paper": {"tasks": 9}, "cpu": {"tasks": 3}, "smoke": {"tasks": 2}}
      >>> made = make_benchmark("a/b", "a test", "none", "Published: all.", **sizes)
      >>> [made.configs[scale].tasks for scale in SCALES]
      [2, 3, 9]
    """
    full: Config = AgentConfig(**paper) if "environment" in paper else RunConfig(**paper)
    configs: dict[Scale, Config] = {
        "smoke": dataclasses.replace(full, **smoke),
        "cpu": dataclasses.replace(full, **cpu),
        "paper": full,
    }
    paragraphs = (" ".join(text.split()) for text in notes.split("\n\n"))
    return Benchmark(name, summary, reference, "\n\n".join(paragraphs), configs)


def with_choices(
    benchmark: Benchmark, scale: Scale, choices: Mapping[str, Any], objects: Objects = NO_OBJECTS
) -> Config:
    """The configuration of a benchmark with some choices changed.

    The benchmark's settings and its grid stay for what is left of its methods and network. Other settings are added; a
    grid replaces its own.

    Args:
      benchmark: the benchmark.
      scale: its size.
      choices: fields of the configuration.
      objects: what names in `choices` stand for.

    Example:
      >>> made = make_benchmark("a/b", "a test", "none", "", paper={"settings": ("mlp.norm=layer",)}, cpu={}, smoke={})
      >>> with_choices(made, "cpu", {"settings": ("adam.b1=0.8",), "methods": ("adam",)}).settings
      ('mlp.norm=layer', 'adam.b1=0.8')
    """
    published = benchmark.configs[scale]
    kind = kind_of(published)
    config = dataclasses.replace(published, **{**choices, kind: getattr(published, kind), "settings": ()})
    settings = settings_in_use(published.settings, config, objects)
    if config.grid == published.grid:
        config = dataclasses.replace(config, grid=settings_in_use(published.grid, config, objects))
    return dataclasses.replace(config, settings=(*settings, *choices.get("settings", ())))
