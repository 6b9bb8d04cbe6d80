import dataclasses
import itertools
import json
import re
import shutil
from typing import NamedTuple

import jax
import numpy as np
import pandas as pd
import pytest

import pliant.training._trainer as trainer_module
from pliant.errors import UserError
from pliant.methods import as_arrays
from pliant.results import COLUMNS, RunFolder, SeedBlock
from pliant.supervised import RunConfig, make_plan, run
from pliant.training import Begun, Pace, Shared, make_learner
from pliant.types import leaf_path

SMALL = RunConfig(
    methods=("adam", "adamo"), seeds=3, tasks=3, epochs=2, train_size=200, widths=(32, 32), batch_size=20, probe_size=50
)

ONE = dataclasses.replace(SMALL, methods=("adam",), seeds=2)  # 20 updates in each of three tasks
TINY_T5 = ("t5.width=32", "t5.num_heads=2", "t5.head_width=16", "t5.mlp_width=32")
GRADUAL = {
    "output-interpolation": "random-labels",
    "input-interpolation": "permuted-pixels",
    "task-sampling": "random-labels",
}


def _change(**changes):
    return dataclasses.replace(SMALL, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(SMALL, tmp_path_factory.mktemp("runs") / "small")


def _table(folder):
    return folder.metrics.sort_values(["method", "seed", "task", "metric"]).reset_index(drop=True)


def _value(folder, **where):
    rows = folder.metrics
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert len(rows)
    return rows["value"].to_numpy()


def test_metrics_are_complete(finished):
    metrics = finished.metrics
    assert tuple(metrics.columns) == COLUMNS
    names = {
        "online_accuracy",
        "train_accuracy",
        "loss",
        "gradient_norm",
        "weight_norm",
        "weight_mean_absolute",
        "weight_max_absolute",
        "dormant_fraction",
        "dormant_exact_fraction",
        "dormant_loose_fraction",
        "effective_rank",
        "effective_rank_squared",
        "participation_ratio",
        "isometry_deviation",
        "diverged",
    }
    of_adamo = metrics["method"] == "adamo"
    assert set(metrics["metric"][of_adamo]) - set(metrics["metric"][~of_adamo]) == {"isometry_norm"}
    metrics = metrics[metrics["metric"] != "isometry_norm"]
    found = set(metrics["metric"])
    assert {metric for metric in found if "/" not in metric} == names
    assert {metric.partition("/")[0] for metric in found} == names
    assert len(metrics) == 2 * 3 * 3 * len(found)
    assert set(metrics["step"]) == {20, 40, 60}
    assert metrics["value"].notna().all()


def test_what_methods_report_is_stored(tmp_path):
    """Counts are summed over a task, everything else is averaged over its updates."""
    methods = ("redo", "continual-backprop", "adamo", "upgd", "l2-init", "shrink-perturb")
    settings = ("redo.every=10", "redo.threshold=1e9", "adamo.isometry_every=5")
    folder = run(dataclasses.replace(ONE, methods=methods, settings=settings), tmp_path / "told")
    assert _value(folder, method="redo", metric="units_reset").tolist() == [2 * 64] * 6  # all, twice in 20 updates
    assert _value(folder, method="continual-backprop", metric="mean_age", task=1).tolist() == [10.5, 10.5]
    assert (_value(folder, method="adamo", metric="isometry_norm") > 0).all()
    assert (_value(folder, method="upgd", metric="mean_utility") != 0).all()
    assert (_value(folder, method="l2-init", metric="penalty") > 0).all()
    moved = folder.metrics.query("method == 'shrink-perturb' and metric == 'norm_moved'")
    assert sorted(moved["task"]) == [2, 2, 3, 3]
    assert (moved["value"] > 0).all()


def test_a_combination_is_named_whole(tmp_path):
    """In the metrics, the checkpoints, the folder's config and the report."""
    name = "redo+layernorm"
    folder = run(dataclasses.replace(ONE, methods=(name,), settings=(f"{name}.threshold=0.1",)), tmp_path / "both")
    assert list(folder.methods) == [name]
    assert folder.methods[name]["config"]["settings"] == [f"{name}.threshold=0.1"]
    assert set(folder.metrics["method"]) == {name}
    assert set(pd.read_csv(folder.path / "summary.csv")["method"]) == {name}
    assert (folder.path / "methods" / name / "seeds-0000-0001" / "checkpoints").is_dir()
    parameters = {metric.partition("/")[2] for metric in folder.metrics["metric"] if "weight_norm/" in metric}
    assert any("norm_0" in path for path in parameters)
    assert (_value(folder, metric="units_reset") >= 0).all()


def test_what_is_written_is_what_is_returned(finished):
    pd.testing.assert_frame_equal(RunFolder(finished.path).metrics, finished.metrics)
    config = json.loads((finished.path / "methods" / "adam" / "config.json").read_text())
    assert re.fullmatch(r"[0-9a-f]{12}", config["id"])
    (start,) = config["starts"]
    assert (start["tasks"], start["seeds"]) == (3, 3)
    assert start["environment"]["packages"]["jax"] == jax.__version__
    assert finished.title == "random-labels on digits, mlp, 3 seeds"
    assert (finished.path / "summary.csv").exists()
    assert "adamo: task 3 of 3" in (finished.path / "run.log").read_text()


def test_seeds_and_methods_differ(finished):
    losses = [_value(finished, method="adam", seed=seed, task=1, metric="loss")[0] for seed in range(3)]
    assert len(set(losses)) == 3
    isometry = [_value(finished, method=m, metric="isometry_deviation").mean() for m in ("adam", "adamo")]
    assert isometry[1] < isometry[0]


def test_online_accuracy_is_before_the_update(tmp_path):
    """One update on labels that nobody can know: measured before it, the accuracy is that of guessing."""
    config = _change(methods=("adam",), seeds=8, tasks=1, epochs=1, batch_size=200, learning_rate=0.1)
    folder = run(config, tmp_path / "run")
    online = _value(folder, metric="online_accuracy").mean()
    after = _value(folder, metric="train_accuracy").mean()
    assert abs(online - 0.1) < 0.05
    assert after > online


def test_permuted_pixels_have_a_test_accuracy(tmp_path):
    folder = run(_change(stream="permuted-pixels", methods=("adam",), seeds=1, tasks=1, epochs=20), tmp_path / "run")
    assert _value(folder, metric="test_accuracy")[0] > 0.5


def test_same_command_same_bits(finished, tmp_path):
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "again")), _table(finished), check_exact=True)


