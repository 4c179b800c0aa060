"""The reference networks as each tool may be given them: torch modules and files of several formats."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nnmeter_nas.errors import NnMeterNasError, ReaderError
from nnmeter_nas.files import write_bytes
from nnmeter_nas.graph.shapes import Shape
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from nnmeter_nas.readers.onnx.writer import to_onnx
from nnmeter_nas.readers.tflite.writer import to_tflite

from ..networks import NETWORKS, build_network, input_shape
from ..networks.files import network_graph
from ..networks.unusual import UNUSUAL

#: Networks that every tool is tried on.
ALL = (*NETWORKS, *UNUSUAL)
#: Source of files -> suffix, and what writes a model graph.
_FILES: dict[str, tuple[str, Callable[[Any], bytes]]] = {
    "onnx": (".onnx", to_onnx),
    "nnmeter-ir": (".json", lambda graph: json.dumps(to_nnmeter_ir(graph)).encode()),
    "tflite": (".tflite", to_tflite),
}
#: What networks come from, as the rows of the table.
SOURCES: Mapping[str, str] = {
    "torch": "torch module",
    "onnx": "ONNX file",
    "nnmeter-ir": "nn-Meter IR",
    "tflite": "TensorFlow Lite file",
}


class Model(NamedTuple):
    """A model to try: a module or the path of a file, and the shape of its input."""

    subject: Any
    shape: Shape


def write_models(folder: Path, names: Sequence[str]) -> None:
    """Write the networks to ``folder`` in every format of files that can express them.

    Raises:
        ReaderError: no reference network has one of the names.
    """
    if unknown := [name for name in names if name not in ALL]:
        raise ReaderError(f"no reference network is called {unknown[0]!r}; there are {', '.join(ALL)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        graph = network_graph(name)
        for suffix, written in _FILES.values():
            path = folder / f"{name}{suffix}"
            if path.exists():
                continue
            with contextlib.suppress(NnMeterNasError):  # no word for one of its operators in the format
                write_bytes(path, written(graph))


def names_of(source: str, folder: Path, networks: Sequence[str]) -> list[str]:
    """The models that there are of a source."""
    if source in _FILES:
        return [name for name in networks if (folder / f"{name}{_FILES[source][0]}").exists()]
    return list(networks)


def load_model(source: str, folder: Path, name: str) -> Model:
    """One model of a source, ready to be given to a tool."""
    shape = _shape(name)
    if source in _FILES:
        return Model(str(folder / f"{name}{_FILES[source][0]}"), shape)
    torch.manual_seed(0)
    return Model(build_network(name) if name in NETWORKS else UNUSUAL[name][0]().eval(), shape)


def _shape(name: str) -> Shape:
    return input_shape(name) if name in NETWORKS else (1, 3, UNUSUAL[name][1], UNUSUAL[name][1])
