"""Peak activation memory of a model graph, and the size of its weights on disk; both in bytes.

Operators run one after another. A tensor takes memory from the operator that writes it to the last one that
reads it; inputs and outputs of the model take it throughout, and until its end. Activation memory is the sum
of what is there at a time, and its peak is the least that an arena can have without moving tensors. Weights
are not in it, nor is what a kernel needs for itself, such as a convolution as a product of matrices.

What runtimes differ in are :class:`MemoryRules`. ``docs/memory.md`` compares both measures with runtimes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import networkx as nx

from ..ops import VIEW_OPS, Shape, spatial_attrs
from .model_graph import output_names
from .unknown import is_unknown
from .work import params_by_operator

#: Bytes of a value, unless the model says otherwise: those of a float32.
VALUE_BYTES = 4
#: Attribute of a model graph for the bytes of a value.
VALUE_BYTES_OF = "value_bytes"
#: Convolutions, whose window may reach beyond their map.
_CONVOLUTIONS = frozenset({"conv", "dwconv"})
#: Operators whose weights take in a batch norm that alone follows them; and how such a one is called here.
_FOLD_BN, _FOLDED = _CONVOLUTIONS | {"convtranspose", "fc"}, "folded"


@dataclass(frozen=True)
class MemoryRules:
    """How a runtime uses memory.

    Attributes:
        in_place: operators that write over an operand as large as their result, if nobody reads it later.
        sums_in_place: whether a convolution that is only added to an earlier tensor writes the sum over that.
        last_first: whether the last operand of an operator is computed first, and not the first one.
        sole_reader: whether they do so only with an operand that no other operator reads, not even earlier.
        pads_apart: whether a padded copy of a map is made for a window that the runtime cannot place: with a
            padding that is neither none nor that of TensorFlow's "same".
    """

    in_place: frozenset[str]
    sums_in_place: bool = False
    last_first: bool = False
    sole_reader: bool = False
    pads_apart: bool = False


#: Operators that join the kernel before them, or write over its result, in every runtime.
_ALWAYS_IN_PLACE = frozenset({"relu", "relu6", "add", "sub", "mul", "softmax"})
#: onnxruntime on a CPU: activations of one operator overwrite, those of several (swish, gelu) do not.
ONNXRUNTIME = MemoryRules(
    _ALWAYS_IN_PLACE
    | {"leakyrelu", "elu", "clip", "hswish", "sigmoid", "hsigmoid", "tanh", "softplus", "softsign"}
    | {"div", "neg", "abs", "sqrt", "exp", "erf"},
    sums_in_place=True,
    last_first=True,
)
#: TensorFlow Lite's own kernels, which microcontrollers run too; XNNPACK is more like onnxruntime.
TFLITE = MemoryRules(_ALWAYS_IN_PLACE | {"bn"}, sole_reader=True, pads_apart=True)


def peak_memory(graph: nx.DiGraph, rules: MemoryRules = ONNXRUNTIME) -> int:
    """Peak activation memory of a finished model graph in bytes; tensors of unknown size are not counted.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> x = add_input(graph, "x", (1, 8))
    >>> _ = add_op(graph, "y", "relu", [add_op(graph, "fc", "fc", [x], {"out_features": 10})])
    >>> peak_memory(finish(graph))  # 8 values in, 10 out, which relu overwrites
    72
    """
    return max(memory_by_operator(graph, rules).values(), default=0)


def memory_by_operator(graph: nx.DiGraph, rules: MemoryRules = ONNXRUNTIME) -> dict[str, int]:
    """Bytes of the activations that are there while each operator runs, its padded copy included."""
    steps = _steps(graph, rules)
    change = [0] * (len(steps) + 1)
    for one in _tensors(steps, {*output_names(graph)}, rules):
        change[one.start] += one.size
        change[min(one.until + 1, len(steps))] -= one.size
    found: dict[str, int] = {}
    for step, there in zip(steps, accumulate(change), strict=False):  # after the last step, nothing is there
        found[step.operator] = max(there, found.get(step.operator, 0))
    return found


def memory_by_step(
    graph: nx.DiGraph, rules: MemoryRules = ONNXRUNTIME
) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield each operator in execution order, and the bytes of every tensor that is there while it runs.

    A tensor has the name of the operator that wrote it first: views share it, and so do operators in place.
    """
    steps = _steps(graph, rules)
    tensors = _tensors(steps, {*output_names(graph)}, rules)
    taken: dict[str, int] = {}
    at: dict[int, list[_Tensor]] = {}
    for one in tensors:
        at.setdefault(one.start, []).append(one)
    ends = {one.name: one.until for one in tensors}
    for number, step in enumerate(steps):
        taken.update((one.name, one.size) for one in at.get(number, ()))
        yield step.name, dict(taken)
        for name in [name for name in taken if ends[name] <= number]:
            del taken[name]


