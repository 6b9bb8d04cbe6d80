"""Names, flags and numbers with their spread stay in one piece at the end of a line."""

import re

_CODE = re.compile(r"<code>([^<\n]+)</code>")
_HYPHENATED = re.compile(r"[\w.=,-]*-[\w.=,-]+")


def keep_together(page: str) -> str:
    """Marks the words with hyphens in a page's inline code, at which browsers would break the line; see site.css.

    Example:
      >>> keep_together("<code>pliant run --seeds 16</code>")
      '<code>pliant run <span class="word">--seeds</span> 16</code>'
    """
    page = page.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}")
    return _CODE.sub(lambda found: f"<code>{_HYPHENATED.sub(_kept, found[1])}</code>", page)


def _kept(word: re.Match[str]) -> str:
    return f'<span class="word">{word[0]}</span>' if len(word[0]) <= 36 else word[0]
