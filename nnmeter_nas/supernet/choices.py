"""Supernet: a model graph with every block of a search space; an architecture uses some of them.

A ``choice`` operator stands where the space chooses. Its operands are the outputs of the candidates, in the
order of ``attrs["candidates"]``; ``attrs["label"]`` names the choice. Choices with the same label choose
alike. A supernet is unfinished: :func:`select` finishes the model graph of an architecture.

>>> from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph
>>> graph = new_graph()
>>> _ = add_input(graph, "x", (1, 3, 8, 8))
>>> _ = add_op(graph, "wide", "conv", ["x"], {"out_channels": 4, "kernel": (3, 3)})
>>> _ = add_op(graph, "pool", "globalavgpool", ["x"])
>>> _ = add_op(graph, "y", "choice", ["wide", "pool"], {"label": "layer", "candidates": ("conv", "pool")})
>>> choices(graph)
{'layer': ('conv', 'pool')}
>>> list(select(graph, {"layer": "pool"}))
['x', 'pool']
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx

from ..errors import SpaceError, nearest
from ..graph.model_graph import add_op, finish, input_names, new_graph, output_names, set_outputs
from ..graph.traversal import topological_order

#: Label of a choice -> its candidates, in order.
Candidates = Mapping[str, tuple[str, ...]]
#: Label of a choice and one of its candidates.
Block = tuple[str, str]


def choices(supernet: nx.DiGraph) -> dict[str, tuple[str, ...]]:
    """Return the candidates of every choice by label, in the order in which data passes the choices.

    Raises:
        SpaceError: two choices share a label but have different candidates.
    """
    found: dict[str, tuple[str, ...]] = {}
    nodes = dict(supernet.nodes(data=True))
    for data in (nodes[name] for name in topological_order(supernet) if nodes[name]["op"] == "choice"):
        label, candidates = data["attrs"]["label"], tuple(data["attrs"]["candidates"])
        if found.setdefault(label, candidates) != candidates:
            raise SpaceError(
                f"the choices labelled {label!r} differ: {found[label]} and {candidates}; give each a "
                "label of its own"
            )
    return found


def plain_architecture(architecture: Mapping[str, Any], candidates: Candidates) -> dict[str, str]:
    """Return ``architecture`` with names of candidates; NNI also uses positions, and lists for chosen inputs.

    Raises:
        SpaceError: a choice is left open or unknown, or lacks the candidate.

    >>> plain_architecture({"layer": 1, "skip": ["0"]}, {"layer": ("0", "1"), "skip": ("0", "1")})
    {'layer': '1', 'skip': '0'}
    """
    if not isinstance(architecture, Mapping):
        raise SpaceError(
            f"an architecture maps labels to candidates; this is of type {type(architecture).__name__}"
        )
    for label in architecture:
        if label not in candidates:
            raise SpaceError(f"the space has no choice {label!r}; {nearest(str(label), candidates)}")
    if missing := [label for label in candidates if label not in architecture]:
        raise SpaceError(f"the architecture leaves open {', '.join(missing)}; choose a candidate for each")
    plain = {}
    for label, known in candidates.items():
        chosen = candidate_name(architecture[label])
        if chosen not in known:
            raise SpaceError(
                f"the choice {label!r} has no candidate {architecture[label]!r}; {nearest(chosen, known)}"
            )
        plain[label] = chosen
    return plain


def architecture_at(row: Iterable[int], candidates: Candidates) -> dict[str, str]:
    """Return the architecture with the candidates at the indices ``row``, one per label in order.

    >>> architecture_at([1, 0], {"layer": ("k3", "k5"), "skip": ("0", "1")})
    {'layer': 'k5', 'skip': '0'}
    """
    return {label: known[i] for (label, known), i in zip(candidates.items(), row, strict=True)}


def candidate_name(value: Any) -> str:
    """Return the name of a candidate from NNI's ``value``; inputs chosen together join their names.

    >>> candidate_name("k3"), candidate_name(1.5), candidate_name([0]), candidate_name([10, 2])
    ('k3', '1.5', '0', '2+10')
    """
    if isinstance(value, list | frozenset):
        return "+".join(sorted(map(str, value), key=lambda name: (len(name), name)))
    return str(value)


def select(
    supernet: nx.DiGraph, architecture: Mapping[str, Any], known: Candidates | None = None
) -> nx.DiGraph:
    """Return the finished model graph of ``architecture``; ``supernet`` stays unchanged.

    Args:
        supernet: holds the blocks.
        architecture: candidate by label.
        known: the supernet's :func:`choices`; computed if None. Pass them to select many architectures.

    Raises:
        SpaceError: a label is missing or unknown, or lacks the candidate.
        GraphError, ShapeError: the chosen blocks do not fit together.
    """
    plain = plain_architecture(architecture, choices(supernet) if known is None else known)

    def chosen(operand: tuple[str, int]) -> tuple[str, int]:
        while (data := supernet.nodes[operand[0]])["op"] == "choice":
            position = data["attrs"]["candidates"].index(plain[data["attrs"]["label"]])
            operand = data["inputs"][position]
        return operand

    outputs = list(dict.fromkeys(chosen((name, 0))[0] for name in output_names(supernet)))
    operands: dict[str, list[tuple[str, int]]] = {name: [] for name in input_names(supernet)}
    stack = list(outputs)
    while stack:
        name = stack.pop()
        if name not in operands:
            operands[name] = [chosen(operand) for operand in supernet.nodes[name]["inputs"]]
            stack += [producer for producer, _ in operands[name]]
    graph = new_graph(supernet.graph.get("name", ""))
    for name, data in supernet.nodes(data=True):
        if name in operands:
            add_op(graph, name, data["op"], operands[name], data["attrs"], data["declared"])
    set_outputs(graph, outputs)
    return finish(graph)


def blocks(supernet: nx.DiGraph) -> dict[str, Block]:
    """Return the block of each operator; if choices are nested, the innermost block.

    An operator belongs to a block if only that candidate uses its result.
    """
    outputs = set(output_names(supernet))
    within: dict[str, tuple[Block, ...]] = {}
    for name in reversed(topological_order(supernet)):
        uses: list[tuple[Block, ...]] = [()] if name in outputs else []
        for consumer in supernet.successors(name):
            data = supernet.nodes[consumer]
            if data["op"] != "choice":
                uses.append(within[consumer])
                continue
            label, candidates = data["attrs"]["label"], data["attrs"]["candidates"]
            slots = [slot for slot, (producer, _) in enumerate(data["inputs"]) if producer == name]
            uses += [(*within[consumer], (label, candidates[slot])) for slot in slots]
        within[name] = tuple(block for block in uses[0] if all(block in use for use in uses)) if uses else ()
    return {name: around[-1] for name, around in within.items() if around}


def conditions(supernet: nx.DiGraph) -> dict[str, dict[str, frozenset[str]]]:
    """Return the conditions of each operator: label -> the candidates with which an architecture can have it.

    An architecture that meets them all may still lack the operator.

    >>> from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph
    >>> graph = new_graph()
    >>> stem = add_op(graph, "stem", "relu", [add_input(graph, "x", (1, 3, 8, 8))])
    >>> deep = add_op(graph, "deep", "sigmoid", [stem])
    >>> _ = add_op(graph, "y", "choice", [stem, deep], {"label": "depth", "candidates": ("1", "2")})
    >>> conditions(graph)
    {'deep': {'depth': frozenset({'2'})}, 'stem': {}, 'x': {}}
    """
    outputs, known = set(output_names(supernet)), choices(supernet)
    needed: dict[str, dict[str, frozenset[str]]] = {}
    for name in reversed(topological_order(supernet)):
        uses: list[dict[str, frozenset[str]]] = [{}] if name in outputs else []
        for consumer in supernet.successors(name):
            if consumer not in needed:
                continue  # nothing uses its result
            data, use = supernet.nodes[consumer], dict(needed[consumer])
            if data["op"] == "choice":
                label = data["attrs"]["label"]
                handed = zip(data["inputs"], data["attrs"]["candidates"], strict=True)
                taking = frozenset(candidate for (producer, _), candidate in handed if producer == name)
                use[label] = use.get(label, taking) & taking
            uses.append(use)
        if uses := [use for use in uses if all(use.values())]:
            common = sorted(set.intersection(*(set(use) for use in uses)))
            met = {label: frozenset[str]().union(*(use[label] for use in uses)) for label in common}
            needed[name] = {label: taking for label, taking in met.items() if len(taking) < len(known[label])}
    return {name: met for name, met in needed.items() if supernet.nodes[name]["op"] != "choice"}