def weights_size(graph: nx.DiGraph) -> int:
    """Bytes of the weights of a finished model graph on disk; operators that do not state them are left out.

    They are its parameters (:func:`nnmeter_nas.graph.work.params`). A file adds the names and shapes of its
    operators, and the mean and variance of a batch norm that is not folded into a convolution.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
    >>> graph = new_graph()
    >>> _ = add_op(graph, "fc", "fc", [add_input(graph, "x", (1, 8))], {"out_features": 10})
    >>> weights_size(finish(graph))
    360
    """
    return sum(size_by_operator(graph).values())


def size_by_operator(graph: nx.DiGraph) -> dict[str, int]:
    """Bytes of weights by operator name; operators that do not state them are left out."""
    bytes_each = graph.graph.get(VALUE_BYTES_OF, VALUE_BYTES)
    return {name: bytes_each * count for name, count in params_by_operator(graph).items()}


def unknown_tensors(graph: nx.DiGraph) -> dict[str, str]:
    """Operators that write a tensor of unknown size: name -> canonical operator."""
    return {
        name: data["op"]
        for name, data in graph.nodes(data=True)
        if any(is_unknown(graph, (name, slot)) for slot in range(len(data["out_shapes"])))
    }


class Footprint:
    """Memory and size of a finished model graph or of some of its operators, in bytes.

    Each is computed when it is first asked for, and once.
    """

    def __init__(self, graph: nx.DiGraph) -> None:
        self._graph = graph
        self._memory: dict[MemoryRules, dict[str, int]] = {}

    def memory(self, rules: MemoryRules = ONNXRUNTIME, operators: Iterable[str] | None = None) -> int | None:
        """Most that activations take while one of ``operators`` runs, or any one if that is None.

        None if the size of any tensor of the model is unknown.
        """
        if self._has_unknown:
            return None
        if rules not in self._memory:
            self._memory[rules] = memory_by_operator(self._graph, rules)
        there = self._memory[rules]
        return max((there[name] for name in (there if operators is None else operators)), default=0)

    def size(self, operators: Iterable[str] | None = None) -> int | None:
        """Bytes of the weights of ``operators``, or of all; None if one of them does not state them."""
        if operators is None:
            operators = (name for name, op in self._graph.nodes(data="op") if op != "input")
        sizes = [self._sizes.get(name) for name in operators]
        known = [one for one in sizes if one is not None]
        return sum(known) if len(known) == len(sizes) else None

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return size_by_operator(self._graph)

    @cached_property
    def _has_unknown(self) -> bool:
        return bool(unknown_tensors(self._graph))


def execution_order(graph: nx.DiGraph, last_first: bool = False) -> list[str]:
    """The operators in the order in which they run: each operand is computed when it is first needed.

    Inputs come first. Converters write the files of TensorFlow Lite, which run as they are written, in the
    order of the program; that is this order unless a program computes what it needs later. onnxruntime
    computes the last operand of an operator first (``last_first``).

    >>> graph = nx.DiGraph(outputs=["sum"])
    >>> for name, inputs in {"x": "", "a": "x", "b": "x", "a2": "a", "sum": ["a2", "b"]}.items():
    ...     graph.add_node(name, op="input" if name == "x" else "relu", inputs=[(i, 0) for i in inputs])
    >>> execution_order(graph)
    ['x', 'a', 'a2', 'b', 'sum']
    """
    nodes = dict(graph.nodes(data=True))
    order = dict.fromkeys(name for name, data in nodes.items() if data["op"] == "input")
    for output in output_names(graph):
        stack = [output]
        while stack:
            name = stack[-1]
            missing = [p for p, _ in nodes[name]["inputs"] if p not in order]
            if missing:
                stack.append(missing[-1 if last_first else 0])
            else:
                order.setdefault(stack.pop())
    return list(order)


class _Step(NamedTuple):
    """One operator as it runs, or the copy that it needs: what that reads, and the bytes that it writes."""

    name: str
    op: str
    operands: tuple[str, ...]
    size: int
    operator: str


