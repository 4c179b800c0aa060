"""Every error this package raises on bad input; all share one base class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NnMeterNasError(Exception):
    """Base of all errors raised by nnmeter_nas."""


class GraphError(NnMeterNasError, ValueError):
    """A model graph is malformed; ``node`` names the operator at fault, if one is."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(f"operator {node!r}: {message}" if node is not None else message)
        self.node = node


class ShapeError(GraphError):
    """A shape is missing, contradictory or outside what an operator accepts."""


class OperatorError(NnMeterNasError, ValueError):
    """An operator is declared twice, or under a name that another one has in that format."""


class ReaderError(NnMeterNasError, ValueError):
    """A model in an outside format cannot be read."""


class UnpredictedOperatorError(NnMeterNasError):
    """``strict=True`` met operators of kernel types that were not measured on the device."""


class UnknownDeviceError(NnMeterNasError, LookupError):
    """No predictor pack goes by the given device name or version."""


class PackError(NnMeterNasError):
    """A predictor pack is missing files, damaged (hash mismatch) or of an unknown format."""


class FeatureError(NnMeterNasError, ValueError):
    """A forest is to predict from rows of the wrong width, or from what is no finite number."""


class MissingPackageError(NnMeterNasError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class DatasetError(NnMeterNasError, ValueError):
    """A bench dataset or a folder of training data is absent, or is not laid out as it has to be."""


class SpaceError(NnMeterNasError, ValueError):
    """A search space cannot be read, or an architecture is none of it."""


class LookupTableError(NnMeterNasError, ValueError):
    """A lookup table is damaged, of something else, or asked for what it lacks; or none can be built."""


class WorkerError(NnMeterNasError):
    """Work cannot be spread: no cluster answers, workers keep dying, or one lacks a predictor pack."""


class SearchError(NnMeterNasError):
    """A search cannot go on, for example because no candidate meets the latency limit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence fragment that suggests the closest known name and lists all of them.

    >>> nearest("cortexA76", ["cortexA76cpu_tflite21", "myriadvpu_openvino2019r2"])
    "did you mean 'cortexA76cpu_tflite21'? Known: cortexA76cpu_tflite21, myriadvpu_openvino2019r2"
    """
    names = list(known)
    lowered = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.4)
    hint = f"did you mean {lowered[close[0]]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"
