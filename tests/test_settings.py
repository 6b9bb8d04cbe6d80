from collections.abc import Sequence

import pytest

from pliant.errors import UserError
from pliant.settings import cast, description, meanings, options


def test_options_are_the_keyword_only_parameters():
    def factory(data, flag=True, *, rate=0.1, kind="a", width):
        return data, flag, rate, kind, width

    found = options(factory)
    assert list(found) == ["rate", "kind", "width"]
    assert [found["rate"].default, found["kind"].default] == [0.1, "a"]
    assert found["width"].default is found["width"].empty


@pytest.mark.parametrize(
    ("value", "default", "wanted"),
    [
        ("0.03", 0.1, 0.03),
        (" 1e-4 ", 0.1, 1e-4),
        ("3", 0.1, 3.0),
        (2, 0.1, 2.0),
        ("0.5", None, 0.5),
        ("8", 16, 8),
        ("1e3", 16, 1000),
        ("8.0", 16, 8),
        (8, 16, 8),
        ("-2", 16, -2),
        ("true", False, True),
        ("False", True, False),
        (True, False, True),
        (" relu ", "tanh", "relu"),
        ("brix, ufo", ("tank",), ("brix", "ufo")),
        (("brix", "ufo"), ("tank",), ("brix", "ufo")),
        ("", ("tank",), ()),
        ("3", "tanh", "3"),
        (str(2**31 - 1), 0, 2**31 - 1),
    ],
)
def test_cast_follows_the_default(value, default, wanted):
    found = cast("name", value, default)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "annotation", "wanted"),
    [
        ("8", int | None, 8),
        ("0.5", float | None, 0.5),
        ("8,16", Sequence[int] | None, (8, 16)),
        ("8", tuple[int, ...] | None, (8,)),
    ],
)
def test_options_that_may_be_none_are_cast_by_their_annotation(value, annotation, wanted):
    found = cast("name", value, None, annotation)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("value", "default", "message"),
    [
        ("abc", 0.1, "got name=abc; wanted a finite number. The default is 0.1."),
        ("", 0.1, "got name=; wanted a finite number. The default is 0.1."),
        ("abc", None, "got name=abc; wanted a finite number. The default is None."),
        ("8.5", 16, "got name=8.5; wanted a whole number below 2³¹. The default is 16."),
        ("inf", 0.1, "got name=inf; wanted a finite number. The default is 0.1."),
        (str(2**31), 16, "got name=2147483648; wanted a whole number below 2³¹. The default is 16."),
        ("inf", 16, "got name=inf; wanted a whole number below 2³¹. The default is 16."),
        ("nan", 16, "got name=nan; wanted a whole number below 2³¹. The default is 16."),
        ("true", 16, "got name=true; wanted a whole number below 2³¹. The default is 16."),
        ("1", True, "got name=1; wanted true or false. The default is True."),
        ("yes", False, "got name=yes; wanted true or false. The default is False."),
    ],
)
def test_cast_refuses_other_kinds(value, default, message):
    with pytest.raises(UserError) as caught:
        cast("name", value, default)
    assert str(caught.value) == message


def test_meanings_are_the_entries_under_args():
    def factory(data, *, b1, b2, rate, **options):
        """Makes one.

        A paragraph with Args: in it.

        Args:
          data: what is learned.
          b1, b2: decay rates, in [0, 1): the first and the
            second :math:`\\beta` of `adam`.
          rate: a step size;
            0.1: usual.
          **options: others.

        Returns:
          that: one.

        References:
          None: a test.
        """
        return data, b1, b2, rate, options

    decays = "decay rates, in [0, 1): the first and the second \\beta of adam"
    assert meanings(factory) == {
        "data": "what is learned",
        "b1": decays,
        "b2": decays,
        "rate": "a step size; 0.1: usual",
        "options": "others",
    }
    assert description(factory) == ["Makes one.", "A paragraph with Args: in it."]


def test_formulas_and_sections_are_not_in_the_description():
    def measure():
        """Measures.

        .. math:: x

        A `unit`
        is dead.

        References:
          None: a test.

        Differs from:
          Nothing known.
        """

    assert description(measure) == ["Measures.", "A unit is dead."]


@pytest.mark.parametrize("text", [None, "", "Makes one.\n\nArgs:\n  no colon\n", "Raises:\n  ValueError\n"])
def test_what_is_not_written_in_googles_style_has_no_meanings(text):
    def factory():
        return None

    factory.__doc__ = text
    assert meanings(factory) == {}
    assert all(isinstance(each, str) for each in description(factory))
