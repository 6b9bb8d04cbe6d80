"""The command line: parse, call, print. Every command has a file."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

import pliant
from pliant.cli._diagnose import Diagnose
from pliant.cli._list import List
from pliant.cli._plot import Plot
from pliant.cli._run import Run, RunAgent, run_command
from pliant.cli._show import Show
from pliant.cli._terminal import print_error, tolerate_any_letters
from pliant.errors import UserError
from pliant.xla import guard

USER_ERROR = 2

__all__ = ["USER_ERROR", "main", "print_error"]

_COMMANDS: dict[str, Callable[..., Any]] = {"run": Run, "list": List, "show": Show, "plot": Plot, "diagnose": Diagnose}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 done, 2 user error."""
    tolerate_any_letters()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        print(f"pliant {pliant.__version__}")
        return 0
    running = run_command(arguments[1:]) if arguments[:1] == ["run"] else Run
    command = tyro.extras.subcommand_cli_from_dict(
        _COMMANDS | {"run": running},
        prog="pliant",
        args=arguments,
        description="Neural networks that keep learning: methods, tasks, agents and diagnostics of plasticity.",
    )
    try:
        if isinstance(command, Run | RunAgent):  # read again: a benchmark brings its own defaults
            defaults_now = command.with_defaults_of_benchmark()
            command = tyro.cli(running, prog="pliant run", args=arguments[1:], default=defaults_now)
        if isinstance(command, Run | RunAgent | Diagnose):
            _start_jax()
        command()
    except UserError as error:
        print_error(f"pliant: {error}")
        return USER_ERROR
    except BrokenPipeError:  # no file of the user's
        raise
    except OSError as error:
        kept = (
            " A run keeps its finished tasks; the same command continues it."
            if isinstance(command, Run | RunAgent)
            else ""
        )
        print_error(
            f"pliant: got {type(error).__name__}: {error}; wanted files that can be read and written. "
            f"Check permissions and free space.{kept}"
        )
        return USER_ERROR
    return 0


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
