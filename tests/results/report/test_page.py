"""The page as a file: its structure, its numbers, what is escaped, how large it is."""

import html.parser
import json
import re
from importlib import resources

import numpy as np
import pandas as pd
import pytest

from pliant.errors import UserError
from pliant.results import RunFolder, summarize_run
from pliant.results.report import content_html, report_html
from pliant.results.report._tables import plain
from report_runs import make_agents, make_run, value_of

pytest.importorskip("plotly", reason="the extra report is not installed")


class _Page(html.parser.HTMLParser):
    """Elements in order, with their attributes and the text directly in them."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))
        if tag not in ("meta", "link", "input", "br", "path"):
            self._open.append(self.elements[-1])

    def handle_endtag(self, tag):
        assert tag == "path" or self._open.pop()[0] == tag

    def handle_data(self, data):
        if self._open:
            self._open[-1][2].append(data)

    def all(self, tag, **wanted):
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in wanted.items()}
        return [
            (attrs, "".join(text).strip())
            for name, attrs, text in self.elements
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]


def _data(page):
    return [json.loads(text) for _, text in page.all("script", class_="data")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "labels", arrays=True)


@pytest.fixture(scope="module")
def text(folder):
    return report_html([folder])


def test_one_file_with_one_plotly_and_nothing_from_elsewhere(text):
    page = _Page(text)
    assert len(re.findall(r"plotly\.js v\d", text)) == 1
    assert not [attrs for tag, attrs, _ in page.elements if "src" in attrs]
    links = [attrs["href"] for tag, attrs, _ in page.elements if "href" in attrs]
    assert all(link.startswith(("#", "data:")) for link in links)
    (policy,) = [attrs["content"] for attrs, _ in page.all("meta") if "http-equiv" in attrs]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    assert "live" not in {attrs.get("id") for _, attrs, _ in page.elements}


def test_sections_and_their_order(text):
    page = _Page(text)
    headings = [title for _, title in page.all("h3")]
    assert headings == [
        *("Summary", "Learning curves", "Diagnostics", "Spectra and matrices", "Configuration and versions")
    ]
    ids = {attrs["id"] for _, attrs, _ in page.elements if "id" in attrs}
    assert {attrs["href"][1:] for _, attrs, _ in page.elements if attrs.get("href", "").startswith("#")} <= ids
    assert page.all("h1") == [({}, "random-labels on digits, mlp, 3 seeds")]


def test_the_table_has_the_numbers_of_summarize_run(text, folder):
    table = summarize_run(folder.metrics, folder.headline)
    values = [float(attrs["data-value"]) for attrs, _ in _Page(text).all("td") if "data-value" in attrs]
    columns = ["last_mean", "last_minimum", "last_iqm", "first_task", "dormant_fraction", "effective_rank"]
    wanted = [[*(row[name] for name in columns), 4, 3, 8.0] for row in table.to_dict("records")]
    np.testing.assert_array_equal(np.reshape(values, (2, -1)), wanted)


def test_figures_have_the_numbers_of_the_run(text):
    (data,) = _data(_Page(text))
    spec = data["figures"]["run-1-0"]
    assert (spec["metric"], spec["unit"], spec["chance"], spec["from_zero"]) == ("train_accuracy", "task", 0.1, True)
    line = spec["lines"]["redo"]
    assert line["x"] == [1, 2, 3, 4]
    of_seeds = [[value_of(1, seed, task, "train_accuracy") for task in line["x"]] for seed in range(3)]
    np.testing.assert_allclose(line["mean"], np.mean(of_seeds, axis=0), rtol=1e-5)
    np.testing.assert_allclose(line["error"], 0.01 / np.sqrt(3), rtol=1e-4)
    np.testing.assert_allclose(line["seeds"]["2"], of_seeds[2], rtol=1e-5)
    metrics = [each["metric"] for each in data["figures"].values() if "metric" in each]
    assert metrics == ["train_accuracy", "loss", "dormant_fraction", "dormant_fraction/dense_0", "effective_rank"]


def test_every_figure_is_described_and_has_its_numbers_below(text):
    page = _Page(text)
    plots = page.all("div", class_="plot")
    (data,) = _data(page)
    assert len(plots) == len(data["figures"]) == len(page.all("figcaption"))
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 40 for attrs, _ in plots)
    assert "redo from 0.66 to 0.51" in plots[0][0]["aria-label"]
    assert len(page.all("details", class_="numbers")) == len(plots) - 4  # but for matrices of 6 by 6


def test_pictures_of_all_that_is_stored(text):
    albums = [title for _, title in _Page(text).all("h4")]
    assert albums == [
        *("Gradient cosines", "Hessian density", "NTK eigenvalues", "New targets"),
        *("Singular values of weights: dense_0/kernel", "Singular values of Jacobians: dense_0"),
    ]


NAMES = ("<b>bold</b>", "</script><script>alert(1)</script>", "a&amp;b", '"quoted"', "{{ 7 * 7 }}", "%{x}")


def test_names_are_no_markup(tmp_path):
    """Folders of methods cannot be named so, but points of a grid and metrics of one's own can."""
    folder = make_run(tmp_path / "run", methods=("adam",), metrics=("train_accuracy", *NAMES), title=NAMES[1])
    label = f"adam[{NAMES[0]}]"
    for file in folder.path.rglob("tasks-*.parquet"):
        pd.read_parquet(file).assign(method=label).to_parquet(file)
    page = _Page(report_html([folder]))
    assert not page.all("b")
    assert len(page.all("script")) == 4  # data, plotly, figures, controls
    assert [attrs["data-shows"] for attrs, _ in page.all("input", type="checkbox") if "data-shows" in attrs] == [label]
    assert label in [title for attrs, title in page.all("span")]
    assert page.all("h1")[0][1].startswith(NAMES[1])
    (data,) = _data(page)
    assert {each["metric"] for each in data["figures"].values()} == {"train_accuracy", *NAMES}
    assert list(data["methods"]) == [label]


