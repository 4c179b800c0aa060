"""Measures of the architectures of a space: latency on a device, flops, parameters, any function.

    space = load_space("spos")
    fast = latency(space, load_latency_predictor("cortexA76cpu_tflite21"))
    small = params(space)
    fast.values(rows), small.values(rows)       # rows: candidate indices [N, positions]

A measure is wanted as a sum of terms that depend on few choices each, which can be ranked, limited and
sampled without making a model graph. The first of these that is exact is taken: choices and pairs of them,
found by probing; in spaces that say where their operators stand, the few choices that decide each kernel; a
list of all architectures, if there are not too many. Else each architecture is measured when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from ..errors import LookupTableError
from ..graph.work import flops_by_operator, params_by_operator
from ..kernels.configuration import FloatArray
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor
from ..supernet.choices import plain_architecture
from ..supernet.influence import Place
from ..supernet.space import STATIONARY, Space
from .beyond_pairs import influence_terms, listed_terms
from .build import try_tables, warn_of_left_out
from .bundled import bundled_tables
from .cache import cached_table, check_table, find_table, find_terms, locked, table_path, terms_path
from .pricing import (
    FunctionMeter,
    IndexArray,
    LatencyMeter,
    Meter,
    OperatorMeter,
    Parts,
    Pricing,
    Progress,
)
from .probing import EXACT, probe
from .table import LatencyTable, load_table
from .terms import Terms
from .terms_files import StoredTerms, write_terms


@dataclass(frozen=True, eq=False)
class Measure:
    """A number of every architecture of a space.

    Attributes:
        name: such as ``latency_ms``, or ``latency_ms_<device>`` where there are several, or ``flops``.
        unit: such as ``ms``; may be empty.
        terms: the measure as a sum; None if architectures have to be measured one by one.
        evaluate: architectures ``[N, positions] -> [N]``, where there are no terms.
    """

    name: str
    unit: str
    terms: Terms | None
    evaluate: Callable[[IndexArray], FloatArray] | None = None

    def values(self, indices: npt.ArrayLike) -> FloatArray:
        """Values of architectures, given as candidate indices ``[N, positions] -> [N]``.

        Raises:
            LookupTableError: ``indices`` is of another shape, or holds an index that is no candidate's.
        """
        if self.terms is not None:
            return self.terms.values(indices)
        assert self.evaluate is not None
        return self.evaluate(np.asarray(indices))


def latency(space: Space, predictor: LatencyPredictor, progress: Progress | None = None) -> Measure:
    """Latency on one device in ms, called ``latency_ms``; the rest as :func:`latencies`."""
    return latencies(space, [predictor], progress)[0]


def latencies(
    space: Space, predictors: Sequence[LatencyPredictor], progress: Progress | None = None
) -> list[Measure]:
    """Latency in ms on each of several devices, which share the model graphs.

    Tables come from the package or from the cache; what is computed is kept there.

    Args:
        space: what to measure.
        predictors: one for each device.
        progress: called with the number of architectures measured so far.

    Returns:
        A measure for each predictor, called ``latency_ms``, or ``latency_ms_<device>`` if there are several.

    Raises:
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: operators are not measured: left out, or estimated.
        UserWarning: what was cached is damaged or stale, and computed anew.
    """
    names = [f"latency_ms_{p.device}" if len(predictors) > 1 else "latency_ms" for p in predictors]
    found: dict[int, StoredTerms | None] = {}
    pricing = None
    with locked([table_path(space, predictor) for predictor in predictors]):
        for device, predictor in enumerate(predictors):
            if known := _known_latency(space, predictor):
                found[device] = known
        missing = [device for device in range(len(predictors)) if device not in found]
        if missing:
            absent = [predictors[device] for device in missing]
            pricing = Pricing(space, [LatencyMeter(absent)], progress)
            found.update(zip(missing, _new_latencies(space, pricing, absent), strict=True))
    measures = []
    for device, predictor in enumerate(predictors):
        stored, column = found[device], missing.index(device) if device in missing else 0
        left_out = stored.left_out if stored else pricing.left_out[column] if pricing else {}
        warn_of_left_out(left_out, space, f"measured on {predictor.device}")
        measures.append(_measure(names[device], "ms", stored, pricing, column))
    return measures


def exact_latency(space: Space, predictor: LatencyPredictor, build: bool = True) -> Terms | None:
    """Latency in ms from the package or the cache, else as a lookup table that is built; None if that is off.

    Args:
        space: what to measure.
        predictor: of the device.
        build: if False, None where neither the package nor the cache has it.

    Raises:
        LookupTableError, SpaceError, GraphError: as building a lookup table raises.
    """
    table = _bundled_table(space, predictor)
    if table is None and (listed := _listed_latency(space, predictor)):
        return listed.terms
    if table is None and build:
        table = cached_table(space, predictor)
    elif table is None:
        table = find_table(table_path(space, predictor), space, predictor)
    return table.terms() if table is not None and table.worst_error <= EXACT else None


def list_latencies(
    space: Space, predictors: Sequence[LatencyPredictor], folder: Path, progress: Progress | None = None
) -> None:
    """Write latency on each of several devices to ``folder``, for a space that no lookup table holds of.

    Raises:
        LookupTableError: nor is it what few choices decide together, or a list of few architectures.
    """
    pricing = Pricing(space, [LatencyMeter(predictors)], progress)
    for predictor, stored in zip(predictors, _exact_terms(pricing, _none), strict=True):
        if stored is None:
            raise LookupTableError(
                f"{space.name!r} has too many architectures to list, and latency on {predictor.device} "
                "depends on many choices at once; predict the architectures' full graphs instead"
            )
        path = latency_path(space, predictor, folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_terms(path, stored)


def flops(space: Space, progress: Progress | None = None) -> Measure:
    """Floating-point operations, two for a multiply-add; see :mod:`nnmeter_nas.graph.work`.

    Args:
        space: what to measure.
        progress: called with the number of architectures measured so far.

    Raises:
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: the work of operators is not known.
        UserWarning: what was cached is damaged or stale, and computed anew.
    """
    return _work(space, "flops", progress)


def params(space: Space, progress: Progress | None = None) -> Measure:
    """Parameters: weights and biases, a batch norm's two for each channel too; the rest as :func:`flops`."""
    return _work(space, "params", progress)


