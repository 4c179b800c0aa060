"""The events of a search; replaying them restores the state of a strategy.

A strategy is deterministic: after the same asks and tells in the same order, it asks for the same
architecture. So the ordered list of submissions and ends is its whole state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ..errors import SearchError


class Expected(NamedTuple):
    """The metric that a strategy expected of an architecture when it asked for it.

    Attributes:
        metric: its median.
        low, high: limits that should hold two of three metrics, one standard deviation to each side.
    """

    metric: float
    low: float
    high: float


@dataclass(frozen=True)
class Submitted:
    """A trial that the strategy asked for.

    Attributes:
        number: number of the trial, from 1.
        architecture: the candidate by label.
        values: measures of the architecture, such as ``{"latency_ms": 4.2}``.
        expected: the metric that the strategy expected; None if it expected none.
    """

    number: int
    architecture: Mapping[str, str]
    values: Mapping[str, float]
    expected: Expected | None = None


@dataclass(frozen=True)
class Ended:
    """The end of a trial.

    Attributes:
        number: number of the trial.
        metric: the reported metric; None if the trial failed.
        failure: reason of the failure; empty if there was none.
    """

    number: int
    metric: float | None
    failure: str = ""


Event = Submitted | Ended


def to_record(event: Event) -> dict[str, Any]:
    """Return ``event`` as JSON values.

    >>> to_record(Ended(3, 0.9))
    {'event': 'ended', 'number': 3, 'metric': 0.9, 'failure': ''}
    """
    if isinstance(event, Ended):
        return {"event": "ended", **asdict(event)}
    expected = event.expected and event.expected._asdict()
    return {"event": "submitted", **asdict(event), "expected": expected}


def from_record(record: Mapping[str, Any]) -> Event:
    """Return the event of a record from :func:`to_record`, or of one from before trials had ``expected``.

    Raises:
        SearchError: ``record`` is not such a record.
    """
    fields = {name: value for name, value in record.items() if name != "event"}
    try:
        if fields.get("expected") is not None:
            fields["expected"] = Expected(**fields["expected"])
        return {"submitted": Submitted, "ended": Ended}[record["event"]](**fields)
    except (KeyError, TypeError) as error:
        raise SearchError(f"{dict(record)} is no record of a search") from error


def unended(events: Iterable[Event]) -> list[Submitted]:
    """Return the trials that were submitted and have not ended, in order of submission."""
    running: dict[int, Submitted] = {}
    for event in events:
        if isinstance(event, Submitted):
            running[event.number] = event
        else:
            running.pop(event.number, None)
    return list(running.values())
