import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import pliant
from pliant import cli
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.problems import diagnose_run
from pliant.results import RunFolder
from pliant.supervised import RunConfig, make_plan, run
from pliant.training import due
from pliant.types import Diagnostic, Measured

SMALL = RunConfig(methods=("adam", "hare-tortoise"), seeds=2, tasks=3, steps=6, widths=(8,), train_size=100)


def _change(**changes):
    return RunConfig(**vars(SMALL) | changes)


def _table(folder):
    return folder.metrics.sort_values(["method", "seed", "task", "metric"], ignore_index=True)


def _distance(subject, other):
    gaps = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), subject.params, other[0])
    return jnp.sqrt(sum(jax.tree.leaves(gaps)))


def _number(name):
    return lambda value: Measured({name: float(value)}, {"value": value})


def test_a_run_on_a_data_set_of_python_says_so(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 4, 4)).astype(np.uint8)
    mine = pliant.streams.from_arrays(pixels, [0, 1] * 20, name="animals")
    folder = pliant.run(dataset=mine, methods=["adam"], seeds=1, tasks=1, epochs=1, widths=(4,), out=tmp_path / "run")
    with pytest.raises(UserError, match="was made with objects of a Python program: data set animals; wanted a run of"):
        diagnose_run(folder.path)


def _refuse(subject):
    raise UserError(got="this network", wanted="another", do="Do without.")


def _losses(state, update):
    return state, {"loss_drop": update.loss - update.loss_after(), "loss_seen": update.loss}


SINCE_START = Diagnostic(
    "since-start", "", "cheap", lambda s: _distance(s, s.initial), _number("since_start"), ("initial",)
)
SINCE_LAST = Diagnostic(
    "since-last", "", "per-task", lambda s: _distance(s, s.previous), _number("since_last"), ("previous",)
)
DRAWS = Diagnostic("draws", "", "rare", lambda s: jax.random.uniform(s.key), _number("draw"))
FOLLOWS = Diagnostic("follows", "", "cheap", follow=_losses)
REFUSES = Diagnostic("refuses", "", "rare", _refuse, _number("never"))
EXTRA = (SINCE_START, SINCE_LAST, DRAWS, FOLLOWS)
"""They say what they see."""


