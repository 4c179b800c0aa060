"""A cell of the table: what it says, and when that was measured or published."""

from __future__ import annotations

from typing import NamedTuple


class Cell(NamedTuple):
    """What one tool has to say to one question.

    Attributes:
        text: the answer.
        when: the date of the measurement, or the source and its year; empty if nothing was measured.
    """

    text: str
    when: str

    @property
    def shown(self) -> str:
        """As the table shows it."""
        return f"{self.text} ({self.when})" if self.when else self.text


def unmeasured(reason: str) -> Cell:
    """A cell without a figure, and why."""
    return Cell(f"not measured: {reason}", "")
