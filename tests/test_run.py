"""`pliant.run`: names, files and objects in any mixture."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pliant
from pliant import networks, streams
from pliant.errors import UserError
from pliant.methods import METHODS
from pliant.problems import diagnose_run
from pliant.supervised import RunConfig
from pliant.types import Batch, Diagnostic, Measured, Method, Split, Stream

QUICK = {"seeds": 1, "tasks": 1, "steps": 4, "train_size": 100, "batch_size": 10}


def _optimizer(wiring, *, learning_rate, momentum=0.9):
    return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))


def own_stream(dataset, *, num_tasks, labels="iid"):
    return streams.random_labels(dataset, num_tasks=num_tasks, labels=labels)


def own_network(input_shape, num_outputs, *, wide=8):
    return networks.mlp(input_shape, num_outputs, widths=(wide,))


MINE = Method("mine", "SGD with momentum", "Polyak 1964", _optimizer)
HEAD = Diagnostic(
    "head", "", "cheap", lambda s: s.params["head"]["kernel"].sum(), lambda v: Measured({"head_sum": float(v)})
)
FILE = """
import test_run
mine, stream, network, head = test_run.MINE, test_run.own_stream, test_run.own_network, test_run.HEAD
"""
SETTINGS = ("mine.momentum=0.5", "own_stream.labels=iid", "own_network.wide=16")


def _run(out, **changes):
    asked = {"methods": ["adam", MINE], "network": own_network, "diagnostics": ["dormant", HEAD], "settings": SETTINGS}
    return pliant.run(own_stream, out=out, **QUICK | asked | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return _run(out), out


def _value(folder, method, metric):
    metrics = folder.metrics
    (value,) = metrics.loc[(metrics["method"] == method) & (metrics["metric"] == metric), "value"]
    return value


def test_objects_are_trained_and_measured(finished):
    folder, _ = finished
    assert set(folder.metrics["method"]) == {"adam", "mine"}
    assert set(folder.metrics["network"]) == {"own_network"}
    assert np.isfinite(_value(folder, "mine", "head_sum"))
    assert 0 <= _value(folder, "mine", "dormant_fraction") <= 1


def test_files_and_names_give_the_same_numbers(finished, tmp_path):
    (tmp_path / "own.py").write_text(FILE)
    spec = f"{tmp_path}/own.py"
    folder = pliant.run(
        f"{spec}:stream",
        methods=["adam", f"{spec}:mine"],
        network=f"{spec}:network",
        diagnostics=["dormant", f"{spec}:head"],
        settings=("mine.momentum=0.5", "stream.labels=iid", "network.wide=16"),
        out=tmp_path / "run",
        **QUICK,
    )
    columns = ["method", "seed", "task", "step", "metric", "value"]
    assert folder.metrics[columns].equals(finished[0].metrics[columns])
    found = diagnose_run(tmp_path / "run", diagnostics=("dormant",))
    assert [each.label for each in found] == ["adam", "mine"]


def test_the_same_objects_continue_a_run_and_edited_ones_are_refused(finished):
    folder, out = finished
    assert _run(out).metrics.equals(folder.metrics)

    def edited(wiring, *, learning_rate, momentum=0.8):
        return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))

    def wider(input_shape, num_outputs, *, wide=9):
        return networks.mlp(input_shape, num_outputs, widths=(wide,))

    wider.__name__ = "own_network"
    for change in (
        {"methods": ["adam", MINE._replace(optimizer=edited)]},
        {"network": wider},
        {"diagnostics": ["dormant", HEAD._replace(summarize=lambda v: Measured({"head_sum": 0.0}))]},
    ):
        with pytest.raises(
            UserError, match=r"which holds .* with another configuration .*sha256.*Your code has changed"
        ):
            _run(out, **change)


def test_objects_cannot_be_found_again(finished):
    message = r"with objects of a Python program: method mine, stream, network own_network, diagnostic head; wanted"
    with pytest.raises(UserError, match=message):
        diagnose_run(finished[1])


def test_streams_and_networks_that_are_made(tmp_path):
    stream = streams.random_teacher(num_tasks=3)
    network = networks.mlp((32,), 1, widths=(8,))
    choices = {"methods": "adam", "seeds": 1, "steps": 4, "network": network}
    folder = pliant.run(stream, out=tmp_path / "run", **choices)
    assert set(folder.metrics["task"]) == {1, 2, 3}
    assert set(folder.metrics["network"]) == {"Network"}


def test_a_stream_written_by_hand(tmp_path):
    """Its arrays are a dict, its tasks two half-planes, and it has a test and validation examples."""
    points = np.random.default_rng(0).normal(size=(120, 2)).astype(np.float32)

    def split(first, size):
        def batch(data, task, indices):
            inputs = data["points"][first + indices]
            return Batch(inputs, (inputs @ task["normal"] > 0).astype(jnp.int32))

        return Split(lambda index: size - 10 * index, batch)

    stream = Stream(
        name="half-planes",
        dataset="generated",
        num_tasks=2,
        num_outputs=2,
        inputs=jax.ShapeDtypeStruct((2,), jnp.float32),
        train=split(0, 60),
        test=split(60, 40),
        validation=split(100, 20),
        objective=streams.CLASSIFICATION,
        headline="test_accuracy",
        chance=0.5,
        data={"points": points},
        task=lambda key, index: {"normal": jax.random.normal(jax.random.fold_in(key, index), (2,))},
    )
    choices = {"seeds": 2, "epochs": 15, "batch_size": 10, "widths": (16,), "learning_rate": 0.03}
    folder = pliant.run(
        stream, methods=["adam", "redo"], weights_at_end="best-validation", out=tmp_path / "run", **choices
    )
    found = folder.metrics.query("metric == 'test_accuracy'")
    assert len(found) == 2 * 2 * 2
    assert found["value"].min() > 0.8
    assert folder.headline == "test_accuracy"


def test_registered_objects_are_recorded_by_their_names(tmp_path):
    asked = {"methods": [METHODS["adam"]], "network": networks.mlp, "widths": (8,)} | QUICK
    folder = pliant.run(stream=streams.random_labels, out=tmp_path / "run", **asked)
    named = pliant.run("random-labels", out=tmp_path / "run", **asked | {"methods": "adam", "network": "mlp"})
    assert named.metrics.equals(folder.metrics)


def test_a_benchmark_and_a_configuration(tmp_path):
    choices = {"methods": ["adam"], "seeds": 1, "tasks": 1, "steps": 2}
    folder = pliant.run("kumar/permuted-mnist", scale="smoke", out=tmp_path / "one", **choices)
    config = RunConfig(methods=("adamo",), seeds=3, tasks=1, steps=2, widths=(8,))
    again = pliant.run(config, methods="adam", seeds=1, out=tmp_path / "two")
    assert set(folder.metrics["method"]) == set(again.metrics["method"]) == {"adam"}
    assert set(again.metrics["seed"]) == {0}


def _without_default(input_shape, num_outputs, *, wide):
    return None


@pytest.mark.parametrize(
    ("problem", "choices", "message"),
    [
        (
            "random-labels",
            {"stream": "random-labels"},
            "got several problems: a stream, environments",
        ),
        (
            None,
            {"seed": 3},
            r"got the choice 'seed'; wanted one of .*Did you mean 'seeds'\? See pliant.supervised.RunC",
        ),
        ("random-labels", {"scale": "smoke"}, "got scale='smoke' without a benchmark"),
        (3, {}, r"got 3 as the stream; wanted a function \(dataset, \*, num_tasks, options\) -> pliant.types.Stream"),
        (None, {"network": 3}, r"got 3 as the network; wanted a function \(input_shape, num_outputs, \*, options\)"),
        (None, {"methods": [3]}, "got 3 as the method; wanted a pliant.types.Method"),
        (None, {"methods": [MINE, MINE._replace(summary="")]}, "got two methods named 'mine'; wanted every name once"),
        (None, {"diagnostics": ["head", HEAD]}, "got two diagnostics named 'head'"),
        (None, {"network": _without_default}, "got '_without_default', whose wide has no default"),
        (own_stream, {"settings": ("own.labels=iid",)}, "got the name 'own'; wanted one of .*own_stream"),
        (None, {"network": own_network, "methods": "layernorm"}, "which changes norm, with the network 'own_network'"),
        ("no.py:stream", {}, "got the stream 'no.py:stream'; wanted an existing Python file"),
        (
            None,
            {"network": "no"},
            r"got the network 'no'; wanted one of .*See `pliant list networks`, or give your own as",
        ),
    ],
)
def test_what_cannot_be_run(problem, choices, message):
    with pytest.raises(UserError, match=message):
        pliant.run(problem, **{"methods": "adam"} | QUICK | choices)


def test_options_that_are_no_text_are_hashed(tmp_path):
    ones = np.ones(2)

    def network(input_shape, num_outputs, *, scale=ones):
        return networks.mlp(input_shape, num_outputs, widths=(8,))

    out = tmp_path / "run"
    pliant.run("random-labels", methods="adam", network=network, out=out, **QUICK)
    assert "sha256:" in json.dumps([json.loads(file.read_text()) for file in out.rglob("config.json")])
    other = functools.partial(network, scale=np.zeros(2))
    with pytest.raises(UserError, match="another configuration"):
        pliant.run("random-labels", methods="adam", network=other, out=out, **QUICK)
    message = "got network.scale=3, where the default is ndarray; wanted an option whose default is a text"
    with pytest.raises(UserError, match=message):
        pliant.run("random-labels", methods="adam", network=network, settings=("network.scale=3",), **QUICK)
