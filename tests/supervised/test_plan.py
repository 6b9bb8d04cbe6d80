import dataclasses
import json

import numpy as np
import pytest

from parquet_files import write_both
from pliant.errors import UserError
from pliant.results import fingerprint
from pliant.streams import load_dataset, random_labels
from pliant.supervised import RunConfig, make_plan, plan_suited, record

OWN_METHOD = """
import optax
import pliant


def optimizer(wiring, *, learning_rate, momentum=0.5):
    return optax.with_extra_args_support(optax.sgd(learning_rate, momentum))


mine = pliant.types.Method(name="mine", summary="a test", reference="none", optimizer=optimizer)
not_a_method = 3
"""

FAULTS = {
    "no default": ("def f(wiring, *, learning_rate, strength): ...", "whose strength has no default"),
    "nothing": ("def f(wiring, learning_rate): ...", "got the optimizer of 'mine', which is NoneType; wanted .*optax"),
    "raises": ("def f(wiring, *, learning_rate):\n    return 1 / 0", r"got ZeroDivisionError in '.*own.py', line 4"),
    "exits": ("raise SystemExit(0)", "got SystemExit in"),
}


def _plan(**changes):
    return make_plan(RunConfig(**{"train_size": 100, "widths": (8,), "batch_size": 10} | changes))


def test_defaults_are_the_main_job():
    config = RunConfig()
    assert config.methods == ("adam", "l2-init", "redo", "adamo", "adamo-maxmin")
    assert (config.stream, config.dataset, config.seeds, config.tasks) == ("random-labels", None, 4, 20)
    assert (config.epochs, config.batch_size, config.learning_rate) == (15, 32, 1e-3)
    plan = make_plan(config)
    assert plan.dataset == "digits"
    assert plan.methods[0].network_options["widths"] == (128,) * 4


def test_settings_reach_methods_stream_and_network():
    plan = _plan(
        methods=("adamo", "redo"),
        settings=("adamo.isometry_strength=0.03", "redo.num_examples=8", "random-labels.labels=iid", "mlp.norm=layer"),
    )
    adamo, redo = plan.methods
    assert adamo.traced["isometry_strength"] == 0.03
    assert redo.static == {"num_examples": 8, "source": "fresh", "relative": True}
    assert plan.record.configuration["stream"]["options"] == {"labels": "iid"}
    assert adamo.network_options["norm"] == "layer"
    assert "norm_0" in adamo.network.init(_key())[0]


def _key():
    import jax

    return jax.random.key(0)


def test_methods_change_the_network():
    plan = _plan(methods=("adam", "adamo-maxmin"))
    assert [item.network_options["activation"] for item in plan.methods] == ["relu", "maxmin"]


def test_multipliers_of_widths_multiply():
    plan = _plan(methods=("adam", "fourier"), settings=("mlp.width_multiplier=0.5",))
    assert [item.network_options["width_multiplier"] for item in plan.methods] == [0.5, 0.25]


def test_the_record_is_whole_and_json():
    plan = _plan(methods=("adamo",))
    shared, own = plan.record.configuration, plan.methods[0].configuration
    for recorded in (shared, own):
        assert json.loads(json.dumps(recorded)) == recorded
    assert own["hyperparameters"]["isometry_every"] == 16
    assert shared["config"]["widths"] == [8]
    assert shared["config"]["optimizer_at_switch"] == "keep"
    assert plan.record._replace(configuration={}) == ("random-labels on digits, mlp", "train_accuracy", 0.1, {})


def _id(**changes):
    """Of everything that the numbers of adam depend on."""
    plan = _plan(**changes)
    (adam,) = (each for each in plan.methods if each.method.name == "adam")
    return fingerprint({"run": plan.record.configuration, "method": adam.configuration})


