"""Measure how closely sums of blocks match the full-graph prediction: our lookup tables, and isolated blocks.

NNI prices each block by itself and adds the rest of the network without its blocks. That misses effects at
the borders: some operators fuse with a neighbour, and some vanish with a layer that is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial

import networkx as nx
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from nnmeter_nas import LatencyPredictor, load_latency_predictor
from nnmeter_nas.costs import build_tables
from nnmeter_nas.costs.pricing import LatencyMeter, Pricing
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph, set_outputs
from nnmeter_nas.graph.shapes import operand_shape
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.solve.ranking import random_architectures
from nnmeter_nas.supernet import Space
from nnmeter_nas.supernet.choices import Block
from nnmeter_nas.supernet.named import load_space

IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Additivity:
    """Relative differences between sums and full-graph predictions, for random architectures on a device.

    Attributes:
        in_context, isolated: differences for our lookup table, and for blocks priced alone, ``[N]``.
    """

    space: str
    device: str
    in_context: FloatArray
    isolated: FloatArray


def report_additivity(
    devices: Sequence[str], architectures: int, seed: int, console: Console
) -> list[Additivity]:
    """Measure both bundled spaces at ImageNet size on each device, and print a table."""
    predictors = [load_latency_predictor(name) for name in devices]
    found: list[Additivity] = []
    seconds = 0.0
    with Progress(console=Console(stderr=True), transient=True) as bars:
        for name in ("spos", "proxylessnas"):
            task = bars.add_task(name, total=None)
            start = time.perf_counter()
            space = load_space(name)
            tables = build_tables(space, predictors)
            seconds += time.perf_counter() - start
            rows = random_architectures(tables[0], architectures, seed)
            bars.update(task, total=architectures)
            show = partial(_show, bars, task)
            full = Pricing(space, [LatencyMeter(predictors)], show).values(rows)
            alone = isolated_graphs(space)
            for table, predictor, ms in zip(tables, predictors, full.T, strict=True):
                isolated = isolated_sums(space, alone, predictor, rows)
                errors = (np.abs(sums / ms - 1) for sums in (table.latencies(rows), isolated))
                found.append(Additivity(space.name, table.device, *errors))
    console.print(_report(found, architectures))
    console.print(f"{len(found)} lookup tables built in {seconds:.1f} s, reading the spaces included")
    return found


def _show(bars: Progress, task: TaskID, done: int) -> None:
    bars.update(task, completed=done)


def isolated_graphs(space: Space) -> dict[Block | None, nx.DiGraph | None]:
    """Make a model of each block, and, under None, a model of the rest of the space.

    A block's input becomes an input of its model. In the rest, the output of each removed block becomes an
    input. A block without operators has no model.
    """
    first = {label: known[0] for label, known in space.candidates.items()}
    graph = space.model_graph(first)
    alone: dict[Block | None, nx.DiGraph | None] = {None: _model_of(graph, set(graph) - set(space.blocks))}
    for label, known in space.candidates.items():
        for candidate in known:
            graph = space.model_graph({**first, label: candidate})
            members = {name for name in graph if space.blocks.get(name) == (label, candidate)}
            alone[label, candidate] = _model_of(graph, members)
    return alone


def isolated_sums(
    space: Space,
    alone: Mapping[Block | None, nx.DiGraph | None],
    predictor: LatencyPredictor,
    architectures: IndexArray,
) -> FloatArray:
    """Return the latency of architectures in ms, ``[N, positions] -> [N]``, as sums of isolated graphs."""
    prices = predictor.explain_many([graph for graph in alone.values() if graph is not None])
    parts = dict(zip([part for part, graph in alone.items() if graph is not None], prices, strict=True))
    total = np.full(len(architectures), parts[None].latency_ms)
    for (label, known), column in zip(space.candidates.items(), architectures.T, strict=True):
        block_ms = [parts[label, c].latency_ms if (label, c) in parts else 0.0 for c in known]
        total += np.array(block_ms)[column]
    return total


def _model_of(graph: nx.DiGraph, members: AbstractSet[str]) -> nx.DiGraph | None:
    """Make a model graph of the operators ``members`` of ``graph``; None if there are none."""
    alone = new_graph()
    for name, data in graph.nodes(data=True):
        if name not in members:
            continue
        operands = []
        for producer, slot in data["inputs"]:
            outside = f"{producer}:{slot}"
            if producer not in members and outside not in alone:
                add_input(alone, outside, operand_shape(graph, name, (producer, slot)))
            operands.append((producer, slot) if producer in members else (outside, 0))
        add_op(alone, name, data["op"], operands, data["attrs"], data["declared"])
    operators = [name for name in graph if name in members and graph.nodes[name]["op"] != "input"]
    given = set(graph.graph["outputs"])
    outputs = [n for n in operators if n in given or not set(graph.successors(n)) <= members]
    set_outputs(alone, outputs)
    return finish(alone) if outputs else None


def _report(found: Sequence[Additivity], architectures: int) -> Table:
    ways: dict[str, Callable[[Additivity], FloatArray]] = {
        "in context": lambda one: one.in_context,
        "isolated": lambda one: one.isolated,
    }
    title = f"|sum of blocks - full graph| in %, {architectures} random architectures of each space"
    table = Table("space", "device", title=title)
    for way in ways:
        table.add_column(f"{way}: median", justify="right")
        table.add_column("worst", justify="right")
    for one in found:
        errors = [100 * errors_of(one) for errors_of in ways.values()]
        table.add_row(one.space, one.device, *(f"{f(e):.2f}" for e in errors for f in (np.median, np.max)))
    return table
