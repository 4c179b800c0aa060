"""Readers: one outside format each, all returning a finished model graph."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os import PathLike, fspath
from typing import Any

import networkx as nx

from ..errors import ReaderError, nearest
from ..graph.model_graph import finish, input_names
from .inputs import InputShape

#: Reader of each format, by nn-Meter's names of them: module and function ``(model, input_shape)``.
READERS = {
    "nni-ir": (".nni.ir", "read_nni_ir"),
    "torch": (".torch.module", "read_torch_module"),
    "onnx": (".onnx.model", "read_onnx"),
    "pb": (".tensorflow.graphdef", "read_tf_graphdef"),
    "nnmeter-ir": (".nnmeter_ir.reader", "read_nnmeter_ir"),
}
MODEL_TYPES = tuple(READERS)
#: Formats of files, by what their names end in.
SUFFIXES = {".onnx": "onnx", ".pb": "pb", ".json": "nnmeter-ir"}


def read_model(
    model: Any, model_type: str | None = None, input_shape: InputShape | None = None
) -> nx.DiGraph:
    """Read ``model`` into a model graph.

    Args:
        model: a model graph, an NNI graph model, a ``torch.nn.Module``, an ONNX file or ``ModelProto``, a
            frozen TensorFlow graph (file or ``GraphDef``), or an nn-Meter IR file or dict.
        model_type: one of :data:`MODEL_TYPES`; recognised from ``model`` if None.
        input_shape: NCHW shape of the input, where the model does not carry it or another is wanted; for
            several inputs a list of shapes, or a dict by name.

    Raises:
        ReaderError: the format is unknown, or the model is not of it.
        GraphError, ShapeError: the model is malformed.
        MissingPackageError: the format needs an optional package.
    """
    if isinstance(model, nx.DiGraph):
        return _own_graph(model, input_shape)
    kind = _recognise(model) if model_type is None else model_type
    if kind not in READERS:
        raise ReaderError(f"model_type {kind!r} cannot be read; {nearest(str(kind), MODEL_TYPES)}")
    module, function = READERS[kind]
    graph: nx.DiGraph = getattr(import_module(module, __name__), function)(model, input_shape)
    return graph


def _own_graph(graph: nx.DiGraph, input_shape: InputShape | None) -> nx.DiGraph:
    """A model graph itself, finished if it is not yet."""
    finished = graph if "shape_mismatches" in graph.graph else finish(graph)
    shapes = [finished.nodes[name]["out_shapes"][0] for name in input_names(finished)]
    if input_shape is not None and input_shape not in (shapes, *shapes, *map(list, shapes)):
        raise ReaderError(
            f"a model graph has its shapes, here {shapes}; to predict at input_shape={input_shape} pass the "
            "model it was read from"
        )
    return finished


def _recognise(model: Any) -> str:
    """Model type of ``model``, by what it offers."""
    if hasattr(model, "root_graph"):
        return "nni-ir"
    if hasattr(model, "named_modules") or hasattr(model, "graph_signature"):
        return "torch"
    if hasattr(model, "opset_import"):
        return "onnx"
    if hasattr(model, "versions") and hasattr(model, "node"):
        return "pb"
    if isinstance(model, Mapping):
        return "nnmeter-ir"
    if isinstance(model, str | PathLike):
        for suffix, kind in SUFFIXES.items():
            if fspath(model).lower().endswith(suffix):
                return kind
        raise ReaderError(
            f"cannot tell the format of {fspath(model)!r}, which ends in none of {', '.join(SUFFIXES)}; pass "
            f"model_type, one of {', '.join(MODEL_TYPES)}"
        )
    raise ReaderError(
        f"cannot tell what {type(model).__name__!r} is; pass model_type, one of {', '.join(MODEL_TYPES)}"
    )
