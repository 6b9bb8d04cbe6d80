"""`pliant plot`: figures and pictures of a run's stored numbers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from tyro.conf import Positional

from pliant import results
from pliant.cli._terminal import print_line
from pliant.errors import UserError, unknown_name
from pliant.results import RunFolder


@dataclasses.dataclass(frozen=True)
class Plot:
    """The options of `pliant plot`."""

    dirs: Positional[tuple[Path, ...]]
    """Run folders. Several share one figure, whose lines are named by folder and method."""
    out: Path | None = None
    """File without suffix; by default in the (first) run folder. For learning curves -curves is appended, and with
    --picture -METHOD."""
    metric: str | None = None
    """Metric of the figure: any that the run recorded, such as loss, test_accuracy or effective_rank; by default the
    run's headline metric."""
    picture: str | None = None
    """A picture of one run instead of the figure: spectra, jacobian, ntk, hessian, gradient-cosine, probes or
    dormant."""
    method: str | None = None
    """Method of the picture; by default all methods of the run, one file for each."""
    profile: bool = False
    """The performance profile instead of the figure: the share of scores in the last five tasks above each value."""

    def __call__(self) -> None:
        """Draws the figure or the pictures and prints their paths."""
        if not self.dirs:
            raise UserError(got="no run folder", wanted="at least one", do="Give what `pliant run` printed.")
        if self.picture is not None:
            if self.metric is not None or self.profile:
                other = "--profile" if self.profile else f"--metric {self.metric}"
                raise UserError(
                    got=f"{other} and --picture {self.picture}", wanted="one of them", do="Draw one after the other."
                )
            _draw_pictures(self.dirs, self.picture, self.method, self.out)
        elif self.method is not None:
            raise UserError(
                got=f"--method {self.method} without --picture", wanted="both or neither", do="The figure has them all."
            )
        else:
            folders = [RunFolder(path) for path in self.dirs]
            (draw_profile if self.profile else draw_figure)(folders, self.out, self.metric)


def draw_profile(folders: Sequence[RunFolder], out: Path | None = None, metric: str | None = None) -> None:
    """Draws the performance profile of a metric of one or several runs, by default their headline."""
    metric, tables = _chosen(folders, metric)
    first = folders[0]
    environments = {task: name for folder in folders for task, name in folder.environments.items()}
    title = first.title if len(folders) == 1 else metric.replace("_", " ")
    figure = results.profile_figure(_joined(folders, tables), metric, title, environments)
    path = out or first.path / f"{metric.replace('/', '-')}-profile"
    png, _ = results.save_figure(figure, path)
    print_line(f"profile: {png} (and .pdf)")


def draw_figure(folders: Sequence[RunFolder], out: Path | None = None, metric: str | None = None) -> None:
    """Draws a metric of one or several runs, by default their headline, and prints the paths of the figures.

    One has it against the task. Another has its learning curves, if all runs have any.
    """
    metric, tables = _chosen(folders, metric)
    first = folders[0]
    title = first.title if len(folders) == 1 else metric.replace("_", " ")
    chance = first.chance if metric == first.headline else None
    figure = results.headline_figure(_joined(folders, tables), metric, title, chance)
    path = out or first.path / metric.replace("/", "-")
    png, _ = results.save_figure(figure, path)
    print_line(f"figure: {png} (and .pdf)")
    curves = [found for folder in folders if (found := results.curve_points(folder, metric)) is not None]
    if len(curves) == len(folders):
        figure = results.learning_curves(_joined(folders, curves), metric, title)
        png, _ = results.save_figure(figure, path.with_name(f"{path.name}-curves"))
        print_line(f"learning curves: {png} (and .pdf)")


def _chosen(folders: Sequence[RunFolder], metric: str | None) -> tuple[str, list[pd.DataFrame]]:
    """The metric of a figure, and its rows in every run, all of which have it."""
    if metric is None and len({folder.headline for folder in folders}) > 1:
        got = ", ".join(f"{folder.path}: {folder.headline}" for folder in folders)
        raise UserError(got=got, wanted="runs with one headline metric", do="Choose one with --metric.")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise UserError(got="a run folder twice", wanted="each once", do="Leave the second out.")
    metric = metric or folders[0].headline
    for folder in folders:
        require_finished(folder)
    tables = [folder.select(metric) for folder in folders]
    for folder, table in zip(folders, tables, strict=True):
        if table.empty:
            raise unknown_name("metric", metric, folder.metric_names, do=f"Give one of {folder.path}.")
    return metric, tables


def _joined(folders: Sequence[RunFolder], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table, in which the methods of several runs are told apart by folder."""
    if len(folders) == 1:
        return tables[0]
    named = zip(folders, tables, strict=True)
    return pd.concat([table.assign(method=f"{folder.path}: " + table["method"]) for folder, table in named])


def _draw_pictures(dirs: Sequence[Path], picture: str, method: str | None, out: Path | None) -> None:
    """Draws a picture of every chosen method that has recorded what it shows; an error if none has."""
    if picture not in results.PICTURES:
        raise unknown_name("picture", picture, results.PICTURES, do="Leave --picture out for the figure of the run.")
    if len(dirs) > 1:
        raise UserError(got=f"{len(dirs)} run folders", wanted="one for a picture", do="Draw each apart.")
    folder = RunFolder(dirs[0])
    require_finished(folder)
    labels = [label for name in folder.methods for label in folder.labels(name)]
    chosen = [label for label in labels if method in (None, label, label.partition("[")[0])]
    if not chosen:
        raise unknown_name("method", str(method), labels, do=f"Give one of {folder.path}.")
    start = out or folder.path / picture
    lines, errors = [], []
    for label in chosen:
        try:
            figure = results.draw_picture(folder, picture, label)
        except UserError as error:
            errors.append(error)
            lines.append(f"without {label}: {error}")
        else:
            png, _ = results.save_figure(figure, start.with_name(f"{start.name}-{label}"))
            lines.append(f"picture: {png} (and .pdf)")
    if len(errors) == len(chosen):
        raise errors[0]
    print_line("\n".join(lines))


def require_finished(folder: RunFolder) -> None:
    """Requires a run with at least one finished task.

    Raises:
      UserError: if no task is finished.
    """
    if not folder.has_metrics:
        raise UserError(
            got=f"{folder.path}, in which no task is finished",
            wanted="at least one finished task",
            do="Start the run again with the same command.",
        )
