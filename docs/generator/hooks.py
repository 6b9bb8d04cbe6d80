"""Hooks of MkDocs: adds generated pages and those of the repository's root, adapts links, and renders formulas."""

import functools
import posixpath
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

sys.path.insert(0, str(Path(__file__).parents[1]))

from generator import claims, figures, formulas, pages, unbroken

ROOT = Path(__file__).parents[2]
MOVED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie in the root of the repository, and their places in the site."""
COPIED = ("CITATION.cff", "LICENSE")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_NAME = re.compile(r"(?<![`\[\w])`([a-z0-9-]+)`(?![`\]\w])")
_ABOUT_DIAGNOSTICS = ("diagnostics.md", "concepts/metrics.md", "concepts/plasticity.md")
_FENCED = re.compile(r"(```.*?```)", re.DOTALL)


@functools.cache
def documents() -> Mapping[str, str]:
    """The documents that are written by hand, by their place in docs/."""
    docs = ROOT / "docs"
    return {path.relative_to(docs).as_posix(): path.read_text() for path in sorted(docs.rglob("*.md"))}


@functools.cache
def generated() -> pages.Site:
    """All generated pages."""
    return pages.build(documents())


def on_config(config: Any) -> Any:
    """Puts the generated pages where the navigation names their section."""
    for entry in config.nav:
        for section, content in entry.items():
            if isinstance(content, list):
                entry[section] = [
                    {title: generated().navigation[title]} if each == {title: "generated"} else each
                    for each in content
                    for title in (next(iter(each)) if isinstance(each, dict) else "",)
                ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that do not lie in docs/."""
    for source, target in MOVED.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text()))
    for name in COPIED:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    for target, text in generated().pages.items():
        files.append(File.generated(config, target, content=text))
    files.append(File.generated(config, "figures.md", content=figures.gallery(documents())))
    files.append(File.generated(config, "claims.md", content=claims.page()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the repository as links of the site."""
    origin = {target: source for source, target in MOVED.items()}.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: link[1] + _relinked(link[2], origin) + link[3], part) for part in parts[::2]]
    if page.file.src_uri in documents():
        first = "diagnostics" if page.file.src_uri in _ABOUT_DIAGNOSTICS else "methods"
        folder = posixpath.dirname(page.file.src_uri) or "."
        parts[::2] = [_with_names(part, first, folder) for part in parts[::2]]
    return "".join(parts)


def _with_names(text: str, first: str, folder: str) -> str:
    """Names of methods and diagnostics in backticks become links to their pages."""

    def link(found: re.Match[str]) -> str:
        for kind in dict.fromkeys((first, "methods", "diagnostics")):
            place = f"reference/{kind}/{found[1]}.md"
            if place in generated().pages:
                return f"[{found[0]}]({posixpath.relpath(place, folder)})"
        return found[0]

    lines = text.split("\n")
    return "\n".join(line if line.startswith("#") else _NAME.sub(link, line) for line in lines)


def on_page_content(html: str, **_: Any) -> str:
    """Formulas as MathML; names and numbers in one piece."""
    return unbroken.keep_together(formulas.render(html))


def _relinked(target: str, origin: str) -> str:
    """A relative link from one file of the repository to another, as the site has them."""
    if "://" in target or target.startswith("#"):
        return target
    file, mark, heading = target.partition("#")
    places = [_place(path) for path in (origin, posixpath.normpath(posixpath.join(posixpath.dirname(origin), file)))]
    return posixpath.relpath(places[1], posixpath.dirname(places[0]) or ".") + mark + heading


def _place(path: str) -> str:
    """Where a file of the repository is in the site."""
    return MOVED.get(path, path.removeprefix("docs/"))
