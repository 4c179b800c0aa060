"""Explain every model on every device. Each model is read once; if it fails, the others go on."""

from __future__ import annotations

import argparse
import math
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import networkx as nx

from ..errors import GraphError, NnMeterNasError
from ..graph.memory import ONNXRUNTIME, TFLITE, Footprint
from ..kernels.fusion import Kernel
from ..predictor import Explanation, LatencyPredictor
from ..progress import progress
from .arguments import DEFAULT_DEVICE
from .messages import grouped, in_flags, note
from .models import Model, Models

#: Columns of memory and size, in bytes.
FOOTPRINT = ("memory_bytes", "memory_tflite_bytes", "size_bytes")


@dataclass
class Run:
    """The models and devices of a command.

    Attributes:
        verbose: say more about each model.
        warns: warn of what a latency leaves out, for output that does not tell it.
        strict: with ``warns``, fail on an operator of a type that was not measured.
        tell: called with each remark, warning and error.
        exit_code: 0, or 1 if a model has failed so far.
    """

    models: Models
    predictors: list[LatencyPredictor]
    verbose: bool
    warns: bool = False
    strict: bool = False
    tell: Callable[[str], None] = note
    exit_code: int = 0

    def __iter__(self) -> Iterator[tuple[Model, list[Explanation | Exception]]]:
        """Yield each model with its explanation on each device, or the error.

        Only one model graph is in memory at a time.
        """
        with progress(len(self.models)) as advance:
            for model in self.models:
                yield model, self.results(model)
                advance(1)

    def results(self, model: Model) -> list[Explanation | Exception]:
        """Return the explanation of a model on each device, or the error."""
        try:
            graph = model.read()
        except Exception as error:  # a bad model, or a bug of ours, must not stop the others
            self._fail(model, error)
            return [error] * len(self.predictors)
        if self.verbose:
            self.tell(f"{model.name}: {model.kind}, {len(graph)} operators")
        results, warned, footprint = [], [], Footprint(graph)
        for predictor in self.predictors:
            result, messages = self._result(graph, footprint, predictor)
            results.append(result)
            warned += [(predictor.device, message) for message in messages]
        for message in grouped(warned):
            self.tell(f"warning: {model.name}: {message}")
        self._report(model, results)
        return results

    def _result(
        self, graph: nx.DiGraph, footprint: Footprint, predictor: LatencyPredictor
    ) -> tuple[Explanation | Exception, list[str]]:
        """Return the explanation or the error, and what was warned of."""
        predictor = LatencyPredictor(predictor.pack)  # a fresh one, which has not warned about another model
        result: Explanation | Exception
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = predictor.explain(graph, allow_quantized=True)  # it was allowed when it was read
                result = replace(found, footprint=footprint)
                if not len(result.kernel_graph):
                    raise GraphError(
                        "it runs nothing, as its branches are all zero or only reshape its input, so it has "
                        "no latency"
                    )
                if self.warns:
                    predictor.check(result, self.strict)
            except Exception as error:  # one device must not stop the others
                result = error
        return result, [str(warning.message) for warning in caught]

    def _report(self, model: Model, results: Sequence[Explanation | Exception]) -> None:
        """Print why the model failed: a bug of ours each time, any other reason once for all devices."""
        said = []
        for predictor, result in zip(self.predictors, results, strict=True):
            if isinstance(result, NnMeterNasError):
                said.append((predictor.device, str(result)))
            elif isinstance(result, Exception):
                self._fail(model, result)
        for message in grouped(said):
            self._fail(model, NnMeterNasError(message))

    def _fail(self, model: Model, error: Exception) -> None:
        self.exit_code = report(model, error, self.verbose, self.tell)


def report(model: Model, error: Exception, verbose: bool, tell: Callable[[str], None] = note) -> int:
    """Tell why a model failed, and return the exit code for a failure.

    An error that is neither this package's nor the system's is a bug of ours; it too fails only its model.
    ``verbose`` shows where it was raised, and where its cause was if a reader took that for a damaged model.
    """
    message = _in_flags(error)
    if not isinstance(error, NnMeterNasError | OSError):
        message = f"unexpected {type(error).__name__}: {error}; --verbose tells where it happened"
    if verbose and (error.__cause__ or not isinstance(error, NnMeterNasError | OSError)):
        tell("".join(traceback.format_exception(error)).rstrip())
    tell(f"error: {message}" if model.name in message else f"error: {model.name}: {message}")
    return 1


def _in_flags(error: Exception) -> str:
    """Return the message of an error about a model, with flags for arguments."""
    return in_flags(str(error), ["input_shape", "allow_quantized"])


def note_default_device(options: argparse.Namespace) -> None:
    """Print which device the latencies are for, if the user named none."""
    if not options.predictor:
        note(f"latency on {DEFAULT_DEVICE}, as no --predictor is given")


def identity(model: Model, predictor: LatencyPredictor) -> dict[str, Any]:
    """Return the columns that identify a record."""
    return {"model": model.name, "predictor": predictor.device, "version": predictor.version}


def _share(share: float) -> float | None:
    """Return a share; None if it is unknown."""
    return None if math.isnan(share) else share


def findings(result: Explanation | Exception) -> dict[str, Any]:
    """Return the result columns: latency in ms, what it leaves out, or the error."""
    if isinstance(result, Exception):
        entries = ("latency_ms", "low_ms", "high_ms", "unpredicted", "unpredicted_share",
                   "extrapolated_share", "estimated", "estimated_share", "quantized")  # fmt: skip
        return {**dict.fromkeys(entries), "error": _in_flags(result)}
    interval = result.interval()
    return {
        "latency_ms": result.latency_ms if result.is_predicted else None,
        "low_ms": interval and interval.low,
        "high_ms": interval and interval.high,
        "unpredicted": result.unpredicted,
        "unpredicted_share": _share(result.unpredicted_share),
        "extrapolated_share": result.extrapolated_share,
        "estimated": result.estimated,
        "estimated_share": result.estimated_share,
        "quantized": result.quantized,
        "error": None,
    }


def memory_and_size(result: Explanation | Exception, kernel: Kernel | None = None) -> dict[str, int | None]:
    """Return the columns of memory and size, of a model or of one of its kernels."""
    if isinstance(result, Exception):
        return dict.fromkeys(FOOTPRINT)
    operators = None if kernel is None else kernel.members
    told = result.footprint
    values = told.memory(ONNXRUNTIME, operators), told.memory(TFLITE, operators), told.size(operators)
    return dict(zip(FOOTPRINT, values, strict=True))
