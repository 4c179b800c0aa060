"""Models times devices: each model is read once and explained on every device, and fails alone."""

from __future__ import annotations

import argparse
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import networkx as nx

from ..errors import NnMeterNasError
from ..predictor import Explanation, LatencyPredictor
from .arguments import DEFAULT_DEVICE
from .messages import fail, in_flags, note, warn
from .models import Model, Models
from .results import progress


@dataclass
class Run:
    """What a command works through.

    Attributes:
        models: all of them.
        predictors: one for each device.
        verbose: say more about each model.
        warns: say what a latency leaves out, for output that does not.
        strict: with ``warns``, make an operator of a type that was not measured a failure.
        exit_code: 0, or 1 if a model failed so far.
    """

    models: Models
    predictors: list[LatencyPredictor]
    verbose: bool
    warns: bool = False
    strict: bool = False
    exit_code: int = 0

    def __iter__(self) -> Iterator[tuple[Model, list[Explanation | Exception]]]:
        """Each model with what it costs on each device, or why that is not known.

        No more than one model graph is alive at a time.
        """
        with progress(len(self.models)) as advance:
            for model in self.models:
                yield model, self._results(model)
                advance()

    def _results(self, model: Model) -> list[Explanation | Exception]:
        try:
            graph = model.read()
        except Exception as error:  # one model's fault, or ours, does not keep the others
            self.exit_code = report(model, error, self.verbose)
            return [error] * len(self.predictors)
        if self.verbose:
            note(f"{model.name}: {model.kind}, {len(graph)} operators")
        return [self._result(model, graph, predictor) for predictor in self.predictors]

    def _result(
        self, model: Model, graph: nx.DiGraph, predictor: LatencyPredictor
    ) -> Explanation | Exception:
        predictor = LatencyPredictor(predictor.pack)  # one that has not warned yet, of another model
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = predictor.explain(graph)
                if self.warns:
                    predictor.check(found, self.strict)
            except Exception as error:
                self.exit_code = report(model, error, self.verbose)
                return error
        for warning in caught:
            warn(f"{model.name}: {warning.message}")
        return found


def report(model: Model, error: Exception, verbose: bool) -> int:
    """Say why a model failed, and return the exit code for it.

    An error that is not of this package is a fault of ours. It too fails its model alone. ``verbose`` shows
    where it was raised, and where its cause was if a reader took that for damage to the model.
    """
    message = in_flags(str(error), ["input_shape"])
    if not isinstance(error, NnMeterNasError | OSError):
        message = f"unexpected {type(error).__name__}: {error}; --verbose tells where it happened"
    if verbose and (error.__cause__ or not isinstance(error, NnMeterNasError | OSError)):
        traceback.print_exception(error)
    return fail(message if model.name in message else f"{model.name}: {message}")


def note_default_device(options: argparse.Namespace) -> None:
    """Say on which device a latency is if the user named none."""
    if not options.predictor:
        note(f"latency on {DEFAULT_DEVICE}, as no --predictor is given")


def identity(model: Model, predictor: LatencyPredictor) -> dict[str, Any]:
    """The columns that say what a record is about."""
    return {"model": model.name, "predictor": predictor.device, "version": predictor.version}


def findings(result: Explanation | Exception) -> dict[str, Any]:
    """The columns that say what was found: latency in ms, what is left out of it, or the error."""
    if isinstance(result, Exception):
        entries = ("latency_ms", "unpredicted", "unpredicted_share", "extrapolated_share", "estimated",
                   "estimated_share")  # fmt: skip
        return {**dict.fromkeys(entries), "error": str(result)}
    return {
        "latency_ms": result.latency_ms,
        "unpredicted": result.unpredicted,
        "unpredicted_share": result.unpredicted_share if result.unpredicted else 0.0,
        "extrapolated_share": result.extrapolated_share,
        "estimated": result.estimated,
        "estimated_share": result.estimated_share,
        "error": None,
    }
