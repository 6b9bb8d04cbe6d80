import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from pliant.results import diagnosis_table, summarize_run, summary_table, summary_text


def _printed(num_tasks, *, diverged=0.0):
    rows = []
    for method, tasks in num_tasks.items():
        for seed in range(2):
            for task in range(tasks):
                common = (method, seed, task)
                rows += [
                    (*common, "train_accuracy", 0.5 + 0.1 * seed),
                    (*common, "dormant_fraction", np.nan),
                    (*common, "effective_rank", 12.34),
                    (*common, "isometry_deviation", 0.25),
                    (*common, "diverged", diverged * seed),
                ]
    metrics = pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])
    table = summary_table(
        summarize_run(metrics, "train_accuracy"), {"a": [1.0, 2.5]}, "train_accuracy", "a title [with brackets]"
    )
    console = Console(width=120)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_cells():
    printed = _printed({"a": 7})
    for text in (
        "a title [with brackets]: train accuracy",
        "0.550 ± 0.050",
        "0.25",
        "12.3",
        "–",
        "3.5",
        "last 5 tasks",
    ):
        assert text in printed
    assert "diverged" not in printed


def test_diverged_seeds_are_counted():
    assert "1 of 2" in _printed({"a": 2}, diverged=1.0)


@pytest.mark.parametrize(
    ("num_tasks", "header"),
    [({"a": 3}, "last 3 tasks"), ({"a": 7, "b": 6}, "last 5 tasks"), ({"a": 7, "b": 1}, "last ≤ 5 tasks")],
)
def test_the_header_says_how_many_tasks(num_tasks, header):
    assert header in _printed(num_tasks)


def test_what_a_diagnosis_did_not_measure_is_listed_and_nothing_is_cut():
    console = Console(file=io.StringIO(), width=60)
    name = "a_metric_with_a_name_that_is_far_too_long_for_this_console"
    table = diagnosis_table(
        "title", {"one": {name: 0.5}}, {"one": "what it is"}, {"two": "why [not]"}, {"conv/bias": "layer not seen"}
    )
    console.print(table)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    columns = ["".join(cell) for cell in zip(*[row for row in cells if len(row) == 4], strict=True)]
    assert "…" not in console.file.getvalue()
    assert name in columns[1]
    assert "two" in columns[0]
    assert "conv/bias" in columns[0]
    assert "notmeasured:why[not]" in columns[3].replace(" ", "")
    assert "layernotseen" in columns[3].replace(" ", "")


def _agents(num_tasks=5):
    """Two games in turn, with returns of different sizes; the second seed's last phase is dead."""
    rows = [
        ("ppo", seed, task, metric, value)
        for seed in range(2)
        for task in range(1, num_tasks + 1)
        for metric, value in (
            ("episode_return", (100.0 if task % 2 else 1.0) + task + seed),
            ("dead_phase", float(seed == 1 and task == num_tasks)),
        )
        if not (metric == "dead_phase" and task == 1)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "task", "metric", "value"])


GAMES = {1: "space_invaders", 2: "freeway", 3: "space_invaders", 4: "freeway", 5: "space_invaders"}


def test_agents_in_several_environments_have_a_column_for_each():
    summary = summarize_run(_agents(), "episode_return", GAMES)
    console = Console(width=160)
    with console.capture() as captured:
        console.print(summary_table(summary, {}, "episode_return", "ppo"))
    printed = captured.get()
    assert "ppo: episode return in the last task of each environment" in printed
    header, row = (
        [cell.strip() for cell in line[1:-1].split(end)]
        for line, end in zip(
            [line for line in printed.splitlines() if "method" in line or "105" in line], "┃│", strict=True
        )
    )
    assert header[:4] == ["method", "space invaders", "freeway", "dead phases"]
    assert row[:4] == ["ppo", "105.500 ± 0.500", "5.500 ± 0.500", "1 of 8"]
    assert "first task" not in printed
    text = summary_text(summary, {}, "episode_return", "ppo", "markdown")
    assert "| method | space invaders | IQM \\[95 %\\] | freeway | IQM \\[95 %\\] | dead phases |" in text
    assert "| ppo | 105.500 ± 0.500 | 105.500 \\[–, –\\] | 5.500 ± 0.500 | 5.500 \\[–, –\\] | 1 of 8 |" in text


def test_agents_have_their_steps_per_second():
    """All seeds together: 2 seeds of 500 steps in 4 seconds."""
    steps = [("ppo", seed, task, "env_steps", 100.0 * task) for seed in (0, 1) for task in range(1, 6)]
    metrics = pd.concat([_agents(), pd.DataFrame(steps, columns=["method", "seed", "task", "metric", "value"])])
    text = summary_text(summarize_run(metrics, "episode_return"), {"ppo": [1.5, 2.5]}, "episode_return", "", "markdown")
    assert text.splitlines()[-1].endswith("| 4.0 | 250 |")


def test_agents_in_one_environment_have_their_last_tasks():
    summary = summarize_run(_agents(), "episode_return", dict.fromkeys(GAMES, "breakout"))
    pd.testing.assert_frame_equal(summary, summarize_run(_agents(), "episode_return"))
    text = summary_text(summary, {}, "episode_return", "ppo", "latex")
    assert r"method & last 5 tasks & IQM [95 \%] & first task & dead phases & dormant" in text


def test_a_method_that_has_not_come_to_an_environment_has_a_dash():
    begun = _agents(num_tasks=1).assign(method="begun")
    summary = summarize_run(pd.concat([_agents(), begun]), "episode_return", GAMES)
    row = summary_text(summary, {}, "episode_return", "", "markdown").splitlines()[-1]
    scores = "101.500 ± 0.500 | 101.500 \\[–, –\\] | – | –"
    assert row.startswith(f"| begun | {scores} | 0 of 0 |")
