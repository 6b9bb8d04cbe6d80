"""The table of a comparison with a baseline."""

import math

import pandas as pd


def comparison_cells(comparison: pd.DataFrame, baseline: str) -> list[list[str]]:
    """The cells of a table of `compare`, the header first, for `terminal_table` or `text_table`.

    Args:
      comparison: from `compare`.
      baseline: the method that the others were compared with.

    Example:
      >>> from pliant.results import compare
      >>> rows = [(m, s, 1, "test_accuracy", s / 10 + 0.1 * (m == "b")) for m in "ab" for s in range(2)]
      >>> metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
      >>> comparison_cells(compare(metrics, "test_accuracy", "a"), "a")
      [['method', 'seeds', 'difference to a [95 %]', 'P(better) [95 %]'], ['b', '2', '+0.100 [–, –]', '0.88 [–, –]']]
    """
    ends = [name.removeprefix("difference") for name in map(str, comparison) if _is_value(name)]
    header = ["method", "seeds"]
    for end in ends:
        where = end.replace("/", ", ").replace("_", " ")
        header += [f"difference to {baseline}{where} [95 %]", f"P(better){where} [95 %]"]
    rows = []
    for row in comparison.to_dict("records"):
        cells = [str(row["method"]), str(row["num_seeds"])]
        for end in ends:
            for name, form in (("difference", "+.3f"), ("probability", ".2f")):
                value, low, high = (_number(row[f"{name}{which}{end}"], form) for which in ("", "_low", "_high"))
                cells.append(f"{value} [{low}, {high}]")
        rows.append(cells)
    return [header, *rows]


def _is_value(name: str) -> bool:
    return name.partition("/")[0] == "difference"


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
