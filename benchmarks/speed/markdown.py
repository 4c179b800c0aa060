"""Write figures as a Markdown table, with readable numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..pages import markdown_table
from .figures import Figure, Result, Sample

_HEADER = ("figure", "ours", "rival", "ratio", "target", "met")
#: The next smaller unit, used for values below 0.1.
_SMALLER = {"s": "ms", "ms": "µs"}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def table(results: Iterable[Result]) -> list[str]:
    """Return the lines of a Markdown table, then its numbered footnotes."""
    notes: dict[str, int] = {}
    rows = [row(result, notes) for result in results]
    head = markdown_table(_HEADER, range(1, 4), [])
    return [*head, *rows, *([""] if notes else []), *(f"{n}. {note}" for note, n in notes.items())]


def row(result: Result, notes: dict[str, int]) -> str:
    """Return one line of the table. A new footnote is added to ``notes`` under the next number."""
    if not isinstance(result, Figure):
        return f"| {result.name} | not measured: {result.reason} | | | | |"
    name = result.name
    if result.note:
        name += str(notes.setdefault(result.note, len(notes) + 1)).translate(_SUPERSCRIPTS)
    rival = "–" if result.rival is None else f"{shown(result.rival, result.unit)} ({result.rival_name})"
    ratio = "–" if result.ratio is None else f"{number(result.ratio)} ×"
    met = "–" if target(result) == "–" else "yes" if result.met else "**no**"
    cells = [name, shown(result.ours, result.unit), rival, ratio, target(result), met]
    return "| " + " | ".join(cells) + " |"


def target(figure: Figure) -> str:
    """Return the targets as text."""
    sign = "≥" if figure.more_is_better else "≤"
    parts = [f"≥ {figure.at_least:g} ×"] if figure.at_least is not None else []
    parts += [_joined(f"{sign} {number(figure.limit)}", figure.unit)] if figure.limit is not None else []
    return ", ".join(parts) or "–"


def shown(sample: Sample, unit: str) -> str:
    """Format median and spread with their unit, or a smaller unit if they are small.

    >>> shown(Sample((0.00303, 0.00307, 0.00315)), "s"), shown(Sample((1.0684,)), "MB")
    ('3.07 ± 0.03 ms', '1.07 MB')
    """
    values = sample.values
    while unit in _SMALLER and abs(Sample(values).median) < 0.1:
        values, unit = tuple(value * 1000 for value in values), _SMALLER[unit]
    found = Sample(values)
    digits = _decimals(found.median, 3)
    text = f"{_rounded(found.median, digits)}"
    if len(values) > 1:
        spread = found.spread
        # As many decimals as the median; at most two significant digits, at least one.
        digits = max(min(digits, _decimals(spread, 2)), _decimals(spread, 1))
        text += f" ± {_rounded(spread, digits)}"
    return _joined(text, unit)


def number(value: float) -> str:
    """Format three significant digits, without trailing zeros after the decimal point.

    >>> number(0.012345), number(123456.0), number(41.23), number(20.0)
    ('0.0123', '123,000', '41.2', '20')
    """
    text = _rounded(value, _decimals(value, 3))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimals(value: float, digits: int) -> int:
    """Return the decimals for this many digits of ``value``; negative ones round before the point."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 0


def _rounded(value: float, decimals: int) -> str:
    return f"{round(value, decimals):,.{max(decimals, 0)}f}"


def _joined(text: str, unit: str) -> str:
    return f"{text} {unit}".rstrip()
