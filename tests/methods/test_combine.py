import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, build, combine, defaults, find, split_spec, split_static, wrapped
from pliant.networks import mlp
from pliant.optimizers import adamo
from pliant.supervised import RunConfig, make_plan
from pliant.types import Intervention, Learned, Method, Penalty

NETWORK = mlp((3,), 2, widths=(4, 4))
PARAMS, _ = NETWORK.init(jax.random.key(0))


def _scaled(name, factor, *, info="norm_moved"):
    """A method whose intervention multiplies all parameters, after updates and at switches."""

    def intervention(wiring, *, factor=factor):
        def act(key, when, learned, state, seen):
            params = jax.tree.map(lambda leaf: leaf * factor, learned.params)
            return learned._replace(params=params), (*state, jax.random.key_data(key)), {info: jnp.float32(factor)}

        return Intervention(lambda learned: (), act, act)

    return METHODS["adam"]._replace(name=name, summary=name, reference="", intervention=intervention)


def _counted(name, value):
    """A method whose penalty is a constant, and whose state counts updates and switches."""

    def penalty(wiring, *, strength=value):
        return Penalty(
            lambda params: (0, 0),
            lambda params, state, forward: (jnp.float32(strength), (state[0] + 1, state[1])),
            lambda params, state: (state[0], state[1] + 1),
        )

    return METHODS["adam"]._replace(name=name, summary=name, reference="", penalty=penalty)


def _parts(method, **values):
    return build(method, NETWORK.wiring, defaults(method) | values)


def test_one_method_is_itself():
    assert combine(METHODS["adamo"]) is METHODS["adamo"]
    assert find("adamo") is METHODS["adamo"]


def test_name_and_description_tell_the_whole_combination():
    both = find("redo+l2-init")
    assert both.name == "redo+l2-init"
    assert both.summary == f"{METHODS['redo'].summary}; {METHODS['l2-init'].summary}"
    assert both.reference == "Sokar et al. 2023, algorithm 1; Kumar et al. 2023, section 4"


def test_hyperparameters_that_clash_get_their_methods_name():
    both = find("gram-penalty+l2-init")
    values = defaults(both)
    assert (values["gram_penalty_strength"], values["l2_init_strength"]) == (1e-3, 1e-2)
    assert "strength" not in values
    assert values["gain"] == 1.0
    assert both.off == {"gram_penalty_strength": 0.0, "l2_init_strength": 0.0}


def test_a_name_that_would_be_taken_for_anothers_gets_its_methods_name_too():
    values = defaults(find("l2+effective-rank+l2-init"))
    assert [name for name in values if "strength" in name] == [
        "l2_strength",
        "effective_rank_strength",
        "effective_rank_l2_strength",
        "l2_init_strength",
    ]
    assert (values["l2_strength"], values["effective_rank_l2_strength"], values["l2_init_strength"]) == (
        1e-3,
        1e-3,
        1e-2,
    )
    assert find("l2+effective-rank+l2-init").off == dict.fromkeys([name for name in values if "strength" in name], 0.0)


def test_two_hyperparameters_of_one_name_are_refused():
    penalties = {
        "a-b": lambda wiring, *, x=1.0: None,
        "a": lambda wiring, *, b_x=1.0: None,
        "c": lambda wiring, *, x=1.0, b_x=1.0: None,
    }
    methods = [METHODS["adam"]._replace(name=name, penalty=penalty) for name, penalty in penalties.items()]
    message = r"got the combination 'a-b\+a\+c', with two hyperparameters 'a_b_x'; wanted another name for each"
    with pytest.raises(UserError, match=message):
        combine(*methods)


def test_what_shapes_the_program_still_does():
    static, traced = split_static(find("redo+l2-init"), defaults(find("redo+l2-init")))
    assert "num_examples" in static
    assert {"threshold", "every", "strength"} <= traced.keys()


def test_penalties_add_up():
    parts = _parts(combine(_counted("a", 1.0), _counted("b", 2.5)), b_strength=3.0)
    state = parts.penalty.init(PARAMS)
    value, state = parts.penalty.loss(PARAMS, state, None)
    assert float(value) == 4.0
    assert parts.penalty.switch(PARAMS, state) == ((1, 1), (1, 1))


def test_real_penalties_add_up():
    both, away = find("gram-penalty+l2-init"), jax.tree.map(lambda leaf: leaf + 0.1, PARAMS)
    found = []
    for method in (both, METHODS["gram-penalty"], METHODS["l2-init"]):
        penalty = _parts(method).penalty
        found.append(float(penalty.loss(away, penalty.init(PARAMS), None)[0]))
    np.testing.assert_allclose(found[0], found[1] + found[2], rtol=1e-6)


def test_interventions_run_in_order_with_keys_of_their_own():
    doubled = combine(_scaled("double", 2.0), _scaled("triple", 3.0, info="other"))
    part = _parts(doubled, triple_factor=5.0).intervention
    learned = Learned({"w": jnp.float32(1.0)}, {}, ())
    for hook in (part.update, part.switch):
        after, states, info = hook(jax.random.key(0), 1, learned, part.init(learned), None)
        assert float(after.params["w"]) == 10.0
        assert {name: float(value) for name, value in info.items()} == {"norm_moved": 2.0, "other": 5.0}
        assert not np.array_equal(states[0][0], states[1][0])


def test_reports_of_one_name_are_told_apart():
    part = _parts(combine(_scaled("double", 2.0), _scaled("by-five", 5.0))).intervention
    learned = Learned({"w": jnp.float32(1.0)}, {}, ())
    _, _, info = part.update(jax.random.key(0), 1, learned, part.init(learned), None)
    assert {name: float(value) for name, value in info.items()} == {"norm_moved": 2.0, "by_five_norm_moved": 5.0}


