import subprocess

import numpy as np
import pandas as pd
import pytest

import equality
from equality import RUNS, Results, Run, compare, content, differences, metrics_by_key
from pliant.experiments import BENCHMARKS
from pliant.streams import STREAMS


def _table(values, **columns):
    rows = {"problem": "digits", "method": "adam", "network": "mlp", "dataset": "digits", "seed": 0, "task": 1}
    rows |= {"step": 10, "metric": [f"metric_{index}" for index in range(len(values))]} | columns
    return pd.DataFrame(rows | {"value": values})


def _results(values, *, arrays=(), leaves=()):
    return Results(metrics_by_key(_table(values)), dict(arrays), dict(leaves))


def test_equal_tables_do_not_differ_whatever_their_order_and_the_name_of_the_problem():
    table = _table([0.1, np.nan, -0.0])
    other = table.sample(frac=1, random_state=0).rename(columns={"problem": "benchmark"})
    assert differences(metrics_by_key(table), metrics_by_key(other)) == []


@pytest.mark.parametrize(
    ("old", "new"), [(0.1, np.nextafter(0.1, 1)), (0.0, -0.0), (np.nan, 0.0)], ids=["last-bit", "sign-of-0", "nan"]
)
def test_one_changed_bit_is_a_difference(old, new):
    (key,) = differences(metrics_by_key(_table([1.0, old])), metrics_by_key(_table([1.0, new])))
    assert key == "adam | mlp | digits | 0 | 1 | 10 | metric_1"


def test_rows_that_only_one_table_has_are_differences():
    two, three = metrics_by_key(_table([1.0, 2.0])), metrics_by_key(_table([1.0, 2.0, 3.0]))
    assert len(differences(two, three)) == len(differences(three, two)) == 1


def test_rows_of_one_key_all_count():
    assert (
        differences(
            metrics_by_key(_table([1.0, 2.0], metric="loss")), metrics_by_key(_table([2.0, 1.0], metric="loss"))
        )
        == []
    )
    assert differences(metrics_by_key(_table([1.0, 1.0], metric="loss")), metrics_by_key(_table([1.0], metric="loss")))


def test_content_is_of_values_shapes_and_dtypes():
    zeros = np.zeros((2, 3), np.float32)
    others = zeros.T, zeros.astype(np.int32), np.full_like(zeros, 1e-30)
    assert content(zeros) == content(zeros.copy(order="F"))
    assert content(zeros) not in [content(other) for other in others]


def test_compare_counts_rows_and_arrays_and_shows_the_first_differences():
    old = _results([1.0, 2.0], arrays={"adam | 1 | ntk": "(2,) x"}, leaves={"x": 2, "y": 1})
    new = _results([1.0, 2.5], arrays={"adam | 1 | ntk": "(2,) y"}, leaves={"x": 1, "z": 1})
    compared = compare("main", old, new, seconds=3.2)
    assert compared.row == ("main", "2", "1", "1", "1", "3", "2", "1", "3")
    assert not compared.is_equal
    assert compared.details[0].endswith("metric_1: 2.0 (0x1.0000000000000p+1) → 2.5 (0x1.4000000000000p+1)")
    assert compared.details[1] == "adam | 1 | ntk: (2,) x → (2,) y"


def test_leaves_of_checkpoints_do_not_count():
    assert compare("main", _results([1.0], leaves={"x": 1}), _results([1.0]), 0.0).is_equal


def test_nothing_found_and_failed_runs_are_not_equal():
    assert not compare("main", _results([]), _results([]), 0.0).is_equal
    compared = compare("main", _results([1.0]), "Traceback", 0.0)
    assert (compared.is_equal, compared.details) == (False, ("the candidate fails: Traceback",))


def test_runs_without_their_data_are_skipped_with_a_reason(tmp_path, monkeypatch):
    run = Run("--dataset cifar10", data="cifar10")
    monkeypatch.delenv("PLIANT_DATA", raising=False)
    assert equality.lacking(run) == "PLIANT_DATA is not set"
    monkeypatch.setenv("PLIANT_DATA", str(tmp_path))
    assert equality.lacking(run) == "PLIANT_DATA has no folder cifar10"
    (tmp_path / "cifar10").mkdir()
    assert equality.lacking(run) == equality.lacking(Run("")) == ""


def test_every_stream_is_in_the_set():
    first = {run.arguments.split()[0] for run in RUNS.values()}
    streams = {BENCHMARKS[name].configs["smoke"].stream for name in first if name in BENCHMARKS}
    assert first | streams | {"random-labels"} >= set(STREAMS)
    families = {name.partition("/")[0] for name in BENCHMARKS} - {"survey", "predictors"}  # other streams' runs again
    assert {name.partition("/")[0] for name in first if name in BENCHMARKS} == families


def test_a_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no src/pliant in"):
        equality.Tree(tmp_path, tmp_path).digest()


def test_the_digest_follows_the_source(tmp_path):
    file = tmp_path / "src" / "pliant" / "file.py"
    file.parent.mkdir(parents=True)
    digests = []
    for text in ("a = 1", "a = 2", "a = 1"):
        file.write_text(text)
        digests.append(equality.Tree(tmp_path, tmp_path).digest())
    assert digests[0] == digests[2] != digests[1]


def test_an_unknown_run_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["equality.py", "no-such-run"])
    with pytest.raises(SystemExit):
        equality.main()
    assert "unknown: no-such-run" in capsys.readouterr().err


def test_a_missing_revision_is_refused(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        equality.checked_out("no-such-revision", tmp_path)
