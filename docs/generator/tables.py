"""What the documents say of a name: the rows of their tables that begin with it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A table of a document."""

    document: str
    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def tables(documents: Mapping[str, str]) -> list[Table]:
    """The tables in documents, in their order.

    Args:
      documents: Markdown by name.
    """
    return [table for document, text in documents.items() for table in _tables_in(document, text)]


def rows_of(table: Table, *names: str) -> list[Sequence[str]]:
    """The rows whose first cell has only names, in backticks or bare, one of which is asked for."""
    return [row for row in table.rows if set(_names(row[0])) & set(names)]


def transposed(table: Table, rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table as columns, which stay readable on narrow screens."""
    lines = [[_bold(column), *(row[place] for row in rows)] for place, column in enumerate(table.columns)]
    lines = [line for line in lines if any(line[1:])]
    return markdown_table([table.columns[0], *(row[0] for row in rows)], lines[1:])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """Text as it stands in a cell."""
    return " ".join(text.split()).replace("|", r"\|").replace("*", r"\*").replace("<", "&lt;")


def _bold(column: str) -> str:
    return f"**{column}**" if column else ""


def _names(text: str) -> list[str]:
    parts = [part.strip().strip("`") for part in text.split(",")]
    return parts if all(re.fullmatch(r"[a-z0-9-]+", part) for part in parts) else []


def _tables_in(document: str, text: str) -> Iterator[Table]:
    heading, lines = "", []
    for line in [*re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines(), ""]:
        if line.startswith("|"):
            lines.append([part.strip() for part in re.split(r"(?<!\\)\|", line.strip()[1:-1])])
            continue
        if len(lines) > 2:
            yield Table(document, heading, lines[0], lines[2:])
        lines = []
        if line.startswith("#"):
            heading = line.lstrip("# ")
