"""onnxruntime on this machine's CPU, one thread."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from ..extras import load_extra
from ..files import write_bytes
from ..readers.onnx.writer import operator_of, to_onnx
from .base import KernelTime, Session
from .host import cpu_ms, random_input

#: What the profiler adds to the time of each kernel, in microseconds.
_PROFILER_US = 1.3
#: What the runtime adds to the name of a node with channels in blocks.
_NCHWC = re.compile(r"_nchwc(_\d+)?$")
#: NumPy's names of types of tensors, where the runtime has another.
_NUMPY_NAMES = {"float": "float32", "double": "float64"}
#: Nodes that it adds to change the layout of a tensor.
_LAYOUT = frozenset({"ReorderInput", "ReorderOutput", "Reshape", "Transpose", "Cast"})


class OnnxRuntime:
    """Runs ONNX files with onnxruntime, as it does by default: all optimisations, but one thread."""

    name = "onnxruntime"
    suffix = ".onnx"
    on_host = True

    def __init__(self) -> None:
        self._runtime = load_extra("onnxruntime", "onnxruntime", "measuring with onnxruntime")

    @property
    def version(self) -> str:
        """Version of the runtime."""
        return str(self._runtime.__version__)

    def write(self, graph: nx.DiGraph, path: Path) -> None:
        """Write a model graph as an ONNX file."""
        write_bytes(path, to_onnx(graph))

    def load(self, path: Path) -> Session:
        """Load an ONNX file."""
        return _OrtSession(self._runtime, path)


class _OrtSession:
    """One loaded model."""

    def __init__(self, runtime: Any, path: Path) -> None:
        self._runtime, self._path = runtime, path
        self._session = runtime.InferenceSession(str(path), self._options(), ["CPUExecutionProvider"])
        self._feeds = {one.name: _values(one) for one in self._session.get_inputs()}

    def _options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return options

    def run(self) -> float:
        """Run once; return the CPU time of this thread in ms."""
        return cpu_ms(lambda: self._session.run(None, self._feeds))

    def kernels(self, runs: int) -> list[KernelTime]:
        """Run ``runs`` times under the profiler; return each executed kernel with its median time."""
        with tempfile.TemporaryDirectory() as folder:
            options = self._options()
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/profile"
            options.optimized_model_filepath = f"{folder}/optimized.onnx"
            session = self._runtime.InferenceSession(str(self._path), options, ["CPUExecutionProvider"])
            for _ in range(runs + 1):
                session.run(None, self._feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            onnx = load_extra("onnx", "onnx", "reading what onnxruntime runs")
            executed = onnx.load(f"{folder}/optimized.onnx", load_external_data=False).graph.node
            original = onnx.load(self._path, load_external_data=False).graph.node
        times: dict[str, list[float]] = {}
        for event in events:
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                times.setdefault(event["name"].removesuffix("_kernel_time"), []).append(float(event["dur"]))
        ms = {name: max(0.0, _steady(found[1:]) - _PROFILER_US) / 1e3 for name, found in times.items()}
        return _by_operator(list(original), list(executed), ms)


def _steady(durations: Sequence[float]) -> float:
    """Mean of the quicker half: whole microseconds hide what short kernels take."""
    quick = sorted(durations)[: max(1, (len(durations) + 1) // 2)]
    return float(np.mean(quick))


def _values(declared: Any) -> Any:
    shape = [size if isinstance(size, int) else 1 for size in declared.shape]
    name = declared.type.removeprefix("tensor(").removesuffix(")")
    return random_input(shape, _NUMPY_NAMES.get(name, name))


def _by_operator(
    original: Sequence[Any], executed: Sequence[Any], ms: Mapping[str, float]
) -> list[KernelTime]:
    """Tell which operators each executed node runs.

    A fused node has the name of one of the nodes that it stands for, mostly the last; those before it are in
    it up to one of its own type. A few have a name of their own: they follow the kernels that they read.
    Nodes that only change a layout count as part of the kernel that needs it.
    """
    file = _File(original, [node.name for node in executed])
    origins = {node.name: file.origin(node.name) for node in executed}
    owners = _named(file, executed, origins)
    producer = {output: node.name for node in executed for output in node.output}
    for node in executed:
        if origins[node.name] is None and node.op_type not in _LAYOUT:
            before = {producer[operand] for operand in node.input if operand in producer}
            following = file.first_after(before, owners)
            if following is not None:
                origins[node.name] = following
                owners.update(dict.fromkeys(file.parts(following), node.name))
    operators: dict[str, set[str]] = {}
    for name, owner in file.complete(owners).items():
        operators.setdefault(owner, set()).add(operator_of(name))
    inserted = _inserted(executed, origins)
    spent: dict[str, float] = {}
    for node in executed:
        owner = inserted.get(node.name, node.name)
        spent[owner] = spent.get(owner, 0.0) + ms.get(node.name, 0.0)
    kinds = {node.name: node.op_type for node in executed}
    return [
        KernelTime(tuple(sorted(operators[owner])), kinds[owner], total)
        for owner, total in spent.items()
        if owner in operators
    ]


class _File:
    """The nodes of a file as written.

    Args:
        nodes: those nodes.
        executed: names of the nodes that the runtime executes, in order.
    """

    def __init__(self, nodes: Sequence[Any], executed: Sequence[str]) -> None:
        self._order = {name: i for i, name in enumerate(executed)}
        self._nodes = {node.name: node for node in nodes}
        self._producer = {output: node.name for node in nodes for output in node.output}
        self._readers: dict[str, int] = {}
        self._parts: dict[str, list[str]] = {}
        for node in nodes:
            self._parts.setdefault(operator_of(node.name), []).append(node.name)
            for operand in node.input:
                self._readers[operand] = self._readers.get(operand, 0) + 1

    def origin(self, name: str) -> str | None:
        """The node whose name an executed node has, without what the runtime adds to it."""
        name = _NCHWC.sub("", name).removeprefix("fused ")
        while name not in self._nodes:
            shorter = re.sub(r"[/_][^/_]*$", "", name)
            if shorter == name:
                return None
            name = shorter
        return name

    def parts(self, name: str) -> list[str]:
        """The nodes of the operator that a node belongs to."""
        return self._parts[operator_of(name)]

    def before(self, name: str, taken: Container[str]) -> str | None:
        """The node that computes an operand that only this node reads, if nobody has taken it."""
        for operand in self._nodes[name].input:
            found = self._producer.get(operand)
            if found is not None and self._readers[operand] == 1 and found not in taken:
                return found
        return None

    def fused_back(self, name: str, kind: str, taken: Container[str]) -> list[str]:
        """The nodes before a node, up to one of type ``kind``; none if there is no such node."""
        chain: list[str] = []
        current: str | None = name
        while current is not None and self._nodes[current].op_type != kind:
            current = self.before(current, taken)
            if current is not None:
                chain.append(current)
        return chain if current is not None else []

    def first_after(self, kernels: Container[str], owners: Mapping[str, str]) -> str | None:
        """The first node that nobody runs yet and that reads what one of ``kernels`` computes."""
        running, named = self.complete(owners), set(map(operator_of, owners))
        for name, node in self._nodes.items():
            if operator_of(name) not in named and any(
                running.get(self._producer.get(operand, "")) in kernels for operand in node.input
            ):
                return name
        return None

    def complete(self, owners: Mapping[str, str]) -> dict[str, str]:
        """``owners`` of all nodes: one that nobody names runs with its other parts, or with its operand.

        A sum runs with the operand that is computed last: the other one must be there before.
        """
        of_operator = {operator_of(name): owner for name, owner in owners.items()}
        found: dict[str, str] = {}
        for name, node in self._nodes.items():  # producers come first
            owner = owners.get(name) or of_operator.get(operator_of(name))
            if owner is None:
                before = [found[self._producer[x]] for x in node.input if self._producer.get(x) in found]
                owner = max(before, key=lambda name: self._order[name], default=None)
            if owner is not None:
                found[name] = owner
        return found


def _named(file: _File, executed: Sequence[Any], origins: Mapping[str, str | None]) -> dict[str, str]:
    """For each node of the file that the name of an executed node leads to: that node."""
    owners = {origin: name for name, origin in origins.items() if origin is not None}
    for node in executed:
        origin = origins[node.name]
        if origin is not None:
            owners.update(dict.fromkeys(file.fused_back(origin, node.op_type, owners), node.name))
    return owners


def _inserted(executed: Sequence[Any], origins: Mapping[str, str | None]) -> dict[str, str]:
    """For each node that the runtime added: the kernel before it, or else the one after it."""
    producer = {output: node.name for node in executed for output in node.output}
    readers = {operand: node.name for node in executed for operand in node.input}
    found: dict[str, str] = {}
    for node in executed:
        if origins[node.name] is None:
            near = [producer[x] for x in node.input if x in producer]
            near += [readers[x] for x in node.output if x in readers]
            known = [name for name in (found.get(one, one) for one in near) if origins[name] is not None]
            if known:
                found[node.name] = known[0]
    return found
