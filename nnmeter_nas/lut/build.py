"""Building lookup tables: blocks are priced in context, and probed against full-graph predictions.

With one candidate fixed at every position as the base, ``L(base)`` and the ``L`` of every architecture that
differs from it at one position give all differences between candidates. A position's level is set at its
anchor: a candidate that runs nothing takes 0 ms, else the base's takes what its own kernels take. Random
architectures then show whether the sum is the full-graph prediction. Where it is not, bisection finds a pair
of labels that change each other's latency, and the second-order differences of their candidates are kept.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError, UnpredictedOperatorError
from ..kernels import FloatArray
from ..predictor import Explanation, LatencyPredictor, LatencyWarning
from .fingerprints import pack_fingerprint
from .pricing import Pricing, Progress
from .space import Space
from .table import LatencyTable

IndexArray = npt.NDArray[np.intp]

#: Relative difference up to which a sum is the full-graph prediction.
EXACT = 1e-6
#: Relative difference beyond which a table is refused.
LIMIT = 0.03
#: How often more random architectures are drawn to find pairs by.
_ROUNDS = 6


def build_table(space: Space | nx.DiGraph, predictor: LatencyPredictor, **options: Any) -> LatencyTable:
    """The lookup table of a space on one device; arguments and errors as :func:`build_tables`."""
    return build_tables(space, [predictor], **options)[0]


def build_tables(
    space: Space | nx.DiGraph,
    predictors: Sequence[LatencyPredictor],
    probes: int = 48,
    seed: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> list[LatencyTable]:
    """The lookup tables of a space on several devices, which share the model graphs.

    Args:
        space: a supernet, or a :class:`Space`.
        predictors: one for each device.
        probes: random architectures that the tables are tested on, against full-graph predictions.
        seed: of the random architectures.
        strict: raise where a prediction leaves an operator out.
        progress: called with the number of architectures priced so far.

    Raises:
        LookupTableError: a probe is off by more than 3 %, so blocks and pairs do not do; names the label.
        UnpredictedOperatorError: under ``strict``, an operator has no kernel predictor.
        SpaceError: the space has no choice, or takes several inputs.
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: operators are left out.
    """
    if not predictors:
        raise LookupTableError("predictors is empty; give one for each device")
    if probes < 1:
        raise LookupTableError(f"probes={probes} must be at least 1")
    space = space if isinstance(space, Space) else Space.of_supernet(space)
    pricing = Pricing(space, predictors, progress)
    tables = _additive_tables(space, pricing)
    rng = np.random.default_rng(seed)
    sizes = [len(known) for known in space.candidates.values()]
    probed = rng.integers(sizes, size=(probes, len(sizes)))
    for _ in range(_ROUNDS):
        if max(_worst_errors(tables, pricing, probed)) <= EXACT:
            break
        known = tables
        tables = [_with_pairs(table, pricing, device, probed) for device, table in enumerate(known)]
        probed = np.concatenate([probed, rng.integers(sizes, size=(probes, len(sizes)))])
        if all(table is before for table, before in zip(tables, known, strict=True)):
            break
    errors = _worst_errors(tables, pricing, probed)
    tables = [replace(table, worst_error=worst) for table, worst in zip(tables, errors, strict=True)]
    return [_accepted(table, pricing, probed, device, strict) for device, table in enumerate(tables)]


def _additive_tables(space: Space, pricing: Pricing) -> list[LatencyTable]:
    """The tables without pairs."""
    base = (0,) * len(space.candidates)
    changes = [
        (position, candidate)
        for position, known in enumerate(space.candidates.values())
        for candidate in range(1, len(known))
    ]
    rows = [base, *((*base[:p], c, *base[p + 1 :]) for p, c in changes)]
    prices = dict(zip([(-1, 0), *changes], pricing.prices(rows), strict=True))
    return [_additive_table(space, pricing, prices, device) for device in range(len(pricing.predictors))]


def _additive_table(
    space: Space, pricing: Pricing, prices: dict[tuple[int, int], list[Explanation]], device: int
) -> LatencyTable:
    """A device's table from the prices of the base, at ``(-1, 0)``, and of each ``(position, candidate)``."""
    base = prices[-1, 0][device]
    block_ms = {}
    for position, (label, known) in enumerate(space.candidates.items()):
        of_candidate = [base, *(prices[position, c][device] for c in range(1, len(known)))]
        own = [_own_ms(space, p, label, name) for p, name in zip(of_candidate, known, strict=True)]
        latency = np.array([p.latency_ms for p in of_candidate])
        if None in own:
            anchor, level = (own.index(None) if space.blocks else int(latency.argmin())), 0.0
        else:
            anchor, level = 0, own[0] or 0.0
        block_ms[label] = level + latency - latency[anchor]
    predictor = pricing.predictors[device]
    return LatencyTable(
        space=space.name,
        space_fingerprint=space.fingerprint,
        device=predictor.device,
        pack_version=predictor.version,
        pack_fingerprint=pack_fingerprint(predictor.pack),
        input_shape=space.input_shape,
        candidates=space.candidates,
        stationary_ms=base.latency_ms - sum(float(ms[0]) for ms in block_ms.values()),
        block_ms=block_ms,
    )