def test_a_finished_run_is_not_run_again(finished, monkeypatch):
    monkeypatch.setattr(trainer_module, "make_learner", None)
    pd.testing.assert_frame_equal(run(SMALL, finished.path).metrics, finished.metrics)


@pytest.mark.parametrize("stop_at", [(0, 1), (0, 3), (1, 2)])
def test_interrupted_runs_end_with_the_same_bits(finished, tmp_path, stop_at):
    method, task = stop_at

    def interrupt(now):
        if (now.method, now.task) == (SMALL.methods[method], task):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    folder = run(SMALL, tmp_path / "run")
    pd.testing.assert_frame_equal(_table(folder), _table(finished), check_exact=True)
    assert [len(folder.seconds[name]) for name in SMALL.methods] == [3, 3]


def test_rows_without_a_checkpoint_are_replaced(finished, tmp_path):
    """Killed between writing a task's metrics and its checkpoint: the task is run again, its rows are not doubled."""
    calls = []

    def record_then_die(self, *arguments):
        honest(self, *arguments)
        calls.append(arguments[0])
        if arguments[0] == 2:
            raise KeyboardInterrupt

    honest = SeedBlock.record_task
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedBlock, "record_task", record_then_die)
        with pytest.raises(KeyboardInterrupt):
            run(SMALL, tmp_path / "run")
    assert calls == [1, 2]
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_metrics_that_are_gone_are_made_again(finished, tmp_path):
    def interrupt(now):
        if (now.method, now.task) == ("adamo", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    shutil.rmtree(tmp_path / "run" / "methods" / "adamo" / "seeds-0000-0002" / "metrics")
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_a_damaged_checkpoint_says_what_to_do(finished, tmp_path):
    def interrupt(now):
        if (now.method, now.task) == ("adamo", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=interrupt)
    checkpoints = tmp_path / "run" / "methods" / "adamo" / "seeds-0000-0002" / "checkpoints"
    for file in checkpoints.glob("*/learner/_METADATA"):
        file.write_text("{")
    with pytest.raises(UserError, match=r"got a damaged checkpoint in .*adamo.*Remove that folder"):
        run(SMALL, tmp_path / "run")
    shutil.rmtree(checkpoints)
    pd.testing.assert_frame_equal(_table(run(SMALL, tmp_path / "run")), _table(finished), check_exact=True)


def test_a_seed_that_diverges_does_not_touch_the_others(finished, tmp_path, monkeypatch):
    def poisoned(method, num_seeds, **options):
        learner = make_learner(method, num_seeds, **options)

        def init(seeds, shared):
            carry, slot = learner.init(seeds, shared)
            params = jax.tree.map(lambda leaf: leaf.at[1].set(np.nan), carry.learner.params)
            return carry._replace(learner=carry.learner._replace(params=params)), slot

        return learner._replace(init=init)

    monkeypatch.setattr(trainer_module, "make_learner", poisoned)
    folder = run(SMALL, tmp_path / "run")
    for seed in (0, 2):
        ours, theirs = (_table(f).query(f"seed == {seed}").reset_index(drop=True) for f in (folder, finished))
        pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert (_value(folder, seed=1, metric="diverged") == 1.0).all()
    assert (_value(folder, seed=1, metric="train_accuracy") == 0.0).all()
    assert np.isnan(_value(folder, seed=1, metric="loss")).all()


def test_nothing_recompiles_after_the_first_task(tmp_path, compilations):
    counts = {}
    config = _change(methods=("adam", "l2-init", "redo", "adamo"), tasks=4)
    run(config, tmp_path / "run", report=lambda now: counts.update({(now.method, now.task): len(compilations)}))
    for method in config.methods:  # reported in the middle of a task: what precedes task 2 is over, what follows it too
        assert counts[method, 2] == counts[method, 3] == counts[method, 4]
    assert counts["adam", 1] > 0
    assert counts["adamo", 1] > counts["redo", 4]


def test_another_configuration_is_refused(finished):
    with pytest.raises(UserError, match=r"another configuration \(config.epochs, first_task.*Choose another --out"):
        run(_change(epochs=3), finished.path)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis.tex and no run; wanted an empty or new folder"):
        run(SMALL, tmp_path)


def test_a_folder_in_use_is_refused(tmp_path):
    def second(_):
        with pytest.raises(UserError, match="another process is running"):
            run(SMALL, tmp_path / "run")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, tmp_path / "run", report=second)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="wanted a folder that can be written"):
        run(SMALL, tmp_path / "file")