def test_a_hook_that_nobody_has_is_not_there():
    part = _parts(find("redo+l2-init")).intervention
    assert part.switch is None
    assert part.reported is None
    assert _parts(find("redo+l2-init")).penalty.switch is None


def test_one_may_report_another_network():
    def reporting(name):
        tail = Intervention(lambda learned: (), reported=lambda learned, state: ("reported", {}))
        return METHODS["adam"]._replace(name=name, summary="", reference="", intervention=lambda wiring: tail)

    part = _parts(combine(_scaled("double", 2.0), reporting("tail"))).intervention
    learned = Learned(PARAMS, {}, ())
    assert part.reported(learned, part.init(learned)) == ("reported", {})
    with pytest.raises(UserError, match="got a and b, two of which are evaluated by another network"):
        _parts(combine(reporting("a"), reporting("b")))


def test_schedules_multiply():
    def scheduled(name, factor):
        schedule = lambda wiring, *, factor=factor: lambda fraction: factor * (1.0 - fraction)  # noqa: E731
        return METHODS["adam"]._replace(name=name, summary="", reference="", schedule=schedule)

    seen = []

    def optimizer(wiring, *, learning_rate):
        seen.append(learning_rate)
        return adamo(learning_rate)

    method = combine(scheduled("a", 0.5), scheduled("b", 3.0))._replace(optimizer=optimizer)
    build(method, NETWORK.wiring, defaults(method, learning_rate=2.0), rate=0.1, fraction=0.5)
    np.testing.assert_allclose(seen, [2.0 * 0.1 * 0.25 * 1.5])


def test_wraps_follow_one_another():
    def wrapping(name):
        def wrap(network, *, num_heads=2):
            return network._replace(wiring=(*network.wiring, (name, num_heads)))

        return METHODS["adam"]._replace(name=name, summary="", reference="", wrap=wrap)

    method = combine(wrapping("a"), wrapping("b"))
    network = wrapped(method, NETWORK._replace(wiring=()), {"a_num_heads": 3, "b_num_heads": 4})
    assert network.wiring == (("a", 3), ("b", 4))
    assert split_static(method, defaults(method))[0] == {"a_num_heads": 2, "b_num_heads": 2}


def test_options_of_the_network_are_joined():
    first = METHODS["adam"]._replace(name="a", network={"norm": "layer"})
    second = METHODS["adam"]._replace(name="b", network={"norm": "layer", "activation": "crelu"})
    assert combine(first, second).network == {"norm": "layer", "activation": "crelu"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("adamo+sgd", "adamo and sgd both bring the optimizer; wanted at most one with an optimizer of its own"),
        ("redo+l2-init+redo", "redo and redo both bring the name; wanted every method once"),
        ("full-reset+hare-tortoise", "full-reset draws .*, and hare-tortoise remembers a slow average of the weights"),
        (
            "redo+plasticity-injection",
            "plasticity-injection has frozen heads .*, and redo rewrites or remembers",
        ),
        ("plasticity-injection+c-chain", "plasticity-injection has frozen heads .*, and c-chain rewrites or remembers"),
        ("l2-init+redo+reset-distill", "reset-distill draws .*, and l2-init remembers the initial weights"),
    ],
)
def test_refused(names, message):
    with pytest.raises(UserError, match=message):
        find(names)


def test_a_new_network_goes_with_what_remembers_nothing():
    """Also where a combination is combined again."""
    reset = combine(METHODS["full-reset"], METHODS["layernorm"])
    assert combine(reset, METHODS["adamo"]).redraws
    with pytest.raises(UserError, match="remembers how long units are usually silent"):
        combine(reset, combine(METHODS["snr"], METHODS["layernorm"]))


@pytest.mark.parametrize("name", ["redo+layernorm", "adamo+l2-init", "head-reset+l2-init"])
def test_accepted(name):
    assert find(name).name == name


def test_two_values_for_one_option_are_refused():
    other = METHODS["adam"]._replace(name="b", network={"activation": "crelu"})
    message = r"adamo-maxmin\+b': adamo-maxmin and b both bring the activation of the network"
    with pytest.raises(UserError, match=message):
        combine(METHODS["adamo-maxmin"], other)


def test_resets_behind_maxmin_are_refused():
    with pytest.raises(UserError, match="behind maxmin"):
        make_plan(RunConfig(methods=("adamo-maxmin+redo",)))


@pytest.mark.parametrize("name", ["adamo+", "+adamo", "adamo++redo", "adamo+nothing"])
def test_members_that_do_not_exist(name):
    with pytest.raises(UserError, match="got the method"):
        find(name)


def test_split_spec():
    assert split_spec("a+b") == ["a", "b"]
    assert split_spec("./dir+x/file.py:m+redo") == ["./dir+x/file.py:m", "redo"]


def test_a_file_joins_in(tmp_path):
    file = tmp_path / "own.py"
    file.write_text(
        "import optax\nfrom pliant.methods import METHODS\nmine = METHODS['l2-init']._replace(name='mine')\n"
    )
    plan = make_plan(RunConfig(methods=(f"redo+{file}:mine",), settings=("redo+mine.strength=0.5",)))
    assert plan.methods[0].method.name == "redo+mine"
    assert plan.methods[0].traced["strength"] == 0.5


def test_a_combination_is_a_method():
    assert isinstance(find("redo+l2-init"), Method)


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("redo+l2-init", "adam"),
        ("sgd+l2-init", "sgd"),
        ("upgd+redo", "sgd"),
        ("redo+adam-per-weight", "adam-per-weight"),
    ],
)
def test_what_is_left_when_all_is_off_is_the_optimizer_of_one_of_them(name, base):
    assert find(name).base == base
