"""TFLite files in the classes of their schema that come with LiteRT: one that grows, and what one holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...extras import load_extra

#: Version of the format, and what the first bytes of a file say.
_VERSION, _IDENTIFIER = 3, b"TFL3"
#: Bytes that a tensor and its operator take at most, apart from values.
_BYTES_OF_TENSOR = 4096


class Operator(NamedTuple):
    """An operator of a file: its name in the schema, and names of the tensors that it reads and computes."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_operators(path: Path) -> list[Operator]:
    """Return the operators of a file in their order.

    Raises:
        MissingPackageError: ai-edge-litert is not installed.
        OSError: there is no such file.
    """
    schema = load_extra("ai_edge_litert.schema_py_generated", "litert", "reading TFLite files")
    kinds = {number: name for name, number in vars(schema.BuiltinOperator).items() if isinstance(number, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    codes = [max(code.deprecatedBuiltinCode, code.builtinCode) for code in model.operatorCodes]
    names = [tensor.name.decode() for tensor in graph.tensors]
    return [
        Operator(
            kinds[codes[operator.opcodeIndex]],
            tuple(names[i] for i in operator.inputs if i >= 0),
            tuple(names[i] for i in operator.outputs),
        )
        for operator in graph.operators
    ]


class TfliteFile:
    """The one subgraph of a file. Tensors are known by their numbers."""

    def __init__(self) -> None:
        self._schema = load_extra("ai_edge_litert.schema_py_generated", "litert", "writing TFLite files")
        self._flatbuffers = load_extra("flatbuffers", "litert", "writing TFLite files")
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [self._schema.BufferT()]  # the first stands for values to be computed
        self._operators: list[Any] = []
        self._codes: dict[str, int] = {}

    def number(self, enumeration: str, name: str) -> int:
        """What the schema has for a name, such as ``SAME`` of ``Padding``."""
        return int(getattr(getattr(self._schema, enumeration), name))

    def tensor(self, name: str, shape: Sequence[int]) -> int:
        """Add a tensor of floats that an operator computes or the user gives."""
        return self._add(name, shape, "FLOAT32", buffer=0)

    def state(self, name: str, shape: Sequence[int]) -> int:
        """Add a tensor of floats that an operator keeps between its steps; it starts as zeros."""
        index = self.tensor(name, shape)
        self._tensors[index].isVariable = True
        return index

    def floats(self, name: str, values: Any) -> int:
        """Add a constant of floats."""
        return self._constant(name, np.asarray(values, np.float32), "FLOAT32")

    def ints(self, name: str, values: Any) -> int:
        """Add a constant of sizes, axes or paddings."""
        return self._constant(name, np.asarray(values, np.int32), "INT32")

    def _constant(self, name: str, values: npt.NDArray[Any], kind: str) -> int:
        data = np.frombuffer(values.tobytes(), np.uint8)
        self._buffers.append(self._schema.BufferT(data=data))
        return self._add(name, values.shape, kind, len(self._buffers) - 1)

    def _add(self, name: str, shape: Sequence[int], kind: str, buffer: int) -> int:
        kind_number = self.number("TensorType", kind)
        self._tensors.append(self._schema.TensorT(list(shape), kind_number, buffer, name))
        return len(self._tensors) - 1

    def operator(
        self, kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **values: Any
    ) -> None:
        """Add an operator.

        Args:
            kind: its name in the schema, such as ``CONV_2D``.
            inputs, outputs: numbers of tensors.
            options: class of its options, such as ``Conv2DOptions``.
            values: the options.
        """
        code = self._codes.setdefault(kind, len(self._codes))
        made = self._schema.OperatorT(code, list(inputs), list(outputs))
        if options:
            made.builtinOptionsType = self.number("BuiltinOptions", options)
            made.builtinOptions = getattr(self._schema, f"{options}T")(**values)
        self._operators.append(made)

    def to_bytes(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        graph = self._schema.SubGraphT(
            self._tensors, list(inputs), list(outputs), self._operators, name="graph"
        )
        codes = [self._code(kind) for kind in self._codes]
        model = self._schema.ModelT(_VERSION, codes, [graph], "nnmeter_nas", self._buffers)
        size = sum(buffer.data.nbytes for buffer in self._buffers[1:])
        builder = self._flatbuffers.Builder(size + _BYTES_OF_TENSOR * (len(self._tensors) + 1))
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        return bytes(builder.Output())

    def _code(self, kind: str) -> Any:
        number = self.number("BuiltinOperator", kind)
        # Readers from the time of at most 127 operators look at the old field.
        old = min(number, self.number("BuiltinOperator", "PLACEHOLDER_FOR_GREATER_OP_CODES"))
        return self._schema.OperatorCodeT(deprecatedBuiltinCode=old, builtinCode=number)
