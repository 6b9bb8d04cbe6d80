"""A page for every name that a run knows, and for every package of the library."""

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pliant
from generator import attaching
from generator.docstrings import sections, to_markdown
from generator.figures import anchor
from generator.tables import Table, cell, markdown_table, rows_of, tables, transposed
from pliant.cli._explain import COSTS, FLAGS, field_meanings, method_facts, spelled
from pliant.cli._guide import WHEN, WHEN_BENCHMARK
from pliant.diagnostics import DIAGNOSTICS, SETS
from pliant.experiments import BENCHMARKS, SCALES, Benchmark
from pliant.methods import FAMILIES, defaults, option_meanings, search_space
from pliant.networks import ACTIVATIONS, NETWORKS
from pliant.optimizers import adam
from pliant.rl import AGENTS, AgentConfig
from pliant.rl.environments import ENVIRONMENTS
from pliant.settings import description, meanings, options
from pliant.streams import DATASETS, STREAMS, TRANSITIONS
from pliant.supervised import RunConfig
from pliant.tuning import range_text
from pliant.types import Diagnostic, Method, Part, Range

PACKAGES = {
    "optimizers": "functions of gradients, as in optax",
    "penalties": "terms of the loss",
    "interventions": "functions that rewrite weights and optimizer state",
    "inference": "the layers of anybody's network",
    "methods": "the registry, combinations, and how a method is built for a network",
    "networks": "networks with their wiring, and the blocks that they consist of",
    "diagnostics": "measurements of a network",
    "streams": "tasks, data sets and transitions",
    "supervised": "runs of streams",
    "rl": "agents",
    "rl.environments": "environments of agents",
    "experiments": "published benchmarks, what the papers claim, and verdicts",
    "results": "run folders, tables and figures",
    "cluster": "runs as jobs on several workers",
    "tuning": "the same number of trials for every method",
    "results.report": "one page about runs",
    "types": "the contracts",
    "isometry": "how far kernels are from isometry",
    "masks": "which parameters a method changes",
    "errors": "the error that a user can cause",
    "torch": "for PyTorch",
}
"""The public packages, in the order of the navigation."""
_MEASURED = ("methods.md", "results.md", "diagnostics.md", "performance.md")
"""Documents with tables of measurements."""
_KINDS: Mapping[str, tuple[str, Mapping[str, Callable[..., Any]]]] = {
    "stream": ("streams", STREAMS),
    "transition": ("transitions", TRANSITIONS),
    "environment": ("environments", ENVIRONMENTS),
    "agent": ("agents", AGENTS),
    "network": ("networks", NETWORKS),
}
_COMMANDS = {
    "method": "pliant run --methods adam {}",
    "stream": "pliant run {}",
    "transition": "pliant run random-labels --transition {} --micro-steps 20",
    "environment": "pliant run {}",
    "agent": "pliant run cartpole --agent {}",
    "network": "pliant run --network {}",
    "diagnostic": "pliant run --diagnostics {}",
}


class Site(NamedTuple):
    """The generated pages."""

    pages: Mapping[str, str]
    """Markdown by the page's place."""
    navigation: Mapping[str, Any]
    """Entries of the navigation by section."""


def build(documents: Mapping[str, str]) -> Site:
    """Makes all pages.

    Args:
      documents: Markdown by its place in docs/, for what was measured.
    """
    measured = tables({name: documents[name] for name in _MEASURED})
    pages, navigation = {}, {}
    for title, made in {
        "Methods": list(_methods(measured)),
        "Diagnostics": list(_diagnostics(measured)),
        "Streams": list(_factories("stream", measured)),
        "Transitions": list(_factories("transition", measured)),
        "Environments": list(_factories("environment", measured)),
        "Agents": list(_factories("agent", measured)),
        "Networks": list(_factories("network", measured)),
        "Data sets and benchmarks": list(_lists()),
        "Python": list(_packages()),
    }.items():
        pages |= {place: text for _, place, text in made}
        navigation[title] = [{name: place} if name else place for name, place, _ in made]
    index, *methods = navigation["Methods"]
    place = {name: entry for entry in methods for name in entry}
    groups = {_capital(family): [place[each.name] for each in members] for family, members in FAMILIES.items()}
    navigation["Methods"] = [index, *({family: entries} for family, entries in groups.items())]
    return Site(pages, navigation)


