import pytest

from pliant.results import text_table

CELLS = [["method", "score ≤ 1"], ["a_b", "50 % & ±1"], ["x[lr=1]|", "–"]]


@pytest.mark.parametrize(
    ("format", "lines"),
    [
        ("markdown", ["50\\_", "", "| method | score ≤ 1 |", "| --- | ---: |", "| a\\_b | 50 % & ±1 |"]),
        ("latex", ["% 50_", r"\begin{tabular}{lr}", r"\hline", r"method & score $\leq$ 1 \\", r"\hline"]),
    ],
)
def test_the_first_lines(format, lines):
    assert text_table("50_", CELLS, format).splitlines()[: len(lines)] == lines


def test_special_letters_are_escaped():
    latex = text_table("", [["a_b%&#$ {}~^\\"]], "latex")
    assert r"a\_b\%\&\#\$ \{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in latex
    assert r"| x\[lr=1\]\| | – |" in text_table("", CELLS, "markdown")


def test_symbols_compile_in_a_document_without_packages():
    latex = text_table("", [["ϵ > 0.1, |ρ| ≥ 2 × 10, a < b"], ["−1 → ∞"]], "latex", columns="p{3cm}")
    assert latex.isascii()
    assert r"$\epsilon$ $>$ 0.1, $|$$\rho$$|$ $\geq$ 2 $\times$ 10, a $<$ b" in latex
    assert r"\begin{tabular}{p{3cm}}" in latex
