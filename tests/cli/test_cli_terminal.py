"""Terminals of any width and encoding, pipes, and devices that are not there."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from rich.table import Table

import pliant
from pliant import cli
from pliant.__main__ import _answer_interrupts
from pliant.cli import _run, _terminal
from pliant.cli._terminal import print_paragraph, print_table, tolerate_any_letters
from pliant.training import Progress

NAME = "gradual/random-label-tiny-imagenet/interpolation"


class _Screen(io.StringIO):
    def isatty(self):
        return True


def _table():
    table = Table("name", "value", "what it is")
    table.add_row(NAME, "0.123", "words that may be on several lines " * 3)
    return table


@pytest.mark.parametrize("columns", ["20", "40", "200"])
@pytest.mark.parametrize("stream", [io.StringIO, _Screen])
def test_no_name_is_cut_off_or_broken(columns, stream, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", stream())
    print_table(_table())
    printed = sys.stdout.getvalue()
    assert NAME in printed
    assert "0.123" in printed
    assert printed.count("several") == 3
    assert "…" not in printed


def test_paragraphs_break_between_words(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(_terminal, "is_terminal", lambda _: True)
    print_paragraph(f"one two three four five {NAME} six")
    assert capsys.readouterr().out.splitlines() == ["one two three four", "five", NAME, "six"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
@pytest.mark.parametrize("command", ["list methods", "show redo", "show kumar/permuted-mnist", "show σ"])
def test_letters_that_an_encoding_lacks(encoding, command, monkeypatch):
    out, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", errors)
    assert cli.main(command.split()) == (cli.USER_ERROR if "σ" in command else 0)
    assert (errors if "σ" in command else out).tell() > 20


def test_streams_that_cannot_be_set_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # closed by the shell
    tolerate_any_letters()
    assert sys.stdout is None


def test_no_color(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    printed = []
    for setting in ("", "1"):
        monkeypatch.setenv("NO_COLOR", setting)
        monkeypatch.setattr(sys, "stdout", _Screen())
        print_table(_table())
        printed.append(sys.stdout.getvalue())
    assert ["\x1b[" in each for each in printed] == [True, False]


def _report(monkeypatch, out, errors):
    monkeypatch.setattr(sys, "stdout", out())
    monkeypatch.setattr(sys, "stderr", errors())
    with _run.report_progress(2) as report:
        for fraction in (0.5, 1.0):
            report(Progress("adamo-maxmin", 1, fraction, fraction / 2, "online_token_accuracy", 0.25))
    return sys.stdout.getvalue(), sys.stderr.getvalue()


LINE = "adamo-maxmin: task 1 of 2, online token accuracy 0.25\n"


@pytest.mark.parametrize("columns", ["40", "160"])
def test_a_line_a_task_where_there_is_no_terminal(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    assert _report(monkeypatch, io.StringIO, io.StringIO) == (LINE, "")


@pytest.mark.parametrize("columns", ["40", "160"])
def test_a_bar_where_there_is_one(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    printed, bar = _report(monkeypatch, _Screen, _Screen)
    assert printed == ""
    assert "adamo-maxmin" in bar
    assert "…" not in bar


def test_a_line_a_task_beside_the_bar_where_the_output_goes_elsewhere(monkeypatch):
    assert _report(monkeypatch, io.StringIO, _Screen)[0] == LINE
    assert _report(monkeypatch, _Screen, io.StringIO) == (LINE, "")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Unable to initialize backend 'tpu': no\nmore"), "Unable to initialize backend 'tpu': no;"),
        (AssertionError(), "no such device;"),
    ],
)
@pytest.mark.parametrize("command", ["run", "diagnose run"])
def test_a_platform_that_is_not_there(error, reason, command, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(cli.guard, "use_every_core", lambda: None)
    monkeypatch.setattr(cli.guard, "cache_compilations", lambda: None)
    monkeypatch.setattr(jax, "devices", fail)
    assert cli.main(command.split()) == cli.USER_ERROR
    message = capsys.readouterr().err
    assert reason in message
    assert "Leave JAX_PLATFORMS unset, or set it to cpu." in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (PermissionError(13, "Permission denied", "/a/b"), "Permission denied: '/a/b'"),
    ],
)
def test_errors_of_the_system_are_one_line(error, said, monkeypatch, capsys):
    def fail(self):
        raise error

    monkeypatch.setattr(cli, "_start_jax", lambda: None)
    monkeypatch.setattr(_run.Run, "__call__", fail)
    assert cli.main(["run"]) == cli.USER_ERROR
    message = capsys.readouterr().err
    assert said in message
    assert "Check permissions and free space. A run keeps its finished tasks; the same command continues it." in message
    assert len(message.splitlines()) == 1


@pytest.mark.exact
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
@pytest.mark.parametrize("arguments", [["list", "streams"], ["--version"], ["run", "--help"]])
def test_an_output_without_space(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pliant", *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == cli.USER_ERROR
    assert "No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_systems_without_blocking_modes(monkeypatch):
    """Windows before Python 3.12."""
    told = []
    monkeypatch.delattr(os, "set_blocking")
    monkeypatch.setattr("signal.set_wakeup_fd", told.append)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("threading.Thread.start", lambda thread: told.extend(thread._args))
    _answer_interrupts()
    assert len(told) == 2  # both ends of the pipe
    for end in told:
        os.close(end)


ELSEWHERE = ("fcntl", "resource", "termios", "pwd", "grp", "os.fork", "os.getuid", "os.uname", "os.sysconf")
ELSEWHERE += ("signal.SIGKILL", "signal.SIGALRM", "os.O_DIRECTORY", "os.fsync")


def test_no_call_that_other_systems_lack():
    """What has a fallback asks by hasattr first; see `xla/guard.py` and `__main__`."""
    root = Path(pliant.__file__).parent
    for file in root.rglob("*.py"):
        code = file.read_text(encoding="utf-8")
        assert not [name for name in ELSEWHERE if re.search(rf"(^|\s|\")(import )?{re.escape(name)}\b", code)], file
        assert "/proc/" not in code or ".exists()" in code, file
        for name in ("os.sched_getaffinity", "os.set_blocking"):
            assert name not in code or f'hasattr(os, "{name.partition(".")[2]}")' in code, file


def test_text_files_say_their_encoding():
    """Elsewhere the default is not UTF-8."""
    for file in Path(pliant.__file__).parent.rglob("*.py"):
        lines = file.read_text(encoding="utf-8").splitlines()
        opened = [line for line in lines if re.search(r"read_text\(|write_text\(|open\(\"[awr]\"", line)]
        assert all("encoding=" in line for line in opened), file
