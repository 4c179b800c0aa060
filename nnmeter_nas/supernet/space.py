"""A search space in the form lookup tables need: candidates, and the model graph of each architecture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import networkx as nx

from ..errors import SpaceError
from ..files import digest
from ..graph.model_graph import input_names
from ..graph.shapes import Shape
from .choices import Block, Candidates, blocks, candidate_name, choices, conditions, select
from .place import Place

#: Turns an architecture (the name of a candidate for each label) into its finished model graph.
ModelGraph = Callable[[Mapping[str, str]], nx.DiGraph]
#: Name in NNI's tables for the part that no choice changes.
STATIONARY = "stationary_block"


@dataclass(frozen=True)
class Space:
    """A search space; made by :meth:`of_supernet` or :meth:`of_function`.

    Attributes:
        name: name in messages and files.
        candidates: names of candidates by label.
        model_graph: makes the model graph of an architecture.
        input_shape: input shape of every architecture, NCHW.
        blocks: name of an operator -> its block; empty if not known.
        fingerprint: hash of the contents of the space.
        values: label -> NNI's values of the candidates, in their order.
        places: the place of each part of the networks, with names of candidates as values; None if not known.
            The keys are paths; the names of a part's operators begin with its path.
        supernet: see :mod:`nnmeter_nas.supernet.choices`; None if architectures must be made one by one.
    """

    name: str
    candidates: Candidates
    model_graph: ModelGraph
    input_shape: Shape
    blocks: Mapping[str, Block]
    fingerprint: str
    values: Mapping[str, tuple[Any, ...]]
    places: Mapping[str, Place] | None = None
    supernet: nx.DiGraph | None = None

    @classmethod
    def of_supernet(
        cls, supernet: nx.DiGraph, name: str | None = None, values: Mapping[str, Sequence[Any]] | None = None
    ) -> Space:
        """Make the space of a supernet.

        Args:
            supernet: see :mod:`nnmeter_nas.supernet.choices`.
            name: name of the space; by default the supernet's name.
            values: label -> NNI's values of the candidates; by default their names.

        Raises:
            SpaceError: it has no choice, several inputs, or a choice that cannot be told from others.
        """
        candidates = choices(supernet)
        _check_labels(candidates)
        shape = _input_shape([supernet.nodes[n]["attrs"]["shape"] for n in input_names(supernet)])
        name = name or supernet.graph.get("name") or "space"
        return cls(
            name=name,
            candidates=candidates,
            model_graph=partial(select, supernet, known=candidates),
            input_shape=shape,
            blocks=blocks(supernet),
            fingerprint=_fingerprint(candidates, supernet),
            values=candidates if values is None else _ordered(values, candidates),
            places=_places(supernet),
            supernet=supernet,
        )

    @classmethod
    def of_function(
        cls,
        name: str,
        candidates: Mapping[str, Sequence[Any]],
        model_graph: ModelGraph,
        places: Mapping[str, Place] | None = None,
    ) -> Space:
        """Make a space whose architectures must be made one by one.

        Args:
            name: name of the space.
            candidates: label -> NNI's values of the candidates; a candidate's name is
                :func:`~nnmeter_nas.supernet.choices.candidate_name` of its value.
            model_graph: makes the finished model graph of an architecture, the same on every call.
            places: the place of each part of the networks.

        Raises:
            SpaceError: there is no choice, or the model takes several inputs.
        """
        names = {label: tuple(map(candidate_name, known)) for label, known in candidates.items()}
        _check_labels(names)
        first, last = (model_graph({label: known[end] for label, known in names.items()}) for end in (0, -1))
        shape = _input_shape([first.nodes[n]["attrs"]["shape"] for n in input_names(first)])
        return cls(
            name=name,
            candidates=names,
            model_graph=model_graph,
            input_shape=shape,
            blocks={},
            fingerprint=_fingerprint(names, first, last),
            values={label: tuple(known) for label, known in candidates.items()},
            places=places,
        )


def _check_labels(candidates: Candidates) -> None:
    if not candidates:
        raise SpaceError(
            "the space has no choice, so there is nothing to look up; predict its latency instead"
        )
    for label, known in candidates.items():
        if label == STATIONARY:
            raise SpaceError(
                f"the label {label!r} is taken by what no choice changes; call the choice otherwise"
            )
        if not known or len(set(known)) < len(known):
            raise SpaceError(
                f"the choice {label!r} needs candidates that differ in name; it has {list(known)}"
            )


def _ordered(values: Mapping[str, Sequence[Any]], candidates: Candidates) -> dict[str, tuple[Any, ...]]:
    """Return the ``values`` of each label in the order of its candidates."""
    by_name = {label: {candidate_name(value): value for value in values[label]} for label in candidates}
    return {label: tuple(by_name[label][name] for name in known) for label, known in candidates.items()}


def _places(supernet: nx.DiGraph) -> dict[str, Place]:
    """Return the place of each operator of a supernet; operators with equal places share one object."""
    alike: dict[frozenset[tuple[str, frozenset[str]]], Place] = {frozenset(): Place({})}
    places = {"": alike[frozenset()]}
    for name, met in conditions(supernet).items():
        places[name] = alike.setdefault(frozenset(met.items()), Place(met))
    return places


def _input_shape(shapes: list[Any]) -> Shape:
    if len(shapes) != 1:
        raise SpaceError(f"lookup tables are for spaces of one input; this one takes {len(shapes)}: {shapes}")
    return tuple(shapes[0])


def _fingerprint(candidates: Candidates, *graphs: nx.DiGraph) -> str:
    """Hash the candidates, and the operators of model graphs."""
    operators = [
        [name, data["op"], data["attrs"], data["inputs"], data["declared"]]
        for graph in graphs
        for name, data in graph.nodes(data=True)
    ]
    return digest([candidates, operators, [graph.graph["outputs"] for graph in graphs]])
