"""`pliant reproduce`, `pliant claims`, and what list and show say of experiments."""

import io

import pandas as pd
import pytest

from pliant.cli import main
from pliant.experiments import EXPERIMENTS


def test_every_experiment_is_listed(capsys):
    assert main(["list", "experiments", "--plain"]) == 0
    assert capsys.readouterr().out.split() == list(EXPERIMENTS)


def test_an_experiment_is_explained_with_its_verdicts(capsys):
    assert main(["show", "isometry/supervised"]) == 0
    out = capsys.readouterr().out
    assert "Do networks near dynamical isometry keep learning" in out
    assert "isometry/permuted-mnist/mlp" in out
    assert "adam-loses-plasticity" in out
    assert "Run it with `pliant reproduce isometry/supervised --scale cpu`." in out


def test_a_name_may_be_an_experiment_and_a_benchmark(capsys):
    assert main(["show", "isometry/strength"]) == 0
    out = capsys.readouterr().out
    assert "experiment isometry/strength" in out
    assert "benchmark isometry/strength" in out


def test_claims_of_a_paper(capsys, tmp_path):
    assert main(["claims", "gradual/", "--runs", str(tmp_path), "--scale", "paper"]) == 0
    out = capsys.readouterr().out
    number = sum(len(each.claims) for name, each in EXPERIMENTS.items() if name.startswith("gradual/"))
    assert f"{number} claims at the scale paper: 0 does not hold, 0 holds, 0 undecided, {number} not run" in out
    assert "isometry" not in out


@pytest.mark.parametrize("command", ["claims", "reproduce"])
def test_an_unknown_experiment(command, capsys):
    assert main([command, "isometry/strengh"]) == 2
    error = capsys.readouterr().err
    assert "the experiment 'isometry/strengh'" in error
    assert "isometry/strength" in error


def test_reproducing_prints_verdicts_and_the_figure(capsys, tmp_path):
    command = ["reproduce", "isometry/strength", "--scale", "smoke", "--runs", str(tmp_path)]
    assert main([*command, "--tables", str(tmp_path / "tables")]) == 0
    out = capsys.readouterr().out
    assert "isometry/strength: isometry/strength at the scale smoke" in out
    assert out.count("undecided") == 3
    assert f"figure: {tmp_path / 'figures' / 'isometry-strength-smoke.png'} (and .pdf)" in out
    assert (tmp_path / "tables" / "isometry-strength-smoke.parquet").exists()
    assert main(["claims", "isometry/strength", "--scale", "smoke", "--runs", str(tmp_path)]) == 0
    assert "3 claims at the scale smoke: 0 does not hold, 0 holds, 3 undecided, 0 not run" in capsys.readouterr().out


def test_claims_as_data(capsys, tmp_path):
    assert main(["claims", "isometry/strength", "--runs", str(tmp_path), "--scale", "smoke", "--format", "csv"]) == 0
    table = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert set(table["verdict"]) == {"not run"}
    assert list(table)[:5] == ["claim", "experiment", "sentence", "source", "verdict"]


@pytest.mark.parametrize(("format", "line"), [("markdown", "| claim | verdict |"), ("latex", "claim & verdict &")])
def test_claims_for_documents(format, line, capsys, tmp_path):
    assert main(["claims", "isometry/strength", "--runs", str(tmp_path), "--format", format]) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("scale", ["paper", pytest.param("cpu", marks=pytest.mark.whole)])
def test_all_claims_in_latex_are_ascii(scale, capsys, tmp_path):
    """A symbol that only some fonts have would stop the document."""
    assert main(["claims", "--runs", str(tmp_path), "--scale", scale, "--format", "latex"]) == 0
    shown = capsys.readouterr().out
    assert {letter for letter in shown if not letter.isascii()} == set()
    assert r"\begin{tabular}{p{" in shown
