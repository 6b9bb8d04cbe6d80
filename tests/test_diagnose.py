import dataclasses
import io

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from rich.console import Console

import pliant
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.types import Diagnostic, Head, HiddenLayer, Measured, Wiring

X = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
Y = np.arange(40) % 3
QUICK = ("dormant", "effective-rank", "isometry-deviation", "weight-norm")


def quiet(*arguments, **options):
    """The numbers and the report."""
    console = Console(file=io.StringIO(), width=160)
    found = pliant.diagnose(*arguments, console=console, **options)
    return found, console.file.getvalue()


def plain(params, x):
    hidden = jax.nn.relu(x @ params["one"])
    return hidden @ params["two"], {"hidden": hidden}


PARAMS = {"one": jnp.eye(6, 4).at[:, 0].set(0.0), "two": jnp.ones((4, 3))}


def test_numbers_are_those_of_the_functions():
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=QUICK)
    hidden = np.maximum(X @ np.asarray(PARAMS["one"]), 0)
    assert found.numbers["dormant_fraction"] == 0.25
    assert found.numbers["effective_rank"] == pytest.approx(pliant.diagnostics.effective_rank(hidden), rel=1e-5)
    assert found.numbers["weight_norm"] == pytest.approx(np.sqrt(3 + 12), rel=1e-6)
    assert "fraction of hidden units with almost no activation" in report
    assert "0.25" in report


def test_which_kernels_are_hidden_is_found_as_the_wiring_of_our_networks_says_it():
    network = mlp((6,), 3, widths=(8, 8))
    params, state = network.init(jax.random.key(0))

    def apply(params, x):
        return network.apply(params, state, x, train=False, key=None)[:2]

    with_wiring, _ = quiet(apply, params, X, Y, network.wiring, diagnostics=["isometry-deviation"])
    without, _ = quiet(apply, params, X, Y, diagnostics=["isometry-deviation"])
    assert with_wiring.numbers["isometry_deviation"] == pytest.approx(1.0, abs=1e-4)  # orthogonal, gain √2
    assert without.numbers == with_wiring.numbers


def test_flax_and_equinox_and_functions_agree():
    class Linen(flax.linen.Module):
        @flax.linen.compact
        def __call__(self, x):
            hidden = flax.linen.relu(flax.linen.Dense(4, use_bias=False, name="one")(x))
            return flax.linen.Dense(3, use_bias=False, name="two")(hidden), {"hidden": hidden}

    linen = {"params": {name: {"kernel": PARAMS[name]} for name in PARAMS}}
    model = eqx.nn.MLP(6, 3, 4, 1, use_bias=False, use_final_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: [layer.weight for layer in m.layers], model, [PARAMS["one"].T, PARAMS["two"].T])
    arrays, rest = eqx.partition(model, eqx.is_array)

    def equinox(arrays, x):
        model = eqx.combine(arrays, rest)

        def one(x):
            hidden = jax.nn.relu(model.layers[0](x))
            return model.layers[1](hidden), {"hidden": hidden}

        return jax.vmap(one)(x)

    results = []
    for apply, params in [(plain, PARAMS), (Linen().apply, linen), (equinox, arrays)]:
        numbers = quiet(apply, params, X, Y, diagnostics=QUICK)[0].numbers
        results.append({metric: value for metric, value in numbers.items() if "/" not in metric})
    for other in results[1:]:
        assert other == pytest.approx(results[0], rel=1e-5)


def _loss(subject):
    output, _, _ = subject.network.apply(subject.params, {}, subject.probe.inputs, train=False, key=None)
    return subject.losses(output, subject.probe.targets)


def _number(name):
    return lambda value: Measured({name: float(np.mean(value))}, {"all": np.asarray(value)})


LOSS = Diagnostic("loss", "the loss", "cheap", _loss, _number("mean_loss"))
EXTRA = (
    LOSS,
    Diagnostic("last", "", "cheap", lambda s: s.previous[0]["two"].sum(), _number("last_sum"), ("previous",)),
    Diagnostic("first", "", "cheap", lambda s: s.initial[0]["two"].sum(), _number("first_sum"), ("initial",)),
    Diagnostic("draws", "", "rare", lambda s: s.network.init(s.key)[0]["two"].sum(), _number("drawn"), ("rule",)),
    Diagnostic("follows", "", "cheap", follow=lambda *_: {}),
)
"""They require what a bare function does not have, or say what the loss is."""


