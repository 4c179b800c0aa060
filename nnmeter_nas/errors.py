"""The errors this package raises on bad input. All share one base class."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NnMeterNasError(Exception):
    """Base class of all errors that nnmeter_nas raises."""


class GraphError(NnMeterNasError, ValueError):
    """A model graph is malformed. ``node`` names the faulty operator, or is None if no single one is."""

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(f"operator {node!r}: {message}" if node is not None else message)
        self.node = node


class ShapeError(GraphError):
    """A shape is missing, contradicts another, or is not accepted by its operator."""


class OperatorError(NnMeterNasError, ValueError):
    """An operator is declared twice, or under a name that another operator has in that format."""


class ReaderError(NnMeterNasError, ValueError):
    """A model in an outside format cannot be read."""


class QuantizedModelError(ReaderError):
    """A model is quantised. Latencies are for float networks; ``allow_quantized=True`` prices it as one."""


class UnpredictedOperatorError(NnMeterNasError):
    """With ``strict=True``: the model has operators of kernel types that were not measured on the device."""


class UnknownDeviceError(NnMeterNasError, LookupError):
    """No predictor pack has the given device name or version."""


class PackError(NnMeterNasError):
    """A predictor pack has missing files, is damaged (hash mismatch) or has an unknown format."""


class CalibrationError(NnMeterNasError, ValueError):
    """Measurements do not fit the models, or calibrating with them does not help."""


class UnknownBackendError(NnMeterNasError, LookupError):
    """No backend has the given name."""


class MeasurementError(NnMeterNasError):
    """A device cannot run a model, or does not repeat its latency."""


class ToolError(MeasurementError):
    """What measures on a device is missing, or cannot do what it is told. No model can be measured so."""


class DeviceLostError(NnMeterNasError):
    """A device that is attached does not answer. That is no fault of what it was asked to run."""


class WorkspaceError(NnMeterNasError, ValueError):
    """The folder of a build belongs to another device or runtime, is in use or is damaged."""


class FeatureError(NnMeterNasError, ValueError):
    """A forest was given rows of the wrong width, or values that are not finite numbers."""


class MissingPackageError(NnMeterNasError, ImportError):
    """An optional package is not installed. The message names the extra that installs it."""


class DatasetError(NnMeterNasError, ValueError):
    """A bench dataset or a folder of training data is missing or has the wrong layout."""


class SpaceError(NnMeterNasError, ValueError):
    """A search space cannot be read, or does not contain the given architecture."""


class LookupTableError(NnMeterNasError, ValueError):
    """A lookup table is damaged, belongs to another space or measure, lacks an entry, or cannot be built."""


class WorkerError(NnMeterNasError):
    """Work cannot be distributed: no cluster answers, workers keep dying, or one lacks a predictor pack."""


class SearchError(NnMeterNasError):
    """A search cannot continue, for example because no candidate meets the latency limit."""


class SettingsError(SearchError, ValueError):
    """Settings of a search, a training or a build are wrong or contradict each other. Nothing was started."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, in any case; None if none is.

    >>> closest("registr", ["connect", "register"]), closest("x", ["register"])
    ('register', None)
    """
    lowered = {n.lower(): n for n in known}
    close = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.4)
    return lowered[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests the closest known name and lists all known names.

    >>> nearest("cortexA76", ["cortexA76cpu_tflite21", "myriadvpu_openvino2019r2"])
    "did you mean 'cortexA76cpu_tflite21'? Known: cortexA76cpu_tflite21, myriadvpu_openvino2019r2"
    >>> nearest("nosuch", ["cortexA76cpu_tflite21", "myriadvpu_openvino2019r2"])
    'known: cortexA76cpu_tflite21, myriadvpu_openvino2019r2'
    """
    names = list(known)
    close = closest(name, names)
    hint = f"did you mean {close!r}? Known" if close else "known"
    return f"{hint}: {', '.join(names) or 'none'}"