def _own_ms(space: Space, price: Explanation, label: str, candidate: str) -> float | None:
    """Latency of the kernels that start in a block of the architecture priced; None if there are none."""
    kernels = price.kernel_graph.nodes(data="latency_ms")
    own = [ms for name, ms in kernels if ms is not None and space.blocks.get(name) == (label, candidate)]
    return sum(own) if own else None


def _worst_errors(tables: Sequence[LatencyTable], pricing: Pricing, probed: IndexArray) -> list[float]:
    """Largest relative difference of each table's sums from full-graph predictions."""
    full = pricing.latencies(probed)
    return [
        float(np.max(np.abs(table.latencies(probed) - ms) / np.maximum(ms, 1e-12)))
        for table, ms in zip(tables, full.T, strict=True)
    ]


def _with_pairs(table: LatencyTable, pricing: Pricing, device: int, probed: IndexArray) -> LatencyTable:
    """``table`` with the pairs of labels that it takes to get the probes right, as far as pairs do."""
    sizes = [len(known) for known in table.candidates.values()]
    for row in probed:
        while pair := _interacting_pair(table, pricing, device, row):
            first, second = pair
            labels = table.labels[first], table.labels[second]
            matrix = _second_order(
                pricing, [(*pair, c, d) for c in range(sizes[first]) for d in range(sizes[second])]
            )[:, device]
            if labels in table.pair_ms or np.abs(matrix).max() <= EXACT * table.latencies(row[None])[0]:
                break  # they interact with a third
            ms = matrix.reshape(sizes[first], sizes[second])
            table = replace(table, pair_ms={**table.pair_ms, labels: ms})
    return table


def _interacting_pair(
    table: LatencyTable, pricing: Pricing, device: int, row: npt.NDArray[np.intp]
) -> tuple[int, int] | None:
    """Two positions whose choices in ``row`` interact in a way that the table lacks; None if it is right.

    Sums are right for the base and for one choice other than the base's. So there is a choice that makes them
    wrong when all of ``row`` before it has been made, and one that does so together with it.
    """

    def is_off(positions: Sequence[int]) -> bool:
        part = np.zeros((1, len(row)), dtype=np.intp)
        part[0, positions] = row[positions]
        full = float(pricing.latencies(part)[0, device])
        return abs(float(table.latencies(part)[0]) - full) > EXACT * full

    changed = [int(position) for position in np.flatnonzero(row)]
    if not is_off(changed):
        return None
    end = _first(lambda n: is_off(changed[:n]), len(changed))
    start = _first(lambda n: is_off([*changed[:n], changed[end - 1]]), end - 1)
    return changed[start - 1], changed[end - 1]


def _first(test: Callable[[int], bool], known: int) -> int:
    """By bisection, a number that passes ``test``, as ``known`` does, after one that fails it, as 0 does."""
    low, high = 0, known
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if test(middle) else (middle, high)
    return high


def _second_order(pricing: Pricing, chosen: Sequence[tuple[int, int, int, int]]) -> FloatArray:
    """What candidates ``c`` and ``d`` at positions ``p`` and ``q`` take together beyond the sum, in the base.

    ``chosen`` holds N tuples ``(p, q, c, d)``; the result is ``[N, predictors]``, in ms.
    """
    corners = []
    for with_first, with_second in ((1, 1), (1, 0), (0, 1), (0, 0)):
        rows = np.zeros((len(chosen), len(pricing.space.candidates)), dtype=np.intp)
        for row, (p, q, c, d) in zip(rows, chosen, strict=True):
            row[p], row[q] = c * with_first, d * with_second
        corners.append(pricing.latencies(rows))
    return corners[0] - corners[1] - corners[2] + corners[3]


def _accepted(
    table: LatencyTable, pricing: Pricing, probed: IndexArray, device: int, strict: bool
) -> LatencyTable:
    """``table``, unless it is too far off or under ``strict`` leaves an operator out."""
    if not table.worst_error <= LIMIT:
        label = _culprit(table, pricing, probed, device)
        raise LookupTableError(
            f"no lookup table of {table.space!r} holds on {table.device}: sums of blocks are off by up to "
            f"{table.worst_error:.1%}, most at the choice {label!r}, whose cost depends on more than one "
            "other choice; predict the architectures' full graphs instead"
        )
    unpredicted = pricing.unpredicted[device]
    if unpredicted:
        kinds = ", ".join(sorted(set(unpredicted.values())))
        message = (
            f"{len(unpredicted)} operator(s) of {table.space!r} are not predicted on {table.device}: {kinds}"
        )
        if strict:
            raise UnpredictedOperatorError(message)
        warnings.warn(message, LatencyWarning, stacklevel=3)
    return replace(table, unpredicted=dict(unpredicted))


def _culprit(table: LatencyTable, pricing: Pricing, probed: IndexArray, device: int) -> str:
    """The label at which the worst probe goes astray, on the way from the base one position at a time."""
    full = pricing.latencies(probed)[:, device]
    worst = probed[np.argmax(np.abs(table.latencies(probed) / full - 1))]
    steps = np.tril(np.broadcast_to(worst, (len(worst),) * 2))
    steps = np.concatenate([np.zeros((1, len(worst)), dtype=np.intp), steps])
    errors = np.diff(table.latencies(steps) - pricing.latencies(steps)[:, device])
    return table.labels[int(np.argmax(np.abs(errors)))]