def test_several_runs_have_a_section_each(tmp_path):
    folders = [make_run(tmp_path / name, tasks=1) for name in ("one", "two")]
    page = _Page(report_html(folders))
    assert [title for _, title in page.all("h1")] == ["2 runs"]
    assert [attrs["id"] for attrs, _ in page.all("section", class_="run")] == ["run-1", "run-2"]
    assert len(_data(page)) == 2
    assert len({attrs["data-figure"] for attrs, _ in page.all("figure")}) == len(page.all("figure"))


def test_agents_have_returns_over_environment_steps(tmp_path):
    page = _Page(report_html([make_agents(tmp_path / "run")]))
    (data,) = _data(page)
    over_tasks, *within = [each for each in data["figures"].values() if each["metric"] == "episode_return"]
    assert over_tasks["unit"] == "task"
    assert [each["unit"] for each in within] == ["environment steps"] * 2
    freeway = within[0]["lines"]["adam"]
    assert freeway["x"] == [80, 160, None, 240, 320]
    assert freeway["mean"] == [5.5, 10.5, None, 25.5, 30.5]
    assert within[0]["borders"] == [160]
    assert [title for _, title in page.all("figcaption")][1:] == [
        "episode return in freeway over environment steps",
        "episode return in asterix over environment steps",
    ]


def test_optional_tables(tmp_path):
    folder = make_run(tmp_path / "run", tasks=1)
    tuned = pd.DataFrame({"method": ["adam"], "settings": ["learning_rate=0.001"], "mean": [0.51234], "num_seeds": [4]})
    tuned = tuned.assign(gain=[0.1], gain_low=[0.05], gain_high=[0.15])
    claims = pd.DataFrame({"claim": ["AdamO > Adam"], "paper": ["x"], "verdict": ["holds"]})
    page = _Page(report_html([folder], tuned=tuned, claims=claims))
    assert [title for _, title in page.all("h2")] == ["Tuned comparison", "Claims"]
    cells = [cell for _, cell in page.all("td")]
    assert {"learning_rate=0.001", "0.512", "0.100 [0.050, 0.150]", "holds"} <= set(cells)
    buttons = [button for _, button in page.all("button")]
    assert {"num seeds", "gain [95\xa0%]"} <= set(buttons)
    assert not {"gain low", "gain high"} & set(buttons)