def test_losses():
    logits = np.maximum(X @ np.asarray(PARAMS["one"]), 0) @ np.ones((4, 3))
    found, _ = quiet(plain, PARAMS, X, Y, diagnostics=[LOSS])
    assert found.numbers["mean_loss"] == pytest.approx(np.log(3.0), rel=1e-5)  # all outputs are alike
    assert found.arrays["loss/all"].shape == (40,)
    values = logits + 2.0
    assert quiet(plain, PARAMS, X, values, diagnostics=[LOSS])[0].numbers["mean_loss"] == pytest.approx(4.0, rel=1e-5)
    own = quiet(plain, PARAMS, X, diagnostics=[LOSS])[0].numbers["mean_loss"]
    assert own == pytest.approx(logits.var(), rel=0.5)  # noise as large as the outputs' deviation
    single = quiet(lambda p, x: plain(p, x)[0][:, :1], PARAMS, X, values[:, 0], diagnostics=[LOSS])[0]
    assert single.numbers["mean_loss"] == pytest.approx(4.0, rel=1e-5)


def test_what_is_not_given_is_not_measured_and_said():
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=EXTRA)
    assert set(found.numbers) == {"mean_loss"}
    words = " ".join(report.replace("│", " ").split())
    for wanted in ("give previous=", "give initial=", "give optimizer=", "measured by `pliant run`"):
        assert wanted in words
    given = {"previous": PARAMS, "initial": PARAMS, "optimizer": optax.sgd(0.1)}
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=EXTRA, **given)
    assert found.numbers["last_sum"] == found.numbers["first_sum"] == 12.0
    assert "drawn" not in found.numbers
    assert "no initialiser" in report
    found, _ = quiet(plain, PARAMS, X, Y, diagnostics=EXTRA, init=lambda key: PARAMS, **given)
    assert found.numbers["drawn"] == 12.0


def test_rare_diagnostics_want_to_be_asked_for():
    found, report = quiet(plain, PARAMS, X, Y)
    assert not {each.name for each in DIAGNOSTICS.values() if each.cost == "rare"} & set(report.split())
    assert {"dormant_fraction", "weight_norm"} <= set(found.numbers)