@pytest.mark.parametrize(
    "change",
    [
        {"settings": ("adam.b1=0.8",)},
        {"grid": ("adam.b1=0.8,0.9",)},
        {"grid": ("learning_rate=0.1,0.2",)},
        {"settings": ("mlp.norm=layer",)},
        {"learning_rate": 0.1},
        {"transition": "task-sampling", "micro_steps": 2},
        {"rate_drops": (0.5,)},
        {"head_at_switch": "zero"},
        {"augment": "crop-flip"},
    ],
)
def test_every_change_changes_the_id(change):
    base = {"methods": ("adam",)}
    assert _id(**base) == _id(**base)
    assert _id(**base) != _id(**base | change)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": 8},
        {"tasks": 40},
        {"checkpoints": "all"},
        {"methods": ("redo", "adam"), "settings": ("redo.every=9",), "grid": ("redo.threshold=0.1,0.2",)},
    ],
)
def test_what_no_number_of_a_method_depends_on(change):
    assert _id(methods=("adam",)) == _id(**{"methods": ("adam",)} | change)


@pytest.mark.parametrize("stream", ["warm-start", "label-noise"])
def test_streams_whose_tasks_depend_on_their_number(stream):
    """A run of them can be extended by seeds and not by tasks."""
    base = {"methods": ("adam",), "stream": stream, "tasks": 4}
    assert _id(**base) == _id(**base, seeds=8)
    assert _plan(**base).record.configuration["stream"]["tasks"] == 4
    assert _id(**base) != _id(**base | {"tasks": 5})


def test_the_size_of_the_probe_may_depend_on_the_number_of_tasks():
    sizes = [
        _plan(stream="five-plus-one", tasks=tasks).record.configuration["protocol"]["probe_size"] for tasks in (1, 2)
    ]
    assert sizes[0] > sizes[1]


def test_a_users_own_method(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_METHOD)
    source = f"{file}:mine"
    plan = _plan(methods=(source,), settings=("mine.momentum=0.9",))
    assert plan.methods[0].traced == {"learning_rate": 1e-3, "momentum": 0.9}
    before = plan.methods[0].configuration
    file.write_text(OWN_METHOD + "\n# edited\n")
    assert _plan(methods=(source,), settings=("mine.momentum=0.9",)).methods[0].configuration != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_a_method", r"which is int; wanted a pliant.types.Method; the file has mine"),
        (
            "absent",
            r"got no .absent. in .*; wanted a pliant.types.Method; the file has mine. Give the method as .*:NAME",
        ),
    ],
)
def test_a_users_file_without_the_method(tmp_path, name, message):
    (tmp_path / "mine.py").write_text(OWN_METHOD)
    with pytest.raises(UserError, match=message):
        _plan(methods=(f"{tmp_path}/mine.py:{name}",))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_users_method_that_is_wrong(tmp_path, fault):
    code, message = FAULTS[fault]
    row = "mine = Method(name='mine', summary='', reference='', optimizer=f)"
    (tmp_path / "own.py").write_text(
        f"from __future__ import annotations\nfrom pliant.types import Method\n{code}\n{row}"
    )
    with pytest.raises(UserError, match=message):
        _plan(methods=(f"{tmp_path}/own.py:mine",))


def test_postponed_annotations_are_understood(tmp_path):
    own = "from __future__ import annotations\n" + OWN_METHOD.replace("momentum=0.5", "momentum: int = 3")
    (tmp_path / "own.py").write_text(own)
    assert _plan(methods=(f"{tmp_path}/own.py:mine",)).methods[0].static == {"momentum": 3}


def test_other_data_of_the_same_name_are_another_run():
    stream = random_labels(load_dataset("digits", train_size=100))
    flipped = stream._replace(data=stream.data._replace(mean=stream.data.mean + 1))
    recorded = [record(RunConfig(), each, {}, None) for each in (stream, stream, flipped)]
    assert recorded[0] == recorded[1] != recorded[2]


@pytest.mark.parametrize("name", ["../../escape", "a/b", "", ".hidden", "mlp", "random-labels"])
def test_names_that_cannot_be_folders_or_are_taken(tmp_path, name):
    (tmp_path / "own.py").write_text(OWN_METHOD.replace('name="mine"', f"name={name!r}"))
    with pytest.raises(UserError, match=r"got a method named.*Rename the method"):
        _plan(methods=(f"{tmp_path}/own.py:mine",))


