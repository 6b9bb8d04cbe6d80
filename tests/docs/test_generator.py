"""The generated part of the documentation site: docstrings, formulas, tables and pages."""

import re
from pathlib import Path

import pytest

from generator import attaching, claims, figures, pages, unbroken
from generator.docstrings import sections, to_markdown
from generator.tables import cell, rows_of, tables, transposed
from pliant.diagnostics import DIAGNOSTICS
from pliant.experiments import EXPERIMENTS
from pliant.interventions import redo
from pliant.methods import METHODS, defaults

DOCS = Path(__file__).parents[2] / "docs"
FROM_ELSEWHERE = ("index.md", "contributing.md", "changelog.md", "claims.md", "figures.md")


@pytest.fixture(scope="module")
def documents():
    return {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}


@pytest.fixture(scope="module")
def site(documents):
    return pages.build(documents)


def test_formulas_and_links_of_docstrings():
    text = "See `redo`.\n\n.. math:: a = b\n          + c\n\nwhere :math:`x_i`, from `A\nbook <https://a.org/b>`_."
    expected = "See [`redo`][pliant.x.redo].\n\n\\[\na = b + c\n\\]\n\nwhere \\(x_i\\), from [A book](https://a.org/b)."
    found = to_markdown(text, lambda name: f"pliant.x.{name}")
    assert re.sub(r"\n{3,}", "\n\n", found) == expected


def test_code_is_no_link():
    assert to_markdown("``a`` and `b`", lambda name: None) == "``a`` and `b`"


def test_sections_of_a_docstring():
    found = sections(redo)
    assert found[""].startswith("Resets dormant units")
    assert found["Differs from"].startswith("Dopamine's code")
    assert "wiring: the network's layer graph." in found["Args"]


def test_formulas_are_mathml():
    pytest.importorskip("latex2mathml")
    from generator import formulas

    found = formulas.render('<p>a <span class="arithmatex">\\(a &lt; \\big(\\mathbb E\\)</span></p>')
    assert found.startswith("<p>a <math")
    assert "\\" not in found


def test_every_formula_of_the_package_is_understood():
    """A command that the converter does not know stays as it is."""
    pytest.importorskip("latex2mathml")
    from generator import formulas

    texts = {path: to_markdown(path.read_text(), lambda name: None) for path in (DOCS.parent / "src").rglob("*.py")}
    found = [(path, one) for path, text in texts.items() for one in re.findall(r"\\\[\n(.*?)\n *\\\]", text, re.DOTALL)]
    assert len(found) > 100
    for path, formula in found:
        assert not re.search(r"<m[io]>\\", formulas.render(f'<div class="arithmatex">\\[{formula}\\]</div>')), (
            path,
            formula,
        )


TABLE = """# A

## The job

| method | x | y |
| --- | --- | --- |
| `redo`, `adam` | 1 | |
| redo and more | 2 | 3 |
"""


def test_rows_that_begin_with_a_name():
    (table,) = tables({"a.md": TABLE})
    assert (table.document, table.heading) == ("a.md", "The job")
    assert rows_of(table, "redo") == [["`redo`, `adam`", "1", ""]]
    assert transposed(table, rows_of(table, "redo")).splitlines()[2:] == ["| **x** | 1 |"]


def test_cells_keep_their_columns():
    assert cell("a | b\n<c>") == r"a \| b &lt;c>"


def test_a_figure_is_shown_once_and_leads_to_its_discussion():
    found = figures.gallery({"a.md": "# A\n## The job\n![what](b.png)", "c/d.md": "![what](../b.png)"})
    assert found.count("b.png)](a.md#the-job)") == 1


def test_every_method_has_a_page_with_its_options(site):
    for name, method in METHODS.items():
        page = site.pages[f"reference/methods/{name}.md"]
        assert all(f"| `{option}` | " in page for option in defaults(method)), name
        assert "Use it " in page
        assert "| option | default | tuned over | meaning |" in page or not defaults(method)
    assert "| `isometry_strength` | `0.1` | 0.001 to 1, log |" in site.pages["reference/methods/adamo.md"]


def test_pages_say_what_attach_needs(site):
    expected = {
        "redo": "learning_rate=0.001)",
        "shrink-perturb": "plastic.switch(state, params)",
        "full-reset": "init=init)",
        "cyclic-lr": "task_updates=1000)",
        "maxmin": "has_changes=True)",
        "nap": "The network must be as follows: hidden layers with a norm",
    }
    for name, text in expected.items():
        assert text in site.pages[f"reference/methods/{name}.md"], name
    assert "optimizer.penalty()" in site.pages["reference/methods/l2-init.md"]


def test_pages_show_what_is_attached_in_pytorch():
    pytest.importorskip("torch")
    from pliant.torch import _attach

    assert set(attaching.IN_TORCH) == {*_attach.MECHANISMS, *_attach._OPTIMIZERS}


def test_every_diagnostic_has_a_page(site):
    assert {f"reference/diagnostics/{name}.md" for name in DIAGNOSTICS} <= set(site.pages)


def test_the_page_of_a_method(site):
    page = site.pages["reference/methods/redo.md"]
    for expected in ("\\le \\tau", "0.400 ± 0.032", "../../methods.md#", "Dopamine's code", "2302.12902"):
        assert expected in page


def test_the_page_of_claims_has_a_verdict_for_each_and_what_was_measured():
    page = claims.page()
    for experiment in EXPERIMENTS.values():
        assert f"\n## {experiment.name}\n" in page
        for claim in experiment.claims:
            assert f"| {claim.name} |" in page
    assert re.search(r"\| random labels \| `isometry/random-label-cifar10/mlp` \| 5 × 15 \| \d+ \| 20\d\d-", page)
    (row,) = (line for line in page.splitlines() if line.startswith("| gains-on-random-labels |"))
    assert re.search(r"\| holds \| 0\.8\d+ \[0\.8\d+, 0\.8\d+\] > 0\.1 \|", row)


def test_the_page_of_an_activation_shows_its_formula(site):
    assert "\\mathrm{sort}" in site.pages["reference/methods/maxmin.md"]


def test_pages_are_in_the_navigation(site):
    def places(entry):
        inner = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else ()
        return [entry] if isinstance(entry, str) else [place for each in inner for place in places(each)]

    assert sorted(places(site.navigation)) == sorted(site.pages)


def test_documents_are_in_the_navigation(documents):
    """A new document is added to `nav` in mkdocs.yml."""
    named = re.findall(r"^ +- .*: (\S+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted([*documents, *FROM_ELSEWHERE])


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<code>a --b-c 1</code>", '<code>a <span class="word">--b-c</span> 1</code>'),
        ("<td>1.0 ± 0.1</td>", "<td>1.0\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}0.1</td>"),
        ("<pre><code>a --b\n</code></pre>", "<pre><code>a --b\n</code></pre>"),
    ],
)
def test_names_and_numbers_stay_in_one_piece(page, expected):
    assert unbroken.keep_together(page) == expected


def test_addresses_are_those_of_public_functions():
    assert pages.address("reset_units", "pliant.interventions") == "pliant.interventions.reset_units"
    assert pages.address("pliant.diagnose") == "pliant.diagnose"
    assert pages.address("nothing", "pliant.interventions") is None
    assert pages.address("pliant.training.train") is None
