"""Readers: one outside format each, all returning a finished model graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

import networkx as nx

from ..errors import ReaderError
from ..graph import finish, input_names

#: Formats by nn-Meter's names of them.
MODEL_TYPES = ("nni-ir", "torch", "nnmeter-ir")


def read_model(
    model: Any, model_type: str | None = None, input_shape: Sequence[int] | None = None
) -> nx.DiGraph:
    """Read ``model`` into a model graph.

    Args:
        model: a model graph, an NNI graph model, a ``torch.nn.Module``, or an nn-Meter IR dict or file.
        model_type: one of :data:`MODEL_TYPES`; recognised from ``model`` if None.
        input_shape: NCHW shape of the input, where the model does not carry it or another is wanted.

    Raises:
        ReaderError: the format is unknown, or the model is not of it.
        GraphError, ShapeError: the model is malformed.
    """
    if isinstance(model, nx.DiGraph):
        graph = model if _is_finished(model) else finish(model)
        shapes = [graph.nodes[name]["out_shapes"][0] for name in input_names(graph)]
        if input_shape is not None and tuple(input_shape) not in shapes:
            raise ReaderError(
                f"a model graph has its shapes, here {shapes}; to predict at "
                f"input_shape={tuple(input_shape)} pass the model it was read from"
            )
        return graph
    kind = model_type or _recognise(model)
    if kind == "nni-ir":
        from .nni_ir import read_nni_ir

        return read_nni_ir(model, input_shape)
    if kind == "torch":
        from .torch_module import read_torch_module

        return read_torch_module(
            model, input_shape or getattr(model, "input_shape", None) or (1, 3, 224, 224)
        )
    if kind == "nnmeter-ir":
        from .nnmeter_ir import read_nnmeter_ir

        return read_nnmeter_ir(model, input_shape)
    raise ReaderError(f"model_type {model_type!r} is not one of {', '.join(map(repr, MODEL_TYPES))}")


def _is_finished(graph: nx.DiGraph) -> bool:
    return "shape_mismatches" in graph.graph


def _recognise(model: Any) -> str:
    """Model type of ``model``, by what it offers."""
    if hasattr(model, "root_graph"):
        return "nni-ir"
    if hasattr(model, "named_modules"):
        return "torch"
    if isinstance(model, (Mapping, str, PathLike)):
        return "nnmeter-ir"
    raise ReaderError(
        f"cannot tell what {type(model).__name__!r} is; pass model_type, one of {', '.join(MODEL_TYPES)}"
    )