def test_a_users_file_that_fails(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(UserError, match=r"got ZeroDivisionError in .*, line 1: division by zero"):
        _plan(methods=(f"{tmp_path}/bad.py:mine",))
    with pytest.raises(UserError, match="wanted an existing Python file"):
        _plan(methods=(f"{tmp_path}/absent.py:mine",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 0}, r"got tasks=0; wanted a finite number ≥ 1. Leave it out for 20"),
        ({"transition": "task-sampling"}, "'task-sampling' in one micro-step.*wanted at least 2"),
        ({"learning_rate": -1.0}, "got learning_rate=-1.0"),
        ({"methods": ()}, "got no methods"),
        ({"methods": ("adam", "adam")}, "wanted every name once"),
        ({"methods": ("adamoo",)}, "Did you mean 'adamo'"),
        ({"stream": "random-label"}, "Did you mean 'random-labels'"),
        ({"network": "mpl"}, "got the network 'mpl'; wanted one of .*Did you mean 'mlp'"),
        ({"batch_size": 101}, "got batch_size=101; wanted at most the 100 training examples"),
        ({"settings": ("adamo.foo=1",)}, "got the hyperparameter of 'adamo' 'foo'"),
        ({"settings": ("adamo.isometry_every=1.5",)}, "got adamo.isometry_every=1.5; wanted a whole number"),
        ({"settings": ("adamo.isometry_every=0",)}, "got every=0"),
        ({"settings": ("adamo.isometry_strength=-1",)}, "got isometry_strength=-1.0"),
        ({"settings": ("adamo.b1=fast",)}, "got adamo.b1=fast; wanted a finite number"),
        ({"settings": ("adamo",)}, "wanted NAME.OPTION=VALUE"),
        ({"settings": ("adam.b1=0.5",)}, "got the name 'adam'; wanted one of adamo, mlp, random-labels"),
        ({"settings": ("mlp.depth=3",)}, "got the option of 'mlp' 'depth'"),
        ({"settings": ("mlp.activation=rulu",)}, "Did you mean 'relu'"),
        ({"methods": ("adamo-maxmin",), "widths": (7,)}, "got width 7 with activation 'maxmin'"),
        ({"methods": ("redo",), "settings": ("mlp.activation=maxmin",)}, "got ReDo behind maxmin"),
        ({"settings": ("adamo.b1=nan",)}, "got adamo.b1=nan; wanted a finite number"),
        ({"settings": ("adamo.b1=1.0",)}, r"got b1=1.0; wanted a number in \[0, 0.999999\]"),
        ({"settings": ("adamo.isometry_every=3000000000",)}, "wanted a whole number below 2³¹"),
        ({"settings": ("adamo.isometry_strength=1e400",)}, "wanted a finite number"),
        ({"settings": ("mlp.gain=0",)}, "got gain=0.0"),
        ({"learning_rate": float("inf")}, "got learning_rate=inf"),
        ({"dataset": "mnits"}, "Did you mean 'mnist'"),
    ],
)
def test_errors(changes, message):
    with pytest.raises(UserError, match=message):
        _plan(**{"methods": ("adamo",)} | changes)


