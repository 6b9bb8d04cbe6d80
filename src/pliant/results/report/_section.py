"""What the page shows of one run: words, a table, figures, and their numbers as JSON."""

import json
import statistics
from typing import Any, NamedTuple

import numpy as np

from pliant.results._phases import curve_points
from pliant.results._run_folder import RunFolder
from pliant.results.report._albums import albums
from pliant.results.report._cards import Album, Card
from pliant.results.report._configuration import Listing, configuration
from pliant.results.report._curves import over_tasks, within_tasks
from pliant.results.report._diagnostics import Group, drawn_metrics, groups
from pliant.results.report._lines import Look, look
from pliant.results.report._progress import Progress, progress, said_of_progress, troubles
from pliant.results.report._tables import Table, summary
from pliant.results.report._thinning import Thinning, said_of_thinning

_MOST_BARS = 12  # of progress


class Panel(NamedTuple):
    """A place for a figure, whose numbers are in the section's data."""

    id: str
    name: str
    caption: str
    alt: str
    group: str = ""
    """The places of the groups of a menu that it is in, such as "0 3"."""
    method: str = ""
    """The method, if it shows a single one."""
    has_table: bool = True


class PanelAlbum(NamedTuple):
    """Panels of one kind."""

    name: str
    caption: str
    panels: list[Panel]


class Section(NamedTuple):
    """All that the page shows of a run."""

    id: str
    title: str
    path: str
    headline: str
    notes: list[str]
    progress: list[Progress]
    table: Table | None
    methods: list[tuple[str, Look]]
    curves: list[Panel]
    groups: list[Group]
    diagnostics: list[Panel]
    common: str
    """What the captions of most diagnostics say, so that it is said once."""
    albums: list[PanelAlbum]
    listings: list[Listing]
    data: str
    """JSON: the look of each method, and the numbers of each figure."""


def section(folder: RunFolder, place: int, thin: Thinning, most_bytes: int) -> Section:
    """Collects what the page shows of a run, which may still be going on.

    Args:
      folder: of the run.
      place: among the runs of the page, from 0.
      thin: what is left out of its lines.
      most_bytes: of its pictures.
    """
    id = f"run-{place + 1}"
    metrics, headline = folder.metrics, folder.headline
    has_headline = bool((metrics["metric"] == headline).any())
    labels = [str(label) for label in metrics["method"].unique()]
    looks = [(label, look(place)) for place, label in enumerate(labels)]
    figures: dict[str, dict[str, Any]] = {}

    def panel(spec: dict[str, Any], name: str, group: str = "") -> Panel:
        key = f"{id}-{len(figures)}"
        figures[key] = spec
        return Panel(key, name, spec.pop("caption"), spec.pop("alt"), group)

    def card_panel(card: Card) -> Panel:
        key = f"{id}-{len(figures)}"
        figures[key] = card.figure
        return Panel(key, card.name, "", card.alt, method=card.method, has_table=card.has_table)

    def of_album(album: Album) -> PanelAlbum:
        return PanelAlbum(album.name, album.caption, [card_panel(card) for card in album.cards])

    curves = _curves(folder, panel, thin)
    names = [name for name in drawn_metrics(metrics["metric"].unique(), headline) if thin.layers or "/" not in name]
    specs = {
        name: over_tasks(metrics, name, thin.most, has_seeds=thin.layer_seeds or "/" not in name) for name in names
    }
    drawn = {name: spec for name, spec in specs.items() if spec is not None}
    menu = groups(list(drawn))
    diagnostics = [
        panel(spec, name.replace("_", " "), " ".join(str(at) for at, group in enumerate(menu) if name in group.metrics))
        for name, spec in drawn.items()
    ]
    found, left_out = albums(folder, most_bytes) if labels else ([], "")
    album_panels = [of_album(album) for album in found]
    far = progress(folder)
    longest = int(metrics.groupby(["method", "metric"])["task"].nunique().max()) if labels else 0
    notes = [] if labels else ["No task is finished yet."]
    notes += [said_of_progress(far)] if far else []
    notes += [*troubles(folder), *said_of_thinning(thin, longest), left_out]
    return Section(
        id=id,
        title=folder.title,
        path=str(folder.path),
        headline=headline.replace("_", " "),
        notes=[note for note in notes if note],
        progress=[each for each in far if not each.is_finished][:_MOST_BARS],
        table=_summary(folder) if has_headline else None,
        methods=looks,
        curves=curves,
        groups=menu,
        diagnostics=diagnostics,
        common=statistics.mode(panel.caption for panel in diagnostics) if diagnostics else "",
        albums=album_panels,
        listings=configuration(folder),
        data=_as_script({"methods": {name: _for_plotly(own) for name, own in looks}, "figures": figures}),
    )


def _curves(folder: RunFolder, panel: Any, thin: Thinning) -> list[Panel]:
    """The headline over tasks, and within tasks if the run has stored that."""
    name = folder.headline.replace("_", " ")
    found = []
    if (spec := over_tasks(folder.metrics, folder.headline, thin.most, chance=folder.chance)) is not None:
        found.append(panel(spec, f"{name} over tasks"))
    points = curve_points(folder, folder.headline)
    if points is not None:
        for environment, spec in within_tasks(points, folder.headline, thin.most).items():
            where = f" in {environment.replace('_', ' ')}" if environment else ""
            found.append(panel(spec, f"{name}{where} over {spec['unit']}"))
    return found


def _summary(folder: RunFolder) -> Table:
    table = folder.summary()
    return summary(table, folder.seconds, folder.headline, is_one_seed=bool(np.all(table["num_seeds"] == 1)))


def _for_plotly(own: Look) -> dict[str, Any]:
    return {"color": own.color, "dash": own.dash, "symbol": own.symbol}


def _as_script(data: dict[str, Any]) -> str:
    """JSON that ends no script element, whatever the names in it are."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
