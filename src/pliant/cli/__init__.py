"""The command line: parse, call, print. Every command has a file."""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import tyro

import pliant
from pliant.cli._terminal import print_error, tolerate_any_letters
from pliant.errors import UserError
from pliant.xla import guard

USER_ERROR = 2

__all__ = ["USER_ERROR", "main", "print_error"]


class _Command(NamedTuple):
    """A command, imported when it is used: JAX and its libraries take seconds."""

    place: str
    """The file, and the class in it."""
    description: str
    computes: bool = False
    """Whether it starts JAX."""


_COMMANDS = {
    "run": _Command(
        "_run.Run",
        "Train methods on a stream of tasks. The same command continues an interrupted run; with more methods, tasks "
        "or seeds it extends a finished one, and trains only what is new. `pliant run ENVIRONMENT --help` shows the "
        "options of agents.",
        computes=True,
    ),
    "tune": _Command(
        "_tune.Tune",
        "Tune methods fairly: give each the same number of trials, select its best values, and measure these and the "
        "defaults on fresh seeds. The same command continues an interrupted tuning; with more methods or seeds it "
        "extends a finished one. `pliant tune ENVIRONMENT --help` shows the options of agents.",
        computes=True,
    ),
    "sweep": _Command(
        "_sweep.Sweep",
        "Train many runs as jobs on several workers: processes of this machine, a Dask scheduler, SLURM or PBS. Takes "
        "a file.toml, an experiment or the first part of its name, or what `pliant run` takes. The same command "
        "continues an interrupted sweep.",
    ),
    "list": _Command(
        "_list.List", "List the names that a run knows, with their options. `pliant show NAME` explains each."
    ),
    "show": _Command(
        "_show.Show",
        "Print the table of a run; or explain a benchmark, method, stream, environment, agent, transition, data set, "
        "network, diagnostic or set of diagnostics: what it is, when to use it, and what its options mean.",
    ),
    "plot": _Command(
        "_plot.Plot",
        "Draw the figure of a run, or of several runs in one, and its learning curves if it has any; or a picture of "
        "what a run's diagnostics found.",
    ),
    "report": _Command(
        "_report.Report",
        "Write one page about a run, or several: tables, interactive figures of everything that was measured, "
        "configuration and versions. It needs no network and no other file.",
    ),
    "watch": _Command("_watch.Watch", "Show the page of `pliant report` in a browser while a run goes on."),
    "reproduce": _Command(
        "_reproduce.Reproduce",
        "Run an experiment of a paper as far as that has not been done, draw its figure, and evaluate its claims.",
        computes=True,
    ),
    "claims": _Command("_claims.Claims", "Print which of the papers' claims hold on what was measured."),
    "diagnose": _Command(
        "_diagnose.Diagnose", "Measure diagnostics on the checkpoints of a run, and print them.", computes=True
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 1 if jobs of a sweep failed, 2 user error."""
    tolerate_any_letters()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"pliant {pliant.__version__}")
        return 0
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name not in _COMMANDS:  # --help, or a mistake: either ends here
        tyro.extras.subcommand_cli_from_dict(
            {name: _described(command.description) for name, command in _COMMANDS.items()},
            prog="pliant",
            args=arguments,
            description="Neural networks that keep learning: methods, tasks, agents and diagnostics of plasticity.",
        )
        return 0
    file, _, options = _COMMANDS[name].place.partition(".")
    module = importlib.import_module(f"pliant.cli.{file}")
    trains = name in ("run", "tune", "sweep")
    wanted = getattr(module, f"{name}_command")(rest) if trains else getattr(module, options)
    description = _COMMANDS[name].description if wanted.__name__ == options else None
    command = tyro.cli(wanted, prog=f"pliant {name}", args=rest, description=description)
    try:
        if trains:  # read again: a benchmark brings its own defaults
            defaults_now = command.with_defaults_of_benchmark()
            command = tyro.cli(wanted, prog=f"pliant {name}", args=rest, default=defaults_now)
        if _COMMANDS[name].computes:
            _start_jax()
        return int(command() or 0)
    except UserError as error:
        print_error(f"pliant: {error}")
        return USER_ERROR
    except BrokenPipeError:  # no file of the user's
        raise
    except OSError as error:
        kept = " A run keeps its finished tasks; the same command continues it." if trains else ""
        print_error(
            f"pliant: got {type(error).__name__}: {error}; wanted files that can be read and written. "
            f"Check permissions and free space.{kept}"
        )
        return USER_ERROR


def _described(description: str) -> Callable[[], None]:
    """Stands for a command in `pliant --help`."""

    def command() -> None: ...

    command.__doc__ = description
    return command


def _start_jax() -> None:
    """Makes every core a device; JAX finds out only then which platforms there are."""
    import jax

    guard.use_every_core()
    guard.cache_compilations()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter, without a word, where a plugin is missing
        reason = (str(error).splitlines() or ["no such device"])[0]
        raise UserError(
            got=f"JAX_PLATFORMS={jax.config.values['jax_platforms']}, which JAX cannot start here: {reason}",
            wanted="a platform that this machine and the installed jaxlib have",
            do="Leave JAX_PLATFORMS unset, or set it to cpu.",
        ) from error
