"""Files of the repository outside ``docs`` that are pages of the site, and links to such files."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
#: File of the repository -> its page.
PAGES = {"README.md": "readme.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"(^[ ]*```.*?^[ ]*```[ ]*$)", re.DOTALL | re.MULTILINE)


def text_of(source: str) -> str:
    """Return the text of a file of the repository, with links as if it lay in ``docs``."""
    text = (REPOSITORY / source).read_text(encoding="utf-8")
    return _outside_code(text, _relative_to_docs)


def links_in_site(markdown: str, page: str) -> str:
    """Make the links of a page that lead out of ``docs`` lead to their pages, or name the file instead.

    Args:
        markdown: text of the page.
        page: where it lies below ``docs``, such as ``reference/commands.md``.

    >>> links_in_site("see [the README](../README.md#predict), [it](../nnmeter_nas/ops/)", "accuracy.md")
    'see [the README](readme.md#predict), it (`nnmeter_nas/ops`)'
    """
    return _outside_code(markdown, lambda link: _in_site(link, posixpath.dirname(page)))


def _outside_code(text: str, change: Callable[[re.Match[str]], str]) -> str:
    """Replace the links outside of fenced code."""
    parts = _FENCE.split(text)
    return "".join(part if i % 2 else _LINK.sub(change, part) for i, part in enumerate(parts))


def _relative_to_docs(link: re.Match[str]) -> str:
    target = link["target"]
    if not target or ":" in target:
        return link[0]
    target = posixpath.relpath(target, "docs")
    return f"{link['image']}[{link['text']}]({target}{link['anchor'] or ''})"


def _in_site(link: re.Match[str], folder: str) -> str:
    target = link["target"]
    path = posixpath.normpath(posixpath.join("docs", folder, target))
    if not target or ":" in target or path.startswith("docs/"):
        return link[0]
    if not (REPOSITORY / path).exists():
        raise FileNotFoundError(f"a link leads to {target}, and there is no {path} in the repository")
    if path not in PAGES:
        plain = link["text"].strip("`")
        return f"`{path}`" if plain == path else f"{link['text']} (`{path}`)"
    page = posixpath.relpath(PAGES[path], folder or ".")
    return f"{link['image']}[{link['text']}]({page}{link['anchor'] or ''})"
