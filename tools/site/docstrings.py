"""Docstrings in this project's style as Markdown."""

from __future__ import annotations

import re

_ROLE = re.compile(r":[a-z]+:`~?([^`]+)`")
_CODE = re.compile(r"(``.+?``|`.+?`)", re.DOTALL)
_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
_ITEM = re.compile(r"    ([^\s:][^:]*): (.*)$")


def summary(docstring: str) -> str:
    """Return the first sentence or paragraph on one line, for a cell of a table."""
    return _inline(" ".join(docstring.partition("\n\n")[0].split())).replace("|", "\\|")


def to_markdown(docstring: str) -> str:
    """Return a docstring as Markdown: its sections as lists, its examples as code.

    >>> print(to_markdown("Add.\\n\\nArgs:\\n    a: a number,\\n        or ``None``."))
    Add.
    <BLANKLINE>
    **Args**
    <BLANKLINE>
    - **`a`**: a number, or ``None``.
    >>> to_markdown(">>> 1 + 1\\n2")
    '```pycon\\n>>> 1 + 1\\n2\\n```'
    """
    return "\n\n".join(_paragraph(text) for text in re.split(r"\n\s*\n", docstring.strip()) if text.strip())


def _paragraph(text: str) -> str:
    lines = text.strip("\n").split("\n")
    if lines[0].lstrip().startswith(">>> "):
        return "```pycon\n" + "\n".join(lines) + "\n```"
    if _SECTION.match(lines[0]):
        return _section(lines)
    if lines[0].startswith("    "):  # an example that is shown as it is
        return "```text\n" + "\n".join(line[4:] for line in lines) + "\n```"
    return _inline("\n".join(lines))


def _section(lines: list[str]) -> str:
    items: list[str] = []
    for line in lines[1:]:
        start = _ITEM.match(line)
        if start:
            items.append(f"- **`{start[1]}`**: {start[2]}")
        elif items:
            items[-1] += f" {line.strip()}"
        else:
            items.append(f"- {line.strip()}")
    return f"**{lines[0][:-1]}**\n\n" + "\n".join(_inline(item) for item in items)


def _inline(text: str) -> str:
    """Roles of Sphinx as code, and what HTML would take for a tag as text."""
    text = _ROLE.sub(lambda role: f"`{role[1].rpartition('.')[2]}`", text)
    parts = _CODE.split(text)
    return "".join(part if i % 2 else part.replace("<", "&lt;") for i, part in enumerate(parts))
