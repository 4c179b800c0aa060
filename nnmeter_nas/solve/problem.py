"""The problem of a search: architectures as rows of candidate indices, with limits and objectives."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..costs.measures import Measure
from ..costs.table import LISTED, IntArray, every_architecture
from ..errors import LookupTableError, SearchError, nearest
from ..kernels.configuration import FloatArray
from ..supernet.choices import Candidates, architecture_at, plain_architecture
from .ranking import NOTHING_MS, fastest, fastest_running, slowest
from .sampling import UniformSampler

BoolArray = npt.NDArray[np.bool_]

#: The objective "latency": the latency on one device, or the worst ratio to the limit on several devices.
LATENCY = "latency"
#: Name of the measure of latency; with several devices, the name of each device follows.
LATENCY_MS = "latency_ms"
#: After this many draws without an architecture inside all limits, the search gives up: for measures that are
#: sums, and for measures that need each model to be built.
_PATIENCE, _PATIENCE_BUILT = 200_000, 500
#: Number of draws per part of a range to find one inside all limits, for the same two kinds of measures.
_TRIES, _TRIES_BUILT = 64, 8
#: Number of starting points of the descent to the least value of a measure that cannot be ranked.
_STARTS = 8


class Problem:
    """The architectures of a space, their measures, and the limits and objectives of a search.

    Architectures whose output does not depend on the input run nothing, so they would be the fastest. If a
    space has such architectures, as NAS-Bench-201 does, they count as outside the limits.

    Args:
        candidates: candidates by label, in the order of a row's positions.
        measures: measures by name, for limits, objectives and reports.
        maxima: largest allowed values of measures, by name.
        minima: smallest allowed values of measures, by name.
        objectives: names of the measures to minimise, besides the metric that trials report. "latency" stands
            for ``latency_ms``, or with several devices for the worst ratio of a latency to its limit.

    Attributes:
        labels: label of each position.
        sizes: number of candidates of each position.
        names: names of the measures: the columns of :meth:`values`.
        objectives: as given.

    Raises:
        SearchError: a limit or an objective names no measure, a limit is not a number, or a measure belongs
            to another space.
    """

    def __init__(
        self,
        candidates: Candidates,
        measures: Mapping[str, Measure],
        maxima: Mapping[str, float],
        minima: Mapping[str, float] | None = None,
        objectives: Sequence[str] = (LATENCY,),
    ) -> None:
        self.candidates = {label: tuple(known) for label, known in candidates.items()}
        self.measures = dict(measures)
        self.maxima, self.minima = dict(maxima), dict(minima or {})
        self.objectives = tuple(objectives)
        self.labels = tuple(self.candidates)
        self.sizes = tuple(len(known) for known in self.candidates.values())
        self.names = tuple(self.measures)
        self._check_arguments()
        for name in self._latencies_from_nothing():
            self.minima.setdefault(name, NOTHING_MS)

    def _latencies_from_nothing(self) -> list[str]:
        """Names of latencies that are 0 ms for some architecture."""
        return [
            name
            for name in self._latencies
            if (table := self.measures[name].table) is not None
            and table.constant <= 0
            and self._extreme(self.measures[name], 1)[1] < NOTHING_MS
        ]

    @property
    def size(self) -> int:
        """Number of architectures of the space, inside and outside the limits."""
        return math.prod(self.sizes)

    @property
    def first_limit(self) -> float | None:
        """Largest allowed value of the first objective, if there is one."""
        if self.objectives[0] != LATENCY or LATENCY in self.measures:
            return self.maxima.get(self.objectives[0])
        return self.maxima.get(self._latencies[0]) if len(self._latencies) == 1 else 1.0

    def architecture(self, row: npt.ArrayLike) -> dict[str, str]:
        """The architecture of a row: label -> candidate."""
        return architecture_at(np.asarray(row).tolist(), self.candidates)

    def row(self, architecture: Mapping[str, Any]) -> IntArray:
        """The row of an architecture that maps labels to candidates, ``[positions]``.

        Raises:
            SpaceError: the architecture is not in this space.
        """
        plain = plain_architecture(architecture, self.candidates)
        return np.array([self.candidates[label].index(plain[label]) for label in self.labels], dtype=np.int64)

    def values(self, rows: npt.ArrayLike) -> FloatArray:
        """All measures of architectures, ``[N, positions] -> [N, measures]``."""
        rows = self._rows(rows)
        return np.stack([measure.values(rows) for measure in self.measures.values()], axis=1)

    def objective_values(self, rows: npt.ArrayLike) -> FloatArray:
        """Values to minimise, ``[N, positions] -> [N, objectives]``."""
        rows = self._rows(rows)
        return np.stack([self._objective(name, rows) for name in self.objectives], axis=1)

    def worst_ratio(self, rows: npt.ArrayLike, names: Sequence[str] | None = None) -> FloatArray:
        """The largest ratio of a measure to its maximum, ``[N, positions] -> [N]``.

        Args:
            rows: rows of the architectures.
            names: names of measures; None for all that have a maximum above 0.
        """
        rows = self._rows(rows)
        names = [name for name, most in self.maxima.items() if most > 0] if names is None else names
        ratios = [self.measures[name].values(rows) / self.maxima[name] for name in names]
        return np.max(ratios, axis=0) if ratios else np.zeros(len(rows))

    def inside(self, rows: npt.ArrayLike) -> BoolArray:
        """Whether architectures are inside all limits, ``[N, positions] -> [N]``; limits are inclusive."""
        return self._tally(self._rows(rows), Counter())

    def reasons(self, rows: npt.ArrayLike) -> Counter[str]:
        """Number of architectures outside each limit; each counts for the first limit that it fails."""
        counts: Counter[str] = Counter()
        self._tally(self._rows(rows), counts)
        return counts

    def draw(self, count: int, rng: np.random.Generator, rejected: Counter[str] | None = None) -> IntArray:
        """Draw architectures inside the limits, independently and uniformly, ``[count, positions]``.

        Exact sampling meets the tightest limit of a measure that is a sum; rejection meets the others.

        Args:
            count: number of architectures.
            rng: source of randomness.
            rejected: counter of the architectures outside the other limits, by limit.

        Raises:
            SearchError: there are none, or none was found among very many that meet the tightest limit.
        """
        found = np.empty((0, len(self.sizes)), dtype=np.int64)
        while len(found) < count:
            more = self.draw_up_to(count - len(found), rng, rejected)
            if not len(more):
                raise SearchError(self._verdict())
            found = np.concatenate([found, more])
        return found

    def draw_up_to(
        self, count: int, rng: np.random.Generator, rejected: Counter[str] | None = None
    ) -> IntArray:
        """As :meth:`draw`, but gives up after very many draws, ``[n, positions]``; n may be 0."""
        rejected = Counter() if rejected is None else rejected
        found = np.empty((0, len(self.sizes)), dtype=np.int64)
        tried = 0
        while len(found) < count and tried < self._patience:
            missing = count - len(found)
            drawn = self._draw_roughly(missing if self._rejects_by_building else max(missing, tried), rng)
            tried += len(drawn)
            found = np.concatenate([found, drawn[self._tally(drawn, rejected)]])
        return found[:count]

    def spread(self, count: int, rng: np.random.Generator) -> IntArray:
        """Architectures inside the limits whose first objective rises in even steps from least to most.

        Draws one uniformly from each of ``count`` equal parts of the range; if a part is empty, from all.

        Returns:
            Rows ``[count, positions]``, the least first; some may be equal.
        """
        measure = self._ruler
        if measure.table is None:
            pool = self.draw(4 * count, rng)
            value = measure.values(pool)
            middles = np.linspace(value.min(), value.max(), 2 * count + 1)[1::2]
            return pool[np.abs(value[:, None] - middles).argmin(axis=0)]
        low, high = self._range(measure)
        edges = np.linspace(low, high, count + 1)
        return np.concatenate(
            [self._draw_between(measure, edges[i], edges[i + 1], rng) for i in range(count)]
        )

    def repair(self, row: IntArray, rng: np.random.Generator) -> IntArray | None:
        """Move ``row`` inside the limits with the fewest changes found.

        While no single change is enough, change the block that brings the row closest: the costliest block
        goes all the way down the table (or up, for a measure that is too small). If several single changes
        are enough, one of them is drawn.

        Returns:
            The row, ``[positions]``; None if no single change brings it closer.
        """
        excess = float(self._excess(row[None])[0])
        while excess > 0:
            changed = self._neighbours(row)
            if not len(changed):
                return None
            after = self._excess(changed)
            enough = np.flatnonzero(after == 0)
            if len(enough):
                return changed[rng.choice(enough)]
            best = int(after.argmin())
            if after[best] >= excess:
                return None
            row, excess = changed[best], float(after[best])
        return row

    def listed(self) -> IntArray | None:
        """All architectures inside the limits, ``[N, positions]``; None if the space is too large to list."""
        if self.size > LISTED or self._rejects_by_building:
            return None
        rows = every_architecture(self.sizes)
        return rows[self.inside(rows)]

    def check(self) -> None:
        """Raise a SearchError unless there is an architecture inside the limits.

        The error names the limit that nothing meets, and the closest architecture, such as the fastest one.
        """
        for name, most in self.maxima.items():
            best, value = self._extreme(self.measures[name], 1, most)
            if value > most:
                raise SearchError(self._nothing(name, best, most, ("at most", "fastest", "least", "raise")))
        for name, least in self.minima.items():
            best, value = self._extreme(self.measures[name], -1, least)
            if value < least:
                raise SearchError(self._nothing(name, best, least, ("at least", "slowest", "most", "lower")))
        self.draw(1, np.random.default_rng(0))

    def _check_arguments(self) -> None:
        for what, limits in (("maxima", self.maxima), ("minima", self.minima)):
            for name, limit in limits.items():
                if name not in self.measures:
                    raise SearchError(f"{what}: no measure is called {name!r}; {nearest(name, self.names)}")
                if not math.isfinite(limit):
                    raise SearchError(f"{what}: the limit {limit!r} of {name!r} must be a number")
                if what == "maxima" and limit <= 0 and name in self._latencies:
                    raise SearchError(f"maxima: the limit {limit!r} of {name!r} must be positive")
        if not self.objectives:
            raise SearchError("objectives is empty; name a measure")
        for name in self.objectives:
            if name == LATENCY and self._latencies:
                missing = [latency for latency in self._latencies if latency not in self.maxima]
                if len(self._latencies) > 1 and missing:
                    raise SearchError(
                        f"latencies on several devices are compared by their limits, and {missing[0]!r} has "
                        "none; give max_latency for each device"
                    )
            elif name not in self.measures:
                raise SearchError(f"objectives: no measure is called {name!r}; {nearest(name, self.names)}")
        for measure in self.measures.values():
            if measure.table is not None and tuple(measure.table.sizes) != self.sizes:
                raise SearchError(
                    f"the measure {measure.name!r} is of another space: of {measure.table.sizes} candidates, "
                    f"not {self.sizes}"
                )

    @property
    def _latencies(self) -> list[str]:
        """Names of the latencies."""
        return [name for name in self.names if name == LATENCY_MS or name.startswith(f"{LATENCY_MS}_")]

    @cached_property
    def _limited(self) -> list[Measure]:
        """The measures that have a limit; those that need no model building come first."""
        limited = [self.measures[name] for name in {**self.maxima, **self.minima}]
        return sorted(limited, key=lambda measure: measure.table is None)

    @cached_property
    def _tightest(self) -> tuple[Measure, UniformSampler] | None:
        """The measure that is a sum and whose limit the fewest architectures meet, and its sampler."""
        sums = [
            (measure, UniformSampler(measure.table, *self._bounds(measure.name)))
            for measure in self._limited
            if measure.table is not None
        ]
        if len(sums) < 2:  # counting would take longer than drawing
            return sums[0] if sums else None
        return min(sums, key=lambda found: found[1].size)

    @property
    def _rejects_by_building(self) -> bool:
        """Whether a limit is on a measure that needs each model to be built."""
        return any(measure.is_slow for measure in self._limited)

    @property
    def _patience(self) -> int:
        return _PATIENCE_BUILT if self._rejects_by_building else _PATIENCE

    @property
    def _ruler(self) -> Measure:
        """The measure to spread architectures along: that of the first objective, or the tightest."""
        first = self.objectives[0]
        if first != LATENCY:
            return self.measures[first]
        if len(self._latencies) > 1 and self._tightest and self._tightest[0].name in self._latencies:
            return self._tightest[0]
        return self.measures[self._latencies[0]]

    def _bounds(self, name: str) -> tuple[float, float]:
        """Maximum and minimum of a measure."""
        return self.maxima.get(name, math.inf), self.minima.get(name, -math.inf)

    def _range(self, measure: Measure) -> tuple[float, float]:
        """Least and most value of a measure inside its own limits."""
        most, least = self._bounds(measure.name)
        low, high = (self._extreme(measure, sign)[1] for sign in (1, -1))
        return max(low, least), min(high, most)

    def _rows(self, rows: npt.ArrayLike) -> IntArray:
        found = np.asarray(rows, dtype=np.int64)
        if found.ndim != 2 or found.shape[1] != len(self.sizes):
            raise SearchError(f"rows must be of shape [N, {len(self.sizes)}]; got {found.shape}")
        return found

    def _objective(self, name: str, rows: IntArray) -> FloatArray:
        if name != LATENCY or name in self.measures:
            return self.measures[name].values(rows)
        if len(self._latencies) == 1:
            return self.measures[self._latencies[0]].values(rows)
        return self.worst_ratio(rows, self._latencies)

    def _tally(self, rows: IntArray, counts: Counter[str]) -> BoolArray:
        """Which rows are inside; adds the others to ``counts``, by the first limit that they fail."""
        fits = np.ones(len(rows), dtype=bool)
        for measure in self._limited:
            left = np.flatnonzero(fits)
            if not len(left):
                break
            most, least = self._bounds(measure.name)
            value = measure.values(rows[left])
            for outside, words, limit in ((value > most, "above", most), (value < least, "below", least)):
                if outside.any():
                    counts[self._limit(measure.name, limit, words)] += int(outside.sum())
            fits[left] = (value <= most) & (value >= least)
        return fits

    def _excess(self, rows: IntArray) -> FloatArray:
        """Distance of rows from the limits: the sum of relative excesses, ``[N]``; 0 if inside."""
        total = np.zeros(len(rows))
        for measure in self._limited:
            most, least = self._bounds(measure.name)
            value = measure.values(rows)
            if most < math.inf:
                total += np.maximum(value - most, 0) / (abs(most) or 1.0)
            if least > -math.inf:
                total += np.maximum(least - value, 0) / (abs(least) or 1.0)
        return total

    def _neighbours(self, row: IntArray) -> IntArray:
        """All rows that differ from ``row`` at one position."""
        changes = [(p, c) for p, size in enumerate(self.sizes) for c in range(size) if c != row[p]]
        rows = np.repeat(row[None], len(changes), axis=0)
        positions, candidates = np.array(changes, dtype=np.int64).reshape(-1, 2).T
        rows[np.arange(len(rows)), positions] = candidates
        return rows

    def _draw_roughly(self, count: int, rng: np.random.Generator) -> IntArray:
        """Draw architectures that meet the tightest limit, uniformly."""
        if self._tightest is not None:
            return self._tightest[1].draw(count, rng)
        return rng.integers(self.sizes, size=(count, len(self.sizes)))

    def _draw_between(self, measure: Measure, low: float, high: float, rng: np.random.Generator) -> IntArray:
        """Draw an architecture inside the limits, ``[1, positions]``; ``measure`` in the range if any is."""
        assert measure.table is not None
        with contextlib.suppress(SearchError):  # the range may be empty
            sampler = UniformSampler(measure.table, at_most=high, at_least=low)
            drawn = sampler.draw(_TRIES_BUILT if self._rejects_by_building else _TRIES, rng)
            if len(fitting := drawn[self.inside(drawn)]):
                return fitting[:1]
        return self.draw(1, rng)

    def _extreme(self, measure: Measure, sign: int, enough: float | None = None) -> tuple[IntArray, float]:
        """Row and value of the least (``sign`` 1) or most (-1) of a measure; exact if it can be ranked.

        Otherwise the search stops at a value that is ``enough``. What runs nothing is left out if it counts
        as outside the limits.
        """
        if measure.table is not None:
            with contextlib.suppress(LookupTableError):  # too many interacting choices for a ranking
                if self.minima.get(measure.name) == NOTHING_MS and sign > 0:
                    row = fastest_running(measure.table)
                else:
                    row = (fastest if sign > 0 else slowest)(measure.table, 1)[0]
                return row, float(measure.values(row[None])[0])
        rng = np.random.default_rng(0)
        starts = rng.integers(self.sizes, size=(_STARTS, len(self.sizes)))
        row = starts[int((sign * measure.values(starts)).argmin())]
        value = float(sign * measure.values(row[None])[0])
        while enough is None or value > sign * enough:
            changed = self._neighbours(row)
            after = sign * measure.values(changed)
            if not len(after) or after.min() >= value:
                break
            row, value = changed[int(after.argmin())], float(after.min())
        return row, sign * value

    def _nothing(self, name: str, best: IntArray, limit: float, words: tuple[str, str, str, str]) -> str:
        """Message that nothing meets a limit; it shows the closest architecture."""
        bound, extreme_latency, extreme, way_out = words
        superlative = extreme_latency if name in self._latencies else extreme
        value = f"{float(self.measures[name].values(best[None])[0]):.6g} {self.measures[name].unit}".rstrip()
        return (
            f"no architecture of the space has {self._limit(name, limit, bound)}: the {superlative} that it "
            f"holds is {value} ({self._named(best)}); {way_out} the limit"
        )

    def _limit(self, name: str, limit: float, words: str) -> str:
        unit = f" {self.measures[name].unit}".rstrip()
        return f"{name} {words} {limit:.6g}{unit}"

    def _named(self, row: IntArray) -> str:
        return ", ".join(f"{label}={candidate}" for label, candidate in self.architecture(row).items())

    def _verdict(self) -> str:
        """Message that says why there seems to be no architecture inside all limits."""
        limits = [self._limit(name, limit, "at most") for name, limit in self.maxima.items()]
        limits += [self._limit(name, limit, "at least") for name, limit in self.minima.items()]
        rng = np.random.default_rng(0)
        drawn = self._draw_roughly(_PATIENCE_BUILT, rng)
        closest = drawn[int(self._excess(drawn).argmin())]
        found = zip(self.names, self.values(closest[None])[0].tolist(), strict=True)
        return (
            f"none of {self._patience} architectures drawn meets all of {', '.join(limits)}; the closest has "
            f"{', '.join(f'{name} {value:.6g}' for name, value in found)} ({self._named(closest)}); "
            "widen a limit"
        )
