"""The `pliant` command. Nothing heavy is imported before an interrupt is answered."""

import os
import signal
import sys
from typing import Any

INTERRUPTED = 130
_MESSAGE = b"pliant: interrupted. A run keeps its finished tasks; the same command continues it.\n"
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # progress bars hide it


def _leave(_number: int, _frame: Any) -> None:
    """Ends the process where it stands, as `kill -9` may at any moment: a run folder stays whole.

    A KeyboardInterrupt would be raised wherever Python happens to be, also below C++: jaxlib ends the process with
    SIGABRT or SIGSEGV when one comes while it is imported, and Python drops those that come in a finaliser.
    """
    if sys.stderr.isatty():
        os.write(2, _SHOW_CURSOR)
    os.write(2, _MESSAGE)  # sys.stderr may be in the middle of a line of its own
    os._exit(INTERRUPTED)


def main() -> None:
    """Runs the command line and ends the process with its exit code: 0 done, 2 user error, 130 interrupted."""
    signal.signal(signal.SIGINT, _leave)
    from pliant import cli

    sys.exit(cli.main())


if __name__ == "__main__":
    main()
