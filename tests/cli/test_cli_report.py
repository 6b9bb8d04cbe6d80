"""`pliant report`: the file that it writes, and what it refuses."""

import sys

import pytest

from pliant import cli
from pliant.tuning import TuningFolder, TuningRecord
from report_runs import make_run

pytest.importorskip("plotly", reason="the extra report is not installed")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_one_file_about_several_runs(tmp_path, capsys):
    for name in ("one", "two"):
        make_run(tmp_path / name, tasks=1)
    assert cli.main(["report", "one", "two", "--out", "sub/page.html"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("report: sub/page.html (")
    page = (tmp_path / "sub/page.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count('<section class="run"') == 2
    assert len(page.encode()) < 15e6


def test_an_unfinished_run_has_a_report(tmp_path):
    make_run(tmp_path / "run", tasks=2, asked=5)
    assert cli.main(["report", "run"]) == 0
    assert "adam has finished 2 of 5 tasks" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got no run folder; wanted at least one. Give what `pliant run` printed."),
        (["empty"], "got empty, which has no config.json; wanted the folder of a run."),
        (["missing"], "got missing, which has no config.json; wanted the folder of a run."),
        (["begun"], "got begun, in which no task is finished; wanted at least one finished task."),
        (["run", "run"], "got a run folder twice; wanted each once."),
        (["run", "tuning"], "got tuning, the folder of a tuning; wanted run folders. Give it as --tuned tuning."),
        (["--tuned", "tuning"], "got --tuned tuning, in which nothing has been selected yet; wanted a finished tuning"),
        (["run", "--out", "empty"], "got --out empty, a folder; wanted a file. Give --out empty/report.html."),
    ],
)
def test_what_has_no_report(tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "begun", tasks=0, asked=3)
    make_run(tmp_path / "run", tasks=1)
    TuningFolder.begin(tmp_path / "tuning", TuningRecord("t", "train_accuracy", 1, 2, 1))
    assert cli.main(["report", *arguments]) == cli.USER_ERROR
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_without_plotly_the_extra_is_named(tmp_path, capsys, monkeypatch):
    make_run(tmp_path / "run", tasks=1)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert cli.main(["report", "run"]) == cli.USER_ERROR
    assert "wanted the packages for reports. Install them with pip install 'pliant[report]'." in capsys.readouterr().err


def test_claims_say_of_which_scale_they_are(tmp_path):
    make_run(tmp_path / "run", tasks=1)
    assert cli.main(["report", "run", "--claims", "isometry/strength", "--scale", "smoke", "--runs", "nowhere"]) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "no results of the run" in page
    assert ">at smoke<" in page.replace("\n", "").replace(" <", "<").replace("> ", ">")
    assert "does not hold" not in page, "a verdict at the scale cpu"
