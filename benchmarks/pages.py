"""Write tables in Markdown, and put them between the marks of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nnmeter_nas.errors import DatasetError
from nnmeter_nas.files import write_bytes


def markdown_table(header: Sequence[str], numbers: Iterable[int], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table; the columns at the places ``numbers`` are aligned to the right.

    >>> markdown_table(["network", "ms"], [1], [["resnet18", "41.2"]])
    ['| network | ms |', '| --- | ---: |', '| resnet18 | 41.2 |']
    """
    right = set(numbers)
    align = ["---:" if place in right else "---" for place in range(len(header))]
    return [f"| {' | '.join(row)} |" for row in (header, align, *rows)]


def replace_sections(page: Path, sections: Mapping[str, Sequence[str]]) -> None:
    """Replace the lines between the marks of each section of ``page``.

    Raises:
        DatasetError: ``page`` lacks the marks that frame a section.
    """
    text = page.read_text(encoding="utf-8")
    for section, lines in sections.items():
        begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
        if begin not in text or end not in text:
            raise DatasetError(f"{page} has no section between {begin!r} and {end!r}")
        before, rest = text.split(begin, 1)
        text = "\n".join([before + begin, *lines, end + rest.split(end, 1)[1]])
    write_bytes(page, text.encode())
