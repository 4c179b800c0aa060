"""What nodes and cells of NNI's graph IR hold, as numbers: equal numbers mean equal content.

NNI copies graphs and nodes whenever it makes a candidate, and operations may be edited in place, so that
neither a graph nor a node nor an operation can be recognised by its identity. Its content can: what is
executed, with which parameters, and how it is connected. It is serialised by :mod:`marshal`, which tells
types apart and takes a quarter of a microsecond an operator.
"""

from __future__ import annotations

import marshal
from typing import Any

from .nni_ir import operation_of

#: Version of the format of :mod:`marshal` in which bytes depend on values alone, and not on who shares them.
_MARSHAL = 2
#: Types that are told apart exactly. Anything else may be written as the bytes of its memory.
_PLAIN = frozenset({type(None), bool, int, float, str})


class OpaqueError(Exception):
    """A parameter is no plain number, text or collection of such, so that content cannot be compared."""


class Contents:
    """Numbers for contents, the same for each candidate that is looked at."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._sizes: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def size(self, number: int) -> int:
        """Nodes in the content ``number``, those of nested cells included."""
        return self._sizes[number]

    def reading(self, model: Any) -> ModelContents:
        """The contents of one model, which does not change meanwhile."""
        return ModelContents(self, model)

    def number(self, content: Any, size: int) -> int:
        """The number of ``content``, which has ``size`` nodes.

        Raises:
            OpaqueError: it holds other than plain values.
        """
        try:
            written = marshal.dumps(content, _MARSHAL)
        except ValueError as error:
            raise OpaqueError(str(error)) from None
        number = self._numbers.get(written)
        if number is None:
            _require_plain(content)
            number = self._numbers[written] = len(self._sizes)
            self._sizes.append(size)
        return number


class ModelContents:
    """The contents of one model's nodes and cells."""

    def __init__(self, contents: Contents, model: Any) -> None:
        self._contents = contents
        self._model = model
        self._cells: dict[str, int] = {}

    def node(self, node: Any) -> int:
        """The number of what ``node`` executes; raises an OpaqueError."""
        content, size = self._node(operation_of(self._model, node))
        return self._contents.number(content, size)

    def _node(self, operation: Any) -> tuple[Any, int]:
        if operation.type != "_cell":
            return (operation.type, operation.parameters), 1
        cell = self._cell(operation.cell_name)
        return (operation.type, operation.parameters, cell), self._contents.size(cell)

    def _cell(self, name: str) -> int:
        number = self._cells.get(name)
        if number is None:
            number = self._cells[name] = self._read_cell(self._model.graphs[name])
        return number

    def _read_cell(self, graph: Any) -> int:
        hidden = graph.hidden_nodes
        place = {id(node): i for i, node in enumerate(hidden)}
        place[id(graph.input_node)], place[id(graph.output_node)] = -1, -2
        nodes, size = [], 0
        for node in hidden:
            operation = node.operation
            # Most are plain operators, and candidates have hundreds.
            if (kind := operation.type) != "_cell" and kind != "shared":
                nodes.append((kind, operation.parameters))
                size += 1
            else:
                content, nested = self._node(operation_of(self._model, node))
                nodes.append(content)
                size += nested
        edges = [
            (place[id(edge.head)], edge.head_slot, place[id(edge.tail)], edge.tail_slot)
            for edge in graph.edges
        ]
        return self._contents.number((nodes, edges), size)


def _require_plain(value: Any) -> None:
    if type(value) in _PLAIN:
        return
    if type(value) is dict:
        _require_plain([*value.keys(), *value.values()])
    elif type(value) is list or type(value) is tuple:
        for item in value:
            _require_plain(item)
    else:
        raise OpaqueError(f"{type(value).__name__} is no plain value")
