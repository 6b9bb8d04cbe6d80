"""The `pliant` command. Nothing heavy is imported before an interrupt is answered."""

import os
import signal
import sys
import threading

INTERRUPTED = 130  # 128 and the signal's number, as in a shell
UNREAD = 1  # as Rich has it for what it prints
_MESSAGE = b"pliant: interrupted."
_OF_RUNS = b" A run keeps its finished tasks; the same command continues it."
_SHOW_CURSOR = b"\r\x1b[K\x1b[?25h"  # progress bars hide it


def _answer_interrupts() -> None:
    """Ends the process where it stands when SIGINT comes, as `kill -9` may at any moment: a run folder stays whole.

    A KeyboardInterrupt would be raised wherever Python happens to be, also below C++: jaxlib ends the process with
    SIGABRT or SIGSEGV when one comes while it is imported, and Python drops those that come in a finaliser. A thread
    of its own also answers while the main one waits for XLA.
    """
    told, tell = os.pipe()
    if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on, and does not ask for it
        os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    signal.signal(signal.SIGINT, lambda *_: None)  # in the place of KeyboardInterrupt
    threading.Thread(target=_leave_when_told, args=(told,), daemon=True).start()


def _leave_when_told(told: int) -> None:
    while os.read(told, 1) != bytes([signal.SIGINT]):
        pass  # another signal that somebody handles
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
        of_runs = _OF_RUNS if sys.argv[1:2] in (["run"], ["sweep"]) else b""
        os.write(2, _MESSAGE + of_runs + b"\n")  # sys.stderr may be in the middle of a line of its own
    finally:  # stderr may be closed, or a pipe that nobody reads
        os._exit(INTERRUPTED)


def main() -> None:
    """Runs the command line and ends the process with its code: 0 done, 1 not read, 2 user error, 130 interrupted."""
    _answer_interrupts()
    if os.environ.get("NO_COLOR"):
        os.environ.setdefault("PYTHON_TYRO_ANSI_CODES", "False")  # tyro has a variable of its own, read on import
    from pliant import cli

    try:
        code = cli.main()
        if sys.stdout is not None:  # closed by the shell
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough, such as `head`
        code = UNREAD
    except OSError as error:  # a full disk behind standard output
        cli.print_error(f"pliant: got {error} while printing; wanted an output that can be written. Check its space.")
        code = cli.USER_ERROR
    if code:  # the last flush, at the end of Python, would fail again
        _drop_what_is_not_printed()
    sys.exit(code)


def _drop_what_is_not_printed() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
