"""Read what TFLite's ``benchmark_model`` prints: the latency, and the table of what each operator took.

The forms of TFLite since 2.1 are known, and those of nn-Meter's ``tflite_benchmark_tools``, whose builds for
GPUs print what their kernels took as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import MeasurementError
from .connection import last_line

_NUMBER = r"([\d.]+(?:e[+-]?\d+)?|-?nan|-?inf)"
#: The latency of a run, the most telling first, and how many of its unit are a ms.
_LATENCIES = (
    # nn-Meter's tool for GPUs: the sum of the kernels, which nn-Meter takes for the latency there.
    (re.compile(rf"comp_avg_ms={_NUMBER}"), 1.0),
    # Runs after the warm-up, in the line of the last block; only newer builds have a median.
    (re.compile(rf"(?<!microseconds\): )\bcount=\d+ .*\bmedian={_NUMBER}"), 1e3),
    (re.compile(rf"Inference timings in us:.*\bInference \(avg\): {_NUMBER}"), 1e3),
    (re.compile(rf"Average inference timings in us:.*\bno stats: {_NUMBER}"), 1e3),
    (re.compile(rf"Timings \(microseconds\): count=\d+ .*\bavg={_NUMBER}"), 1e3),
)
#: Titles of tables, and of parts of the output.
_TITLE, _RUN_ORDER = re.compile(r"=+ [A-Z][\w ]+ =+\s*"), "= Run Order ="
_INITIALIZATION, _RUNS = "Profiling Info for Benchmark Initialization", "Profiling Info for Regular"
_INSIDE = "Delegate internal"
#: A row of the table in run order: kind; start, if it is there, time of the first run and mean; two shares,
#: memory and calls; name. Cells are apart by tabs or, since LiteRT, by spaces.
_ROW = re.compile(
    r"\s*(\S.*?)\s+(?:[\d.e+-]+\s+){1,2}([\d.e+-]+)\s+[\d.]+%\s+[\d.]+%\s+[\d.]+\s+\d+\s+(\S.*?)\s*"
)
#: The name of a row: the tensors that it computes, and since 2.3 its number among the operators.
_NAME = re.compile(r"\[(.*)\](?::\d+)?")
#: How operators inside a delegate are called: in the name of a row, and since LiteRT in its kind.
_OF_DELEGATE = "Delegate/"


class Row(NamedTuple):
    """An operator of the table.

    Attributes:
        kind: what TFLite or a delegate calls it.
        ms: its mean latency.
        name: the tensors that it computes; of an operator inside a delegate, what the delegate calls it.
        inside: whether a delegate ran it.
    """

    kind: str
    ms: float
    name: str
    inside: bool


def latency_ms(output: str) -> float:
    """Return the latency of a run in ms: the median if the tool tells it, else the mean.

    >>> latency_ms("Inference timings in us: Init: 630, First inference: 3678, Inference (avg): 3750")
    3.75

    Raises:
        MeasurementError: it says none.
    """
    for pattern, units in _LATENCIES:
        found = pattern.findall(output)
        if found:
            return float(found[-1]) / units
    raise MeasurementError(f"TFLite's tool told no latency; its last words: {last_line(output)}")


def unknown_flags(output: str) -> str:
    """Flags that this build does not know, as it names them; empty if it knows all."""
    found = re.search(r"Unconsumed cmdline flags: (.+)", output)
    return found[1].strip() if found else ""


def rows(output: str) -> list[Row]:
    """Return the operators of the table as they ran, those inside a delegate last; none without a table.

    Raises:
        MeasurementError: a row makes no sense.
    """
    found = []
    for part, line in _lines(output):
        row = _ROW.fullmatch(line)
        if row is None:
            raise MeasurementError(f"TFLite's tool says of an operator: {line.strip()}")
        kind, ms, name = row.groups()
        named = _NAME.fullmatch(name)
        inside = part == _INSIDE or kind.startswith(_OF_DELEGATE)
        found.append(Row(kind.removeprefix(_OF_DELEGATE), float(ms), named[1] if named else name, inside))
    return found


def _lines(output: str) -> Iterator[tuple[str, str]]:
    """Each row of the tables in run order, but those of the initialization, and the part it belongs to."""
    part, in_table = "", False
    for line in output.splitlines():
        title = next((one for one in (_INITIALIZATION, _RUNS, _INSIDE) if one in line), None)
        if title is not None:
            part, in_table = title, False
        elif _TITLE.fullmatch(line):
            in_table = _RUN_ORDER in line
        elif not line.strip():
            in_table = False
        elif in_table and part != _INITIALIZATION and "[node type]" not in line:
            yield part, line
