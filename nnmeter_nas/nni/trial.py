"""Run an evaluator inside a trial: check its metric, keep its outcome, and report it.

NNI's page then shows the measures of the architecture, such as its latency, beside the accuracy. A trial
fails if it reports no metric, or one that is not finite.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import SearchError
from ..files import write_bytes

#: Final metrics reported, oldest first.
Reported = list[Any]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        metric: the reported metric; None if the trial failed.
        seconds: duration of the trial.
        failure: its exception, as Python prints it; empty if there was none.
    """

    metric: float | None
    seconds: float
    failure: str = ""


def run_trial(
    evaluate: Callable[[], Any],
    collected: Callable[[], AbstractContextManager[Reported]],
    report: Callable[[dict[str, Any]], None],
    values: Mapping[str, float],
    keep: Callable[[Outcome], None],
) -> Any:
    """Run ``evaluate`` and report its metric together with ``values``.

    What the evaluator returns is the metric if it reports none.

    Args:
        evaluate: runs the evaluator on the model.
        collected: holds back final metrics while entered.
        report: reports a final metric to NNI.
        values: measures of the architecture by name.
        keep: called with the outcome before NNI gets the metric.

    Raises:
        SearchError: no metric was reported, or one that is not finite.
    """
    started = time.monotonic()

    def ended(metric: float | None, failure: str = "") -> None:
        keep(Outcome(metric, round(time.monotonic() - started, 3), failure))

    try:
        with collected() as reported:
            result = evaluate()
        if not reported and result is not None:
            reported = [result]  # an evaluator may also return its metric
        metric = _metric(reported)
    except (Exception, SystemExit) as error:
        ended(None, f"{type(error).__name__}: {error}")
        raise
    ended(metric)
    more = reported[-1] if isinstance(reported[-1], dict) else {}
    report({"default": metric} | more | dict(values) | {"default": metric})
    return result


def write_outcome(file: Path | None, outcome: Outcome) -> None:
    """Write ``outcome`` to ``file``, whole or not at all; None means nowhere."""
    if file is not None:
        write_bytes(file, json.dumps(asdict(outcome)).encode())


def read_outcome(file: Path) -> Outcome | None:
    """Read the outcome that :func:`write_outcome` wrote; None if the trial did not get that far.

    Raises:
        SearchError: the file is not the outcome of a trial.
    """
    try:
        return Outcome(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise SearchError(f"{file} is not the outcome of a trial: {error}") from error


def _metric(reported: Reported) -> float:
    """Return the last reported metric.

    Raises:
        SearchError: no metric was reported, or it is not finite.
    """
    if not reported:
        raise SearchError(
            "the trial reported no metric: its evaluator must return it or call nni.report_final_result"
        )
    metric = reported[-1]
    if isinstance(metric, dict):
        if "default" not in metric:
            raise SearchError(f"the trial reported {metric} without a key 'default', which is the metric")
        metric = metric["default"]
    try:
        number = float(metric)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise SearchError(f"the trial reported {metric!r}, which is no finite number")
    return number
