"""Measurements in nn-Meter's form, and the JSON files that hold them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import WorkspaceError
from ...files import write_bytes
from ..helpers import NumpyEncoder

__all__ = [
    "Latency",
    "ProfiledResults",
    "dump_profiled_results",
    "merge_info",
    "read_profiled_results",
    "save_profiled_results",
]

#: Models by module, such as a fusion test or a kernel type, and then by name.
Models = dict[str, dict[str, dict[str, Any]]]


class Latency:
    """A mean and a standard deviation in ms, written "1.5 +- 0.1".

    >>> str(Latency("1.5 +- 0.3") + Latency(2, 0.4))
    '3.5 +- 0.5'
    """

    def __init__(self, avg: float | str | Latency = 0, std: float = 0) -> None:
        if isinstance(avg, str):
            mean, _, deviation = avg.partition("+-")
            self.avg, self.std = float(mean), float(deviation or 0)
        elif isinstance(avg, Latency):
            self.avg, self.std = avg.avg, avg.std
        else:
            self.avg, self.std = avg, std

    def __str__(self) -> str:
        return f"{self.avg} +- {self.std}"

    def __add__(self, other: Latency | float) -> Latency:
        if isinstance(other, Latency):
            return Latency(self.avg + other.avg, math.hypot(self.std, other.std))
        return Latency(self.avg + other, self.std)

    __radd__ = __add__

    def __neg__(self) -> Latency:
        return Latency(-self.avg, -self.std)

    def __sub__(self, other: Latency | float) -> Latency:
        return self + -other

    def __mul__(self, factor: float) -> Latency:
        return Latency(self.avg * factor, self.std * factor)

    __rmul__ = __mul__

    def __lt__(self, other: Latency) -> bool:
        return self.avg < other.avg

    def __le__(self, other: Latency) -> bool:
        return self.avg <= other.avg


class ProfiledResults:
    """What one model measured, by metric."""

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.data = dict(results)

    def set(self, metric: str, value: Any) -> None:
        """Set a metric."""
        self.data[metric] = value

    def get(self, metrics: str | Sequence[str]) -> dict[str, Any]:
        """Return some of the metrics.

        Raises:
            AttributeError: one was not measured.
        """
        names = [metrics] if isinstance(metrics, str) else metrics
        for name in names:
            if name not in self.data:
                raise AttributeError(f"Unsupported metric {name}.")
        return {name: self.data[name] for name in names}


def dump_profiled_results(
    results: Models, detail: bool = False, metrics: Sequence[str] = ("latency",)
) -> Models:
    """Return ``results`` as JSON has them: latencies as text, and the metrics alone unless ``detail``."""
    return {
        module: {
            name: {
                key: str(value) if isinstance(value, Latency) else value
                for key, value in model.items()
                if detail or key in metrics
            }
            for name, model in models.items()
        }
        for module, models in results.items()
    }


def read_profiled_results(results: Models) -> Models:
    """Return a copy of ``results`` whose latencies are :class:`Latency`."""
    found = copy.deepcopy(results)
    for models in found.values():
        for model in models.values():
            if "latency" in model:
                model["latency"] = Latency(model["latency"])
    return found


def merge_info(new_info: Any, info_save_path: str | None = None, prev_info: Any = None) -> Any:
    """Add ``new_info`` to ``prev_info``, or to what the file ``info_save_path`` holds; return the result.

    Both may be paths of JSON files.

    Raises:
        WorkspaceError: a file is damaged, or not exactly one of the two is given.
    """
    if (info_save_path is None) == (prev_info is None):
        raise WorkspaceError("merge_info takes exactly one of info_save_path and prev_info")
    if info_save_path is not None:
        prev_info = read_json(info_save_path) if Path(info_save_path).is_file() else {}
    merged = read_json(prev_info) if isinstance(prev_info, str) else prev_info
    for module, models in (read_json(new_info) if isinstance(new_info, str) else new_info).items():
        merged[module] = {**merged.get(module, {}), **models}
    return merged


def save_profiled_results(
    models: Models, save_path: str | Path, detail: bool, metrics: Sequence[str] = ("latency",)
) -> None:
    """Add what was measured to a file of results."""
    measured = {
        module: {name: model for name, model in found.items() if any(metric in model for metric in metrics)}
        for module, found in models.items()
    }
    write_json(save_path, merge_info(dump_profiled_results(measured, detail, metrics), str(save_path)))


def read_json(path: str | Path) -> Any:
    """Read a file of results.

    Raises:
        WorkspaceError: it does not exist or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkspaceError(f"{path} cannot be read: {error}") from error


def write_json(path: str | Path, content: Any) -> None:
    """Write a file of results, whole or not at all."""
    write_bytes(path, json.dumps(content, indent=4, cls=NumpyEncoder).encode())