@pytest.mark.exact
def test_training_is_the_same_to_the_bit_with_and_without(tmp_path):
    without = _table(run(SMALL, tmp_path / "a"))
    table = _table(pliant.run(SMALL, diagnostics=["basic", "brownian-twin", *EXTRA], out=tmp_path / "b"))
    assert {"since_start", "since_last", "draw", "loss_drop", "twin_weight_norm"} <= set(table["metric"])
    shared = table[table["metric"].isin(without["metric"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(shared, without, check_exact=True)


def test_options_of_diagnostics_are_those_of_the_run(tmp_path):
    """Recorded, so that a run is not continued with others, and given again to what looks at its checkpoints."""
    one = _change(methods=("adam",), seeds=1, tasks=1, diagnostics=("probe-plasticity:num_targets=2:num_steps=8",))
    folder = run(one, tmp_path)
    measured = folder.metrics.set_index("metric")["value"]
    assert np.isfinite(measured[["probe_final_loss", "probe_final_loss/2"]]).all()
    (again,) = diagnose_run(folder.path, diagnostics=one.diagnostics)
    assert again.numbers["probe-plasticity"]["probe_final_loss"] == pytest.approx(measured["probe_final_loss"], 1e-3)
    (few,) = diagnose_run(folder.path, diagnostics="probe-plasticity:num_targets=2:num_steps=2:initial=true")
    found = few.numbers["probe-plasticity"]
    assert found["probe_final_loss"] == pytest.approx(measured["probe_final_loss/2"], 1e-3)
    assert found["probe_loss_increase"] == pytest.approx(found["probe_final_loss"] - found["probe_initial_loss"])
    with pytest.raises(UserError, match=r"which holds a run with another configuration \(config.diagnostics\)"):
        run(_change(**vars(one) | {"diagnostics": ("probe-plasticity:num_targets=2:num_steps=9",)}), tmp_path)


def test_diagnostics_are_told_how_outputs_stand_for_values(tmp_path):
    """Else a probe would fit the logits of `two-hot` to values."""

    def values(subject):
        output = subject.network.apply(subject.params, subject.state, subject.probe.inputs, train=False, key=None)[0]
        return jnp.float32((subject.coded.values(output) if subject.coded else output).size / output.size)

    diagnostic = Diagnostic("values", "", "cheap", values, _number("values_by_output"))
    config = RunConfig(stream="random-teacher", methods=("adam", "two-hot"), seeds=1, tasks=1, steps=2, widths=(4,))
    found = pliant.run(config, diagnostics=[diagnostic], out=tmp_path).metrics
    found = found[found["metric"] == "values_by_output"].set_index("method")["value"]
    assert found.to_dict() == {"adam": 1.0, "two-hot": pytest.approx(1 / 51)}


SMALL_RESNET = {
    "network": "resnet18",
    "settings": ("resnet18.width=4", "resnet18.num_blocks=1,1"),
    "batch_size": 20,
    "widths": None,
}


@pytest.mark.exact
@pytest.mark.parametrize("network", [{}, SMALL_RESNET], ids=["mlp", "resnet18"])
def test_the_sets_leave_training_as_it_is(network, tmp_path):
    """To the bit, also where batches are normalised; and what the set does not have is found from a checkpoint."""
    common = {"methods": ("adam",), "tasks": 2, "probe_size": 32} | network
    without = _table(run(_change(**common, diagnostics=("weight-norm",)), tmp_path / "a"))
    names = ("standard", "sample-plasticity")
    table = _table(run(_change(**common, diagnostics=names), tmp_path / "b"))
    assert {"stable_rank", "update_norm", "sample_plasticity"} <= set(table["metric"])
    shared = table[table["metric"].isin(without["metric"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(shared, without, check_exact=True)
    (found,) = diagnose_run(tmp_path / "b", 2, ("ntk", "jacobian", "hessian-top"))
    assert not found.reasons
    assert found.numbers["ntk"]["ntk_participation_ratio"] >= 1
    assert np.isfinite(found.numbers["hessian-top"]["hessian_top"])


def test_followed_numbers_are_means_over_the_chosen_updates(tmp_path):
    """Over all updates of a task that has no more than 16, over 16 of a longer one."""
    for steps in (16, 40):
        folder = pliant.run(SMALL, methods="adam", steps=steps, diagnostics=EXTRA, out=tmp_path / str(steps))
        table = folder.metrics.pivot_table(index=["task", "seed"], columns="metric", values="value")
        if steps == 16:
            np.testing.assert_allclose(table["loss_seen"], table["loss"], rtol=1e-5)
        else:
            assert (table["loss_seen"] != table["loss"]).all()
            np.testing.assert_allclose(table["loss_seen"], table["loss"], rtol=0.2)
        assert (table["loss_drop"] != 0).all()


def test_what_subjects_know(tmp_path):
    """Start and last measurement are those of the network that the method reports."""
    folder = pliant.run(SMALL, diagnostics=EXTRA, out=tmp_path / "run")
    values = folder.metrics.set_index(["method", "metric", "task", "seed"])["value"].sort_index()
    for method in SMALL.methods:
        assert values[method, "since_start", 1, 1] == values[method, "since_last", 1, 1] > 0
        assert values[method, "since_start", 3, 1] != values[method, "since_last", 3, 1] > 0
    assert values["adam", "since_start", 2, 0] > 5 * values["hare-tortoise", "since_start", 2, 0]
    assert len(set(values["adam", "draw"])) == 6  # a key of its own for every task and seed
    arrays = folder.arrays("adam")
    assert sorted(arrays) == [1, 2, 3]
    np.testing.assert_array_equal(arrays[2]["since-last/value"], np.float32(values["adam", "since_last", 2]))


def test_an_interrupted_run_measures_the_same(tmp_path):
    diagnostics = ["basic,brownian-twin", *EXTRA]
    whole = pliant.run(SMALL, diagnostics=diagnostics, out=tmp_path / "whole")

    def interrupt(now):
        if (now.method, now.task) == ("hare-tortoise", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pliant.run(SMALL, diagnostics=diagnostics, out=tmp_path / "run", report=interrupt)
    done = RunFolder(tmp_path / "run").metrics.groupby("method")["task"].max()
    assert (done["adam"], done["hare-tortoise"]) == (3, 1)
    folder = pliant.run(SMALL, diagnostics=diagnostics, out=tmp_path / "run")
    pd.testing.assert_frame_equal(_table(folder), _table(whole), check_exact=True)
    for task, arrays in whole.arrays("hare-tortoise").items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(folder.arrays("hare-tortoise")[task][name], array)


def test_what_several_share_is_measured_once(tmp_path):
    traced = []

    def shared(subject):
        traced.append(1)
        return jnp.float32(len(traced))

    two, one = (Diagnostic(name, "", "cheap", shared, _number(name)) for name in ("two", "one"))
    folder = pliant.run(SMALL, methods="adam", diagnostics=[two, one], out=tmp_path / "run")
    values = folder.metrics.set_index("metric")["value"].sort_index()
    assert (values["one"].to_numpy() == values["two"].to_numpy()).all()
    assert len(traced) == 3  # each is traced to see whether it can be measured, then both together


@pytest.mark.parametrize(
    ("cost", "diagnose_after", "wanted"),
    [
        ("cheap", (7,), range(1, 61)),
        ("spectral", (), range(1, 61)),
        ("per-task", (), range(1, 61)),
        ("per-task", (2, 30), [2, 30]),
        ("rare", (), [1, 2, 5, 10, 20, 50, 60]),
        ("rare", (2, 30), [2, 30]),
    ],
)
def test_periods(cost, diagnose_after, wanted):
    some = Diagnostic("some", "", cost, lambda s: 0.0, lambda v: Measured({}))
    assert [task for task in range(1, 61) if due(some, task, 60, diagnose_after)] == list(wanted)


def test_what_cannot_be_measured_is_left_out_of_a_set_and_refused_by_name():
    (plan,) = make_plan(_change(methods=("adam",), diagnostics=("full",), probe_size=1)).methods
    assert {"dormant", "srank"} < {each.name for each in plan.diagnostics} < set(DIAGNOSTICS)
    assert plan.unmeasured["gradient-cosine"].startswith("got a probe of one example")
    with pytest.raises(UserError, match=r"got the diagnostic 'refuses' for 'adam'; .*Leave it out: got this network"):
        pliant.run(SMALL, diagnostics=["dormant", REFUSES])


@pytest.mark.parametrize("after", [(0,), (1, 4)])
def test_tasks_that_do_not_exist_are_refused(after):
    with pytest.raises(UserError, match=r"got diagnose_after=\(.*\); wanted tasks from 1 to 3"):
        make_plan(_change(diagnose_after=after))


def test_unknown_words_are_refused():
    with pytest.raises(UserError, match=r"got the diagnostic 'dormand'; wanted one of .*Did you mean 'dormant'"):
        make_plan(_change(diagnostics=("basic,dormand",)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run that keeps all checkpoints, and its folder."""
    path = tmp_path_factory.mktemp("kept") / "run"
    return run(_change(checkpoints="all", diagnostics=("basic", "brownian-twin")), path)


def test_a_diagnosis_finds_what_the_run_found(kept):
    before = kept.metrics.copy()
    found = diagnose_run(kept.path, 2, ("basic", "brownian-twin"))
    assert [(each.label, each.task) for each in found] == [("adam", 2), ("hare-tortoise", 2)]
    of_task = before.query("task == 2").groupby(["method", "metric"])["value"].mean()
    for each in found:
        assert not each.reasons
        for numbers in each.numbers.values():
            for metric, value in numbers.items():
                np.testing.assert_allclose(value, of_task[each.label, metric], rtol=1e-6)
    pd.testing.assert_frame_equal(type(kept)(kept.path).metrics, before, check_exact=True)


def test_a_diagnosis_of_what_the_run_did_not_measure(kept):
    found = diagnose_run(kept.path, 3, [SINCE_LAST, REFUSES, FOLLOWS], methods=("adam",))
    assert found[0].numbers["since-last"]["since_last"] > 0
    assert found[0].reasons["refuses"].startswith("got this network")
    assert found[0].reasons["follows"].startswith("follows training")
    assert "since-last/value" in kept.arrays("adam")[3]


def test_without_the_checkpoint_before_there_is_no_comparison_with_it(tmp_path):
    folder = run(_change(methods=("adam",)), tmp_path / "run")
    found = diagnose_run(folder.path, None, (SINCE_LAST, SINCE_START, "brownian-twin"))
    assert found[0].task == 3
    assert list(found[0].numbers) == ["since-start"]
    assert "checkpoint of the task before" in found[0].reasons["since-last"]
    assert "--diagnostics brownian-twin" in found[0].reasons["brownian-twin"]


def test_errors_of_a_diagnosis(kept, tmp_path, capsys):
    path = tmp_path / "copy"
    shutil.copytree(kept.path, path)
    assert cli.main(["diagnose", str(path), "--task", "9"]) == cli.USER_ERROR
    assert "got no checkpoint of adam after task 9; wanted one of 1, 2, 3." in capsys.readouterr().err
    assert cli.main(["diagnose", str(path), "--methods", "redo"]) == cli.USER_ERROR
    assert "got no method 'redo'" in capsys.readouterr().err
    assert cli.main(["diagnose", str(tmp_path)]) == cli.USER_ERROR
    assert "wanted the folder of a run" in capsys.readouterr().err
    for checkpoints in path.glob("methods/*/seeds-*/checkpoints"):
        shutil.rmtree(checkpoints)
    assert cli.main(["diagnose", str(path)]) == cli.USER_ERROR
    assert "wanted at least one finished task" in capsys.readouterr().err
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(config.replace('"data_sha256": "', '"data_sha256": "0'))
    assert cli.main(["diagnose", str(path)]) == cli.USER_ERROR
    assert "made with other data, another version" in capsys.readouterr().err
    assert cli.main(["diagnose", str(kept.path), "--diagnostics", "basic", "--methods", "adam"]) == 0
    assert "adam, end of task 3, mean over seeds" in capsys.readouterr().out


def test_damaged_arrays_are_named(tmp_path):
    folder = pliant.run(SMALL, methods="adam", tasks=1, diagnostics=SINCE_START, out=tmp_path / "run")
    (file,) = (tmp_path / "run").glob("methods/adam/seeds-*/arrays/*")
    file.write_bytes(b"PK no zip")
    with pytest.raises(UserError, match=r"task-00001.npz, which cannot be read"):
        folder.arrays("adam")