@functools.cache
def address(name: str, package: str = "") -> str | None:
    """The full name under which the API pages have what a docstring mentions; None if they do not.

    Args:
      name: as it stands in the docstring.
      package: where the docstring is, such as "pliant.penalties".

    Example:
      >>> address("redo", "pliant.interventions"), address("redo"), address("pliant.interventions.redo")
      ('pliant.interventions.redo', None, 'pliant.interventions.redo')
    """
    if not name.startswith("pliant."):
        name = f"{package}.{name}"
    folder, _, last = name.rpartition(".")
    if folder == "pliant":
        return f"pliant.{last}" if last in _functions() else None
    if folder.removeprefix("pliant.") not in set(PACKAGES) - {"torch"}:
        return None
    module = importlib.import_module(folder)
    found = getattr(module, last, None) if last in _public(module) else None
    return name if inspect.isfunction(found) or inspect.isclass(found) else None


def _functions() -> Sequence[str]:
    """The functions of the library itself, such as `pliant.run`."""
    return [name for name in pliant.__all__ if inspect.isfunction(getattr(pliant, name))]


def _public(module: Any) -> Sequence[str]:
    return getattr(module, "__all__", None) or [
        name for name, each in vars(module).items() if getattr(each, "__module__", None) == module.__name__
    ]


_Pages = Iterator[tuple[str, str, str]]
"""Title in the navigation, place and Markdown of each page."""


def _methods(measured: Sequence[Table]) -> _Pages:
    index = ["# Methods", "`pliant show NAME` prints the same facts. Combine methods with `+`, as in `redo+layernorm`."]
    index += ["[Which remedy should I try?](../../which-remedy.md) helps to choose."]
    made = []
    for family, methods in FAMILIES.items():
        rows = [[f"[`{each.name}`]({each.name}.md)", cell(each.summary)] for each in methods]
        index += [f"## {_capital(family)}", markdown_table(["method", "what it does"], rows)]
        made += [(each.name, f"reference/methods/{each.name}.md", _method(each, family, measured)) for each in methods]
    yield "", "reference/methods/index.md", "\n\n".join(index)
    yield from made


def _method(method: Method, family: str, measured: Sequence[Table]) -> str:
    mechanisms = _mechanisms(method)
    facts = [f"- {what}: `{how}`" if "=" in how else f"- {what}: {how}" for what, how in method_facts(method).items()]
    reads = [
        f"# {method.name}",
        f"{_capital(method.summary)}.",
        f"**When.** Use it {WHEN['method'][method.name]}",
        *(_explained(each, opened=len(mechanisms) == 1) for each in mechanisms),
        "## Facts",
        "\n".join([f"- family: {family}", f"- from: {method.reference}", *facts]),
        "## Options",
        _options(defaults(method), option_meanings(method), tuned=search_space(method)),
        _how(f"--set {method.name}.", defaults(method)),
        *_usage("method", method.name),
        *attaching.section(method),
        *_measurements(measured, method.name, "adam"),
        *_section("Differs from", mechanisms),
        *_section("References", mechanisms),
    ]
    return "\n\n".join(each for each in reads if each)


def _mechanisms(method: Method) -> list[Any]:
    """The functions that do what the method does."""
    parts = (method.optimizer, method.schedule, method.penalty, method.intervention, method.wrap, method.targets)
    found = [part.factory if isinstance(part, Part) else part for part in parts if part]
    activation = method.network.get("activation")
    if activation in ACTIVATIONS and ACTIVATIONS[activation].apply.__module__.startswith("pliant."):
        found.append(ACTIVATIONS[activation].apply)
    found += [NETWORKS[name] for name in method.replaces.values()]
    return found or ([] if method.network else [adam])


def _diagnostics(measured: Sequence[Table]) -> _Pages:
    rows = [
        [f"[`{each.name}`]({each.name}.md)", cell(each.summary), each.cost, _sets(each.name)]
        for each in DIAGNOSTICS.values()
    ]
    index = "# Diagnostics\n\n[What they cost](../../diagnostics.md) helps to choose.\n\n"
    table = markdown_table(["diagnostic", "what it measures", "cost class", "sets"], rows)
    yield "", "reference/diagnostics/index.md", index + table
    for each in DIAGNOSTICS.values():
        yield each.name, f"reference/diagnostics/{each.name}.md", _diagnostic(each, measured)


