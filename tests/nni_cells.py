"""Made-up models in NNI 2.10.1's graph IR, of cells in cells whose borders invite fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from nni.nas.execution.common.graph import Graph, Model, Node
from nni.nas.execution.common.graph_op import Cell

#: Channels of every tensor that is no part of another.
WIDTH = 8
SHAPE = (1, WIDTH, 4, 4)
_TORCH = "__torch__.torch.nn.modules."
_CONV = {"in_channels": WIDTH, "out_channels": WIDTH, "kernel_size": 1, "bias": False}
_DEPTHWISE = {**_CONV, "kernel_size": 3, "padding": 1, "groups": WIDTH}
_WIDE = {**_CONV, "in_channels": 2 * WIDTH}

#: Type and parameters of operators that take one tensor and keep its shape.
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "conv": (f"{_TORCH}conv.Conv2d", _CONV),
    "dwconv": (f"{_TORCH}conv.Conv2d", _DEPTHWISE),
    "bn": (f"{_TORCH}batchnorm.BatchNorm2d", {"num_features": WIDTH}),
    "relu": (f"{_TORCH}activation.ReLU", {}),
    "relu6": (f"{_TORCH}activation.ReLU6", {}),
    "sigmoid": (f"{_TORCH}activation.Sigmoid", {}),
    "hsigmoid": (f"{_TORCH}activation.Hardsigmoid", {}),
    "hswish": (f"{_TORCH}activation.Hardswish", {}),
    "silu": (f"{_TORCH}activation.SiLU", {}),
    "maxpool": (f"{_TORCH}pooling.MaxPool2d", {"kernel_size": 3, "stride": 1, "padding": 1}),
    "identity": (f"{_TORCH}linear.Identity", {}),
    "dropout": (f"{_TORCH}dropout.Dropout", {"p": 0.1}),
    "abs": ("aten::abs", {}),
}
#: The same of one tensor and a number.
WITH_NUMBER = {"add 3": ("aten::add", 3), "div 6": ("aten::div", 6), "mul 0": ("aten::mul", 0.0)}
#: Of two tensors.
WITH_TENSOR = {"add": "aten::add", "mul": "aten::mul"}
#: Of several nodes each: pool to 1x1, split and join, concatenate and narrow, shuffle channels, a new view.
COMPOSED = ("pool", "halves", "gated halves", "cat", "cat of cat", "shuffle", "view", "size")
STEPS = [*PLAIN, *WITH_NUMBER, *WITH_TENSOR, *COMPOSED]


@dataclass
class Step:
    """What a program does next: a step of STEPS, ``again`` (a module of before), or a cell's program.

    Attributes:
        kind: of the step.
        picks: which of the tensors at hand it takes, counted from the last.
        body: the program of a cell.
    """

    kind: str
    picks: tuple[int, int]
    body: Program | None = None


@dataclass
class Program:
    """Steps, and how many of the last tensors are handed out."""

    steps: list[Step]
    results: int


def programs(depth: int = 2) -> st.SearchStrategy[Program]:
    """Programs whose cells nest ``depth`` deep."""
    picks = st.tuples(*[st.sampled_from([0, 0, 0, 1, 1, 2, 3])] * 2)
    steps: st.SearchStrategy[Step] = st.builds(Step, st.sampled_from([*STEPS, "again"]), picks)
    if depth:
        steps |= st.builds(Step, st.just("cell"), picks, programs(depth - 1))
    return st.builds(Program, st.lists(steps, min_size=1, max_size=7), st.sampled_from([1, 1, 1, 1, 2]))


#: What patterns are made of; a star marks what takes the tensor that all began with as well.
SEQUENCES = (
    "pool conv relu conv sigmoid mul*",
    "pool conv relu conv add_3 relu6 div_6 mul* conv",
    "add_3 relu6 mul* div_6 relu",
    "add_3 relu6 div_6 mul* conv",
    "hsigmoid mul* relu",
    "sigmoid mul* conv",
    "conv bn relu add* relu",
    "shuffle conv bn",
)


def sequences() -> st.SearchStrategy[Program]:
    """Programs of one of SEQUENCES behind a convolution, some of it in a cell of its own."""
    cut = st.integers(0, 9)
    return st.builds(_cut, st.sampled_from(SEQUENCES), cut, cut)


def _cut(sequence: str, first: int, last: int) -> Program:
    words = sequence.split()
    start, end = sorted((first % (len(words) + 1), last % (len(words) + 1)))
    steps = [Step("conv", (0, 0)), *_steps(words[:start], 0)]
    if start < end:
        # The cell takes the tensor that all began with, and then the last.
        steps.append(Step("cell", (start, 0), Program(_steps(words[start:end], 1), 1)))
    return Program([*steps, *_steps(words[end:], start + (start < end))], 1)


def _steps(words: Sequence[str], behind: int) -> list[Step]:
    """Steps that each take the last tensor; ``behind`` is how far back the one is that all began with."""
    return [
        Step(word.rstrip("*").replace("_", " "), (0, behind + i)) for i, word in enumerate(words)
    ]


#: Two branches that begin at different times; which of their kernels takes the sum is a matter of order.
RACES = [
    Program(
        [
            *(Step("conv", (0, 0)) for _ in range(late)),
            Step("cell", way, Program([Step("dwconv", (0, 0)), Step("conv", (2, 0)), Step("add", added)], 1)),
        ],
        1,
    )
    for late in (1, 2, 3)
    for way in ((0, late + 1), (late + 1, 0))
    for added in ((0, 1), (1, 0))
]


_CONVS = Program([Step("conv", (0, 0)), Step("conv", (1, 0))], 2)
_SIGMOID_TIMES = Program([Step("sigmoid", (0, 0)), Step("mul", (0, 2))], 1)
_HSIGMOID_TIMES = Program(
    [Step("add 3", (0, 0)), Step("relu6", (0, 0)), Step("div 6", (0, 0)), Step("mul", (0, 4))], 1
)

#: Programs of which units would be taken for what they are not, by what must be seen to know better.
TRAPS = {
    "a result that nothing reads": Program([Step("cell", (0, 0), _CONVS)], 1),
    "two readers of one result": Program([Step("pool", (0, 0)), Step("cat", (0, 0))], 1),
    "a reader of what became one with another": Program(
        [
            Step("cell", (0, 0), Program([Step("conv", (0, 0)), Step("add 3", (0, 0))], 2)),
            Step("cell", (0, 0), Program([Step("conv", (0, 0)), Step("add 3", (0, 0))], 2)),
            Step("conv", (0, 0)),
            Step("conv", (2, 0)),
        ],
        1,
    ),
    "an output that is read, too": Program([Step("sigmoid", (0, 0)), Step("mul", (0, 1))], 2),
    "the same tensor, but under two names": Program(
        [
            Step("cell", (0, 0), _SIGMOID_TIMES),
            Step("identity", (1, 0)),
            Step("cell", (0, 2), _SIGMOID_TIMES),
            Step("add", (0, 2)),
        ],
        1,
    ),
    "a result under two names": Program(
        [
            Step("cell", (0, 0), Program([Step("conv", (0, 0)), Step("identity", (0, 0))], 2)),
            Step("cell", (0, 1), _SIGMOID_TIMES),
        ],
        1,
    ),
    "two names of two tensors, then of one": Program(
        [
            Step("cell", (1, 0), _HSIGMOID_TIMES),
            Step("identity", (1, 0)),
            Step("cell", (0, 2), _HSIGMOID_TIMES),
            Step("add", (0, 2)),
        ],
        1,
    ),
    "one operator read twice, then two alike": Program(
        [
            Step("sigmoid", (0, 0)),
            Step("mul", (0, 0)),
            Step("sigmoid", (2, 0)),
            Step("sigmoid", (3, 0)),
            Step("mul", (0, 1)),
            Step("add", (0, 3)),
        ],
        1,
    ),
    "cells that differ only in which of their tensors they take": Program(
        [
            Step("cell", (1, 0), _SIGMOID_TIMES),
            Step("cell", (2, 1), Program([Step("sigmoid", (0, 0)), Step("mul", (0, 1))], 1)),
            Step("add", (0, 1)),
        ],
        1,
    ),
    "a kernel that two operators might join": Program(
        [Step("conv", (0, 0)), Step("add", (0, 1)), Step("add", (1, 3)), Step("add", (0, 1))], 1
    ),
    "two outputs of one operator": Program([Step("gated halves", (0, 0))], 1),
}


@dataclass
class _Writer:
    """Writes a program into a graph of ``model``."""

    model: Model
    graph: Graph
    inputs: int
    tensors: list[tuple[Node, int | None]] = field(default_factory=list)
    modules: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph.input_node.operation.io_names = [f"input{i}" for i in range(self.inputs)]
        self.tensors = [(self.graph.input_node, i) for i in range(self.inputs)]

    def write(self, program: Program) -> int:
        """Returns how many tensors the graph hands out."""
        for step in program.steps:
            self.step(step)
        results = self.tensors[-program.results :]
        if len(results) == 2 and results[0] == results[1]:
            results = results[:1]
        if len(results) > 1:
            results = [self.node("prim::TupleConstruct", {}, results)]
        self.graph.output_node.operation.io_names = ["output"]
        self.connect(results, self.graph.output_node)
        return program.results if results[0][0].operation.type == "prim::TupleConstruct" else 1

    def step(self, step: Step) -> None:
        first, second = (self.tensors[-1 - pick % len(self.tensors)] for pick in step.picks)
        made: list[tuple[Node, int | None]]
        if step.body is not None:
            name = f"{self.graph.name}__{len(self.graph.hidden_nodes)}"
            inner = _Writer(self.model, Graph(self.model, -1, name, _internal=True)._register(), 2)
            count = inner.write(step.body)
            cell = self.node("_cell", Cell(name), [first, second])
            unpacked = self.node("prim::TupleUnpack", {}, [cell])[0] if count > 1 else None
            made = [(unpacked, i) for i in range(count)] if unpacked else [cell]
        elif step.kind == "again":
            reference = {"reference": self.modules[-1].name} if self.modules else None
            made = [self.node("shared", reference, [first]) if reference else first]
        elif step.kind in PLAIN:
            made = [self.node(*PLAIN[step.kind], [first])]
            self.modules.append(made[0][0])
        elif step.kind in WITH_NUMBER:
            kind, number = WITH_NUMBER[step.kind]
            made = [self.node(kind, {}, [first, self.constant(number)])]
        elif step.kind in WITH_TENSOR:
            made = [self.node(WITH_TENSOR[step.kind], {}, [first, second])]
        else:
            made = [self.composed(step.kind, first, second)]
        self.tensors += made

    def composed(self, kind: str, first: Any, second: Any) -> tuple[Node, int | None]:
        if kind == "pool":
            return self.node(f"{_TORCH}pooling.AdaptiveAvgPool2d", {"output_size": 1}, [first])
        if kind == "halves":
            halves = self.node("aten::chunk", {}, [first, self.constant(2), self.constant(1)])
            parts = self.node("prim::ListUnpack", {}, [halves])[0]
            return self.cat((parts, 1), (parts, 0))
        if kind == "gated halves":  # like h-swish, but of two tensors
            halves = self.node("aten::chunk", {}, [first, self.constant(2), self.constant(1)])
            parts = self.node("prim::ListUnpack", {}, [halves])[0]
            gate = self.node("aten::add", {}, [(parts, 1), self.constant(3)])
            gate = self.node(*PLAIN["relu6"], [gate])
            gate = self.node("aten::div", {}, [gate, self.constant(6)])
            return self.cat(self.node("aten::mul", {}, [gate, (parts, 0)]), (parts, 1))
        if kind == "cat":
            same = self.node("aten::add", {}, [second, first])  # broadcast, so that both are of one map
            return self.narrowed(self.cat(same, self.node("aten::mul", {}, [first, second])))
        if kind == "cat of cat":
            inner = self.node("aten::chunk", {}, [first, self.constant(2), self.constant(1)])
            parts = self.node("prim::ListUnpack", {}, [inner])[0]
            return self.narrowed(self.cat(self.cat((parts, 0), (parts, 1)), first))
        if kind == "shuffle":
            split = self.view(first, [1, 2, WIDTH // 2, -1, 1])
            numbers = [self.constant(1), self.constant(2)]
            return self.like(self.node("aten::transpose", {}, [split, *numbers]), first)
        if kind == "view":
            return self.like(self.view(first, [1, -1]), first)
        sizes = self.node("aten::size", {}, [second, self.constant(1)])
        return self.node("aten::mul", {}, [first, sizes])

    def cat(self, *parts: Any) -> tuple[Node, int | None]:
        items = self.node("prim::ListConstruct", {}, list(parts))
        return self.node("aten::cat", {}, [items, self.constant(1)])

    def narrowed(self, wide: Any) -> tuple[Node, int | None]:
        return self.node(f"{_TORCH}conv.Conv2d", _WIDE, [wide])

    def view(self, tensor: Any, sizes: list[Any]) -> tuple[Node, int | None]:
        numbers = [self.constant(size) if isinstance(size, int) else size for size in sizes]
        return self.node("aten::view", {}, [tensor, self.node("prim::ListConstruct", {}, numbers)])

    def like(self, tensor: Any, other: Any) -> tuple[Node, int | None]:
        """``tensor`` in the shape of ``other``."""
        sizes = [self.node("aten::size", {}, [other, self.constant(i)]) for i in range(4)]
        return self.view(tensor, sizes)

    def constant(self, value: float) -> tuple[Node, int | None]:
        return self.node("prim::Constant", {"type": "int", "value": value}, [])

    def node(self, kind: str, parameters: Any, operands: list[Any]) -> tuple[Node, int | None]:
        name = f"{self.graph.name}__n{len(self.graph.hidden_nodes)}"
        if isinstance(parameters, Cell):
            node = self.graph.add_node(name, parameters)
        else:
            node = self.graph.add_node(name, kind, dict(parameters))
        self.connect(operands, node)
        return node, None

    def connect(self, operands: list[Any], node: Node) -> None:
        for slot, operand in enumerate(operands):
            self.graph.add_edge(operand, (node, slot))


def nni_model(program: Program) -> Model:
    """The model of ``program``, which takes two tensors of SHAPE."""
    model = Model(_internal=True)
    _Writer(model, Graph(model, -1, "_model", _internal=True)._register(), 2).write(program)
    return model