def test_a_diagnostic_of_a_users_file(tmp_path):
    (tmp_path / "own.py").write_text(
        "from pliant.types import Diagnostic, Measured\n"
        "def summarize(total): return Measured({'sum': float(total)})\n"
        "MINE = Diagnostic('mine', '', 'cheap', lambda subject: subject.params['two'].sum(), summarize)\n"
    )
    found, _ = quiet(plain, PARAMS, X, Y, diagnostics=[f"{tmp_path}/own.py:MINE,dormant"])
    assert found.numbers["sum"] == 12.0
    assert "dormant_fraction" in found.numbers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((plain, PARAMS, X[:0], Y[:0]), r"got x of shape \(0, 6\); wanted at least one example"),
        ((plain, PARAMS, X, Y[:7]), r"got y of shape \(7,\); wanted one class for each example, \(40,\)"),
        ((plain, PARAMS, X, np.stack([Y, Y], axis=1)), r"got y of shape \(40, 2\); wanted one class for each example"),
        ((plain, PARAMS, X, Y + 5), r"got classes 5 to 7; wanted 0 to 2, for 3 outputs"),
        ((plain, PARAMS, X, X[:, 0]), r"got y of shape \(40,\); wanted values \(40, 3\)"),
        ((plain, PARAMS, X[0], None), r"got an output of shape \(3,\) for 6 examples; wanted \(batch, out\)"),
        (
            (plain, PARAMS, {"a": X, "b": X[:3]}, Y),
            r"got x of shape \(40, 6\) and \(3, 6\); wanted at least one example",
        ),
        ((plain, PARAMS, ["word"], Y), r"got x that is no array: .*; wanted \(batch, …\)"),
        ((plain, PARAMS, X, Y.astype(str)), r"got y of <U.*; wanted numbers"),
        ((plain, {"one": PARAMS["one"]}, X, Y), r"got an `apply` that fails: KeyError: 'two'; wanted one that takes"),
        ((lambda p, x: (plain(p, x)[0],) * 2, PARAMS, X, Y), r"got tuple \(0, 1\) from `apply`; wanted one output"),
        ((lambda p, x: {"a": x, "b": x}, PARAMS, X, Y), r"got dict \(a, b\) from `apply`; wanted one output"),
        ((lambda p, x: (x, {"h": x}, {}), PARAMS, X, Y), r"got tuple \(0, 1, 2\) from `apply`"),
        ((lambda p, x: x.argmax(1)[:, None], PARAMS, X, Y), r"got an output of int32; wanted floating-point numbers"),
        ((lambda p, x: None, PARAMS, X, Y), r"got NoneType from `apply`; wanted one output"),
        ((lambda p, x: x.sum(), PARAMS, X, Y), r"got an output of shape \(\) for 40 examples; wanted \(batch, out\)"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        quiet(*arguments, diagnostics=QUICK)


def test_parameters_of_another_network_are_refused():
    with pytest.raises(UserError, match=r"got previous= of another structure or other shapes"):
        quiet(plain, PARAMS, X, Y, previous={"one": PARAMS["one"]})


def test_layers_are_in_the_order_in_which_they_are_returned():
    """JAX sorts the names of dictionaries; the last layer is the one that the output reads."""

    def apply(params, x):
        first = jax.nn.relu(x @ params["one"])
        second = first[:, :1]
        return second @ jnp.ones((1, 3)), {"z": first, "a": second}

    found, _ = quiet(apply, PARAMS, X, Y, diagnostics=["effective-rank"])
    assert found.numbers["effective_rank"] in (0.0, pytest.approx(1.0))


def test_without_features_there_is_no_rank_of_them():
    found, report = quiet(lambda p, x: plain(p, x)[0], PARAMS, X, Y, diagnostics=["effective-rank", "weight-norm"])
    assert "effective_rank" not in found.numbers
    assert "wanted those that the output layer reads" in " ".join(report.replace("│", " ").split())


def test_nothing_to_measure_is_refused():
    with pytest.raises(UserError, match=r"got nothing that can be measured \(last: needs the parameters"):
        quiet(plain, PARAMS, X, Y, diagnostics=[EXTRA[1]])


WIDE = {"z": np.eye(6, 8, dtype=np.float32), "m": np.eye(8, 4, dtype=np.float32), "a": np.ones((4, 3), np.float32)}
WIDE["z"][:, 2:] = 0.0  # six of eight units are silent, and so two of the four that read them


def two_layers(params, x):
    """Names in an order that is not that of the layers."""
    first = jax.nn.relu(x @ params["z"])
    second = jax.nn.relu(first @ params["m"])
    return second @ params["a"], {"y": first, "b": second}


def by_layer(found, metric):
    return {name.partition("/")[2]: value for name, value in found.numbers.items() if name.startswith(f"{metric}/")}


def test_layers_are_those_of_the_program_in_its_order():
    found, _ = quiet(two_layers, WIDE, X, Y, diagnostics=["dormant", "effective-rank", "jacobian"])
    second = np.maximum(np.maximum(X @ WIDE["z"], 0) @ WIDE["m"], 0)
    assert by_layer(found, "dormant_fraction") == {"y": 0.75, "b": 0.5}
    assert found.numbers["effective_rank"] == pytest.approx(pliant.diagnostics.effective_rank(second), rel=1e-5)
    first = np.mean([np.sqrt(row.sum() / 6) for row in (X @ WIDE["z"] > 0)])
    assert by_layer(found, "jacobian_sigma_rms")["y"] == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint])
def test_compiled_and_checkpointed_networks_are_looked_into(wrap):
    def copied(params, x):
        output, features = wrap(two_layers)(params, x)
        return output, {"y": features["y"].T, "b": jax.lax.stop_gradient(features["b"].astype(jnp.bfloat16))}

    names = ["dormant", "jacobian", "grama"]
    wanted, found = (quiet(apply, WIDE, X, Y, diagnostics=names)[0].numbers for apply in (two_layers, copied))
    assert found == pytest.approx(wanted, rel=1e-2)


