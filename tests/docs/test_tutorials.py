"""The tutorials: the blocks of a page run one after the other and print what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import jax
import pytest

PAGES = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.md"))
_BLOCK = re.compile(r"```(python|text)\n(.*?)```", re.DOTALL)
_OPTIONAL = ("torch", "transformers", "gymnax", "equinox", "haiku")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names, printed = {}, ""
    for number, (language, text) in enumerate(_BLOCK.findall(page.read_text())):
        if language == "text":
            assert printed == text, f"block {number}"
            printed = ""
            continue
        assert not printed, f"what is printed before block {number} is not shown"
        for module in _OPTIONAL:
            if re.search(rf"^(import|from) .*\b{module}\b", text, re.MULTILINE):
                pytest.importorskip(module)
        file = re.match(r"# (my_\w+\.py)\n", text)
        path = tmp_path / (file[1] if file else f"block_{number}.py")
        path.write_text(text)  # so that objects have a source
        with contextlib.redirect_stdout(io.StringIO()) as out, jax.numpy_rank_promotion("allow"):  # as users have it
            exec(compile(text, str(path), "exec"), names)
        printed = re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE).rstrip("\n")
        printed += "\n" if printed else ""
    assert not printed, "what is printed last is not shown"
