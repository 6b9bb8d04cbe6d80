import functools
import inspect

import pytest

from pliant.errors import UserError
from pliant.specs import find, load, name_of, recorded, users_code

KNOWN = {"one": 1.0, "two": 2.0}


def _find(spec, **options):
    return find("number", spec, KNOWN, lambda found: isinstance(found, float), "a float", **options)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own.py"
    file.write_text("three = 3.0\nword = 'three'\n")
    return file


def test_names_files_and_objects_are_found(own):
    assert [_find(spec) for spec in ("one", "own.py:three", f"{own}:three", 4.0)] == [1.0, 3.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "onee",
            r"got the number 'onee'; wanted one of one, two\. Did you mean 'one'\? See `pliant list numbers`",
        ),
        ("no.py:three", r"got the number 'no.py:three'; wanted an existing Python file\. Check the path 'no.py'"),
        (
            "own.py:four",
            r"got no 'four' in 'own.py'; wanted a float; the file has three\. Give the number as own.py:NAME",
        ),
        ("own.py", r"got no '' in 'own.py'; wanted a float; the file has three\. Give the number as own.py:NAME"),
        ("own.py:word", r"got 'word' in 'own.py', which is str; wanted a float; the file has three\."),
        (
            "empty.py:one",
            r"wanted a float; the file has none\. Define one there",
        ),
        (
            "bad.py:one",
            r"got ZeroDivisionError in 'bad.py', line 2: division by zero; wanted a number that builds and runs",
        ),
        ("typo.py:one", r"got SyntaxError in 'typo.py', line 1: '\(' was never closed.*; wanted a number"),
        (
            5,
            r"got 5 as the number; wanted a float\. Give a name that `pliant list numbers` prints, path/to/file",
        ),
    ],
)
def test_what_cannot_be_found(own, spec, message):
    for name, text in {"empty": "", "bad": "\n1 / 0", "typo": "one = ("}.items():
        own.with_name(f"{name}.py").write_text(text)
    with pytest.raises(UserError, match=message):
        _find(spec)


def test_other_names_that_may_have_been_meant():
    with pytest.raises(UserError, match="wanted one of all, one, two"):
        _find("al", also=["all"])


def test_functions_that_a_file_imports_are_not_offered(own):
    own.write_text("from functools import reduce\ndef make(): ...\n")
    with pytest.raises(UserError, match="the file has make"):
        find("stream", "own.py:three", {}, callable, "a factory")


def test_a_file_is_executed_once_for_each_content(own, capsys):
    own.write_text("print('executed')\nthree, four = 3.0, 4.0\n")
    assert [_find("own.py:three"), _find(f"{own}:four")] == [3.0, 4.0]
    assert load("own.py") is load(str(own))
    assert capsys.readouterr().out == "executed\n"
    own.write_text("three = 33.0")
    assert _find("own.py:three") == 33.0


def test_a_file_that_failed_is_executed_again(own):
    own.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(UserError, match="ZeroDivisionError"):
            _find("own.py:three")


def test_a_file_is_a_module_with_source(own):
    own.write_text("import dataclasses\n@dataclasses.dataclass\nclass D:\n    x: 'int' = 1\ndef f(): return 2\n")
    module = load("own.py")
    assert inspect.getsource(module.f) == "def f(): return 2\n"
    assert inspect.getsource(module.D).startswith("@dataclasses")


def test_names_of_objects():
    class Named:
        name = "mine"

    assert name_of(Named()) == "mine"
    assert name_of(functools.partial(functools.partial(load, 1), 2)) == "load"
    assert name_of(lambda: 0) == "lambda"
    assert name_of(1.0) == "float"
    assert name_of("~/own.py:three") == "three"


def test_errors_elsewhere_are_of_the_file_too_but_registered_ones_pass(own):
    message = r"got ValueError in 'own.py', line \?: oh; wanted a number that builds and runs"
    with pytest.raises(UserError, match=message), users_code({"number": ["one", "own.py:three"]}):
        raise ValueError("oh")
    for spec in ("one", len):
        with pytest.raises(ValueError, match="oh"), users_code({"number": [spec]}):
            raise ValueError("oh")


def test_the_file_in_which_it_happened_is_named(own):
    own.write_text("def fails():\n    raise ValueError('oh')\n")
    other = own.with_name("other.py")
    other.write_text("")
    message = r"got ValueError in 'own.py', line 2: oh; wanted a network that builds and runs\. See README.md"
    with pytest.raises(UserError, match=message), users_code({"method": ["other.py:x"], "network": ["own.py:fails"]}):
        load("own.py").fails()
    message = r"wanted a method or network that builds and runs\. See README.md for what a method or network is\."
    with pytest.raises(UserError, match=message), users_code({"method": ["own.py:x"], "network": ["own.py:fails"]}):
        load("own.py").fails()


def test_what_is_recorded(own):
    assert recorded("one", KNOWN) == recorded(KNOWN["one"], KNOWN) == ("one", None)
    source, before = recorded("own.py:three", KNOWN)
    assert source == "own.py:three"
    own.write_text(own.read_text() + "# edited")
    assert recorded("own.py:three", KNOWN).sha256 != before
    source, of_object = recorded(3.0, KNOWN)
    assert source is None
    assert of_object == recorded(3.0, KNOWN).sha256 != recorded(4.0, KNOWN).sha256