TEXTS = {"stream": "random-seq2seq", "network": "t5", "train_size": None, "widths": None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_steps": 4}, r"got micro_steps=4 with the transition 'abrupt'; wanted 1, or a gradual.*--transition"),
        ({"transition": "input-interpolation"}, "got input interpolation of random-labels.*keeps its inputs"),
        ({"transition": "output-interpolation", "stream": "permuted-pixels"}, "wanted a stream whose inputs stay"),
        ({"transition": "task-sampling", "stream": "warm-start"}, "wanted a stream whose tasks have equally many"),
        (
            {"transition": "output-interpolation", "micro_steps": 0},
            r"got micro_steps=0; wanted a number in \[1, 10000\]",
        ),
        (
            {"transition": "output-interpolation", "micro_steps": 20, "steps": 30},
            "got 20 micro-steps in 30 updates, 15 of them before the last micro-step; wanted at least one .*--budget",
        ),
        (
            {"transition": "output-interpolation", "micro_steps": 20, "epochs": 1},
            "got 20 micro-steps in 10 updates, 5 of them",
        ),
        ({"transition_share": 1.5}, r"got transition_share=1.5; wanted a number in \[0, 1\]. Use a fraction"),
        ({"rate_drops": (0.5, 1.5)}, r"got rate_drops=1.5; wanted a number in \[0, 1\]. Give fractions of a task"),
        ({"rate_drop_factor": -0.1}, "got rate_drop_factor=-0.1; wanted a finite number ≥ 0. Use a factor"),
        ({"steps": 0}, "got steps=0; wanted a finite number ≥ 1. Leave it out to count in epochs"),
        ({"augment": "crop-flip", "stream": "upgd-toy", "train_size": None}, r"got augment='crop-flip' for upgd-toy"),
        ({"headline": "test_accuracy"}, "got the headline of random-labels 'test_accuracy'; wanted one of online_acc"),
        (TEXTS | {"headline": "train_accuracy"}, "wanted one of online_token_accuracy, train_bleu, train_token_acc"),
        (TEXTS | {"dataset": "digits"}, "got a data set or its size for 'random-seq2seq', whose data are generated"),
        (TEXTS | {"train_size": 10}, "wanted none. Leave --dataset, --train-size and --test-size out.*source_words"),
        (TEXTS | {"test_size": 10}, "got a data set or its size for 'random-seq2seq'"),
        (TEXTS | {"widths": (8,)}, "got widths for the network 't5'; wanted a network with dense layers to size"),
        (TEXTS | {"network": "mlp"}, "got the network 'mlp' for random-seq2seq; wanted one of t5.*Add --network t5"),
        ({"network": "t5", "widths": None}, r"got the network 't5' for random-labels; wanted one of (?!.*\bt5\b).*mlp"),
        (TEXTS | {"augment": "crop-flip"}, r"got augment='crop-flip' for random-seq2seq with inputs of shape"),
        (
            TEXTS | {"head_at_switch": "zero"},
            r"got head_at_switch='zero' for the network 't5', whose head is tied; wanted .*t5.tie_embeddings=false",
        ),
        (TEXTS | {"settings": ("random-seq2seq.target_words=1",)}, "got target_words=1; wanted a finite number ≥ 2"),
        (TEXTS | {"settings": ("random-seq2seq.word_length=1.5",)}, "got random-seq2seq.word_length=1.5"),
        (TEXTS | {"settings": ("random-seq2seq.num_tasks=3",)}, "got the option of 'random-seq2seq' 'num_tasks'"),
        (TEXTS | {"batch_size": 9, "settings": ("random-seq2seq.num_examples=8",)}, "at most the 8 training examples"),
        ({"stream": "warm-start", "batch_size": 80}, r"got batch_size=80; wanted at most the \d\d training examples"),
    ],
)
def test_errors_of_streams_transitions_and_networks(changes, message):
    with pytest.raises(UserError, match=message):
        _plan(**{"methods": ("adam",), "tasks": 3, "epochs": 3} | changes)


def test_a_method_that_changes_what_the_network_does_not_have(tmp_path):
    (tmp_path / "own.py").write_text(OWN_METHOD.replace('name="mine"', 'name="mine", network={"norm": "layer"}'))
    methods = (f"{tmp_path}/own.py:mine",)
    assert _plan(methods=methods).methods[0].network_options["norm"] == "layer"
    with pytest.raises(UserError, match=r"got the method 'mine', which changes norm, with the network 't5'; .*width"):
        _plan(**TEXTS | {"methods": methods, "settings": ("random-seq2seq.num_examples=40",)})


def _made_in_python(**fields):
    """A configuration that nothing has checked, as a user without the tests' type checker makes it."""
    config = RunConfig(methods=("adam",), tasks=1)
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    return config


