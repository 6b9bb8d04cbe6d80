"""Files that are replaced in one step."""

import pytest

from pliant.results._files import differences, replacing, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "file.json"
    write_json(file, {"a": 1})
    with pytest.raises(UnicodeEncodeError), replacing(file) as temporary:
        temporary.write_text("half a fi\udcff", encoding="utf-8")
    assert file.read_text() == '{\n  "a": 1\n}\n'
    assert [each.name for each in tmp_path.iterdir()] == ["file.json"]


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, ["a.b", "a.c"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
        ({}, {"a": {"b": 1}}, ["a"]),
    ],
)
def test_differences(old, new, names):
    assert differences(old, new) == names
