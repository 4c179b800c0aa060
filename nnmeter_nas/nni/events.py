"""The events of a search; replaying them brings a strategy back to its state.

A strategy is deterministic: after the same asks and tells in the same order, it asks for the same. So the
ordered list of submissions and ends is its whole state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import SearchError


@dataclass(frozen=True)
class Submitted:
    """A trial that the strategy asked for.

    Attributes:
        number: of the trial, from 1.
        architecture: the candidate by label.
        values: its measures, such as ``{"latency_ms": 4.2}``.
    """

    number: int
    architecture: Mapping[str, str]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Ended:
    """The end of a trial.

    Attributes:
        number: of the trial.
        metric: what it reported; None if it failed.
        failure: why it failed; empty if it did not.
    """

    number: int
    metric: float | None
    failure: str = ""


Event = Submitted | Ended


def to_record(event: Event) -> dict[str, Any]:
    """``event`` as JSON values.

    >>> to_record(Ended(3, 0.9))
    {'event': 'ended', 'number': 3, 'metric': 0.9, 'failure': ''}
    """
    return {"event": "submitted" if isinstance(event, Submitted) else "ended", **asdict(event)}


def from_record(record: Mapping[str, Any]) -> Event:
    """The event that :func:`to_record` wrote.

    Raises:
        SearchError: ``record`` is no such record.
    """
    fields = {name: value for name, value in record.items() if name != "event"}
    try:
        return {"submitted": Submitted, "ended": Ended}[record["event"]](**fields)
    except (KeyError, TypeError) as error:
        raise SearchError(f"{dict(record)} is no record of a search") from error


def unended(events: Iterable[Event]) -> list[Submitted]:
    """The trials that were submitted and have not ended, in the order of submission."""
    running: dict[int, Submitted] = {}
    for event in events:
        if isinstance(event, Submitted):
            running[event.number] = event
        else:
            running.pop(event.number, None)
    return list(running.values())
