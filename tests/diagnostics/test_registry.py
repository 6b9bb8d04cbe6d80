import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.diagnostics import DIAGNOSTICS, SETS, choose, find_diagnostic, measure, summarize
from pliant.errors import UserError
from pliant.types import Batch, Diagnostic, Measured, Network, Subject, Wiring

NETWORK = Network(lambda key: ({}, {}), lambda *_, **__: (jnp.ones((2, 1)), {}, {}), Wiring((), {}))
SUBJECT = Subject(NETWORK, {}, {}, Batch(jnp.ones((2, 1)), jnp.ones(2)), lambda y, _: y[:, 0], jax.random.key(0))


class Draw:
    """A device part that is not hashable."""

    __hash__ = None

    def __eq__(self, other):
        return jnp.ones(2) == jnp.ones(2)

    def __call__(self, subject):
        return jax.random.uniform(subject.key)


DRAW = Draw()
MINE = Diagnostic("mine", "", "cheap", DRAW, lambda found: Measured({"mine": float(found)}))
OTHER = MINE._replace(name="other", summarize=lambda found: Measured({"twice": 2 * float(found)}))


def _names(words):
    return [each.name for each in choose(words)]


def test_registered_ones_come_in_the_order_of_the_registry_and_others_as_given():
    assert _names([OTHER, "weight-norm", MINE, "dormant", OTHER, "dormant"]) == [
        "dormant",
        "weight-norm",
        "other",
        "mine",
    ]
    assert _names(["basic", DIAGNOSTICS["dormant"]]) == list(SETS["basic"])
    assert choose(["full"]) == tuple(DIAGNOSTICS.values())


def test_options_follow_the_name():
    """Also of a user's own; the same words make one, and it replaces the one of its name in sets."""
    word = "probe-plasticity:num_steps=5:num_targets=2"
    assert _names([word, word, f"dormant,{word}"]) == ["dormant", "probe-plasticity"]
    full = choose(["full", word])
    assert [each.name for each in full] == list(DIAGNOSTICS)
    assert DIAGNOSTICS["probe-plasticity"] not in full


def test_options_of_a_users_file(tmp_path):
    lines = ["from pliant.types import Diagnostic", "", "", "def make(*, depth=1):"]
    lines += ["    return Diagnostic('own', f'depth {depth}', 'cheap', make=make)", "", "", "mine = make()", ""]
    folder = tmp_path / "a=b"  # not an option
    folder.mkdir()
    (folder / "own.py").write_text("\n".join(lines))
    assert find_diagnostic(f"{folder}/own.py:mine").summary == "depth 1"
    assert find_diagnostic(f"{folder}/own.py:mine:depth=3").summary == "depth 3"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["dormnt"],
            r"got the diagnostic 'dormnt'; wanted one of .*basic.* Did you mean 'dormant'\? See `pliant list diag",
        ),
        ([MINE, MINE._replace(cost="rare")], "got two diagnostics named 'mine'; wanted every name once. Rename yours"),
        (["full", MINE._replace(name="dormant")], "got two diagnostics named 'dormant'"),
        (["no.py:MINE"], "got the diagnostic 'no.py:MINE'; wanted an existing Python file"),
        (["dormant:every=2"], "got options of the diagnostic 'dormant': every; wanted none: it has no options. Write"),
        (
            ["probe-plasticity:num_step=2"],
            "got the option of 'probe-plasticity' 'num_step'; wanted one of .*num_steps.* Did you mean 'num_steps'",
        ),
        (["probe-plasticity:num_steps=few"], "got probe-plasticity:num_steps=few; wanted a whole number"),
        (["probe-plasticity:num_steps=5", "probe-plasticity"], "got two diagnostics named 'probe-plasticity'"),
    ],
)
def test_what_cannot_be_chosen(words, message):
    with pytest.raises(UserError, match=message):
        choose(words)


def test_a_users_file(tmp_path):
    (tmp_path / "own.py").write_text("from pliant.diagnostics import DIAGNOSTICS\nmine = DIAGNOSTICS['dead']\n")
    assert find_diagnostic(f"{tmp_path}/own.py:mine") is DIAGNOSTICS["dead"]


def test_objects_are_measured_with_keys_of_their_names_and_share_their_device_part():
    measured = jax.tree.map(np.asarray, measure(SUBJECT, [MINE, OTHER]))
    assert list(measured) == ["mine"]
    found = summarize([MINE, OTHER], measured)
    assert found["other"].numbers["twice"] == 2 * found["mine"].numbers["mine"]
    assert summarize([OTHER], measured, others=[MINE]) == {"other": found["other"]}
    assert measure(SUBJECT, [OTHER])["other"] != measured["mine"]
