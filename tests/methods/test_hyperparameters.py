import pytest

from pliant.errors import UserError
from pliant.methods import METHODS, defaults, find, option_meanings, split_static
from pliant.types import Part


def test_what_shapes_the_program():
    static = {name: split_static(METHODS[name], defaults(METHODS[name]))[0] for name in METHODS}
    assert static["last-k-reset"] == {"num_layers": 2}
    assert static["optimizer-reset"] == {"keep_moments": False}
    assert static["shrink-perturb"] == {"mode": "fresh-init"}
    assert static["reset-distill"] == {"distance": "kl"}
    assert static["soft-reset"] == {"toward": "start"}
    assert static["infer"] == {"num_heads": 10}


def _method(**parts):
    return METHODS["adam"]._replace(name="mine", **parts)


def test_a_part_has_the_parameters_of_its_factory_but_for_what_is_fixed_or_comes_from_the_network():
    def penalty(strength=0.5, *, wiring, mask=None, output_axes=None, power: int = 2, **rest):
        """Args: none."""

    own = ("strength", "power")
    assert [name for name in defaults(_method(penalty=penalty)) if name in own] == ["strength", "power"]
    fixed = _method(penalty=Part(penalty, fixed={"power": 3}))
    assert set(defaults(fixed)) - set(defaults(METHODS["adam"])) == {"strength"}
    assert split_static(fixed, defaults(fixed))[0] == {}


@pytest.mark.parametrize("part", ["optimizer", "penalty", "wrap", "targets"])
def test_a_hyperparameter_without_a_default_is_refused(part):
    def factory(stream, *, learning_rate, strength=0.1): ...

    message = (
        "got the method 'mine', whose stream has no default; wanted a default for every hyperparameter but "
        r"learning_rate. Write for example stream=0.1 .* called wiring, mask or output_axes there, and in wrap network"
    )
    with pytest.raises(UserError, match=message):
        defaults(_method(**{part: factory}))


def test_meanings_of_a_combination_are_those_of_its_members():
    meanings = option_meanings(find("gram-penalty+l2-init"))
    assert meanings["l2_init_strength"] == option_meanings(METHODS["l2-init"])["strength"]
    assert all(meanings.values())