def test_layers_in_a_loop_are_seen_but_not_differentiated():
    params = {
        "w": np.stack([np.eye(6), 0 * np.eye(6), np.eye(6)]).astype(np.float32),
        "head": np.ones((6, 3), np.float32),
    }

    def apply(params, x):
        last, layers = jax.lax.scan(lambda h, w: (jnp.maximum(h @ w, 0.1),) * 2, x, params["w"])
        return last @ params["head"], {"h": layers}

    found, report = quiet(apply, params, X, Y, diagnostics=["dormant", "effective-rank", "jacobian", "weight-spectra"])
    assert set(by_layer(found, "dormant_fraction")) == {"h/0", "h/1", "h/2"}
    assert found.numbers["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    assert np.isnan(found.numbers["jacobian_sigma_rms/h/1"])
    assert np.isnan(found.numbers["jacobian_sigma_rms"])
    words = " ".join(report.replace("│", " ").split())
    for wanted in ("jacobian/h/1 not measured: got the feature 'h/0'", "w not measured: holds several kernels"):
        assert wanted in words


def test_derivatives_of_ones_own_are_not_replaced():
    network = jax.custom_vjp(lambda params, x: two_layers(params, x))
    network.defvjp(
        lambda params, x: (two_layers(params, x), params), lambda params, g: (params, g[0] @ jnp.ones((3, 6)))
    )
    found, report = quiet(network, WIDE, X, Y, diagnostics=["dormant", "jacobian"])
    assert by_layer(found, "dormant_fraction") == {"y": 0.75, "b": 0.5}
    assert np.isnan(found.numbers["jacobian_sigma_rms/b"])
    assert "read within a loop, a branch or a function" in " ".join(report.replace("│", " ").split())


def test_heads_and_critics_are_no_hidden_layers():
    def apply(params, x):
        logits, features = two_layers(params, x)
        critic = jax.nn.relu(x @ params["z"] + 1)
        value = critic @ params["m"][:, 0]
        return logits, {"value": value, "logits": logits, "critic": critic, **features}

    found, report = quiet(apply, WIDE, X, Y, diagnostics=["dormant"])
    assert by_layer(found, "dormant_fraction") == {"y": 0.75, "b": 0.5}
    words = " ".join(report.replace("│", " ").split())
    for wanted in ("value not measured: no hidden layer", "critic not measured: no hidden layer", "the output itself"):
        assert wanted in words


class Images(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear
    scale: int = 2
    activation: object = jax.nn.relu
    table: jax.Array = eqx.field(default_factory=lambda: jnp.arange(3))
    nothing: None = None

    def __call__(self, x):
        hidden = self.activation(self.conv(x))
        return self.head(hidden.mean(axis=(1, 2))), {"hidden": hidden}


def test_channels_first_are_found():
    """An orthonormal convolution, as 8 × 36, of which a quarter of the units is shut by their bias."""
    conv, head = eqx.nn.Conv2d(4, 8, 3, key=jax.random.key(0)), eqx.nn.Linear(8, 3, key=jax.random.key(1))
    kernel = np.linalg.qr(np.random.default_rng(0).standard_normal((36, 8)))[0].T.reshape(8, 4, 3, 3)
    bias = np.where(np.arange(8) < 2, -99.0, 1.0).reshape(8, 1, 1)
    conv = eqx.tree_at(lambda c: (c.weight, c.bias), conv, (jnp.asarray(kernel, jnp.float32), jnp.asarray(bias)))
    model = Images(conv, head)
    x = np.random.default_rng(1).standard_normal((10, 4, 6, 6)).astype(np.float32)
    names = ["dormant", "dead", "effective-rank", "isometry-deviation", "weight-spectra", "weight-norm", "grama"]
    found, report = quiet(lambda model, x: jax.vmap(model)(x), model, x, np.arange(10) % 3, diagnostics=names)
    assert found.numbers["dormant_fraction"] == found.numbers["dead_fraction"] == 0.25
    assert found.numbers["zero_gradient_fraction"] == 0.25
    assert found.numbers["weight_sigma_max"] == pytest.approx(1.0, rel=1e-5)
    assert found.numbers["isometry_deviation"] == pytest.approx(0.0, abs=1e-6)
    assert 1 < found.numbers["effective_rank"] < 7
    assert set(by_layer(found, "weight_sigma_max")) == {"conv/weight", "head/weight"}
    assert "integers, keys and running statistics: table" in " ".join(report.replace("│", " ").split())


def test_flax_with_keys_and_counts_among_its_leaves():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.one, self.two = nnx.Linear(6, 4, rngs=rngs), nnx.Linear(4, 3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            hidden = nnx.relu(self.one(x))
            return self.two(self.dropout(hidden)), nnx.state({"hidden": nnx.Intermediate(hidden)})

    model = Model(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    names = [*QUICK, "gradient-norm", "distance-from-init", "representation-change", "gradient-cosine"]
    found, _ = quiet(lambda s, x: nnx.merge(graph, s)(x), state, X, Y, diagnostics=names, initial=state, previous=state)
    assert found.numbers["distance_from_init"] == 0.0
    assert found.numbers["representation_change"] == pytest.approx(0.0, abs=1e-6)
    assert found.numbers["weight_norm"] > 0
    assert found.numbers["probe_gradient_norm"] > 0
    assert "gradient_cosine_mean" in found.numbers


def test_a_network_that_cannot_be_traced_is_observed():
    def apply(params, x):
        hidden = np.maximum(np.asarray(x) @ np.asarray(params["one"]), 0)
        return hidden @ np.asarray(params["two"]) * (1.0 if hidden.sum().item() > 0 else 2.0), {"hidden": hidden}

    names = [*QUICK, "dead", "srank", "gradient-norm", "jacobian", "ntk"]
    found, report = quiet(apply, PARAMS, X, Y, diagnostics=names)
    wanted, _ = quiet(plain, PARAMS, X, Y, diagnostics=["dormant", "dead", "effective-rank", "srank"])
    for metric, value in wanted.numbers.items():
        assert found.numbers[metric] == pytest.approx(value, rel=1e-5)
    assert "probe_gradient_norm" not in found.numbers
    words = " ".join(report.replace("│", " ").split())
    assert "not measured: TracerArrayConversionError" in words
    assert "cannot be traced, so that layers are taken as they are returned" in words


def test_a_diagnostic_that_fails_takes_no_other_with_it():
    def fails(*_):
        raise np.linalg.LinAlgError("SVD did not\nconverge")

    def fails_compiled(subject):
        return jax.pure_callback(fails, jax.ShapeDtypeStruct((), jnp.float32), subject.params["two"])

    failing = [
        Diagnostic("traces", "", "cheap", fails, lambda _: Measured({"a": 1.0})),
        Diagnostic("runs", "", "cheap", fails_compiled, lambda _: Measured({"b": 1.0})),
        Diagnostic("reads", "", "cheap", lambda s: s.params["two"].sum(), fails),
    ]
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=[LOSS, *failing, "dormant"])
    assert {"mean_loss", "dormant_fraction"} <= set(found.numbers)
    assert not {"a", "b"} & set(found.numbers)
    words = " ".join(report.replace("│", " ").split())
    for name, why in [("traces", "LinAlgError: SVD did not"), ("reads", "LinAlgError: SVD did not"), ("runs", "")]:
        assert f"not measured: {why}" in words[words.index(f" {name} ") :][:80]


def test_frozen_parameters_count_in_no_metric():
    def apply(params, x):
        hidden = jax.nn.relu(x @ jax.lax.stop_gradient(params["one"]))
        return hidden @ params["two"], {"hidden": hidden}

    names = ["weight-norm", "weight-spectra", "gradient-norm", "ntk", "isometry-deviation", "distance-from-init"]
    found, report = quiet(apply, PARAMS, X, Y, diagnostics=names, initial=PARAMS)
    assert found.numbers["weight_norm"] == pytest.approx(np.sqrt(12))
    assert {name.partition("/")[2] for name in found.numbers if "/" in name} == {"two"}
    assert "frozen not measured, since not trained: one" in " ".join(report.replace("│", " ").split())
    given = Wiring((), {"one": "matrix", "two": "head"}, frozen=frozenset({"two"}))
    found, _ = quiet(plain, PARAMS, X, Y, given, diagnostics=["weight-norm", "gradient-norm"])
    assert {name.partition("/")[2] for name in found.numbers if "/" in name} == {"one"}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_summed_in_float32(dtype):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), WIDE)
    params["m"] = 0 * params["m"]  # a silent layer, whose scores would be 0/0
    names = ["dormant", "effective-rank", "gradient-norm", "hessian-top", "jacobian"]
    found, _ = quiet(two_layers, params, jnp.asarray(X, dtype), Y, diagnostics=names)
    assert by_layer(found, "dormant_fraction") == {"y": 0.75, "b": 1.0}
    assert np.isfinite(found.numbers["hessian_top"])


@pytest.mark.parametrize(
    ("returned", "note"),
    [
        (lambda output, features: (output, features), ""),
        (lambda output, features: {"output": output, "features": features}, ""),
        (lambda output, features: ({"logits": output}, [*features.values(), None]), ""),
        (lambda output, features: (flax.core.FrozenDict({"logits": output, "value": output[:, 0]}), features), "value"),
        (lambda output, features: [output, (features, {"deep": {}})], ""),
        (lambda output, features: (Logits(output, None, output), Logits(features, None, None)), "hidden"),
    ],
)
def test_what_apply_may_return(returned, note):
    found, report = quiet(lambda p, x: returned(*two_layers(p, x)), WIDE, X, Y, diagnostics=["dormant"])
    assert sorted(by_layer(found, "dormant_fraction").values()) == [0.5, 0.75]
    assert (f"not looked at beside it: {note}" in " ".join(report.replace("│", " ").split())) == bool(note)


@dataclasses.dataclass
class Logits:
    """As of Hugging Face; no pytree."""

    logits: object
    loss: object
    hidden: object


TOKENS = np.arange(120).reshape(40, 3) % 7


def embedded(params, x):
    output, features = two_layers(params, params["table"][x])
    return output.mean(axis=1), features


def test_tokens():
    params = {"table": np.random.default_rng(0).standard_normal((7, 6)).astype(np.float32), **WIDE}
    names = ["dormant", "effective-rank", "gradient-norm", "jacobian", "ntk", "isometry-deviation", "weight-spectra"]
    found, report = quiet(embedded, params, TOKENS.astype(np.uint8), Y, diagnostics=names)
    assert by_layer(found, "dormant_fraction") == {"y": 0.75, "b": 0.5}
    assert {"probe_gradient_norm", "ntk_trace"} <= set(found.numbers)
    assert set(by_layer(found, "weight_sigma_max")) == {"z", "m", "a"}  # rows of a table are no kernel
    assert "not measured: got inputs of uint8" in " ".join(report.replace("│", " ").split())


@pytest.mark.parametrize(
    "y",
    [
        list(Y),
        Y.astype(np.uint8),
        np.eye(3, dtype=int)[Y].tolist(),
        jnp.asarray(Y, jnp.int32),
        Y[:, None],
    ],
)
def test_targets(y):
    found, _ = quiet(plain, PARAMS, X, y, diagnostics=[LOSS])
    assert found.numbers["mean_loss"] == pytest.approx(np.log(3.0), rel=1e-5)


def test_floating_point_rows_are_values_though_they_are_one_hot():
    found, _ = quiet(plain, PARAMS, X, np.eye(3)[Y], diagnostics=[LOSS])
    expected = np.square(np.asarray(plain(PARAMS, X)[0]) - np.eye(3)[Y]).mean()
    assert found.numbers["mean_loss"] == pytest.approx(expected, rel=1e-5)


def test_targets_of_every_position():
    def apply(params, x):
        return embedded(params, x)[0][:, None] * jnp.ones((1, 3, 1)), {}

    params = {"table": np.zeros((7, 6), np.float32), **WIDE}
    found, _ = quiet(apply, params, TOKENS, TOKENS % 3, diagnostics=[LOSS, "gradient-norm"])
    assert found.numbers["mean_loss"] == pytest.approx(np.log(3.0), rel=1e-5)


def test_several_arrays_of_inputs():
    def apply(params, x):
        return plain(params, x["a"] + x["b"])

    found, report = quiet(
        apply, PARAMS, {"b": X, "a": X.tolist()}, Y, diagnostics=[*QUICK, "gradient-norm", "jacobian"]
    )
    assert found.numbers["dormant_fraction"] == 0.25
    assert "inputs of several arrays" in " ".join(report.replace("│", " ").split())


def test_one_value_for_each_example_and_one_example():
    found, _ = quiet(lambda p, x: plain(p, x)[0].sum(axis=1), PARAMS, X[:1], X[:1, 0], diagnostics=[LOSS, "ntk"])
    assert {"mean_loss", "ntk_trace"} <= set(found.numbers)


def test_empty_kernels_are_left_out():
    params = {**PARAMS, "none": np.zeros((4, 0), np.float32)}

    def apply(params, x):
        output, features = plain(params, x)
        return output + (features["hidden"] @ params["none"]).sum(), features

    found, _ = quiet(apply, params, X, Y, diagnostics=["isometry-deviation", "weight-spectra", "weight-norm"])
    wanted, _ = quiet(plain, PARAMS, X, Y, diagnostics=["isometry-deviation", "weight-spectra"])
    assert {metric: found.numbers[metric] for metric in wanted.numbers} == pytest.approx(wanted.numbers)


def test_a_wiring_says_where_units_and_outputs_are():
    """Attention's kernels (in, heads, size), and features (batch, channels, positions)."""
    params = {"one": np.eye(6).reshape(6, 2, 3).astype(np.float32), "two": np.ones((6, 3), np.float32)}

    def apply(params, x):
        hidden = jax.nn.relu(jnp.einsum("bi,ihs->bhs", x, params["one"])) * jnp.array([[[0.0], [1.0]]])
        return hidden.reshape(len(x), -1) @ params["two"], {"hidden": hidden}

    layer = HiddenLayer("hidden", 2, (), (), "relu", elementwise=True, axis=1)
    roles = {"one": "matrix", "two": "head"}
    wiring = Wiring((layer,), roles, {"output": Head(("two",), "hidden")}, output_axes={"one": (-2, -1)})
    names = ["dormant", "dead", "saturated", "effective-rank", "isometry-deviation", "weight-spectra"]
    found, _ = quiet(apply, params, X, Y, wiring, diagnostics=names)
    assert found.numbers["dormant_fraction"] == found.numbers["dead_fraction"] == 0.5
    assert found.numbers["effective_rank"] == 1.0
    assert found.numbers["isometry_deviation"] == 0.0
    assert found.numbers["weight_sigma_max"] == pytest.approx(1.0)
    wrong = wiring._replace(layers=(layer._replace(name="other"), layer))
    found, report = quiet(apply, params, X, Y, wrong, diagnostics=["dormant", "weight-norm"])
    assert "that of the layer 'other' among them" in " ".join(report.replace("│", " ").split())
    assert "weight_norm" in found.numbers


def test_numbers_that_are_not_finite():
    params = {**WIDE, "z": np.where(WIDE["z"] == 1, np.nan, 0).astype(np.float32)}
    names = [
        "dormant",
        "dead",
        "grama",
        "effective-rank",
        "isometry-deviation",
        "weight-spectra",
        "jacobian",
        "gradient-norm",
    ]
    found, _ = quiet(two_layers, params, X, Y, diagnostics=names)
    kept = {name: value for name, value in found.numbers.items() if np.isfinite(value)}
    assert {name.partition("/")[2] for name in kept} <= {"m", "a"}
    assert all(name.startswith("weight_") for name in kept)


def test_double_precision():
    with jax.enable_x64():
        params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), WIDE)
        found, report = quiet(two_layers, params, X.astype(np.float64), Y.astype(np.int64), initial=params)
    assert {"dormant_fraction", "ntk_trace", "hessian_top", "grama_fraction", "jacobian_sigma_rms"} <= set(
        found.numbers
    )
    assert "Error" not in report
