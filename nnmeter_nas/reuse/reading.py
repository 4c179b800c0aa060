"""The summary of a unit, from reading, finishing and fusing it alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import networkx as nx

from ..fusion import FusionRules, Kernel, fuse, pooled_operators, units
from ..readers.nni_operators import Tensor
from .arguments import Arguments
from .summary import Argument, Consumer, InseparableError, PassedOn, Producer, Result, Summary
from .unit_graph import OUTSIDE, UnitGraph

#: Of each operator, the name and type of what it is fused as, as :func:`nnmeter_nas.fusion.units` has them.
_FusedAs = Mapping[str, tuple[str, str | None]]


def read_alone(
    model: Any, node: Any, operands: Sequence[Any], arguments: Arguments, rules: FusionRules
) -> Summary:
    """The summary of what ``node`` of NNI's ``model`` executes on ``operands``.

    Args:
        model: NNI's graph IR.
        node: a cell or an operator.
        operands: of ``node``.
        arguments: the tensors among ``operands``, and the parts that are read with ``node``.
        rules: the device's fusion rules.

    Raises:
        InseparableError: it cannot be told without the rest of the model.
        NnMeterNasError: it cannot be read.
    """
    unit = UnitGraph(model, arguments)
    result = unit.read(node, operands)
    names = {tensor: Argument(name) for name, tensor in enumerate(unit.names)}
    if not unit.runs:
        return Summary(_template(result, names))
    outside, graph = unit.hand_out(result), unit.graph
    kernels = [kernel for _, kernel in fuse(graph, rules).nodes(data="kernel") if kernel.op != OUTSIDE]
    fused_as = units(graph, rules)
    _check_order(graph, kernels, fused_as, rules)
    pairs = zip(unit.inputs, arguments.tensors, strict=True)
    pooled = pooled_operators(graph, [name for name, tensor in pairs if tensor.source.pooled])
    producers = _producers(graph, outside.values(), kernels, pooled)
    results = _results(graph, outside, unit.inputs, list(producers))
    return Summary(
        _template(result, {**results, **names}),
        True,
        list(producers.values()),
        [_consumers(graph, name, fused_as) for name in unit.inputs],
        kernels,
    )


def _check_order(
    graph: nx.DiGraph, kernels: Iterable[Kernel], fused_as: _FusedAs, rules: FusionRules
) -> None:
    """Raise an InseparableError if what fuses depends on the order of operators in the whole model."""
    feeding: dict[tuple[str, str | None], dict[int, Kernel]] = {}
    for number, kernel in enumerate(kernels):
        for name in kernel.members:
            followers = {fused_as[consumer] for consumer in graph.successors(name)}
            if len(followers) == 1 and (follower := followers.pop()) != fused_as[name]:
                feeding.setdefault(follower, {})[number] = kernel
    for (_, kind), rivals in feeding.items():
        if kind is not None and rules.choice_depends_on_order(rivals.values(), kind):
            raise InseparableError("several kernels could take an operator")


def _producers(
    graph: nx.DiGraph, outside: Iterable[str], kernels: Iterable[Kernel], pooled: set[str]
) -> dict[str, Producer]:
    """The operators of the unit that ``outside`` reads, by name."""
    ended = {kernel.members[-1]: kernel for kernel in kernels}
    read = dict.fromkeys(_operand(graph, reader)[0] for reader in outside)
    return {
        name: Producer(
            graph.nodes[name], ended.get(name), name in pooled, bool(_successors(graph, name))
        )
        for name in read
        if graph.nodes[name]["op"] != "input"
    }


def _results(
    graph: nx.DiGraph, outside: Mapping[Tensor, str], inputs: list[str], producers: list[str]
) -> dict[Tensor, PassedOn | Result]:
    """What became of each tensor that ``outside`` reads, which names ``producers`` and ``inputs``."""
    results: dict[Tensor, PassedOn | Result] = {}
    for number, (tensor, reader) in enumerate(outside.items()):
        name, slot = _operand(graph, reader)
        if name in inputs:
            results[tensor] = PassedOn(inputs.index(name), number)
        else:
            alias = None if (name, slot) == (tensor.producer, tensor.slot) else number
            shape = graph.nodes[name]["out_shapes"][slot]
            results[tensor] = Result(producers.index(name), slot, shape, alias)
    return results


def _consumers(graph: nx.DiGraph, name: str, fused_as: _FusedAs) -> list[Consumer]:
    """The operators of the unit that read its input ``name``."""
    return [Consumer(graph.nodes[reader], *fused_as[reader]) for reader in _successors(graph, name)]


def _successors(graph: nx.DiGraph, name: str) -> list[str]:
    """What reads ``name`` inside the unit."""
    return [reader for reader in graph.successors(name) if graph.nodes[reader]["op"] != OUTSIDE]


def _operand(graph: nx.DiGraph, reader: str) -> tuple[str, int]:
    """The operator that ``reader``, which stands for the outside, reads, and which output of it."""
    [(name, slot)] = graph.nodes[reader]["inputs"]
    return name, slot


def _template(value: Any, places: Mapping[Tensor, Any]) -> Any:
    """``value`` with what is in ``places`` for each tensor."""
    if isinstance(value, Tensor):
        return places[value]
    if isinstance(value, list | tuple):
        return [_template(item, places) for item in value]
    if isinstance(value, dict):
        return {key: _template(item, places) for key, item in value.items()}
    return value