CHOICES = ("transition", "budget", "optimizer_at_switch", "head_at_switch", "augment", "standardize")
WHOLE = ("seeds", "tasks", "epochs", "batch_size", "probe_size", "micro_steps", "steps", "train_size", "test_size")


@pytest.mark.parametrize("field", CHOICES)
def test_unknown_choices_of_a_configuration_made_in_python(field):
    for value in ("keeep", None):
        with pytest.raises(UserError, match=rf"got the {field} '{value}'; wanted one of .*Leave it out for \w+"):
            make_plan(_made_in_python(**{field: value}))


@pytest.mark.parametrize("field", WHOLE)
@pytest.mark.parametrize("value", [2.5, 2.0, True, "2"])
def test_numbers_that_are_not_whole(field, value):
    with pytest.raises(UserError, match=rf"got {field}={value!r}; wanted a whole number. Leave it out for"):
        make_plan(_made_in_python(**{field: value}))


def test_whole_numbers_that_may_be_left_out():
    for field in ("steps", "train_size", "test_size"):
        make_plan(_made_in_python(**{field: None}))
    with pytest.raises(UserError, match=r"got seeds=None; wanted a whole number. Leave it out for 4"):
        make_plan(_made_in_python(seeds=None))


def test_a_tied_head_may_be_untied():
    small = ("t5.width=8", "t5.num_heads=1", "t5.head_width=8", "t5.mlp_width=8", "random-seq2seq.num_examples=40")
    plan = _plan(**TEXTS | {"head_at_switch": "fresh", "settings": (*small, "t5.tie_embeddings=false")})
    assert "head" in plan.methods[0].network.wiring.roles.values()


def test_the_plan_has_the_transition_and_the_headline():
    plan = _plan(transition="task-sampling", micro_steps=3, headline="online_accuracy", stream="label-shuffle")
    assert plan.record.headline == "online_accuracy"
    moments = plan.methods[0].source.feed([0], 1, 0, plan.methods[0].source.num_updates(1)).shared
    assert sorted(set(moments.tolist())) == [1, 2, 3]
    assert _plan().record.headline == "train_accuracy"


def test_a_network_without_biases_to_leave_out_takes_no_notice():
    plan = _plan(**TEXTS | {"methods": ("adam",), "use_bias": True, "settings": ("random-seq2seq.num_examples=40",)})
    assert "use_bias" not in plan.methods[0].network_options


def test_the_record_says_how_many_updates_and_examples_the_first_task_has():
    recorded = _plan(epochs=2).record.configuration["first_task"]
    assert recorded == {"num_train": 100, "num_test": 0, "num_updates": 20}


def test_grid():
    plan = _plan(methods=("adam", "adamo"), grid=("adamo.isometry_every=1,16", "adamo.b1=0,0.9,0.99"))
    assert plan.methods[0].points == ({},)
    assert plan.methods[0].labels == ("adam",)
    assert [tuple(point.values()) for point in plan.methods[1].points][:3] == [(1, 0.0), (1, 0.9), (1, 0.99)]
    assert plan.methods[1].labels[0] == "adamo[isometry_every=1,b1=0.0]"


