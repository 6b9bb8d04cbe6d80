import io

import equinox as eqx
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

import pliant
from pliant.diagnostics import DIAGNOSTICS
from pliant.errors import UserError
from pliant.networks import mlp
from pliant.types import Diagnostic, Measured

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


@pytest.fixture
def extra(monkeypatch):
    """Diagnostics that want what a bare function has not, or say what the loss is."""

    def loss(subject):
        output, _, _ = subject.network.apply(subject.params, {}, subject.probe.inputs, train=False, key=None)
        return subject.losses(output, subject.probe.targets)

    def draws(subject):
        return subject.network.init(subject.key)[0]["two"].sum()

    def number(name):
        return lambda value: Measured({name: float(np.mean(value))}, {"all": np.asarray(value)})

    for diagnostic in [
        Diagnostic("loss", "the loss", "cheap", loss, number("mean_loss")),
        Diagnostic("last", "", "cheap", lambda s: s.previous[0]["two"].sum(), number("last_sum"), ("previous",)),
        Diagnostic("first", "", "cheap", lambda s: s.initial[0]["two"].sum(), number("first_sum"), ("initial",)),
        Diagnostic("draws", "", "rare", draws, number("drawn"), ("rule",)),
        Diagnostic("follows", "", "cheap", follow=lambda update: {}),
    ]:
        monkeypatch.setitem(DIAGNOSTICS, diagnostic.name, diagnostic)


def test_losses(extra):
    logits = np.maximum(X @ np.asarray(PARAMS["one"]), 0) @ np.ones((4, 3))
    found, _ = quiet(plain, PARAMS, X, Y, diagnostics=["loss"])
    assert found.numbers["mean_loss"] == pytest.approx(np.log(3.0), rel=1e-5)  # all outputs are alike
    assert found.arrays["loss/all"].shape == (40,)
    values = logits + 2.0
    assert quiet(plain, PARAMS, X, values, diagnostics=["loss"])[0].numbers["mean_loss"] == pytest.approx(4.0, rel=1e-5)
    own = quiet(plain, PARAMS, X, diagnostics=["loss"])[0].numbers["mean_loss"]
    assert own == pytest.approx(logits.var(), rel=0.5)  # noise as large as the outputs' deviation
    single = quiet(lambda p, x: plain(p, x)[0][:, :1], PARAMS, X, values[:, 0], diagnostics=["loss"])[0]
    assert single.numbers["mean_loss"] == pytest.approx(4.0, rel=1e-5)


def test_what_is_not_given_is_not_measured_and_said(extra):
    names = ["loss", "last", "first", "draws", "follows"]
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=names)
    assert set(found.numbers) == {"mean_loss"}
    words = " ".join(report.replace("│", " ").split())
    for wanted in ("give previous=", "give initial=", "give optimizer=", "measured by `pliant run`"):
        assert wanted in words
    given = {"previous": PARAMS, "initial": PARAMS, "optimizer": optax.sgd(0.1)}
    found, report = quiet(plain, PARAMS, X, Y, diagnostics=names, **given)
    assert found.numbers["last_sum"] == found.numbers["first_sum"] == 12.0
    assert "drawn" not in found.numbers
    assert "no initialiser" in report
    found, _ = quiet(plain, PARAMS, X, Y, diagnostics=names, init=lambda key: PARAMS, **given)
    assert found.numbers["drawn"] == 12.0


def test_rare_diagnostics_want_to_be_asked_for(extra):
    found, _ = quiet(plain, PARAMS, X, Y, optimizer=optax.sgd(0.1), init=lambda key: PARAMS)
    assert "drawn" not in found.numbers
    assert set(QUICK) <= set(DIAGNOSTICS)
    assert {"dormant_fraction", "weight_norm", "mean_loss"} <= set(found.numbers)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((plain, PARAMS, X[:0], Y[:0]), r"got x of shape \(0, 6\); wanted at least one example"),
        ((plain, PARAMS, X, Y[:7]), r"got y of shape \(7,\); wanted one class for each example, \(40,\)"),
        ((plain, PARAMS, X, Y[:, None]), r"got y of shape \(40, 1\); wanted one class for each example"),
        ((plain, PARAMS, X, Y + 5), r"got classes 5 to 7; wanted 0 to 2, for 3 outputs"),
        ((plain, PARAMS, X, X[:, 0]), r"got y of shape \(40,\); wanted values \(40, 3\)"),
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


def test_nothing_to_measure_is_refused(extra):
    with pytest.raises(UserError, match=r"got nothing that can be measured \(last: needs the parameters"):
        quiet(plain, PARAMS, X, Y, diagnostics=["last"])
