"""Readers: each reads one outside format and returns a finished model graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from os import PathLike, fspath
from os.path import exists
from pathlib import PurePath
from typing import Any

import networkx as nx

from ..errors import QuantizedModelError, ReaderError, nearest
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
_CONVERTED = "it is made for one runtime; pass the ONNX file or frozen GraphDef (.pb) that it was made from"
#: Suffix of files of networks that no reader takes -> why, and the way out.
_UNREADABLE = {
    ".tflite": "it holds the network as its converter rewrote it for the runtime; pass the frozen GraphDef "
    "(.pb) or the ONNX file that it was made from",
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".pkl", ".npz"), _WEIGHTS),
    **dict.fromkeys((".h5", ".keras"), _KERAS),
    ".pt2": "load it with torch.export.load, and predict the program in Python",
    ".pbtxt": "it is the text form of a GraphDef; write graph_def.SerializeToString() to a .pb file",
    **dict.fromkeys((".xml", ".mlmodel", ".engine", ".plan"), _CONVERTED),
}


def read_model(
    model: Any,
    model_type: str | None = None,
    input_shape: InputShape | None = None,
    allow_quantized: bool = False,
) -> nx.DiGraph:
    """Read ``model`` into a model graph.

    Args:
        model: a model graph, an NNI graph model, a ``torch.nn.Module``, an ONNX file or ``ModelProto``, a
            frozen TensorFlow graph (file or ``GraphDef``), or an nn-Meter IR file or dict.
        model_type: one of :data:`MODEL_TYPES`. By default it is detected from ``model``.
        input_shape: NCHW shape of the input. It overrides the model's own, and is required if the model has
            none. For several inputs, pass a list of shapes or a dict by input name.
        allow_quantized: read a quantised network as the float network that it stands for.

    Raises:
        ReaderError: the format is unknown, or the model is not in that format.
        QuantizedModelError: the model is quantised, and ``allow_quantized`` is False.
        GraphError, ShapeError: the model is malformed.
        MissingPackageError: the format needs an optional package.
    """
    graph = _read(model, model_type, input_shape)
    if not allow_quantized:
        refuse_quantized(graph)
    return graph


def refuse_quantized(graph: nx.DiGraph) -> None:
    """Raise a QuantizedModelError if a finished model graph was read from a quantised network."""
    if found := graph.graph["quantized"]:
        raise QuantizedModelError(
            f"the model is quantised, at {len(found)} operator(s), the first {found[0]!r}, and latencies are "
            "those of float networks; pass the float model, or allow_quantized=True to price it as one"
        )


def _read(model: Any, model_type: str | None, input_shape: InputShape | None) -> nx.DiGraph:
    """Read ``model``, quantised or not."""
    if isinstance(model, nx.DiGraph):
        return _own_graph(model, input_shape)
    kind = _recognise(model) if model_type is None else model_type
    if kind not in READERS:
        raise ReaderError(f"model_type {kind!r} cannot be read; {nearest(str(kind), MODEL_TYPES)}")
    module, function = READERS[kind]
    graph: nx.DiGraph = getattr(import_module(module, __name__), function)(model, input_shape)
    return graph


def unknown_format(path: str | PathLike[str], suffixes: Iterable[str], way_out: str) -> ReaderError:
    """Return the error for a file of which no reader is known.

    Args:
        path: the file.
        suffixes: those that tell a format.
        way_out: what else tells it, for a file whose suffix says nothing.

    >>> unknown_format("model.h5", SUFFIXES, "pass model_type")
    ReaderError("'model.h5' cannot be read: freeze the network to a GraphDef (.pb), or export it to ONNX")
    """
    if reason := _UNREADABLE.get(PurePath(path).suffix.lower()):
        return ReaderError(f"{fspath(path)!r} cannot be read: {reason}")
    if not exists(path):
        return ReaderError(f"there is no file or folder {fspath(path)!r}")
    return ReaderError(
        f"cannot tell the format of {fspath(path)!r}: the suffix is none of {', '.join(suffixes)}; {way_out}"
    )


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
    way_out = f"pass model_type, one of {', '.join(MODEL_TYPES)}"
    if hasattr(model, "root_graph"):
        return "nni-ir"
    if hasattr(model, "named_modules") or hasattr(model, "graph_signature"):
        return "torch"
    if hasattr(model, "opset_import"):
        return "onnx"
    if hasattr(model, "versions") and hasattr(model, "node"):
        return "pb"
    if isinstance(model, Mapping):
        if _holds_weights(model):
            raise ReaderError("a state_dict holds only weights; load it into its module, and pass the module")
        return "nnmeter-ir"
    if isinstance(model, str | PathLike):
        for suffix, kind in SUFFIXES.items():
            if fspath(model).lower().endswith(suffix):
                return kind
        raise unknown_format(model, SUFFIXES, way_out)
    raise ReaderError(f"cannot tell the format of a {type(model).__name__!r}; {way_out}")


def _holds_weights(model: Mapping[Any, Any]) -> bool:
    """Whether a dict holds tensors, as a state_dict and a checkpoint around one do."""
    inner = [part for part in model.values() if isinstance(part, Mapping)]
    return any(hasattr(value, "untyped_storage") for part in (model, *inner) for value in part.values())
