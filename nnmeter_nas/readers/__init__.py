"""Readers: each reads one outside format and returns a finished model graph."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from os import PathLike, fspath
from pathlib import PurePath
from typing import Any

import networkx as nx

from ..errors import ReaderError, nearest
from ..graph.model_graph import finish, input_names
from .inputs import InputShape

#: Format, by nn-Meter's name -> module and function ``(model, input_shape)`` that read it.
READERS = {
    "nni-ir": (".nni.ir", "read_nni_ir"),
    "torch": (".torch.module", "read_torch_module"),
    "onnx": (".onnx.model", "read_onnx"),
    "pb": (".tensorflow.graphdef", "read_tf_graphdef"),
    "nnmeter-ir": (".nnmeter_ir.reader", "read_nnmeter_ir"),
}
MODEL_TYPES = tuple(READERS)
#: File suffix -> format.
SUFFIXES = {".onnx": "onnx", ".pb": "pb", ".json": "nnmeter-ir"}
_WEIGHTS = (
    "it holds weights, or pickled code, which is never run; predict its module in Python, or "
    "export it to ONNX"
)
_KERAS = "freeze the network to a GraphDef (.pb), or export it to ONNX"
#: Suffix of files of networks that no reader takes -> why, and the way out.
_UNREADABLE = {
    ".tflite": "it holds the network as its converter rewrote it for the runtime; pass the frozen GraphDef "
    "(.pb) or the ONNX file that it was made from",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl"), _WEIGHTS),
    **dict.fromkeys((".h5", ".keras"), _KERAS),
}


def read_model(
    model: Any, model_type: str | None = None, input_shape: InputShape | None = None
) -> nx.DiGraph:
    """Read ``model`` into a model graph.

    Args:
        model: a model graph, an NNI graph model, a ``torch.nn.Module``, an ONNX file or ``ModelProto``, a
            frozen TensorFlow graph (file or ``GraphDef``), or an nn-Meter IR file or dict.
        model_type: one of :data:`MODEL_TYPES`. By default it is detected from ``model``.
        input_shape: NCHW shape of the input. It overrides the model's own, and is required if the model has
            none. For several inputs, pass a list of shapes or a dict by input name.

    Raises:
        ReaderError: the format is unknown, or the model is not in that format.
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


def why_unreadable(path: str | PathLike[str]) -> str | None:
    """Why no reader takes files like ``path``, and the way out; None if its suffix does not tell.

    >>> why_unreadable("model.h5")
    'freeze the network to a GraphDef (.pb), or export it to ONNX'
    """
    return _UNREADABLE.get(PurePath(path).suffix.lower())


def _own_graph(graph: nx.DiGraph, input_shape: InputShape | None) -> nx.DiGraph:
    """Return a model graph that the caller passed, finished if it was not yet."""
    finished = graph if "shape_mismatches" in graph.graph else finish(graph)
    shapes = [finished.nodes[name]["out_shapes"][0] for name in input_names(finished)]
    if input_shape is not None and input_shape not in (shapes, *shapes, *map(list, shapes)):
        raise ReaderError(
            f"input_shape={input_shape} differs from the fixed shapes of the model graph, {shapes}; to "
            "predict at another input_shape, pass the model that the graph was read from"
        )
    return finished


def _recognise(model: Any) -> str:
    """Detect the model type of ``model`` from its attributes, or from its suffix if it is a path."""
    if hasattr(model, "root_graph"):
        return "nni-ir"
    if hasattr(model, "named_modules") or hasattr(model, "graph_signature"):
        return "torch"
    if hasattr(model, "opset_import"):
        return "onnx"
    if hasattr(model, "versions") and hasattr(model, "node"):
        return "pb"
    if isinstance(model, Mapping):
        if any(hasattr(value, "untyped_storage") for value in model.values()):
            raise ReaderError("a state_dict holds only weights; load it into its module, and pass the module")
        return "nnmeter-ir"
    if isinstance(model, str | PathLike):
        for suffix, kind in SUFFIXES.items():
            if fspath(model).lower().endswith(suffix):
                return kind
        if reason := why_unreadable(model):
            raise ReaderError(f"{fspath(model)!r} cannot be read: {reason}")
        raise ReaderError(
            f"cannot detect the format of {fspath(model)!r}: the suffix is none of {', '.join(SUFFIXES)}; "
            f"pass model_type, one of {', '.join(MODEL_TYPES)}"
        )
    raise ReaderError(
        f"cannot detect the format of a {type(model).__name__!r}; pass model_type, one of "
        f"{', '.join(MODEL_TYPES)}"
    )