@dataclass
class _Tensor:
    """A tensor, its bytes, and the numbers of the steps that need it first and last."""

    name: str
    size: int
    start: int
    until: int


def _tensors(steps: Sequence[_Step], outputs: Container[str], rules: MemoryRules) -> list[_Tensor]:
    """The tensors of a run, in the order in which they are written."""
    last = {step.name: number for number, step in enumerate(steps)}
    last.update((operand, number) for number, step in enumerate(steps) for operand in step.operands)
    last.update((s.name, len(steps)) for s in steps if s.op == "input" or s.name in outputs)
    readers = Counter(operand for step in steps for operand in {*step.operands})
    sums = _sums(steps, readers) if rules.sums_in_place else {}
    holds: dict[str, _Tensor] = {}  # operator -> the tensor that holds its result
    found = []
    for number, step in enumerate(steps):
        mine = None
        if step.op == _FOLDED or (step.op in VIEW_OPS and step.operands):
            mine = holds[step.operands[0]]
        elif step.op in rules.in_place or step.name in sums:
            written, at = sums.get(step.name, (step.operands, number))
            mine = next((
                one for operand in written
                if (one := holds.get(operand)) is not None and one.until == at and one.size == step.size
                and (readers[operand] == 1 or not rules.sole_reader)
            ), None)  # fmt: skip
        if mine is None:
            mine = _Tensor(step.name, step.size, number, number)
            found.append(mine)
        mine.until = max(mine.until, last[step.name])
        holds[step.name] = mine
    return found


def _steps(graph: nx.DiGraph, rules: MemoryRules) -> list[_Step]:
    """The operators in execution order, with those that make a padded copy if the rules ask for them."""
    value_bytes, found = graph.graph.get(VALUE_BYTES_OF, VALUE_BYTES), []
    for name in execution_order(graph, rules.last_first):
        data = graph.nodes[name]
        operands = tuple(producer for producer, _ in data["inputs"])
        if rules.pads_apart and (padded := _padded(data)):
            found.append(_Step(f"{name} padded", "pad", operands, value_bytes * math.prod(padded), name))
            operands = (f"{name} padded",)
        known = (s for slot, s in enumerate(data["out_shapes"]) if not is_unknown(graph, (name, slot)))
        op = _FOLDED if data["op"] == "bn" and _folds(graph, operands[0]) else data["op"]
        found.append(_Step(name, op, operands, value_bytes * sum(map(math.prod, known)), name))
    return found


def _folds(graph: nx.DiGraph, producer: str) -> bool:
    """Whether a batch norm behind an operator becomes part of its weights."""
    alone = graph.out_degree(producer) == 1 and producer not in graph.graph["outputs"]
    return alone and graph.nodes[producer]["op"] in _FOLD_BN


def _sums(
    steps: Sequence[_Step], readers: Mapping[str, int]
) -> dict[str, tuple[tuple[str, ...], int]]:
    """For each convolution that is only added to something: what it is added to, and the number of that step.

    A batch norm in between folds into the convolution.
    """
    reader = {operand: number for number, step in enumerate(steps) for operand in step.operands}
    found = {}
    for step in steps:
        name = step.name
        if step.op not in _CONVOLUTIONS or readers[name] != 1:
            continue
        if steps[reader[name]].op == _FOLDED:
            name = steps[reader[name]].name
        if readers[name] == 1 and (add := steps[reader[name]]).op == "add":
            others = tuple(operand for operand in add.operands if operand != name)
            found[step.name] = others, reader[name]
    return found


def _padded(data: Mapping[str, Any]) -> Shape | None:
    """Shape of the map with its padding, if that is neither none nor TensorFlow's "same"; else None."""
    attrs = data["attrs"]
    padding = attrs.get("padding", "valid")
    if data["op"] not in _CONVOLUTIONS or isinstance(padding, str):
        return None
    shape = data["in_shapes"][0]
    sizes, out = shape[2:], data["out_shapes"][0][2:]
    windows = zip(sizes, out, *spatial_attrs(attrs, len(sizes)), strict=True)
    missing = [max((to - 1) * s + (k - 1) * d + 1 - size, 0) for size, to, k, s, d in windows]
    same = [(few // 2, few - few // 2) for few in missing]
    around = [tuple(sides) for sides in padding]
    if around == same or not any(map(sum, around)):
        return None
    return (*shape[:2], *(size + sum(sides) for size, sides in zip(sizes, around, strict=True)))
