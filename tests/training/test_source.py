"""The engine on a source that is no stream: its own state, regression to a target that moves, episodes that end."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, defaults, split_static
from pliant.networks import mlp
from pliant.results import RunRecord
from pliant.streams import REGRESSION
from pliant.training import Checkpoints, MethodPlan, Plan, Protocol, diagnose_plan, train
from pliant.types import Batch, Diagnostic, Fed, Lesson, Mean, Measured, Source

REPLAY = 4096  # entries of the state


def _source(**changes):
    """Draws inputs itself, keeps them in a replay, and ends an episode every third update."""

    def init(network, scene, learned):
        target = jax.tree.map(lambda leaf: 2.0 * leaf, learned.params)
        return {"replay": jnp.zeros(REPLAY), "num_drawn": jnp.int32(0), "key": scene.key, "target": target}

    def draw(network, now, state, learned):
        x = jax.random.normal(now.key, (8, 3))
        targets = x.sum(axis=1, keepdims=True) + now.task + now.fed.own + now.fed.shared
        replay = state["replay"].at[state["num_drawn"] % REPLAY].set(x[0, 0])
        state = {**state, "replay": replay, "num_drawn": state["num_drawn"] + 1}
        has_ended = state["num_drawn"] % 3 == 0
        info = {"episode_return": Mean(jnp.where(has_ended, now.step * 1.0, 0.0), has_ended.astype(jnp.int32))}
        return state, Lesson(Batch(x, targets), now.task, lambda key, number: Batch(x[:number], targets[:number])), info

    def evaluate(network, weights, scene, state):
        output = network.apply(*weights, jnp.ones((1, 3)), train=False, key=None)[0]
        drawn = jax.random.normal(jax.random.fold_in(state["key"], state["num_drawn"]))
        return {
            "output": output[0, 0],
            "num_drawn": state["num_drawn"],
            "replay_sum": state["replay"].sum(),
            "drawn": drawn,
            "noise": jax.random.normal(scene.key),
        }

    def feed(seeds, index, start, stop):
        own = np.array([[0.1 * seed] * (stop - start) for seed in seeds], np.float32)
        return Fed(own, np.zeros(stop - start, np.float32))

    made = Source(
        name="toy",
        inputs=jax.ShapeDtypeStruct((3,), jnp.float32),
        num_outputs=1,
        objective=REGRESSION,
        progress="episode_return",
        data=(),
        task=lambda key, index: jnp.float32(index),
        num_updates=lambda index: 10 + index,
        facts=lambda index: np.int32(index),
        feed=feed,
        draw=draw,
        probe=lambda network, scene, state: (Batch(jnp.eye(3), jnp.ones((3, 1)) * scene.facts), scene.task),
        evaluate=evaluate,
        summarize=lambda found: {name: float(value) for name, value in found.items()},
        init=init,
        switch=lambda network, scene, state, learned: state | {"replay": state["replay"] + 1.0, "key": scene.key},
    )
    return made._replace(**changes)


def _plan(source, *, tasks=3, seeds=2, diagnostics=(), name="adam"):
    method = METHODS[name]
    static, traced = split_static(method, defaults(method, 1e-2))
    network = mlp((3,), 1, widths=(8,))
    planned = MethodPlan(method, name, static, traced, "mlp", {}, network, source, diagnostics=tuple(diagnostics))
    protocol = Protocol(methods=(name,), seeds=seeds, tasks=tasks)
    return Plan(protocol, "toy", "generated", RunRecord("toy, mlp", "output", None, {}), (planned,))


def _values(folder):
    return folder.metrics.pivot_table(index=["task", "seed"], columns="metric", values="value")


def test_a_source_keeps_its_state_and_reports_means_of_its_own(tmp_path):
    values = _values(train(_plan(_source()), tmp_path / "run"))
    assert values.loc[1, "num_drawn"].tolist() == [10, 10]
    assert values.loc[3, "num_drawn"].tolist() == [33, 33]
    assert values.loc[1, "episode_return"].tolist() == [6.0, 6.0]  # of updates 3, 6 and 9
    assert values.loc[2, "episode_return"].tolist() == [16.5, 16.5]  # of 12, 15, 18 and 21
    assert (values["replay_sum"].xs(2, level="task") > REPLAY / 2).all()  # the switch has added 1 to each
    outputs = values["output"].xs(3, level="task")
    assert outputs[0] != outputs[1]


def test_the_sources_state_is_donated(tmp_path, monkeypatch):
    """The replay that a chunk was given is gone after it; the learner that it was given is not."""
    import pliant.training._trainer as trainer_module

    make, given = trainer_module.make_learner, []

    def watching(*arguments, **options):
        learner = make(*arguments, **options)

        def watched(item, shared):
            given.append((item[0]["replay"], jax.tree.leaves(item[1].carry.learner.params)[0]))
            return learner.train(item, shared)

        return learner._replace(train=watched)

    monkeypatch.setattr(trainer_module, "make_learner", watching)
    train(_plan(_source(), tasks=1), tmp_path / "run")
    assert given
    assert all(replay.is_deleted() and not params.is_deleted() for replay, params in given)


@pytest.mark.parametrize("task", [2, 3])
def test_an_interrupted_run_goes_on_with_the_sources_state(task, tmp_path):
    diagnostics = (_steps_seen(),)
    whole = train(_plan(_source(), diagnostics=diagnostics), tmp_path / "whole")

    def interrupt(now):
        if now.task == task:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(_plan(_source(), diagnostics=diagnostics), tmp_path / "run", interrupt)
    again = train(_plan(_source(), diagnostics=diagnostics), tmp_path / "run")
    np.testing.assert_array_equal(_values(again), _values(whole))


def test_a_state_that_does_not_fit_is_refused_before_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("pliant.training._memory._TOLD_FROM", 0)

    def made(network, scene, learned):
        return {"replay": jnp.zeros(REPLAY)}

    told = train(_plan(_source(), tasks=1), tmp_path / "fits").path / "run.log"
    assert "adam: the state of toy takes" in told.read_text()
    monkeypatch.setattr("pliant.training._memory.free_memory", lambda devices: 2**10)
    with pytest.raises(UserError, match=r"got a state of toy of .* for each of 2 seeds"):
        train(_plan(_source(init=made), tasks=1), tmp_path / "run")


def test_the_sources_state_is_stored_apart(tmp_path):
    state, source = {"w": np.ones(2, np.float32)}, {"replay": np.arange(3, dtype=np.float32)}
    with Checkpoints(tmp_path / "both", 1) as checkpoints:
        checkpoints.save(1, state, source)
        found = checkpoints.restore(state, source)
        np.testing.assert_array_equal(found[1]["replay"], [0, 1, 2])
    assert {file.name for file in (tmp_path / "both" / "1").iterdir()} >= {"learner", "source"}
    with Checkpoints(tmp_path / "without", 1) as checkpoints:
        checkpoints.save(1, state)
        assert checkpoints.restore(state)[1] == ()
    assert not (tmp_path / "without" / "1" / "source").exists()


def _steps_seen():
    """Counts the updates that it sees, and adds up their lengths."""

    def follow(state, update):
        length = jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(update.step)))
        return {"number": state["number"] + 1, "length": state["length"] + length}, {"number_now": state["number"]}

    return Diagnostic(
        "steps-seen",
        "",
        "cheap",
        measure=lambda subject: subject.followed["steps-seen"],
        summarize=lambda found: Measured({f"steps_{name}": float(value) for name, value in found.items()}),
        needs=("followed",),
        init=lambda params: {"number": jnp.int32(0), "length": jnp.float32(0)},
        follow=follow,
    )


def test_a_diagnostic_with_a_state_sees_every_update(tmp_path):
    values = _values(train(_plan(_source(), diagnostics=(_steps_seen(),)), tmp_path / "run"))
    assert values["steps_number"].tolist() == [10, 10, 21, 21, 33, 33]
    assert (np.diff(values["steps_length"].xs(0, level="seed")) > 0).all()


def test_sources_with_and_without_what_follows_train_the_same(tmp_path):
    with_it = _values(train(_plan(_source(), diagnostics=(_steps_seen(),)), tmp_path / "a"))
    without = _values(train(_plan(_source()), tmp_path / "b"))
    np.testing.assert_array_equal(with_it[without.columns], without)


def test_a_headline_that_nobody_reports_is_named_after_the_first_task(tmp_path):
    plan = _plan(_source())
    plan = plan._replace(record=plan.record._replace(headline="returns"))
    with pytest.raises(UserError, match=r"got the headline 'returns', which nobody reports; wanted one of .*output"):
        train(plan, tmp_path / "run")


def test_two_numbers_of_one_name_are_refused(tmp_path):
    loud = _steps_seen()._replace(follow=lambda state, update: (state, {"loss": update.loss}))
    with pytest.raises(UserError, match=r"got two numbers named 'loss' of one update; wanted a name for each"):
        train(_plan(_source(), diagnostics=(loud,)), tmp_path / "run")


def test_diagnosing_what_a_run_did_not_follow_or_did_not_ask_for(tmp_path):
    """One diagnostic was followed and is not asked for, another is asked for and was not followed."""
    plan = _plan(_source(), diagnostics=(_steps_seen(),))
    folder = train(plan, tmp_path / "run")
    ends = _steps_seen()._replace(
        name="ends",
        needs=(),
        measure=lambda s: s.params["head"]["kernel"].sum(),
        summarize=lambda v: Measured({"e": float(v)}),
    )
    (found,) = diagnose_plan(folder, plan, None, (ends,))
    assert np.isfinite(found.numbers["ends"]["e"])
    (found,) = diagnose_plan(folder, plan, None, (_steps_seen(),))
    assert found.numbers["steps-seen"]["steps_number"] == 33


def _curved(**changes):
    """The source with three points a task, the last at its end."""
    return _source(points=lambda index: [4, 7, 10 + index], env_steps=2.5, **changes)


def _wide(table):
    return table.pivot_table(index=["task", "seed", "step"], columns="metric", values="value")


def test_a_learning_curve_has_what_was_reported_between_its_points(tmp_path):
    folder = train(_plan(_curved()), tmp_path / "run")
    values = _wide(folder.curves)
    assert values.index.unique("step").tolist() == [4, 7, 10, 14, 17, 21, 25, 28, 33]
    of_seed = values.xs(1, level="seed")
    assert of_seed["episode_return"].tolist() == [3.0, 6.0, 9.0, 12.0, 15.0, 19.5, 24.0, 27.0, 31.5]
    assert of_seed["num_drawn"].tolist() == of_seed.index.get_level_values("step").tolist()
    assert of_seed["env_steps"].tolist()[:4] == [10.0, 18.0, 25.0, 35.0]  # 17.5 and 24.5 of 7 and 10 updates, rounded


def test_a_curve_disturbs_nothing_and_ends_with_the_tasks_scores(tmp_path):
    folder = train(_plan(_curved()), tmp_path / "curved")
    plain = train(_plan(_source()), tmp_path / "plain")
    values, ends = _values(folder), _wide(folder.curves).groupby(["task", "seed"]).last()
    np.testing.assert_array_equal(values.drop(columns="env_steps"), _values(plain))
    for name in ("output", "num_drawn", "noise", "env_steps"):
        np.testing.assert_array_equal(ends[name], values[name])
    assert len(set(_wide(folder.curves)["noise"])) == 3 * 3 * 2  # each point has a key of its own
    assert plain.curves.empty
    assert not list(plain.path.rglob("curves"))


def test_a_run_that_is_interrupted_within_a_curve_and_extended_has_the_same(tmp_path):
    whole = train(_plan(_curved()), tmp_path / "whole").curves

    def interrupt(now):
        if now.task == 2 and now.task_done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(_plan(_curved(), tasks=2), tmp_path / "run", interrupt)
    assert train(_plan(_curved(), tasks=2), tmp_path / "run").curves["task"].max() == 2
    pd.testing.assert_frame_equal(train(_plan(_curved()), tmp_path / "run").curves, whole, check_exact=True)


def test_curves_that_are_lost_are_computed_again(tmp_path):
    whole = train(_plan(_curved(), tasks=2), tmp_path / "run")
    (folder,) = whole.path.rglob("curves")
    assert len(whole.curves) > 0
    shutil.rmtree(folder)
    again = train(_plan(_curved(), tasks=2), tmp_path / "run")
    pd.testing.assert_frame_equal(again.curves, whole.curves, check_exact=True)
    pd.testing.assert_frame_equal(again.metrics, whole.metrics, check_exact=True)