def test_hyperparameters_are_arguments_of_the_program(compilations):
    plan = make_plan(SMALL)
    learner, source = make_learner(plan.methods[1], 3), plan.methods[1].source
    axis = learner.axis
    data = axis.share(source.data)
    fed = source.feed([0, 1, 2], 0, 0, 4)
    finals, counts = [], []
    for strength in (0.0, 0.1, 10.0):
        values = plan.methods[1].traced | {"isometry_strength": strength, "isometry_every": 2}
        traced = as_arrays(values)
        shared = Shared(traced, data, source.facts(0), pace=Pace.steady(4), fed=fed.shared)
        carry, slot = learner.init(axis.put((np.arange(3, dtype=np.int32), {})), shared)
        begun = Begun(carry, slot, learner.make_task(slot, np.int32(0)), axis.put(fed.own))
        _, carry, _ = learner.train(((), begun), shared)
        finals.append(np.asarray(carry.learner.params["dense_0"]["kernel"]))
        counts.append(len(compilations))
    assert counts[0] == counts[1] == counts[2] > 0
    assert (finals[0] != finals[1]).any()
    assert (finals[1] != finals[2]).any()


def _one(tmp_path, name="run", **changes):
    """The metrics of a small run of one method."""
    return run(dataclasses.replace(ONE, **changes), tmp_path / name)


class Watched(NamedTuple):
    """What the learners of a run are handed."""

    states: list
    """At the end of every task."""
    batches: list
    """Indices of every chunk, (seed, step, batch)."""
    paces: list
    """Of every chunk."""


