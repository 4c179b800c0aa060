"""The model graph, a ``networkx.DiGraph`` of operators with shapes: build, validate and prune it.

A node carries

* ``op``: canonical operator name (known ones are declared in :mod:`nnmeter_nas.ops`),
* ``attrs``: its attributes (kernel, stride, ... in NCHW terms),
* ``inputs``: the ordered operands, each ``(producer, output slot)``,
* ``declared``: output shapes as an outside format states them, or None,
* ``in_shapes`` / ``out_shapes``: inferred shapes, NCHW, filled by :func:`finish`.

An edge carries ``slots``, a list of ``(output slot, input slot)`` pairs: one producer may feed several
operands of one consumer. ``graph.graph["outputs"]`` names the model's outputs.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import networkx as nx

from ..errors import GraphError, ShapeError
from ..ops import OPERATORS, QUANTIZED_OPS, ROLES
from .editing import Operand, bypass, connect_all, set_operands
from .rewrites import rewrite
from .shapes import Shape, infer_shapes, operand_shape
from .traversal import reachable, topological_order

#: An input with more dimensions than this always has a batch.
_MOST_WITHOUT_BATCH = 3
#: Operators that return x when all other operands are zero.
_ADDITIVE_OPS = frozenset({"add", "sub"})


def new_graph(name: str = "") -> nx.DiGraph:
    """An empty model graph."""
    return nx.DiGraph(name=name, outputs=[])


def add_input(graph: nx.DiGraph, name: str, shape: Sequence[int]) -> str:
    """Add a model input of ``shape`` (NCHW, batch 1) and return its name."""
    return add_op(graph, name, "input", [], {"shape": tuple(int(d) for d in shape)})


def add_op(
    graph: nx.DiGraph,
    name: str,
    op: str,
    inputs: Sequence[str | Operand],
    attrs: Mapping[str, Any] | None = None,
    declared: Sequence[Shape] | None = None,
) -> str:
    """Add operator ``name`` fed by ``inputs`` (producer names, or ``(producer, output slot)``).

    Producers may be added later; :func:`finish` checks that all exist. Returns ``name``.

    Raises:
        GraphError: the name is taken.
    """
    if name in graph and graph.nodes[name]:
        raise GraphError("the name is used twice", name)
    operands = [(i, 0) if isinstance(i, str) else (i[0], int(i[1])) for i in inputs]
    graph.add_node(
        name, op=op, attrs=dict(attrs or {}), inputs=operands, declared=declared, in_shapes=[], out_shapes=[]
    )
    connect_all(graph, operands, name)
    return name


def notes_of(graph: nx.DiGraph) -> list[str]:
    """What whoever reads a figure of ``graph`` must know."""
    return list(graph.graph.get("notes", ()))


def add_note(graph: nx.DiGraph, text: str) -> None:
    """Add to the notes of ``graph``, unless they say ``text`` already."""
    if text not in (notes := notes_of(graph)):
        graph.graph["notes"] = [*notes, text]


def set_outputs(graph: nx.DiGraph, names: Iterable[str]) -> None:
    """Declare the model's outputs. If this is never called, all operators without a consumer are outputs."""
    graph.graph["outputs"] = list(names)


def finish(graph: nx.DiGraph, inferred: Container[str] = ()) -> nx.DiGraph:
    """Validate ``graph``, infer shapes, prune dead branches and rewrite spellings. Readers call this last.

    Works in place and returns ``graph``. ``graph.graph["shape_mismatches"]`` then lists each
    ``(operator, declared, inferred)`` where the outside format stated another shape, and
    ``graph.graph["quantized"]`` names the operators that tell of a quantised network.

    Args:
        graph: a model graph, complete except for shapes.
        inferred: operators whose shapes the reader has inferred and has not changed since.

    Raises:
        GraphError: empty, cyclic, disconnected, or an operand that does not exist.
        ShapeError: shapes are missing or contradict each other.
    """
    # One order is enough: adding or removing operators does not reorder the others.
    order = validate(graph)
    infer_shapes(graph, order, inferred)
    graph.graph["quantized"] = _quantized(graph)
    # Prune first, so that no idle operator stands between those of a spelling.
    prune(graph, order)
    rewrite(graph, order)
    return graph


def validate(graph: nx.DiGraph) -> list[str]:
    """Check the structure of ``graph``; return its operators, producers first.

    Raises:
        GraphError: no operators, an unknown operand, a cycle, no input, an unknown output, or no
            path from any input to any output.
        ShapeError: the batch of the inputs is not 1.
    """
    if not any(data.get("op") != "input" for _, data in graph.nodes(data=True)):
        raise GraphError("the graph is empty: it has no operators")
    for name, data in graph.nodes(data=True):
        if "op" not in data:
            consumer = next(iter(graph.successors(name)), None)
            raise GraphError(f"its operand {name!r} does not exist in the graph", consumer)
    order = topological_order(graph)  # raises if the graph is cyclic
    inputs = input_names(graph)
    if not inputs:
        raise GraphError("the graph has no input; add one with its shape")
    _check_batch({name: graph.nodes[name]["attrs"].get("shape") or () for name in inputs})
    for name in graph.graph["outputs"]:
        if name not in graph:
            raise GraphError(f"the declared output {name!r} does not exist in the graph")
    outputs = output_names(graph)
    if not reachable(graph, inputs) & set(outputs) - set(inputs):
        raise GraphError(
            f"the graph is disconnected: no path leads from the inputs {inputs} to the outputs {outputs}"
        )
    return order


