"""The configuration of a run, and the versions that it ran with, as tables of names and values."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pliant.results._run_folder import RunFolder

_LONGEST = 2000


class Listing(NamedTuple):
    """A table of names and values below a title."""

    title: str
    rows: list[tuple[str, str]]


def configuration(folder: RunFolder) -> list[Listing]:
    """Listings of a run: what all methods have in common, each method's own, and what the starts ran with.

    Args:
      folder: of the run.
    """
    common = Listing("Common to all methods", list(_flat(folder.configuration)))
    methods = [Listing(f"Method {name}", list(_flat(own))) for name, own in folder.methods.items()]
    return [common, *methods, *_versions(folder)]


def _versions(folder: RunFolder) -> list[Listing]:
    """One listing for each environment in which methods were started, which is usually one."""
    found: dict[str, list[str]] = {}
    for method, starts in folder.starts.items():
        for start in starts:
            users = found.setdefault(json.dumps(start.get("environment", {}), sort_keys=True), [])
            if method not in users:
                users.append(method)
    if len(found) == 1:
        return [Listing("Versions and device", list(_flat(json.loads(next(iter(found))))))]
    return [
        Listing(f"Versions and device of {', '.join(methods)}", list(_flat(json.loads(text))))
        for text, methods in found.items()
    ]


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values. A list is one value."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _flat(each, f"{name}.{key}".strip("."))
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    yield name, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