def test_options_of_a_grid_that_vary_together():
    grid = ("adamo.learning_rate:isometry_every=1e-3:16,1e-4:1", "adamo.b1=0,0.9")
    points = _plan(methods=("adam", "adamo"), grid=grid).methods[1].points
    assert points == tuple(
        {"learning_rate": rate, "isometry_every": every, "b1": b1}
        for rate, every in ((1e-3, 16), (1e-4, 1))
        for b1 in (0.0, 0.9)
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            "b1:b2=0.9:0.9,0.8",
            r"got --grid adamo\.b1:b2=0\.8; wanted 2 values with colons between\.",
        ),
        ("b1:b2=0.9:0.9,0.9:0.9", r"wanted every value once"),
        ("b1:b1=0.9:0.8", r"got --grid with b1 twice for adamo; wanted each once"),
        ("b1:rectangular=0.9:fan", r"got --grid adamo\.rectangular, which shapes the compiled program"),
        ("adamo.isometry_strength", r"got --grid adamo\.isometry_strength; wanted METHOD\.OPTION=VALUE,VALUE,…"),
        ("redo.every=1,2", r"got the method 'redo'; wanted one of adamo"),
        ("adamo.strenth=1,2", r"got the hyperparameter of 'adamo' 'strenth'"),
        ("adamo.isometry_strength=1,x", r"got adamo\.isometry_strength=x; wanted a finite number"),
        ("adamo.isometry_strength=1,-1", r"got isometry_strength=-1\.0; wanted a finite number ≥ 0"),
        ("adamo.isometry_strength=1,1.0", r"wanted every value once"),
        ("adamo.rectangular=none,fan", r"got --grid adamo\.rectangular, which shapes the compiled program"),
        ("learning_rate=nan", r"got adamo\.learning_rate=nan; wanted a finite number\. The default is 0\.001\."),
    ],
)
def test_grid_refused(entry, message):
    with pytest.raises(UserError, match=message):
        _plan(methods=("adamo",), grid=(entry,))


def test_methods_that_do_not_fit_are_left_out():
    config = RunConfig(
        methods=("adam", "adamo-maxmin", "redo"), train_size=100, widths=(9,), batch_size=10, settings=("redo.every=5",)
    )
    fits, reasons = plan_suited(config)
    assert fits.protocol.methods == ("adam", "redo")
    assert list(reasons) == ["adamo-maxmin"]
    assert "wanted widths that are multiples of 2" in reasons["adamo-maxmin"]
    with pytest.raises(UserError, match="batch_size=0"):
        plan_suited(dataclasses.replace(config, batch_size=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {},
            r"got the data folder .* for 'digits', which are embedded; wanted a data set that is read.*--dataset NAME",
        ),
        ({"stream": "upgd-toy", "train_size": None, "epochs": 1}, r"for 'upgd-toy', whose data are generated; wanted"),
        ({"dataset": ""}, "got the data set ''; wanted a name"),
    ],
)
def test_a_folder_that_nothing_is_read_from(tmp_path, changes, message):
    config = RunConfig(**{"train_size": 100, "widths": (8,), "batch_size": 10} | changes)
    with pytest.raises(UserError, match=message):
        make_plan(config, str(tmp_path))
    with pytest.raises(UserError, match=message):
        plan_suited(config, str(tmp_path))


def test_data_of_ones_own_are_recorded_under_their_name_with_their_classes(tmp_path):
    write_both(tmp_path, labels=["cat", "owl"] * 4)
    config = RunConfig(dataset="pets", methods=("adam",), widths=(8,), batch_size=4, tasks=1, epochs=1, probe_size=4)
    recorded = make_plan(config, str(tmp_path)).record.configuration["stream"]
    assert (recorded["dataset"], recorded["classes"], recorded["chance"]) == ("pets", ["cat", "owl"], 0.5)
    write_both(tmp_path, labels=[0, 1] * 4)
    assert "classes" not in make_plan(config, str(tmp_path)).record.configuration["stream"]


def test_data_are_read_once_for_all_methods(tmp_path, monkeypatch):
    write_both(tmp_path)
    read = []

    def counted(*args, **options):
        read.append(1)
        return load_dataset(*args, **options)

    monkeypatch.setattr("pliant.supervised._plan.load_dataset", counted)
    config = RunConfig(dataset="mine", methods=("adam", "sgd"), widths=(8,), batch_size=4, tasks=1, epochs=1)
    assert plan_suited(config, str(tmp_path))[0].protocol.methods == ("adam", "sgd")
    assert read == [1]


