"""Build factor tables in the first form that is exact.

The forms are: single choices and pairs of choices, found by probing; the few choices that decide each kernel,
in spaces that say where their operators are; and a list of all architectures, if there are not too many.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import networkx as nx
import numpy as np

from ..errors import LookupTableError, SpaceError, UnpredictedOperatorError
from ..kernels.configuration import FloatArray
from ..kernels.fusion import FusionRules
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor, LatencyWarning
from ..supernet.choices import Candidates, architecture_at
from ..supernet.place import Place
from ..supernet.space import Space
from .by_kernel import KernelLearner
from .influence import Sample, learn_influences
from .pricing import Indices, Kernels, LatencyMeter, Parts, Pricing, Progress, row_of
from .probing import EXACT, Probed, changes_of_one, is_exact, probe
from .table import FactorTable, Header, Positions, every_architecture

#: A table of latency is refused if its relative error is larger than this.
LIMIT = 0.03
#: The largest number of architectures that are listed.
LARGEST_LIST = 20_000
#: The least number of random architectures to test a learned table on.
_PROBES = 48
#: How many of these are kept for testing when kernels are learned.
_HELD_OUT = 16
#: The largest number of architectures with wrong sums to learn from at once.
_LEARNED_AT_ONCE = 4


def build_table(space: Space | nx.DiGraph, predictor: LatencyPredictor, **options: Any) -> FactorTable:
    """Build the latency table of a space on one device; arguments and errors as :func:`build_tables`."""
    return build_tables(space, [predictor], **options)[0]


def build_tables(
    space: Space | nx.DiGraph,
    predictors: Sequence[LatencyPredictor],
    probes: int = _PROBES,
    seed: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> list[FactorTable]:
    """Build the latency tables of a space on several devices, which share the model graphs.

    Args:
        space: a supernet, or a :class:`Space`.
        predictors: one for each device.
        probes: number of random architectures to test the tables on, against full-graph predictions.
        seed: seed of the random architectures.
        strict: raise if a prediction leaves out or estimates an operator.
        progress: called with the number of architectures priced so far.

    Raises:
        LookupTableError: no form is within 3 % of the full-graph predictions; names the label at fault.
        UnpredictedOperatorError: with ``strict``, the type of an operator was never measured.
        SpaceError: the space has no choice, or takes several inputs.
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: operators are left out or estimated.
    """
    if not predictors:
        raise LookupTableError("predictors is empty; give one for each device")
    if probes < 1:
        raise LookupTableError(f"probes={probes} must be at least 1")
    space = space if isinstance(space, Space) else Space.of_supernet(space)
    pricing = Pricing(space, [LatencyMeter(predictors)], progress)
    headers = [latency_header(space, predictor) for predictor in predictors]
    tables = []
    for table in learn_tables(pricing, headers, LIMIT, probes, seed):
        if isinstance(table, LookupTableError):
            raise table
        tables.append(table)
        warn_of_left_out(table.header.left_out, space, f"measured on {table.header.device}", strict)
    return tables


def latency_header(space: Space, predictor: LatencyPredictor) -> Header:
    """Header of the latency table of ``space`` on one device."""
    return replace(
        work_header(space, "latency"),
        device=predictor.device,
        pack_version=predictor.version,
        pack_fingerprint=pack_fingerprint(predictor.pack),
        warmth=predictor.pack.warmth,
    )


def work_header(space: Space, measure: str) -> Header:
    """Header of a table of ``measure``, with the entries that are the same on all devices."""
    return Header(measure, space.name, space.fingerprint, tuple(space.input_shape))


def learn_tables(
    pricing: Pricing, headers: Sequence[Header], limit: float = EXACT, probes: int = _PROBES, seed: int = 0
) -> list[FactorTable | LookupTableError]:
    """The table of each measure of ``pricing``, or the error that says why there is none.

    Args:
        pricing: gives the values.
        headers: headers of the tables.
        limit: relative error up to which sums over choices and pairs are accepted, if no form is exact.
        probes: number of random architectures to test these sums on.
        seed: seed of the random architectures.
    """
    probed: list[tuple[Probed, FactorTable]] = []

    def by_pairs(columns: Sequence[int]) -> list[FactorTable | None]:
        probed.extend(_anchored(pricing, probes, seed))
        return [probed[c][1] if probed[c][0].worst_error <= EXACT else None for c in columns]

    def by_kernel(columns: Sequence[int]) -> list[FactorTable | None]:
        return _by_kernel(pricing, columns)

    def as_list(columns: Sequence[int]) -> list[FactorTable | None]:
        return listed(pricing, columns)

    # A list is exact and needs no learning. It comes first if it is short and model graphs are quick to make.
    forms = [by_pairs, as_list, by_kernel]
    if not pricing.space.blocks:  # model graphs are slow to make, and few samples show what decides a kernel
        forms = [by_kernel, by_pairs, as_list]
    found: dict[int, FactorTable] = {}
    for form in forms:
        if columns := [column for column in range(len(headers)) if column not in found]:
            tables = zip(columns, form(columns), strict=True)
            found.update({column: table for column, table in tables if table is not None})
    learned: list[FactorTable | LookupTableError] = []
    for column, header in enumerate(headers):
        near, table = probed[column] if probed else (None, None)
        error = near.worst_error if near is not None and found.get(column, table) is table else 0.0
        table = found.get(column, table)
        if table is not None and error <= limit:
            header = replace(header, left_out=dict(pricing.left_out[column]), worst_error=error)
            learned.append(replace(table, header=header))
        else:
            assert near is not None  # no other form worked, so pairs were tried
            learned.append(_refusal(pricing.space, header, near))
    return learned


# Single choices and pairs


def _anchored(pricing: Pricing, probes: int, seed: int) -> list[tuple[Probed, FactorTable]]:
    """For each measure, the result of probing, and its table with a level for each choice.

    Probing gives all differences between candidates. The level of a choice is set by its anchor: a candidate
    that runs nothing adds nothing; otherwise the base's candidate adds the latency of its own kernels.
    """
    changes = changes_of_one([len(known) for known in pricing.space.candidates.values()])
    rows = list(dict.fromkeys(changes.values()))
    parts = dict(zip(rows, pricing.parts(rows), strict=True))
    found = []
    for column, probed in enumerate(probe(pricing, probes, seed)):
        by_change = {change: parts[row][column] for change, row in changes.items()}
        found.append((probed, _with_levels(pricing.space, probed.table, by_change)))
    return found


def _with_levels(
    space: Space, table: FactorTable, by_change: Mapping[tuple[int, int], Parts]
) -> FactorTable:
    """``table`` with levels, given the kernels of the base after each change ``(position, candidate)``."""
    factors, constant = dict(table.factors), table.constant
    for position, (label, known) in enumerate(space.candidates.items()):
        own = [_own(space, by_change[position, c], label, name) for c, name in enumerate(known)]
        added = table.factors[position,]
        if None in own:
            anchor, level = (own.index(None) if space.blocks else int(added.argmin())), 0.0
        else:
            anchor, level = 0, own[0] or 0.0
        factors[position,] = level + added - added[anchor]
        constant -= float(factors[position,][0])
    return FactorTable(space.candidates, constant, factors)


def _own(space: Space, kernels: Parts, label: str, candidate: str) -> float | None:
    """Sum over the kernels that start in a block of the priced architecture; None if there are none."""
    own = [value for name, value in kernels.items() if space.blocks.get(name) == (label, candidate)]
    return sum(own) if own else None


def _refusal(space: Space, header: Header, probed: Probed) -> LookupTableError:
    label = tuple(space.candidates)[probed.worst_position]
    where = f" on {header.device}" if header.device else ""
    return LookupTableError(
        f"no lookup table of {space.name!r} holds{where}: sums of blocks are off by up to "
        f"{probed.worst_error:.1%}, most at the choice {label!r}, whose cost depends on more than one "
        f"other choice, and a list of all architectures would have more than {LARGEST_LIST}; predict the "
        "architectures' full graphs instead"
    )


# The few choices that decide each kernel


def _by_kernel(pricing: Pricing, columns: Sequence[int]) -> list[FactorTable | None]:
    """Measures as tables of the few choices that decide each of their kernels or operators.

    Returns:
        One table for each of ``columns``; None if many choices decide one kernel, or the space does not say
        where its operators are.
    """
    space, places = pricing.space, pricing.space.places
    if places is None:
        return [None] * len(columns)
    sizes = [len(known) for known in space.candidates.values()]
    rows = np.random.default_rng(0).integers(sizes, size=(_PROBES, len(sizes)))
    probes: list[Sample] = [architecture_at(row, space.candidates) for row in rows.tolist()]
    if len(pricing.meters) == 1 and isinstance(meter := pricing.meters[0], LatencyMeter):
        return _by_kernel_sizes(pricing, meter, places, probes, columns)
    pricing.values(rows)
    parts: dict[Indices, tuple[Parts, ...]] = {}

    def learned(column: int, wrong: list[Sample]) -> FactorTable:
        def evaluate(sample: Sample) -> Parts:
            row = row_of(space, sample)
            if row not in parts:
                [parts[row]] = pricing.parts([row])
            return parts[row][column]

        return learn_influences(evaluate, space.candidates, places, samples=wrong)

    return [_until_right(pricing, column, partial(learned, column)) for column in columns]


def _by_kernel_sizes(
    pricing: Pricing,
    meter: LatencyMeter,
    places: Mapping[str, Place],
    probes: Sequence[Sample],
    columns: Sequence[int],
) -> list[FactorTable | None]:
    """Latency tables by the choices that decide each kernel size; devices with equal rules learn once."""
    space, learners = pricing.space, dict[FusionRules, KernelLearner]()
    kernels: dict[Indices, Mapping[FusionRules, Kernels]] = {}

    def kernels_of(rules: FusionRules, sample: Sample) -> Kernels:
        row = row_of(space, sample)
        if row not in kernels:
            [kernels[row]] = pricing.seen(row)
        return kernels[row][rules]

    def learned(column: int, wrong: list[Sample]) -> FactorTable:
        rules = meter.rules[column]
        if rules not in learners:
            of_rules = partial(kernels_of, rules)
            learners[rules] = KernelLearner(of_rules, space.candidates, places, probes[_HELD_OUT:])
        if wrong:
            learners[rules].learn(wrong)
        samples = [*learners[rules].samples, *probes]  # some of the probes are new to it, and test it
        pricing.values(np.array([row_of(space, sample) for sample in samples]))
        return learners[rules].table(partial(meter.priced, column))

    return [_until_right(pricing, column, partial(learned, column)) for column in columns]


def _until_right(
    pricing: Pricing, column: int, learned: Callable[[list[Sample]], FactorTable]
) -> FactorTable | None:
    """Learn, and learn from wrong samples until all are right; None if many choices decide one kernel.

    Learning may miss effects of rare choices. So every known sample has to come out right; some of the wrong
    ones are added to what is learned from.
    """
    wrong: list[Sample] = []
    while True:
        try:
            table = learned(wrong)
        except SpaceError:
            return None
        rows, values = pricing.known()
        right = is_exact(table, rows, values[:, column])
        if right.all():
            return table
        new = (architecture_at(row, pricing.space.candidates) for row in rows[~right].tolist())
        if not (more := list(islice((sample for sample in new if sample not in wrong), _LEARNED_AT_ONCE))):
            return None  # the choices found do not decide its kernels
        wrong += more


# All architectures


def listed(pricing: Pricing, columns: Sequence[int]) -> list[FactorTable | None]:
    """Measures as lists of all architectures; None if there are too many."""
    sizes = [len(known) for known in pricing.space.candidates.values()]
    if math.prod(sizes) > LARGEST_LIST:
        return [None] * len(columns)
    values = pricing.values(every_architecture(sizes))
    return [table_of_list(pricing.space.candidates, values[:, column]) for column in columns]


def table_of_list(candidates: Candidates, values: FloatArray) -> FactorTable:
    """The values of all architectures in index order, ``[architectures]``, as a table of one factor.

    Its constant is the least value: what all architectures have, no choice changes.
    """
    sizes = [len(known) for known in candidates.values()]
    everything: Positions = tuple(range(len(sizes)))
    least = float(values.min())
    return FactorTable(candidates, least, {everything: (values - least).reshape(sizes)})


# Operators left out


def warn_of_left_out(left_out: Mapping[str, str], space: Space, known: str, strict: bool = False) -> None:
    """Warn of operators (name -> canonical operator) that are not ``known``; raise with ``strict``.

    Raises:
        UnpredictedOperatorError: with ``strict``, there are any.

    Warns:
        LatencyWarning: there are any.
    """
    if not left_out:
        return
    kinds = ", ".join(sorted(set(left_out.values())))
    message = f"{len(left_out)} operator(s) of {space.name!r} are not {known}: {kinds}"
    if strict:
        raise UnpredictedOperatorError(message)
    warnings.warn(message, LatencyWarning, stacklevel=3)
