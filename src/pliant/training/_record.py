"""What a method's numbers depend on, as data."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pliant.methods import METHODS
from pliant.networks import NETWORKS
from pliant.settings import Value
from pliant.specs import content_hash, name_of, recorded
from pliant.training._protocol import Protocol
from pliant.types import Method


def record_method(
    protocol: Protocol,
    spec: str,
    method: Method,
    hyperparameters: Mapping[str, Value],
    points: Sequence[Mapping[str, Value]],
    network: Mapping[str, Any],
    specs: Mapping[str, Sequence[Any]],
    source: str,
) -> dict[str, Any]:
    """What a method's numbers depend on beside the configuration of the run, as JSON data.

    Args:
      protocol: how all methods are trained.
      spec: what the configuration calls the method.
      method: the method.
      hyperparameters: all of its values.
      points: of a grid.
      network: name and options.
      specs: what was asked for, by kind.
      source: the name of the source, whose numbers a grid may vary.
    """
    grid = {}  # by METHOD.OPTION; what a method is given wins over what all are
    for entry in sorted(protocol.grid, key=lambda entry: "." in entry.partition("=")[0]):
        target, _, values = entry.partition("=")
        named, _, option = target.rpartition(".")
        if named in ("", method.name):
            grid[option] = f"{method.name}.{option}={values}"
        elif named == source:
            grid[target] = entry
    members = [recorded(each, METHODS) for each in specs["method"]]
    hashes = [each.sha256 for each in members if each.sha256]
    return as_data(
        {
            "config": {"settings": settings_of(protocol, method.name), "grid": list(grid.values())},
            "source": spec if all(each.source for each in members) else None,
            "source_sha256": "+".join(hashes) or None,
            "hyperparameters": hyperparameters,
            "grid": [point for point in points if point],
            "network": network,
            **{f"network_{key}": value for key, value in record_source(specs["network"][0], NETWORKS).items()},
        }
    )


def settings_of(protocol: Protocol, *names: str) -> list[str]:
    """The settings of a protocol that are of some methods, the problem or the network."""
    return [entry for entry in protocol.settings if entry.partition("=")[0].rpartition(".")[0] in names]


def record_source(spec: Any, known: Mapping[str, Any]) -> dict[str, str | None]:
    """Source and hash of a user's own object, so that editing it makes another configuration; empty if registered."""
    source = recorded(spec, known)
    return {} if source.sha256 is None else {"source": source.source, "source_sha256": source.sha256}


def record_sources(specs: Sequence[Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """What `record_source` says of several, by name, of those of which it says anything."""
    return {name_of(spec): source for spec in specs if (source := record_source(spec, known))}


def data_source(specs: Sequence[Any]) -> dict[str, Any]:
    """Says that data were objects given in Python, which cannot be found again; {} for names and files."""
    return {"data_source": None} if any(not isinstance(spec, str) for spec in specs) else {}


def as_data(found: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as it will be read again: tuples are lists, and what is no JSON data is its hash."""
    return dict(json.loads(json.dumps(found, default=lambda value: f"sha256:{content_hash(value)}")))