def test_a_grid_for_all_methods():
    """What one method is given wins."""
    plan = _plan(methods=("adam", "adamo"), grid=("learning_rate=1e-4,1e-3", "adamo.learning_rate=0.01"))
    assert [method.points for method in plan.methods] == [
        ({"learning_rate": 1e-4}, {"learning_rate": 1e-3}),
        ({"learning_rate": 0.01},),
    ]
    config = RunConfig(methods=("adam", "sgd"), train_size=100, widths=(8,), batch_size=10, grid=("b1=0.8,0.9",))
    with pytest.raises(UserError, match="got the hyperparameter of 'sgd' 'b1'"):
        make_plan(config)
    fitted, reasons = plan_suited(config)
    assert fitted.protocol.methods == ("adam",)
    assert list(reasons) == ["sgd"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": 2.5}, "got tasks=2.5; wanted a whole number. Leave it out for 20."),
        ({"seeds": True}, "got seeds=True; wanted a whole number"),
        ({"seeds": "3"}, "got seeds='3'; wanted a whole number"),
        ({"epochs": -1}, "got epochs=-1"),
        ({"batch_size": None}, "got batch_size=None; wanted a whole number"),
        ({"learning_rate": "fast"}, "got learning_rate='fast'; wanted a number"),
        ({"learning_rate": True}, "got learning_rate=True; wanted a number"),
        ({"learning_rate": float("nan")}, "got learning_rate=nan; wanted a finite number"),
        ({"methods": "adam"}, "got methods='adam'; wanted a list of texts"),
        ({"methods": (1,)}, r"got methods=\(1,\); wanted a list of texts"),
        ({"widths": 8}, "got widths=8; wanted a list of whole numbers"),
        ({"widths": (8.5,)}, r"got widths=\(8.5,\); wanted a list of whole numbers"),
        ({"widths": (0,)}, "got a layer of width 0"),
        ({"rate_drops": 0.3}, "got rate_drops=0.3; wanted a list of numbers"),
        ({"use_bias": 1}, "got use_bias=1; wanted True or False"),
        ({"dataset": 3}, "got dataset=3; wanted a text"),
        ({"network": None}, "got network=None; wanted a text"),
        ({"diagnose_after": (1.5,)}, "wanted a list of whole numbers"),
        ({"grid": ("=1",)}, r"got --grid =1; wanted METHOD.OPTION=VALUE,VALUE,… or OPTION"),
        ({"grid": (".b1=1",)}, r"got --grid .b1=1; wanted METHOD.OPTION=VALUE,VALUE,… or OPTION"),
        ({"grid": ("redo.every=1,2",)}, "got the method 'redo'; wanted one of adamo"),
    ],
)
def test_choices_of_another_kind(changes, message):
    with pytest.raises(UserError, match=message):
        make_plan(_unchecked(**{"methods": ("adamo",)} | changes))


def _unchecked(**choices):
    """Past the strict types of this suite, which users do not have."""
    config = RunConfig(train_size=100, widths=(8,), batch_size=10)
    for name, value in choices.items():
        object.__setattr__(config, name, value)
    config.__post_init__()
    return config


def test_numbers_of_numpy_and_lists_are_taken():
    config = _unchecked(seeds=np.int64(2), learning_rate=np.float32(0.5), widths=[np.int32(8), 8], methods=["adam"])
    assert (config.seeds, config.learning_rate, config.widths, config.methods) == (2, 0.5, (8, 8), ("adam",))
    assert [type(value) for value in (config.seeds, config.learning_rate, *config.widths)] == [int, float, int, int]


def test_a_users_own_method_in_his_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.py").write_text(OWN_METHOD)
    at_home, whole = (_plan(methods=(f"{place}/own.py:mine",)).methods[0].configuration for place in ("~", tmp_path))
    assert at_home["source_sha256"] == whole["source_sha256"]
    (tmp_path / "own.py").write_text("1 / 0")
    with pytest.raises(UserError, match=rf"got ZeroDivisionError in '{tmp_path}/own.py', line 1"):
        _plan(methods=("~/own.py:mine",))


def test_penalties_that_do_not_suit_the_outputs_are_refused_before_training():
    config = RunConfig(stream="slowly-changing-regression", methods=("adam", "reset-distill", "c-chain"))
    plan, reasons = plan_suited(config)
    assert [method.method.name for method in plan.methods] == ["adam", "c-chain"]
    assert "distance='kl' between outputs of size 1" in reasons["reset-distill"]