def _diagnostic(diagnostic: Diagnostic, measured: Sequence[Table]) -> str:
    name = diagnostic.name
    functions = _functions_of(diagnostic)
    values = {key: option.default for key, option in options(diagnostic.make).items()} if diagnostic.make else {}
    first = diagnostic.measure or diagnostic.follow
    reads = [
        f"# {name}",
        f"{_capital(diagnostic.summary)}.",
        f"**When.** Use it {WHEN['diagnostic'][name]}",
        f"**Cost.** {_capital(COSTS[diagnostic.cost])}. In the sets: {_sets(name)}.",
        *(description(first)[:1] if not functions else ()),
        *(_explained(each, opened=len(functions) == 1) for each in functions),
        "## Options" if values else "",
        _options(values, meanings(diagnostic.make)) if diagnostic.make and values else "",
        f"Set them as `--diagnostics {name}:{next(iter(values))}=VALUE`." if values else "",
        *_usage("diagnostic", name),
        *_measurements(measured, name),
        *_section("Differs from", functions),
        *_section("References", functions),
    ]
    return "\n\n".join(each for each in reads if each)


def _functions_of(diagnostic: Diagnostic) -> list[Any]:
    """The public functions beside the diagnostic; only the one of its name if there is one."""
    from pliant import diagnostics

    module = inspect.getmodule(diagnostic.measure or diagnostic.follow)
    beside = [
        each
        for each in (getattr(diagnostics, name) for name in diagnostics.__all__)
        if inspect.isfunction(each) and inspect.getmodule(each) is module
    ]
    return [each for each in beside if each.__name__ == diagnostic.name.replace("-", "_")] or beside


def _factories(kind: str, measured: Sequence[Table]) -> _Pages:
    folder, factories = _KINDS[kind]
    rows = [
        [f"[`{name}`]({name}.md)", cell(description(make)[0]), cell(_capital(WHEN[kind][name]))]
        for name, make in factories.items()
    ]
    title = f"# {_capital(folder)}\n\n"
    yield "", f"reference/{folder}/index.md", title + markdown_table([kind, "what it is", "use it"], rows)
    for name, make in factories.items():
        yield name, f"reference/{folder}/{name}.md", _factory(kind, name, make, measured)


def _factory(kind: str, name: str, make: Callable[..., Any], measured: Sequence[Table]) -> str:
    config = AgentConfig if kind in ("environment", "agent") else RunConfig
    values = {key: option.default for key, option in options(make).items()}
    reads = [
        f"# {name}",
        f"**When.** Use it {WHEN[kind][name]}",
        _explained(make, opened=True),
        "## Options" if values else "",
        _options(values, meanings(make), config),
        _how(f"--set {name}.", values),
        *_usage(kind, name),
        *_measurements(measured, name),
        *_section("Differs from", [make]),
        *_section("References", [make]),
    ]
    return "\n\n".join(each for each in reads if each)


def _lists() -> _Pages:
    rows = [
        [f"`{name}`", cell(each.summary), each.hub or "embedded", cell(WHEN["dataset"][name])]
        for name, each in DATASETS.items()
    ]
    table = markdown_table(["data set", "what it is", "source", "use it"], rows)
    yield "Data sets", "reference/datasets.md", f"# Data sets\n\n{table}\n"
    families: dict[str, list[Benchmark]] = {}
    for each in BENCHMARKS.values():
        families.setdefault(each.name.partition("/")[0], []).append(each)
    text = ["# Benchmarks", f"Use them {WHEN_BENCHMARK}", "`pliant show NAME` prints every choice."]
    for family, members in families.items():
        rows = [[f"`{each.name}`", cell(each.summary), _sizes(each), cell(each.reference)] for each in members]
        columns = ["benchmark", "what it is", "seeds × tasks: smoke, cpu, paper", "from"]
        text += [f"## {family}", markdown_table(columns, rows)]
    yield "Benchmarks", "reference/benchmarks.md", "\n\n".join(text)


def _sizes(benchmark: Benchmark) -> str:
    return ", ".join(f"{benchmark.configs[scale].seeds} × {benchmark.configs[scale].tasks}" for scale in SCALES)


def _packages() -> _Pages:
    rows = [[f"[`pliant.{name}`]({name}.md)", meaning] for name, meaning in PACKAGES.items()]
    index = "# The library\n\n" + markdown_table(["package", "what it has"], rows)
    shown = "options: {show_root_heading: true, show_root_full_path: true, show_root_toc_entry: true}"
    index += "".join(f"\n\n::: pliant.{name}\n    {shown}\n" for name in _functions())
    yield "", "api/index.md", index
    for name in PACKAGES:
        yield f"pliant.{name}", f"api/{name}.md", f"# pliant.{name}\n\n::: pliant.{name}\n"


