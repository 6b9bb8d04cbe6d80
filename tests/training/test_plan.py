import json

import pytest

from pliant.errors import UserError
from pliant.training import RunConfig, fingerprint, make_plan, record

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
    "positional": ("def f(wiring, learning_rate): ...", "got TypeError in .*missing 1 required positional"),
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
    assert plan.stream.dataset == "digits"
    assert plan.methods[0].network_options["widths"] == (128,) * 4


def test_settings_reach_methods_stream_and_network():
    plan = _plan(
        methods=("adamo", "redo"),
        settings=("adamo.isometry_strength=0.03", "redo.num_examples=8", "random-labels.labels=iid", "mlp.norm=layer"),
    )
    adamo, redo = plan.methods
    assert adamo.traced["isometry_strength"] == 0.03
    assert redo.static == {"num_examples": 8}
    assert plan.stream_options == {"labels": "iid"}
    assert adamo.network_options["norm"] == "layer"
    assert "norm_0" in adamo.network.init(_key())[0]


def _key():
    import jax

    return jax.random.key(0)


def test_methods_change_the_network():
    plan = _plan(methods=("adam", "adamo-maxmin"))
    assert [item.network_options["activation"] for item in plan.methods] == ["relu", "maxmin"]


def test_the_record_is_whole_and_json():
    recorded = record(_plan(methods=("adamo",)))
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["methods"]["adamo"]["hyperparameters"]["isometry_every"] == 16
    assert recorded["config"]["widths"] == [8]
    assert recorded["config"]["optimizer_at_switch"] == "keep"


@pytest.mark.parametrize(
    "change",
    [{"seeds": 3}, {"settings": ("adam.b1=0.8",)}, {"settings": ("mlp.norm=layer",)}, {"learning_rate": 0.1}],
)
def test_every_change_changes_the_id(change):
    base = {"methods": ("adam",)}
    assert fingerprint(record(_plan(**base))) == fingerprint(record(_plan(**base)))
    assert fingerprint(record(_plan(**base))) != fingerprint(record(_plan(**base | change)))


def test_a_users_own_method(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_METHOD)
    source = f"{file}:mine"
    plan = _plan(methods=(source,), settings=("mine.momentum=0.9",))
    assert plan.methods[0].traced == {"learning_rate": 1e-3, "momentum": 0.9}
    before = fingerprint(record(plan))
    file.write_text(OWN_METHOD + "\n# edited\n")
    assert fingerprint(record(_plan(methods=(source,), settings=("mine.momentum=0.9",)))) != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not_a_method", r"which is int; wanted a pliant.types.Method; the file has mine"),
        ("absent", r"which is NoneType"),
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


def test_other_data_of_the_same_name_are_another_run(tmp_path):
    plan = _plan(methods=("adam",))
    flipped = plan.stream._replace(data=plan.stream.data._replace(mean=plan.stream.data.mean + 1))
    assert fingerprint(record(plan)) != fingerprint(record(plan._replace(stream=flipped)))


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
        ({"learning_rate": -1.0}, "got learning_rate=-1.0"),
        ({"methods": ()}, "got no methods"),
        ({"methods": ("adam", "adam")}, "wanted every name once"),
        ({"methods": ("adamoo",)}, "Did you mean 'adamo'"),
        ({"stream": "random-label"}, "Did you mean 'random-labels'"),
        ({"network": "cnn"}, "got the network 'cnn'; wanted one of mlp"),
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