def of_function(
    space: Space,
    function: Callable[[nx.DiGraph], float],
    name: str,
    unit: str = "",
    progress: Progress | None = None,
) -> Measure:
    """What ``function`` gives for the finished model graph of each architecture; it is not kept on disk.

    Args:
        space: what to measure.
        function: gives the same number whenever it is asked.
        name: what to call the measure.
        unit: of the numbers.
        progress: called with the number of architectures measured so far.

    Raises:
        LookupTableError: ``function`` gave what is no finite number.
        GraphError, ShapeError: the blocks of an architecture do not fit together.
    """
    pricing = Pricing(space, [FunctionMeter(function)], progress)
    [stored] = _exact_terms(pricing)
    return _measure(name, unit, stored, pricing, 0)


def latency_by_block(
    space: Space, predictor: LatencyPredictor, architecture: Mapping[str, Any]
) -> dict[str, float]:
    """Where the latency of an architecture goes, in ms by label; the values sum up to its latency.

    A kernel counts where its first operator stands. Where several choices decide that, as value choices do,
    it counts at the one that decides the fewest other places. What no choice changes is under
    ``stationary_block``.

    Raises:
        SpaceError: the architecture is none of this space.
    """
    plain = plain_architecture(architecture, space.candidates)
    row = tuple(known.index(plain[label]) for label, known in space.candidates.items())
    [[kernels]] = Pricing(space, [LatencyMeter([predictor])]).parts([row])
    found = {**dict.fromkeys(space.candidates, 0.0), STATIONARY: 0.0}
    label_of = _labels(space)
    for name, ms in kernels.items():
        found[label_of(name)] += ms
    return found


def _labels(space: Space) -> Callable[[str], str]:
    """Gives the label of the block that an operator of ``space`` is part of."""
    places = space.places
    if space.blocks or places is None:
        return lambda operator: space.blocks.get(operator, (STATIONARY,))[0]
    decided = Counter(label for place in places.values() for label in {*place.conditions, *place.labels})

    def label_of(operator: str) -> str:
        while operator not in places and operator:
            operator = operator.rpartition(".")[0]
        place = places.get(operator, Place({}))
        deciding = [label for label in space.candidates if label in (place.labels or place.conditions)]
        return min(deciding, key=lambda label: decided[label], default=STATIONARY)

    return label_of


def _measure(
    name: str, unit: str, stored: StoredTerms | None, pricing: Pricing | None, column: int
) -> Measure:
    """A measure of ``stored`` terms; without them, of the values in a column of ``pricing``."""
    if stored is not None:
        return Measure(name, unit, stored.terms)
    assert pricing is not None
    constant = Terms(tuple(map(len, pricing.space.candidates.values())), 0.0, {})

    def evaluate(rows: IndexArray) -> FloatArray:
        constant.values(rows)  # which refuses what are no architectures
        return np.asarray(pricing.values(rows)[:, column])

    return Measure(name, unit, None, evaluate)


# Latency


def _known_latency(space: Space, predictor: LatencyPredictor) -> StoredTerms | None:
    """Latency from a table of the package, or from the cache; None if it is in neither."""
    table = _bundled_table(space, predictor) or find_table(table_path(space, predictor), space, predictor)
    if table is not None:
        return StoredTerms(table.terms(), table.unpredicted)
    return _listed_latency(space, predictor)


