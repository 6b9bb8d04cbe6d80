"""The `pliant` command. Nothing heavy is imported before an interrupt is answered."""

import os
import signal
import sys
from typing import Any

_INTERRUPTED = 130


class _Interrupt:
    """Raises KeyboardInterrupt, and remembers it: Python drops one that is raised in a finaliser or a callback."""

    seen = False

    def __call__(self, _number: int, _frame: Any) -> None:
        self.seen = True
        raise KeyboardInterrupt


def _report_dropped(dropped: Any) -> None:
    """Reports what Python drops, but for an interrupt: that is answered after the next chunk."""
    if not issubclass(dropped.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(dropped)


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.unraisablehook = _report_dropped
    try:
        signal.signal(signal.SIGINT, _Interrupt())
        from pliant import cli

        code = cli.main()
    except KeyboardInterrupt:  # while importing
        print("pliant: interrupted.", file=sys.stderr)
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # XLA's threads may be in the middle of a program, and crash when Python is taken down
    sys.exit(code)


if __name__ == "__main__":
    main()
