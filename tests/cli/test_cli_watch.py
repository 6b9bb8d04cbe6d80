"""`pliant watch` as a process: where it says the page is, and how it ends."""

import os
import re
import signal
import subprocess
import sys

import pytest

from pliant import cli
from pliant.__main__ import INTERRUPTED
from report_runs import make_run

pytest.importorskip("plotly", reason="the extra report is not installed")
PATIENCE = 600  # seconds, for what takes a few where nobody else computes


@pytest.mark.whole
def test_ctrl_c_ends_it(tmp_path):
    make_run(tmp_path / "run", tasks=1)
    command = [sys.executable, "-m", "pliant", "watch", "run", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=os.environ, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert re.match(r"watching run: open http://127\.0\.0\.1:\d+/ in a browser on this machine\.", line)
            process.send_signal(signal.SIGINT)
            _, printed = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, printed) == (INTERRUPTED, "pliant: interrupted.\n")


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert cli.main(["watch", str(tmp_path)]) == cli.USER_ERROR
    assert "which has no config.json; wanted the folder of a run" in capsys.readouterr().err