def _watched(monkeypatch):
    watched = Watched([], [], [])

    def watching(method, num_seeds, **options):
        learner = make_learner(method, num_seeds, **options)

        def look(state, slot, traced):
            watched.states.append(learner.axis.get(state))
            return learner.observers.look(state, slot, traced)

        def train(item, shared):
            watched.paces.append(shared.pace)
            watched.batches.append(learner.axis.get(item[1].fed)[:, : int(shared.pace.num_steps)])
            return learner.train(item, shared)

        return learner._replace(observers=learner.observers._replace(look=look), train=train)

    monkeypatch.setattr(trainer_module, "make_learner", watching)
    return watched


def _leaves(tree):
    return {leaf_path(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _changed(before, after):
    before, after = _leaves(before), _leaves(after)
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


@pytest.mark.parametrize("transition", GRADUAL)
def test_what_is_measured_after_a_transition_is_the_pure_task(transition, tmp_path):
    """A network that does not learn ends as if the change had been abrupt; on the way its batches were others."""
    common = {"stream": GRADUAL[transition], "tasks": 2, "learning_rate": 0.0}
    sudden = _one(tmp_path, "abrupt", **common)
    gradual = _one(tmp_path, "gradual", **common, transition=transition, micro_steps=4)
    tables = [_table(folder) for folder in (sudden, gradual)]
    keys = ["seed", "task", "step", "metric"]
    pd.testing.assert_frame_equal(tables[0][keys], tables[1][keys])
    assert set(tables[0]["step"]) == {20, 40}  # it costs as much
    for name in ["train_accuracy", *["test_accuracy"] * (GRADUAL[transition] == "permuted-pixels")]:
        np.testing.assert_array_equal(_value(gradual, metric=name), _value(sudden, metric=name))
    for name in ("online_accuracy", "loss"):
        first, second = ([_value(folder, metric=name, task=task) for folder in (sudden, gradual)] for task in (1, 2))
        assert transition == "task-sampling" or np.allclose(*first, rtol=1e-5)  # the order of its examples is another
        assert (second[0] != second[1]).any()


def test_online_scores_are_against_the_nearer_task(tmp_path):
    """What is known of the old labels counts until half of the transition is over."""
    config = {"tasks": 2, "epochs": 150, "train_size": 50, "batch_size": 25, "transition": "output-interpolation"}
    folder = _one(tmp_path, **config, micro_steps=50, transition_share=0.5, learning_rate=3e-3)
    assert _value(folder, metric="train_accuracy").min() > 0.95
    assert _value(folder, metric="online_accuracy", task=2).min() > 0.8


def test_a_budget_for_each_micro_task(tmp_path):
    folder = _one(tmp_path, transition="output-interpolation", micro_steps=3, budget="per-micro-task")
    assert sorted(set(folder.metrics["step"])) == [20, 20 + 60, 20 + 60 + 60]
    assert folder.configuration["first_task"]["num_updates"] == 20


def test_steps_in_place_of_epochs(tmp_path, monkeypatch):
    """They are counted on from task to task: what is periodic or drawn for a step depends on it."""
    paces = _watched(monkeypatch).paces
    folder = _one(tmp_path, steps=7)
    assert sorted(set(folder.metrics["step"])) == [7, 14, 21]
    steps = [int(pace.first_step) + i for pace in paces for i in range(int(pace.num_steps))]
    assert steps == list(range(21))


def test_every_example_streams_by_once(tmp_path, monkeypatch):
    """Batches of one, one epoch; each seed in an order of its own, each task in another."""
    batches = _watched(monkeypatch).batches
    folder = _one(tmp_path, batch_size=1, epochs=1, train_size=60, tasks=2, probe_size=20)
    assert sorted(set(folder.metrics["step"])) == [60, 120]
    orders = np.split(np.concatenate(batches, axis=1)[..., 0], 2, axis=1)
    for order in orders:
        np.testing.assert_array_equal(np.sort(order, axis=1), [np.arange(60)] * 2)
    assert len({order.tobytes() for task in orders for order in task}) == 4


def test_the_learning_rate_drops(tmp_path, monkeypatch):
    """As if the learner had been trained by hand with one learning rate and then with another."""
    watched = _watched(monkeypatch)
    changes = {"tasks": 2, "steps": 10, "learning_rate": 0.01, "rate_drops": (0.3,), "rate_drop_factor": 0.1}
    config = dataclasses.replace(ONE, **changes)
    run(config, tmp_path / "run")
    (method,) = make_plan(config).methods
    learner, source = make_learner(method, 2), method.source
    axis, data = learner.axis, learner.axis.share(source.data)
    traced = as_arrays(method.traced)
    rates = np.float32(0.01), np.float32(0.01) * np.float32(0.1)
    carry, slot = learner.init(axis.put((np.arange(2, dtype=np.int32), {})), Shared(traced, data))
    for index in range(2):
        task = learner.make_task(slot, np.int32(index))
        for (start, stop), rate in zip([(0, 3), (3, 10)], rates, strict=True):
            fed = source.feed([0, 1], index, start, stop)
            pace = Pace.steady(stop - start)._replace(first_step=np.int32(10 * index + start))
            changed = traced | {"learning_rate": rate}
            shared = Shared(changed, data, source.facts(index), pace=pace, fed=fed.shared)
            _, carry, _ = learner.train(((), Begun(carry, slot, task, axis.put(fed.own))), shared)
        assert not _changed(watched.states[index], axis.get(carry.learner))


@pytest.mark.parametrize("head", ["zero", "fresh"])
def test_the_head_changes_at_a_switch_and_nothing_else(head, tmp_path, monkeypatch):
    """Seen with a learning rate of 0."""
    states = _watched(monkeypatch).states
    _one(tmp_path, learning_rate=0.0, head_at_switch=head, use_bias=True)
    assert _changed(states[0].params, states[1].params) >= {"head/kernel"}
    assert _changed(states[0].params, states[1].params) <= {"head/kernel", "head/bias"}
    kernels = [state.params["head"]["kernel"] for state in states]
    if head == "zero":
        assert kernels[0].any()
        assert not kernels[1].any()
        assert not kernels[2].any()
    else:
        assert len({kernel.tobytes() for kernels_of_task in kernels for kernel in kernels_of_task}) == 6


def test_the_optimizer_is_kept_or_starts_anew(tmp_path, monkeypatch):
    states = _watched(monkeypatch).states
    kept = _one(tmp_path, "kept")
    reset = _one(tmp_path, "reset", optimizer_at_switch="reset")
    counts = [[leaf for name, leaf in _leaves(state.optimizer).items() if name.endswith("count")] for state in states]
    assert [np.unique(count).tolist() for count in counts] == [[20], [40], [60], [20], [20], [20]]
    first, second = ([_value(folder, task=task, metric="loss") for folder in (kept, reset)] for task in (1, 2))
    np.testing.assert_array_equal(first[0], first[1])
    assert (second[0] != second[1]).all()


def test_augmentation_is_of_training_batches_only(tmp_path):
    common = {"learning_rate": 0.0, "tasks": 1}
    plain, other = (_one(tmp_path, kind, augment=kind, **common) for kind in ("none", "crop-flip-rotate"))
    np.testing.assert_array_equal(_value(plain, metric="train_accuracy"), _value(other, metric="train_accuracy"))
    assert (_value(plain, metric="loss") != _value(other, metric="loss")).all()


def test_texts_are_memorised(tmp_path):
    stream = ("num_examples=8", "source_words=2", "target_words=2", "word_length=1")
    folder = _one(
        tmp_path,
        stream="random-seq2seq",
        train_size=None,
        network="t5",
        widths=None,
        tasks=2,
        steps=60,
        batch_size=8,
        learning_rate=3e-3,
        transition="output-interpolation",
        micro_steps=4,
        settings=(*TINY_T5, *(f"random-seq2seq.{option}" for option in stream)),
    )
    assert folder.headline == "train_bleu"
    names = {"online_token_accuracy", "train_token_accuracy", "train_bleu", "train_exact_match", "loss", "diverged"}
    assert names <= set(folder.metrics["metric"])
    for name in ("train_bleu", "train_exact_match", "train_token_accuracy"):
        assert (_value(folder, metric=name) == 1.0).all()


@pytest.mark.parametrize("num_beams", [1, 3])
def test_ciphers_are_written_for_test_texts(num_beams, tmp_path):
    stream = ("num_train=16", "num_test=8", "num_words=2", "word_length=1", f"num_beams={num_beams}")
    folder = _one(
        tmp_path,
        stream="bigram-cipher",
        train_size=None,
        network="t5",
        widths=None,
        tasks=1,
        steps=2,
        batch_size=8,
        settings=(*TINY_T5, *(f"bigram-cipher.{option}" for option in stream)),
    )
    metrics = set(folder.metrics["metric"])
    assert {"test_bleu", "test_exact_match", "test_token_accuracy", "train_token_accuracy"} <= metrics
    assert not {"train_bleu", "train_exact_match"} & metrics
    protocol = folder.configuration["protocol"]
    assert protocol["texts"] == ("greedily" if num_beams == 1 else "written with 3 beam(s)")


SWITCHING = dataclasses.replace(
    ONE,
    transition="task-sampling",
    micro_steps=3,
    rate_drops=(0.5,),
    optimizer_at_switch="reset",
    head_at_switch="fresh",
    augment="crop-flip",
)


@pytest.fixture(scope="module")
def switched(tmp_path_factory):
    return run(SWITCHING, tmp_path_factory.mktemp("runs") / "switching")


@pytest.mark.parametrize("task", [2, 3])
def test_interrupted_runs_with_switches_end_with_the_same_bits(switched, tmp_path, task):
    def interrupt(now):
        if now.task == task and now.task_done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SWITCHING, tmp_path / "run", report=interrupt)
    pd.testing.assert_frame_equal(_table(run(SWITCHING, tmp_path / "run")), _table(switched), check_exact=True)


CHANGING = {
    "micro-steps": {"transition": "output-interpolation", "micro_steps": 5, "rate_drops": (0.5,), "epochs": 1},
    "switches": {"optimizer_at_switch": "reset", "head_at_switch": "fresh"},
    "longer tasks": {"transition": "task-sampling", "micro_steps": 3, "budget": "per-micro-task"},
    "growing data": {"stream": "warm-start"},
}


@pytest.mark.parametrize("name", CHANGING)
def test_nothing_recompiles_whatever_changes_from_task_to_task(name, tmp_path, compilations):
    counts = {}
    config = dataclasses.replace(ONE, tasks=4, probe_size=200, **CHANGING[name])
    folder = run(config, tmp_path / "run", report=lambda now: counts.setdefault(now.task, len(compilations)))
    lengths = set(np.diff([0, *sorted(set(folder.metrics["step"]))]))
    assert len(lengths) == {"longer tasks": 2, "growing data": 4}.get(name, 1)
    assert counts[2] == counts[3] == counts[4] > counts[1] > 0  # the first evaluation and switch are behind task 1


def test_a_grid_is_all_its_runs_in_one(tmp_path):
    """Every point has the numbers of a run of its own."""
    strengths, rates = (0.0, 0.1), (1e-3, 1e-2)
    grid = ("adamo.isometry_strength=0.0,0.1", "adamo.learning_rate=1e-3,1e-2")
    config = _change(methods=("adamo",), tasks=2, grid=grid)
    table = run(config, tmp_path / "grid").metrics
    assert table["method"].nunique() == 4
    for strength, rate in itertools.product(strengths, rates):
        one = _change(
            methods=("adamo",), tasks=2, settings=(f"adamo.isometry_strength={strength}", f"adamo.learning_rate={rate}")
        )
        alone = run(one, tmp_path / f"{strength}-{rate}").metrics
        label = f"adamo[isometry_strength={strength},learning_rate={rate}]"
        ours = table[table["method"] == label].reset_index(drop=True)
        pd.testing.assert_frame_equal(ours.drop(columns="method"), alone.drop(columns="method"), rtol=1e-3, atol=1e-4)


def test_a_grid_continues(tmp_path):
    config = _change(methods=("adamo",), grid=("adamo.isometry_strength=0.0,0.1",))

    def interrupt(now):
        if now.task == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "run", report=interrupt)
    again, whole = run(config, tmp_path / "run").metrics, run(config, tmp_path / "other").metrics
    by = ["method", "task", "seed", "metric"]
    pd.testing.assert_frame_equal(
        again.sort_values(by).reset_index(drop=True), whole.sort_values(by).reset_index(drop=True), check_exact=True
    )
