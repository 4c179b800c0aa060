"""Models of one operator, of two, or of a kernel, and the files that they are written to.

What is in a kernel and what an operator looks like is as nn-Meter 2.0's documentation and its TensorFlow
models have it (``docs/builder``, ``nn_meter/builder/nn_modules``). A model is a model graph of this package;
torch modules of the user's become one.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from ...errors import SettingsError
from ...files import write_bytes
from ...graph.model_graph import add_input, add_op, finish, new_graph, output_names
from ...graph.shapes import Shape, infer_operator
from ...graph.traversal import topological_order
from ...readers import read_model
from ...readers.onnx.writer import to_onnx
from ...readers.tflite.writer import to_tflite

#: Sizes of an operator or a kernel, by nn-Meter's names.
Sizes = Mapping[str, Any]

#: Operators of nn-Meter's fusion tests, and what they are called here.
OPERATORS = {
    "conv": "conv", "dwconv": "dwconv", "convtrans": "convtranspose", "bn": "bn",
    "globalavgpool": "globalavgpool", "maxpool": "maxpool", "avgpool": "avgpool", "se": "se", "fc": "fc",
    "relu": "relu", "relu6": "relu6", "sigmoid": "sigmoid", "hswish": "hswish", "reshape": "reshape",
    "add": "add", "concat": "concat", "flatten": "flatten", "split": "split",
}  # fmt: skip
#: Operators of each kernel type, where they are not the type itself.
_OPERATORS_OF_KERNEL = {
    "conv-block": ("conv",),
    "dwconv-block": ("dwconv",),
    "bnrelu": ("bn", "relu"),
    "addrelu": ("add", "relu"),
    "global-avgpool": ("globalavgpool",),
}
#: Operators of two operands.
BINARY = frozenset({"add", "concat"})
#: Part of the channels between the two layers of squeeze-excite.
_SQUEEZED = 4
#: Ways to write models: a file's suffix by nn-Meter's word.
SUFFIXES = {"tensorflow": ".tflite", "torch": ".onnx"}


class Model:
    """A model that grows operator by operator; shapes are NCHW, batch 1."""

    def __init__(self) -> None:
        self.graph = new_graph()

    def shape(self, name: str) -> Shape:
        """Shape of a tensor."""
        found: Shape = self.graph.nodes[name]["out_shapes"][0]
        return found

    def input(self, shape: Shape) -> str:
        """Add an input."""
        name = add_input(self.graph, f"input_{len(self.graph)}", shape)
        infer_operator(self.graph, name)
        return name

    def operands(self, op: str, shape: Shape, before: str | None = None) -> list[str]:
        """Return what ``op`` reads: the tensor ``before``, if given, and as many new inputs as it needs."""
        given = [] if before is None else [before]
        return given + [self.input(shape) for _ in range((2 if op in BINARY else 1) - len(given))]

    def add(self, op: str, operands: Sequence[str], sizes: Sizes) -> str:
        """Add an operator by nn-Meter's name, and return the name of its result."""
        if op == "se":
            return self._squeeze_excite(operands[0])
        return self._add(OPERATORS.get(op, op), operands, **_attributes(op, self.shape(operands[0]), sizes))

    def embed(self, part: nx.DiGraph, operands: Sequence[str]) -> str:
        """Add a finished model whose inputs are ``operands``; return the name of its first result."""
        given = iter(operands)
        names: dict[str, str] = {}
        for name in topological_order(part):
            data = part.nodes[name]
            if data["op"] == "input":
                names[name] = next(given)
                continue
            inputs = [(names[producer], slot) for producer, slot in data["inputs"]]
            names[name] = f"{name}_{len(self.graph)}"
            add_op(self.graph, names[name], data["op"], inputs, data["attrs"])
            infer_operator(self.graph, names[name])
        return names[output_names(part)[0]]

    def _add(self, op: str, operands: Sequence[str], **attributes: object) -> str:
        name = add_op(self.graph, f"{op}_{len(self.graph)}", op, operands, attributes)
        infer_operator(self.graph, name)
        return name

    def _squeeze_excite(self, x: str) -> str:
        channels = self.shape(x)[1]
        layer: dict[str, object] = {"kernel": (1, 1), "stride": (1, 1), "padding": "same", "bias": True}
        y = self._add("globalavgpool", [x])
        y = self._add("conv", [y], out_channels=max(1, channels // _SQUEEZED), **layer)
        y = self._add("conv", [self._add("relu", [y])], out_channels=channels, **layer)
        return self._add("mul", [x, self._add("hswish", [y])])


def _attributes(op: str, shape: Shape, sizes: Sizes) -> dict[str, object]:
    """Attributes of an operator that reads ``shape``."""
    channels = shape[1]
    if op in ("conv", "dwconv", "convtrans", "maxpool", "avgpool"):
        is_pool = op.endswith("pool")
        kernel = (sizes["KERNEL_SIZE"],) * 2
        of_pool = is_pool and "POOL_STRIDES" in sizes
        stride = (sizes["POOL_STRIDES" if of_pool else "STRIDES"],) * 2
        window: dict[str, object] = {"kernel": kernel, "stride": stride, "padding": "same"}
        if is_pool:
            return window
        width = channels if op == "dwconv" else sizes.get("COUT", channels)
        return {**window, "out_channels": width, "groups": width if op == "dwconv" else 1, "bias": True}
    if op == "fc":
        return {"out_features": sizes.get("COUT", shape[-1])}
    if op == "concat":
        return {"axis": 1}
    if op == "split":
        return {"axis": 1, "sections": [channels // 2, channels - channels // 2]}
    if op == "globalavgpool":
        return {"keepdims": False}
    if op == "reshape":
        is_map = len(shape) == 4
        return {"shape": (1, shape[3], channels, shape[2]) if is_map else (1, channels // 2, 1, 2)}
    return {"groups": 2} if op == "channelshuffle" else {}


def lone_kernel(kernel_type: str, sizes: Sizes) -> nx.DiGraph:
    """Return the model of one kernel.

    >>> [data["op"] for _, data in lone_kernel("bnrelu", {"HW": 7, "CIN": 8}).nodes(data=True)]
    ['input', 'bn', 'relu']
    """
    model = Model()
    if kernel_type == "fc":
        operands = [model.input((1, sizes["CIN"]))]
    elif kernel_type == "concat":
        channels = [sizes[f"CIN{i}"] for i in range(1, 5)]
        operands = [model.input((1, c, sizes["HW"], sizes["HW"])) for c in channels if c]
    else:
        shape = (1, sizes["CIN"], sizes["HW"], sizes["HW"])
        operands = [model.input(shape) for _ in range(2 if kernel_type.startswith("add") else 1)]
    is_chain = kernel_type.startswith(("conv-", "dwconv-"))
    default = tuple(kernel_type.split("-")) if is_chain else (kernel_type,)
    for op in _OPERATORS_OF_KERNEL.get(kernel_type, default):
        operands = [model.add(op, operands, sizes)]
    return finish(model.graph)


def as_graph(model: Any, shapes: Sequence[Sequence[int]], implement: str) -> nx.DiGraph:
    """Return a model as a model graph.

    Args:
        model: a model graph, or a torch module.
        shapes: of its inputs, in nn-Meter's order, see :func:`to_nchw`.
        implement: what nn-Meter would write the model with.

    Raises:
        SettingsError: it is a Keras model, or no model at all.
        ReaderError, GraphError, ShapeError: the torch module cannot be read.
    """
    if isinstance(model, nx.DiGraph):
        return model
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        given = [to_nchw(shape, implement) for shape in shapes]
        return read_model(model.eval(), "torch", given[0] if len(given) == 1 else given)
    raise SettingsError(
        f"a model is a {type(model).__name__}; here models are written without TensorFlow, so give a "
        "torch.nn.Module and IMPLEMENT: torch"
    )


def to_nchw(shape: Sequence[int], implement: str) -> Shape:
    """Return a shape with its batch: nn-Meter's have none, and channels last with "tensorflow".

    >>> to_nchw([28, 28, 16], "tensorflow"), to_nchw([16, 28, 28], "torch"), to_nchw([10], "tensorflow")
    ((1, 16, 28, 28), (1, 16, 28, 28), (1, 10))
    """
    last = [shape[-1], *shape[:-1]] if implement == "tensorflow" else shape
    return (1, *map(int, last))


def from_nchw(shape: Shape, implement: str) -> list[int]:
    """Return a shape in nn-Meter's order, see :func:`to_nchw`."""
    return [*shape[2:], shape[1]] if implement == "tensorflow" else list(shape[1:])


def input_shapes(graph: nx.DiGraph, implement: str) -> list[list[int]]:
    """Shapes of the inputs of a model, in nn-Meter's order."""
    inputs = [data["out_shapes"][0] for _, data in graph.nodes(data=True) if data["op"] == "input"]
    return [from_nchw(shape, implement) for shape in inputs]


def check_implement(implement: Any, where: str = "IMPLEMENT") -> str:
    """Return ``implement`` if models can be written so; errors name ``where`` it stands.

    Raises:
        SettingsError: they cannot.
    """
    if implement not in SUFFIXES:
        raise SettingsError(f"{where}: {implement} is neither of {', '.join(SUFFIXES)}")
    return str(implement)


def write_model(graph: nx.DiGraph, path: str, implement: str) -> str:
    """Write a model; return the path of the file, ``.tflite`` for "tensorflow" and ``.onnx`` for "torch".

    Raises:
        ReaderError: the model has an operator that the format has not.
        MissingPackageError: what writes the format is not installed.
    """
    file = path if path.endswith(SUFFIXES[implement]) else path + SUFFIXES[implement]
    write_bytes(file, to_tflite(graph) if implement == "tensorflow" else to_onnx(graph))
    return file


def convert_model(path: str, folder: str, suffix: str) -> str:
    """Return the path of a model file of the format ``suffix``, writing it into ``folder`` if needed.

    Raises:
        SettingsError: a file of its format is not read here.
        ReaderError, GraphError, ShapeError: the file cannot be read.
    """
    source = Path(path)
    if source.suffix == suffix:
        return path
    if source.suffix != SUFFIXES["torch"] or suffix != SUFFIXES["tensorflow"]:
        raise SettingsError(
            f"{path} cannot be turned into a {suffix} file; for a backend that reads those, write "
            f"IMPLEMENT: {'torch' if suffix == SUFFIXES['torch'] else 'tensorflow'} into the settings"
        )
    target = Path(folder, source.stem).with_suffix(suffix)
    write_bytes(target, to_tflite(read_model(path, "onnx")))
    return str(target)