def _listed_latency(space: Space, predictor: LatencyPredictor) -> StoredTerms | None:
    """Latency that no table holds, from the package or from the cache; None if it is in neither."""
    paths = [latency_path(space, predictor, folder) for folder in (bundled_tables(), None)]
    found = (find_terms(path, space, LatencyMeter([predictor])) for path in paths)
    return next(filter(None, found), None)


def _bundled_table(space: Space, predictor: LatencyPredictor) -> LatencyTable | None:
    """The table in the package of this very space, whatever it is called there, if it is fresh."""
    shape = "x".join(map(str, space.input_shape))
    for path in bundled_tables().glob(f"*_{shape}/{predictor.device}_{predictor.version}.yaml"):
        try:
            table = load_table(path)
            check_table(table, space, predictor)
            return table
        except LookupTableError:
            continue  # of another space, or stale
    return None


def latency_path(space: Space, predictor: LatencyPredictor, folder: Path | None = None) -> Path:
    """Where latency that no table holds is kept in ``folder``; the user's cache folder if None."""
    name = f"{predictor.device}_{predictor.version}"
    return terms_path(space, name, pack_fingerprint(predictor.pack), folder)


def _new_latencies(
    space: Space, pricing: Pricing, predictors: Sequence[LatencyPredictor]
) -> list[StoredTerms | None]:
    """Latency by new tables or by other terms, which are kept; None where there are none.

    A table that is off, though by no more than a table may, stands behind all that is exact.
    """
    tables: list[LatencyTable | LookupTableError] = []

    def by_tables(pricing: Pricing, columns: Sequence[int]) -> list[Terms | None]:
        tables.extend(try_tables(pricing, predictors))
        found = [tables[column] for column in columns]
        return [t.terms() if isinstance(t, LatencyTable) and t.worst_error <= EXACT else None for t in found]

    found = _exact_terms(pricing, by_tables)
    for device, predictor in enumerate(predictors):
        stored, table = found[device], tables[device] if tables else None
        if isinstance(table, LatencyTable) and (stored is None or table.worst_error <= EXACT):
            table.save(table_path(space, predictor))
            found[device] = StoredTerms(table.terms(), table.unpredicted)
        elif stored is not None:
            write_terms(latency_path(space, predictor), stored)
    return found


# Work and functions

_BY_OPERATOR: dict[str, Callable[[nx.DiGraph], Parts]] = {
    "flops": flops_by_operator,
    "params": params_by_operator,
}


def _work(space: Space, name: str, progress: Progress | None) -> Measure:
    """Flops or parameters; the other one is kept for later, as making model graphs takes longer by far."""
    paths = {work: terms_path(space, work) for work in _BY_OPERATOR}
    meters: dict[str, Meter] = {work: OperatorMeter(count) for work, count in _BY_OPERATOR.items()}
    column, pricing = list(_BY_OPERATOR).index(name), None
    with locked(list(paths.values())):
        stored = find_terms(paths[name], space, meters[name])
        if stored is None:
            pricing = Pricing(space, list(meters.values()), progress)
            found = _exact_terms(pricing)
            for path, terms in zip(paths.values(), found, strict=True):
                if terms is not None:
                    write_terms(path, terms)
            stored = found[column]
    left_out = stored.left_out if stored else meters[name].left_out[0]
    warn_of_left_out(left_out, space, f"counted in {name}")
    return _measure(name, "", stored, pricing, column)


def _by_pairs(pricing: Pricing, columns: Sequence[int]) -> list[Terms | None]:
    """Measures as sums over choices and pairs of choices; None where these are not exact."""
    probed = probe(pricing)
    return [probed[c].terms if probed[c].worst_error <= EXACT else None for c in columns]


def _none(pricing: Pricing, columns: Sequence[int]) -> list[Terms | None]:
    """No terms, where it is known that choices and pairs of them do not do."""
    return [None] * len(columns)


def _exact_terms(
    pricing: Pricing, by_pairs: Callable[[Pricing, Sequence[int]], list[Terms | None]] = _by_pairs
) -> list[StoredTerms | None]:
    """Each measure of ``pricing`` in the first form that is exact; None where there is none."""
    forms = [by_pairs, influence_terms, listed_terms]
    if (
        not pricing.space.blocks
    ):  # Model graphs take long to make, and few samples tell what decides a kernel.
        forms = [influence_terms, by_pairs, listed_terms]
    found: dict[int, Terms] = {}
    for form in forms:
        if columns := [column for column in range(len(pricing.left_out)) if column not in found]:
            terms = zip(columns, form(pricing, columns), strict=True)
            found.update({column: one for column, one in terms if one is not None})
    return [
        StoredTerms(found[column], left_out) if column in found else None
        for column, left_out in enumerate(pricing.left_out)
    ]
