"""Tables in the documents are what their commands print."""

from pathlib import Path

import pytest

from redraw_tables import redrawn

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "pliant show lyle/width --format markdown"


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.md")), ids=lambda path: path.relative_to(DOCS).as_posix())
def test_tables_are_up_to_date(path):
    text = path.read_text()
    assert redrawn(text) == text, "run `python docs/redraw_tables.py`"


def test_an_old_table_is_replaced_and_nothing_else():
    before, after = f"Text.\n\n```sh\n{COMMAND}\n```\n\n", "\nText.\n\n| other | table |\n| --- | --- |\n"
    text = redrawn(f"{before}| old | table |\n| --- | ---: |\n{after}")
    assert text.startswith(f"{before}| adam | probe loss increase |\n")
    assert text.endswith(f"| 0.362 ± 0.004 |\n{after}")
    assert "old" not in text
    assert redrawn(f"{before}{after}") == text, "a missing table is added"
    assert redrawn(before).endswith("| 0.362 ± 0.004 |\n"), "at the end of a document, too"
    assert redrawn(text) == text