def _quantized(graph: nx.DiGraph) -> list[str]:
    """Names of the operators of quantised networks on a path to an output."""
    found = [name for name, op in graph.nodes(data="op") if op in QUANTIZED_OPS]
    used = reachable(graph.reverse(copy=False), output_names(graph)) if found else ()
    return [name for name in found if name in used]


def _check_batch(shapes: Mapping[str, Shape]) -> None:
    """Raise a ShapeError if the inputs hold more than one item; every pack was measured at batch 1.

    If one input has batch 1, then the first size of another counts something else, such as the layers of a
    recurrent state, or boxes. The first size of a map is always its batch; one dimension alone never is.
    """
    several = [name for name, shape in shapes.items() if len(shape) > 1 and shape[0] != 1]
    has_one = any(len(shape) > 1 and shape[0] == 1 for shape in shapes.values())
    for name in several:
        if len(shapes[name]) > _MOST_WITHOUT_BATCH or not has_one:
            raise ShapeError(
                f"batch is {shapes[name][0]}, but latency is predicted at batch 1; pass batch 1", name
            )


def input_names(graph: nx.DiGraph) -> list[str]:
    """Names of the model's inputs."""
    return [n for n, op in graph.nodes(data="op") if op == "input"]


def output_names(graph: nx.DiGraph) -> list[str]:
    """Names of the declared outputs, or else of all nodes without a consumer."""
    return graph.graph["outputs"] or [n for n in graph if graph.out_degree(n) == 0]


def prune(graph: nx.DiGraph, order: Iterable[str]) -> None:
    """Remove everything that costs nothing on a device, in place; ``order`` lists operators, producers first.

    It removes, in this order: branches that are known to be zero (multiplied by zero) and operators computed
    from constants alone, since the converters of the runtimes fold both; operators that return their input
    unchanged; and nodes that are on no path from an input to an output.

    If the output does not depend on the input, only the inputs are kept.
    """
    outputs = output_names(graph)
    nodes = dict(graph.nodes(data=True))
    order = [name for name in order if name in nodes]
    constant = _constant_operators(nodes, order)
    for name in order:
        data = nodes[name]
        # Few models have constants. Without them, only identities can be removed.
        is_identity = ROLES.get(data["op"]) == "identity"
        if name in constant or not (constant or is_identity or data["op"] == "concat"):
            continue
        live = [operand for operand in data["inputs"] if operand[0] not in constant]
        sums_with_zeros = data["op"] in _ADDITIVE_OPS and len(live) == 1 < len(data["inputs"])
        negates = sums_with_zeros and data["op"] == "sub" and data["inputs"][0] not in live
        joins_one = data["op"] == "concat" and len(live) == 1
        if (is_identity or joins_one or (sums_with_zeros and not negates)) and (
            operand_shape(graph, name, live[0]) == data["out_shapes"][0]
        ):
            bypass(graph, name, live[0])
            outputs = [live[0][0] if o == name else o for o in outputs]
        elif len(live) < len(data["inputs"]):
            _keep_shape_of_constant(data, live)
            set_operands(graph, name, live)
    alive = reachable(graph, input_names(graph)) - constant
    needed = reachable(graph.reverse(copy=False), [o for o in outputs if o in alive])
    kept = alive & needed
    graph.remove_nodes_from([n for n in list(graph) if n not in kept and nodes[n]["op"] != "input"])
    graph.graph["outputs"] = [o for o in dict.fromkeys(outputs) if o in graph]


def _keep_shape_of_constant(data: dict[str, Any], live: Sequence[Operand]) -> None:
    """Write the shape of an operand that is about to go among the attributes of an operator that needs it."""
    operator = OPERATORS.get(data["op"])
    if operator is None or "const_shape" not in (operator.attrs or ()) or len(live) != 1:
        return
    slot = next(slot for slot, operand in enumerate(data["inputs"]) if operand not in live)
    data["attrs"]["const_shape"] = data["in_shapes"][slot]
    if slot == 0:
        data["attrs"]["const_first"] = True


def _constant_operators(nodes: Mapping[str, dict[str, Any]], order: Sequence[str]) -> set[str]:
    """Operators whose value does not depend on any input, because zeros absorb it.

    ``order`` lists the ``nodes``, producers first.
    """
    constant: set[str] = set()
    zero: set[str] = set()
    if not any(
        ROLES.get(d["op"]) in ("constant", "zero") or d["attrs"].get("const") == 0.0 for d in nodes.values()
    ):
        return constant
    for name in order:
        data = nodes[name]
        producers = [p for p, _ in data["inputs"]]
        if data["op"] == "input":
            continue
        if is_zero(data, [p in zero for p in producers]):
            zero.add(name)
        is_constant = name in zero or ROLES.get(data["op"]) == "constant"
        if is_constant or (producers and all(p in constant for p in producers)):
            constant.add(name)
    return constant


def is_zero(data: Mapping[str, Any], zeros: Sequence[bool]) -> bool:
    """Whether the result of an operator is all zero for every input; ``zeros`` says which operands are."""
    operator, attrs = OPERATORS.get(data["op"]), data["attrs"]
    if operator is None or operator.role == "zero":
        return operator is not None
    if data["op"] == "mul" and (attrs.get("const") == 0.0 or any(zeros)):
        return True
    adds_nothing = not (attrs.get("const") or attrs.get("value") or "const_shape" in attrs)
    return operator.keeps_zeros and bool(zeros) and all(zeros) and adds_nothing
