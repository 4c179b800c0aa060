"""What runs around an evaluator inside a trial: its metric is checked, kept in a file, and reported.

NNI's page then shows the measures of the architecture, such as its latency, beside the accuracy. A trial that
reports no metric, or none that is a finite number, fails.
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

#: What was reported as final metric, oldest first.
Reported = list[Any]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        metric: what it reported; None if it failed.
        seconds: how long it took.
        failure: its exception as Python names it; empty if there was none.
    """

    metric: float | None
    seconds: float
    failure: str = ""


def run_trial(
    evaluate: Callable[[], Any],
    collected: Callable[[], AbstractContextManager[Reported]],
    report: Callable[[dict[str, Any]], None],
    values: Mapping[str, float],
    file: Path | None,
) -> Any:
    """Run ``evaluate`` and report what it reports, with ``values`` beside it.

    Args:
        evaluate: the evaluator on the model.
        collected: holds back what is reported as final metric while it is entered.
        report: hands a final metric to NNI.
        values: measures of the architecture by name.
        file: where the :class:`Outcome` is written, whole or not at all, before NNI hears of it.

    Raises:
        SearchError: no metric was reported, or one that is no finite number.
    """
    started = time.monotonic()

    def keep(metric: float | None, failure: str = "") -> None:
        if file is not None:
            outcome = Outcome(metric, round(time.monotonic() - started, 3), failure)
            write_bytes(file, json.dumps(asdict(outcome)).encode())

    try:
        with collected() as reported:
            result = evaluate()
        metric = _metric(reported)
    except (Exception, SystemExit) as error:
        keep(None, f"{type(error).__name__}: {error}")
        raise
    keep(metric)
    more = reported[-1] if isinstance(reported[-1], dict) else {}
    report({"default": metric} | more | dict(values) | {"default": metric})
    return result


def read_outcome(file: Path) -> Outcome | None:
    """What :func:`run_trial` wrote; None if the trial did not get that far.

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
    """The metric that was reported last.

    Raises:
        SearchError: none was reported, or it is no finite number.
    """
    if not reported:
        raise SearchError("the trial reported no metric: its evaluator must call nni.report_final_result")
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