def _explained(mechanism: Any, opened: bool) -> str:
    """What a function's docstring says before its sections; below a heading if there are several functions."""
    parts = sections(mechanism)
    package = _package(mechanism)
    full = f"{package}.{mechanism.__name__}"
    link = f"In Python: [`{full}`][{full}]." if address(full) else ""
    heading = "" if opened else f"## {_capital(mechanism.__name__.replace('_', ' '))}"
    paragraphs = [each for each in parts[""].split("\n\n") if not each.startswith("Use it ")]  # said above
    told = _converted("\n\n".join(paragraphs), mechanism)
    deferred = _deferred(mechanism)
    if deferred and ".. math::" not in parts[""]:
        told += "\n\n" + _converted(sections(deferred)[""], deferred)
    return "\n\n".join(each for each in (heading, told, link) if each)


def _deferred(documented: Any) -> Any:
    """The function to which the references of another one refer ("See `group_sort`"), or None."""
    found = re.match(r"See `(\w+)`", sections(documented).get("References", ""))
    return getattr(importlib.import_module(_package(documented)), found[1], None) if found else None


def _section(title: str, mechanisms: Sequence[Any]) -> list[str]:
    """A section of the docstrings of several functions."""
    found = {}
    for mechanism in mechanisms:
        text, each = sections(mechanism).get(title, ""), mechanism
        if text.startswith("See `") and (deferred := _deferred(mechanism)):
            text, each = sections(deferred).get(title, ""), deferred
        if text and not text.startswith("Nothing known."):
            found.setdefault(_paragraphs(_converted(text, each)), None)
    return [f"## {title}", *found] if found else []


def _paragraphs(text: str) -> str:
    """Lines that end a sentence end a paragraph: each reference is its own."""
    return text.replace(".\n", ".\n\n")


def _converted(text: str, documented: Any) -> str:
    package = _package(documented)
    return to_markdown(text, lambda name: None if name == documented.__name__ else address(name, package))


def _package(documented: Any) -> str:
    """The public package of an object."""
    parts = documented.__module__.split(".")
    return ".".join(parts[:3] if parts[2:3] == ["environments"] else parts[:2])


def _options(
    values: Mapping[str, Any],
    known: Mapping[str, str],
    config: type[RunConfig | AgentConfig] = RunConfig,
    tuned: Mapping[str, Range] | None = None,
) -> str:
    """A table of options; those that are flags of a run go by the flag. Of methods also what they are tuned over."""
    rows = []
    for key, value in values.items():
        if key in FLAGS:
            flag = FLAGS[key]
            name, default = f"--{flag.replace('_', '-')}", spelled(getattr(config, flag))
            meaning = field_meanings(config)[flag]
        else:
            name, default, meaning = key, spelled(value, ",") or '""', known.get(key, "")
        over = [] if tuned is None else [range_text(tuned[key]) if key in tuned else ""]
        rows.append([f"`{name}`", f"`{default}`", *over, cell(meaning)])
    header = ["option", "default", *([] if tuned is None else ["tuned over"]), "meaning"]
    return markdown_table(header, rows) if rows else ""


def _how(before: str, values: Mapping[str, Any]) -> str:
    own = [key for key in values if key not in FLAGS]
    return f"Set them as `{before}{own[0]}={spelled(values[own[0]], ',')}`." if own else ""


def _usage(kind: str, name: str) -> list[str]:
    return ["## Command", f"```sh\n{_COMMANDS[kind].format(name)}\n```"]


def _measurements(measured: Sequence[Table], name: str, *beside: str) -> list[str]:
    """What the documents' tables say of a name, beside others that they have as well."""
    found = []
    for table in measured:
        rows = rows_of(table, name)
        if rows:
            rows = [*rows, *(row for row in rows_of(table, *beside) if row not in rows)] if beside else rows
            link = f"../../{table.document}#{anchor(table.heading)}"
            found.append(f"### {table.heading}\n\n[Setting and command]({link}).\n\n{transposed(table, rows)}")
    return ["## Measured", *found] if found else []


def _sets(name: str) -> str:
    return ", ".join(f"`{each}`" for each, names in SETS.items() if name in names)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
