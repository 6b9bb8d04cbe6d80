"""The page: the sections of runs, optional tables, and the scripts that draw them, in one file."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import pandas as pd

from pliant.errors import UserError, extra
from pliant.results._look import COLORS
from pliant.results._run_folder import RunFolder
from pliant.results.report._albums import MOST_BYTES
from pliant.results.report._section import section
from pliant.results.report._tables import plain
from pliant.results.report._thinning import thinning

if TYPE_CHECKING:
    import jinja2

_SCRIPTS = ("figures.js", "controls.js")


def report_html(
    folders: Sequence[RunFolder], *, tuned: pd.DataFrame | None = None, claims: pd.DataFrame | None = None
) -> str:
    """One page about one or several runs, which needs no other file and no network.

    Use it to read a run, and to show it to others. The page has for each run: how far it is, a table, learning curves,
    every metric over tasks, spectra and matrices, configuration and versions. Lines of large runs are thinned, and the
    page says so.

    Args:
      folders: the runs; a section for each.
      tuned: a table of tuned methods, or None: a row for each method, whose name is in the first column. Other columns
        are shown in their order, with `_low` and `_high` of the same name as intervals.
      claims: a table of claims, or None: a row for each, as for `tuned`.

    Returns:
      HTML, at most 15 MB.

    Raises:
      UserError: if there is no run, or one twice.
      MissingExtraError: if plotly or jinja2 is missing.
    """
    return framed(content_html(folders, tuned=tuned, claims=claims), title_of(folders))


def title_of(folders: Sequence[RunFolder]) -> str:
    """What a page about some runs is called."""
    return folders[0].title if len(folders) == 1 else f"{len(folders)} runs"


def framed(content: str, title: str, tag: str = "") -> str:
    """The whole page around a content.

    Args:
      content: from `content_html`.
      title: of the window.
      tag: identifies the content. With it the page asks the server for new content every few seconds.
    """
    with extra("report", "reports"):
        from plotly.offline import get_plotlyjs

    page = _templates().get_template("page.html")
    scripts = [_asset(name) for name in (*_SCRIPTS, *(["live.js"] if tag else []))]
    style = _asset("style.css")
    return page.render(
        title=title, content=content, colors=COLORS, style=style, plotly=get_plotlyjs(), scripts=scripts, tag=tag
    )


def content_html(
    folders: Sequence[RunFolder], *, tuned: pd.DataFrame | None = None, claims: pd.DataFrame | None = None
) -> str:
    """The part of the page that changes while a run goes on; arguments and errors as for `report_html`."""
    if not folders:
        raise UserError(got="no run folder", wanted="at least one", do="Give what `pliant run` printed.")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise UserError(got="a run folder twice", wanted="each once", do="Leave the second out.")
    tables = [table for folder in folders for table in (folder.metrics, folder.curves)]
    thin = thinning(tables)
    most_bytes = MOST_BYTES // len(folders)
    sections = [section(folder, place, thin, most_bytes) for place, folder in enumerate(folders)]
    extras = [
        ("tuned", "Tuned comparison", tuned, "Each method with the hyperparameters that were chosen for it."),
        ("claims", "Claims", claims, "What papers say, and what was measured."),
    ]
    return (
        _templates()
        .get_template("content.html")
        .render(
            title=title_of(folders),
            sections=sections,
            names=_names(folders),
            extras=[(id, title, plain(table, said)) for id, title, table, said in extras if table is not None],
            version=version("pliant"),
            now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
    )


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """The paths of some runs, without the folder that all of them are in."""
    paths = [folder.path.absolute() for folder in folders]
    common = os.path.commonpath([path.parent for path in paths])
    return [os.path.relpath(path, common) for path in paths]


@cache
def _templates() -> "jinja2.Environment":
    """Every text is escaped, unless it is marked as HTML."""
    with extra("report", "reports"):
        import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("pliant.results.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    loader = _templates().loader
    assert loader is not None
    return loader.get_source(_templates(), name)[0]
