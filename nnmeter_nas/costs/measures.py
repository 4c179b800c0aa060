"""Measures of the architectures of a space: latency on a device, work, memory, any function.

    space = load_space("spos")
    fast = latency(space, load_latency_predictor("cortexA76cpu_tflite21"))
    small = params(space)
    fast.values(rows), small.values(rows)       # rows: candidate indices [N, positions]

A measure is a factor table if possible: tables can be ranked, limited and sampled without making a model
graph. If no table is exact, each architecture is measured on request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError
from ..graph.memory import ONNXRUNTIME, TFLITE, MemoryRules, size_by_operator
from ..graph.work import flops_by_operator, params_by_operator
from ..kernels.configuration import FloatArray
from ..packs.warmth import COLD, Warmth
from ..predictor import LatencyPredictor
from ..supernet.choices import plain_architecture
from ..supernet.space import Space
from .attribution import parts_of_kernels, parts_of_table
from .build import (
    LARGEST_LIST,
    LIMIT,
    latency_header,
    learn_tables,
    listed,
    table_of_list,
    warn_of_left_out,
    work_header,
)
from .bundled import bundled_table_of
from .cache import cached_table, find_table, locked, table_path
from .files import save_table
from .peaks import PeakMeter, learn_peaks
from .pricing import (
    FunctionMeter,
    IndexArray,
    LatencyMeter,
    Meter,
    OperatorMeter,
    Parts,
    Pricing,
    Progress,
    row_of,
)
from .probing import EXACT
from .table import FactorTable, Header, every_architecture


@dataclass(frozen=True, eq=False)
class Measure:
    """A number for every architecture of a space.

    Attributes:
        name: such as ``latency_ms``, ``latency_ms_<device>`` (if there are several devices), or ``flops``.
        unit: such as ``ms``; may be empty.
        table: the measure as a factor table; None if architectures are measured one by one.
        evaluate: function of architectures ``[N, positions] -> [N]``, used if there is no table.
        builds: whether ``evaluate`` makes the model graph of each architecture, which takes milliseconds.
    """

    name: str
    unit: str
    table: FactorTable | None
    evaluate: Callable[[IndexArray], FloatArray] | None = None
    builds: bool = True

    @property
    def is_slow(self) -> bool:
        """Whether a value takes the making of a model graph."""
        return self.table is None and self.builds

    def values(self, indices: npt.ArrayLike) -> FloatArray:
        """Values of architectures, given as candidate indices ``[N, positions] -> [N]``.

        Raises:
            LookupTableError: ``indices`` has another shape, or holds an index without a candidate.
        """
        if self.table is not None:
            return self.table.values(indices)
        assert self.evaluate is not None
        return self.evaluate(np.asarray(indices))


def latency(space: Space, predictor: LatencyPredictor, progress: Progress | None = None) -> Measure:
    """Latency on one device in ms, named ``latency_ms``; otherwise as :func:`latencies`."""
    return latencies(space, [predictor], progress)[0]


def latencies(
    space: Space, predictors: Sequence[LatencyPredictor], progress: Progress | None = None
) -> list[Measure]:
    """Latency in ms on each of several devices, which share the model graphs.

    Tables come from the package or the cache; new ones are added to the cache.

    Args:
        space: the space to measure.
        predictors: one for each device.
        progress: called with the number of architectures measured so far.

    Returns:
        A measure for each predictor, named ``latency_ms``, or ``latency_ms_<device>`` if there are several.

    Raises:
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: operators were not measured, and are left out or estimated.
        UserWarning: a cached result is damaged or stale, and is computed again.
    """
    headers = [latency_header(space, predictor) for predictor in predictors]
    paths = [table_path(header) for header in headers]
    found: dict[int, FactorTable | LookupTableError] = {}
    with locked(paths):
        for device, (path, header, predictor) in enumerate(zip(paths, headers, predictors, strict=True)):
            known = bundled_table_of(space, predictor)
            known = known or find_table(path, space, header, LatencyMeter([predictor]))
            if known is not None:
                found[device] = known
        missing = [device for device in range(len(predictors)) if device not in found]
        pricing = Pricing(space, [LatencyMeter([predictors[device] for device in missing])], progress)
        if missing:
            learned = learn_tables(pricing, [headers[device] for device in missing], LIMIT)
            found.update(zip(missing, learned, strict=True))
        for device in missing:
            if isinstance(table := found[device], FactorTable):
                save_table(table, paths[device])
    measures = []
    for device, predictor in enumerate(predictors):
        name = f"latency_ms_{predictor.device}" if len(predictors) > 1 else "latency_ms"
        column = missing.index(device) if device in missing else 0
        measures.append(_measure(name, "ms", found[device], pricing, column, predictor.pack.warmth))
        left_out = _left_out(found[device], pricing, column)
        warn_of_left_out(left_out, space, f"measured on {predictor.device}")
    return measures


def exact_latency(space: Space, predictor: LatencyPredictor, build: bool = True) -> FactorTable | None:
    """Latency in ms as a table from the package or the cache, or a new one; None if no table is exact.

    Args:
        space: the space to measure.
        predictor: predictor of the device.
        build: if False, return None if neither the package nor the cache has the table.

    Raises:
        LookupTableError, SpaceError, GraphError: as when a lookup table is built.
    """
    table = bundled_table_of(space, predictor)
    if table is None and build:
        table = cached_table(space, predictor)
    elif table is None:
        header = latency_header(space, predictor)
        table = find_table(table_path(header), space, header, LatencyMeter([predictor]))
    return table if table is not None and table.header.worst_error <= EXACT else None


def flops(space: Space, progress: Progress | None = None) -> Measure:
    """Floating-point operations; a multiply-add is two. See :mod:`nnmeter_nas.graph.work`.

    Args:
        space: the space to measure.
        progress: called with the number of architectures measured so far.

    Raises:
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: the work of some operators is unknown.
        UserWarning: a cached result is damaged or stale, and is computed again.
    """
    return _work(space, "flops", progress)


def params(space: Space, progress: Progress | None = None) -> Measure:
    """Parameters: weights, biases, and two per channel of a batch norm; otherwise as :func:`flops`."""
    return _work(space, "params", progress)


def size(space: Space, progress: Progress | None = None) -> Measure:
    """Bytes of the weights on disk (:func:`nnmeter_nas.graph.memory.weights_size`); as :func:`flops`."""
    return _work(space, "size", progress)


def memory(space: Space, rules: MemoryRules = ONNXRUNTIME, progress: Progress | None = None) -> Measure:
    """Peak activation memory in bytes (:func:`nnmeter_nas.graph.memory.peak_memory`).

    A peak is a maximum, and no sum over choices. So what is there while an operator runs is learned for each
    operator, from few model graphs, and the largest of these numbers is taken; a small space gets a table
    that lists all architectures. Where many choices decide such a number, a small space is listed graph by
    graph, once, and in any other each architecture is measured on its own model graph, in milliseconds.

    Args:
        space: the space to measure.
        rules: how the runtime uses memory. The measure is called ``memory``, and by the rules of TensorFlow
            Lite ``memory_tflite``; rules of your own need a :func:`of_function` with a name.
        progress: called with the number of architectures measured so far.

    Raises:
        LookupTableError: ``rules`` are of neither of the two runtimes.
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: the sizes of some tensors are unknown, and they are not counted.
        UserWarning: a cached result is damaged or stale, and is computed again.
    """
    name = next((name for name, known in _MEMORY.items() if known == rules), None)
    if name is None:
        raise LookupTableError("rules must be ONNXRUNTIME or TFLITE; for others give of_function a name")
    pricing = Pricing(space, [PeakMeter(rules)], progress)
    header = work_header(space, name)
    measure = _learned_memory(pricing, header) or _memory_of_graphs(pricing, header)
    left_out = pricing.left_out[0] if measure.table is None else measure.table.header.left_out
    warn_of_left_out(left_out, space, f"counted in {name}")
    return measure


def _learned_memory(pricing: Pricing, header: Header) -> Measure | None:
    """Peak memory by operator; None if many choices decide it for one operator."""
    peaks = learn_peaks(pricing)
    if peaks is None:
        return None
    candidates = pricing.space.candidates
    sizes = [len(known) for known in candidates.values()]
    if math.prod(sizes) > LARGEST_LIST:
        return Measure(header.measure, BYTES, None, _checked(peaks.values, pricing.space), builds=False)
    table = table_of_list(candidates, peaks.values(every_architecture(sizes)))
    header = replace(header, left_out=dict(pricing.left_out[0]))
    return Measure(header.measure, BYTES, replace(table, header=header))


def _memory_of_graphs(pricing: Pricing, header: Header) -> Measure:
    """Peak memory of model graphs: of all in a small space, which are cached, else of each asked for."""
    space, [meter] = pricing.space, pricing.meters
    table: FactorTable | None = None
    if space.supernet is not None:  # otherwise model graphs take too long to list
        path = table_path(header)
        with locked([path]):
            table = find_table(path, space, header, meter)
            if table is None and (table := listed(pricing, [0])[0]) is not None:
                table = replace(table, header=replace(header, left_out=dict(pricing.left_out[0])))
                save_table(table, path)
    if table is None:
        pricing.values(np.zeros((1, len(space.candidates)), dtype=np.intp))  # shows what is left out
    found = table or LookupTableError("it is a maximum, and the space is too large to list")
    return _measure(header.measure, BYTES, found, pricing, 0)


def of_function(
    space: Space,
    function: Callable[[nx.DiGraph], float],
    name: str,
    unit: str = "",
    progress: Progress | None = None,
) -> Measure:
    """The value of ``function`` on the finished model graph of each architecture; it is not kept on disk.

    Args:
        space: the space to measure.
        function: returns the same number for the same graph every time.
        name: name of the measure.
        unit: unit of the numbers.
        progress: called with the number of architectures measured so far.

    Raises:
        LookupTableError: ``function`` returned something other than a finite number.
        GraphError, ShapeError: the blocks of an architecture do not fit together.
    """
    pricing = Pricing(space, [FunctionMeter(function)], progress)
    [table] = learn_tables(pricing, [work_header(space, name)])
    return _measure(name, unit, table, pricing, 0)


def latency_by_block(
    space: Space,
    predictor: LatencyPredictor,
    architecture: Mapping[str, Any],
    measure: Measure | None = None,
) -> dict[str, float]:
    """Latency of an architecture by label, in ms; the values sum up to its latency.

    What a choice causes counts for it, and what no choice changes for ``stationary_block``, as in the table
    of the space (``nnmeter-nas lut show``). What several choices cause together is split: each gets what its
    candidate alone adds, and an equal part of the rest. Where no table holds, the kernels that a choice
    changes or removes count for it, and a kernel of several choices for each in equal parts.

    Args:
        space: the space.
        predictor: predictor of the device.
        architecture: label -> candidate.
        measure: the latency of ``space`` on that device; by default it is measured.

    Raises:
        SpaceError: the architecture is not in this space.
    """
    plain = plain_architecture(architecture, space.candidates)
    row = row_of(space, plain)
    measure = measure or latency(space, predictor)
    if measure.table is not None:
        parts = parts_of_table(measure.table, row)
    else:
        parts = parts_of_kernels(Pricing(space, [LatencyMeter([predictor])]), row)
    share = float(predictor.pack.warmth.share(math.fsum(parts.values())))
    return {label: share * ms for label, ms in parts.items()}


def _measure(
    name: str,
    unit: str,
    table: FactorTable | LookupTableError,
    pricing: Pricing,
    column: int,
    warmth: Warmth = COLD,
) -> Measure:
    """A measure from its table, or else from the sums in a column of ``pricing``."""
    if isinstance(table, FactorTable):
        return Measure(name, unit, table)

    def values(rows: IndexArray) -> FloatArray:
        found: FloatArray = warmth.ms(pricing.values(rows)[:, column])
        return found

    return Measure(name, unit, None, _checked(values, pricing.space))


def _checked(
    values: Callable[[IndexArray], FloatArray], space: Space
) -> Callable[[IndexArray], FloatArray]:
    """``values``, which raises a LookupTableError for what are no architectures of ``space``."""
    empty = FactorTable(space.candidates, 0.0, {})

    def evaluate(rows: IndexArray) -> FloatArray:
        empty.values(rows)
        return values(rows)

    return evaluate


def _left_out(table: FactorTable | LookupTableError, pricing: Pricing, column: int) -> Mapping[str, str]:
    """Operators that a measure leaves out: name -> canonical operator."""
    return table.header.left_out if isinstance(table, FactorTable) else pricing.left_out[column]


#: Unit of memory and of sizes.
BYTES = "bytes"
#: Measures that are sums over operators.
_BY_OPERATOR: dict[str, Callable[[nx.DiGraph], Parts]] = {
    "flops": flops_by_operator,
    "params": params_by_operator,
    "size": size_by_operator,
}
#: Measures of peak memory, and their rules.
_MEMORY = {"memory": ONNXRUNTIME, "memory_tflite": TFLITE}
#: Measures that need no device, by name: what makes them of a space, and takes ``progress``.
QUANTITIES: dict[str, Callable[..., Measure]] = {
    "flops": flops,
    "params": params,
    "size": size,
    **{name: partial(memory, rules=rules) for name, rules in _MEMORY.items()},
}


def _work(space: Space, name: str, progress: Progress | None) -> Measure:
    """A sum over operators. The other ones are cached too, since making model graphs takes far longer."""
    headers = {work: work_header(space, work) for work in _BY_OPERATOR}
    paths = {work: table_path(header) for work, header in headers.items()}
    meters: dict[str, Meter] = {work: OperatorMeter(count) for work, count in _BY_OPERATOR.items()}
    pricing, column = Pricing(space, list(meters.values()), progress), list(_BY_OPERATOR).index(name)
    table: FactorTable | LookupTableError | None
    with locked(list(paths.values())):
        table = find_table(paths[name], space, headers[name], meters[name])
        if table is None:
            learned = learn_tables(pricing, list(headers.values()))
            for path, one in zip(paths.values(), learned, strict=True):
                if isinstance(one, FactorTable):
                    save_table(one, path)
            table = learned[column]
    warn_of_left_out(_left_out(table, pricing, column), space, f"counted in {name}")
    return _measure(name, BYTES if name == "size" else "", table, pricing, column)