def test_numbers_below_each_other_have_one_format_and_texts_are_set_as_texts():
    frame = pd.DataFrame(
        {
            "method": ["adam", "redo"],
            "score": [0.5, np.nan],
            "place": [1, 2],
            "small": [1e-5, 2e-5],
            "unknown": [np.nan, np.nan],
            "said": ["a sentence that is too long for one line", ""],
        }
    )
    table = plain(frame, "")
    assert [cell.text for cell in table.rows[1]] == ["redo", "–", "2", "2e-05", "–", ""]
    assert table.kinds == ["word", "number", "number", "number", "word", "text"]


def test_contents_name_runs_without_the_folder_that_all_are_in(tmp_path):
    folders = [make_run(tmp_path / "runs" / name, tasks=1) for name in ("a", "b/a")]
    page = _Page(report_html(folders))
    assert {"a", "b/a"} <= {name for _, name in page.all("a")}


def test_one_seed_has_no_band_and_no_spread(tmp_path):
    page = _Page(report_html([make_run(tmp_path / "run", seeds=1)]))
    (data,) = _data(page)
    assert all(
        {"error", "seeds"}.isdisjoint(line) for each in data["figures"].values() for line in each["lines"].values()
    )
    assert "one seed, so without a band" in " ".join(text for _, text in page.all("p"))
    assert not [button for _, button in page.all("button") if "±" in button]


def test_configuration_and_versions(text):
    page = _Page(text)
    titles = [attrs["data-key"] for attrs, _ in page.all("details", class_="listing")]
    assert titles == ["Common to all methods", "Method adam", "Method redo", "Versions and device"]
    names = [title for _, title in page.all("th", scope="row")]
    assert {"config.epochs", "learning_rate", "packages.jax", "device"} <= set(names)
    assert {"[8, 8]", "0.10.2"} <= {cell for _, cell in page.all("td")}


@pytest.mark.whole
def test_a_large_run_fits(tmp_path):
    """60 methods, 40 metrics, 100 tasks and 4 seeds would be a million numbers."""
    whole = make_run(tmp_path / "run", methods=("adam",), tasks=1).metrics
    index = pd.MultiIndex.from_product([range(60), range(4), range(1, 101), range(40)])
    method, seed, task, metric = (index.get_level_values(level).to_numpy() for level in range(4))
    names = np.array(["train_accuracy", *(f"metric_{i}" for i in range(1, 40))])
    values = np.random.default_rng(0).normal(size=len(index)).round(8)
    columns = {"method": np.char.add("m", method.astype(str)), "seed": seed, "task": task, "metric": names[metric]}
    folder = RunFolder(tmp_path / "run")
    folder.metrics = pd.DataFrame({**{name: whole[name].iloc[0] for name in whole}, **columns, "value": values})
    folder.labels = lambda name: [name]  # as the metrics say
    text = report_html([folder])
    assert len(text.encode()) < 15e6
    notes = [note for _, note in _Page(text).all("li")]
    assert "Lines show at most 30 evenly spaced points of 100." in notes
    assert "All numbers are in the run folder." in notes


def test_files_of_the_page_are_in_the_package():
    names = {each.name for each in (resources.files("pliant.results.report") / "templates").iterdir()}
    assert {"page.html", "content.html", "parts.html", "style.css", "figures.js", "controls.js", "live.js"} <= names


def test_no_run_and_one_twice(folder):
    with pytest.raises(UserError, match="got no run folder; wanted at least one"):
        content_html([])
    with pytest.raises(UserError, match="got a run folder twice; wanted each once"):
        content_html([folder, RunFolder(folder.path)])
