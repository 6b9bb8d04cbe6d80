"""Formulas as MathML, which browsers display without scripts, fonts or a network."""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(?:span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</(?:span|div)>', re.DOTALL)
_SIZES = re.compile(r"\\(?:[bB]igg?[lrm]?|textstyle|displaystyle)\b")
_UNKNOWN = re.compile(r"\\(arg)\b")  # to the converter
_BARE = re.compile(r"(\\math[a-z]+) ([A-Za-z0-9])")


def render(page: str) -> str:
    """Replaces the formulas that Markdown has marked in a page of HTML."""
    return _FORMULA.sub(_rendered, page)


def _rendered(found: re.Match[str]) -> str:
    is_block = found[1] == "["
    source = _UNKNOWN.sub(r"\\operatorname{\1}", html.unescape(found[2]))
    source = _BARE.sub(r"\1{\2}", _SIZES.sub("", source).strip())
    markup = convert(source, display="block" if is_block else "inline")
    return f'<div class="formula">{markup}</div>' if is_block else markup
