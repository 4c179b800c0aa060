"""The base of all strategies: their arguments, the problem they make of a space, asking and telling."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from nnmeter_nas.costs import measures
from nnmeter_nas.costs.measures import Measure
from nnmeter_nas.costs.table import FactorTable, IntArray
from nnmeter_nas.errors import SearchError, nearest
from nnmeter_nas.nni import NniStrategy
from nnmeter_nas.predictor import LatencyPredictor, load_latency_predictor
from nnmeter_nas.solve.problem import LATENCY, LATENCY_MS, Problem
from nnmeter_nas.supernet.space import Space

#: A quantity to limit or minimise: a name in ``QUANTITIES`` such as "flops" or "memory", a measure, or a
#: function of the finished model graph.
Quantity = str | Measure | Callable[[nx.DiGraph], float]
#: The maximum of a measure, or its minimum and maximum (None: no limit).
Limit = float | Sequence[float | None]
#: One device or several: names, predictors or lookup tables.
Device = str | LatencyPredictor | FactorTable

#: Arguments of every strategy.
_SHARED = (
    "max_latency",
    "min_latency",
    "predictor",
    "predictor_version",
    "limits",
    "objectives",
    "space",
    "input_shape",
    "seed",
)
#: A space too large to list counts as exhausted after this many random draws that were all tried before.
_STALE = 20_000


class LatencyStrategy(NniStrategy):
    """A search strategy that knows the latency of architectures before it trains them.

    Use it like any strategy of NNI 2.10.1 or 3.0::

        ParetoEvolution(max_latency=20.0, predictor="cortexA76cpu_tflite21", limits={"flops": 3e8})

    Without NNI, call :meth:`begin` with a problem. Then call :meth:`ask` for an architecture and :meth:`tell`
    its metric, as often as you like and in any order. The architectures depend only on ``seed`` and on the
    order of asks and tells, so repeating these brings a new strategy to the same state. An ask that returns
    None changes nothing.

    Args:
        max_latency: maximum latency in ms; one number for all devices, or one per device.
        min_latency: minimum latency, in the same form.
        predictor: device name, ``LatencyPredictor`` or ``FactorTable``, or a list of them; if None, the
            devices that ``max_latency`` names.
        predictor_version: version of the predictor packs of devices given by name; the newest by default.
        limits: limits of other measures. Maps "flops", "params", "memory", "memory_tflite", "size" (bytes), a
            ``Measure`` or a function of the finished model graph to its maximum, or to a pair of minimum and
            maximum; either may be None.
        objectives: measures to minimise while the metric of trials is maximised: "latency" (with several
            devices the worst ratio to a limit), or any key that ``limits`` takes.
        space: the space; needed if NNI's engine keeps no module to read it from.
        input_shape: NCHW, batch 1; by default that of the space.
        seed: seed for everything random.

    Attributes:
        problem: the problem given to :meth:`begin`.
        rejected: number of proposed candidates outside each limit.

    Raises:
        ValueError, TypeError: an argument is not as described above.
        UnknownDeviceError: no predictor pack has a name in ``predictor``.
    """

    problem: Problem

    def __init__(
        self,
        max_latency: float | Mapping[str, float] | None = None,
        min_latency: float | Mapping[str, float] | None = None,
        *,
        predictor: Device | Sequence[Device] | None = None,
        predictor_version: float | None = None,
        limits: Mapping[Quantity, Limit] | None = None,
        objectives: Sequence[Quantity] = (LATENCY,),
        space: Any = None,
        input_shape: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(space=space, input_shape=input_shape)
        self.max_latency = max_latency
        self.min_latency = min_latency
        self.predictor = predictor
        self.predictor_version = predictor_version
        self.limits = limits
        self.objectives = objectives
        self.seed = seed
        self._begun = False
        self._check_arguments()

    def make_problem(self, space: Space) -> Problem:
        """Make the problem of searching ``space`` with this strategy's arguments.

        Raises:
            SearchError: no device is given, a limit names an unknown device, or a table is of another space.
            UnknownDeviceError: no predictor pack has a name in ``predictor``.
            LookupTableError, SpaceError, GraphError: building a lookup table failed.
        """
        found = self._latencies(space)
        maxima = self._limits_by_name("max_latency", self.max_latency, found)
        minima = self._limits_by_name("min_latency", self.min_latency, found)
        by_name = {measure.name: measure for measure in found.values()}
        for quantity, limit in (self.limits or {}).items():
            measure = self._measure(space, quantity, by_name)
            least, most = limit if isinstance(limit, Sequence) else (None, limit)
            maxima |= {} if most is None else {measure.name: most}
            minima |= {} if least is None else {measure.name: least}
        names = [
            LATENCY if quantity == LATENCY else self._measure(space, quantity, by_name).name
            for quantity in self.objectives
        ]
        return Problem(space.candidates, by_name, maxima, minima, names)

    def begin(self, problem: Problem) -> None:
        """Start to search ``problem`` from the beginning.

        Raises:
            SearchError: no architecture is inside the limits; the message names the limit and the closest
                value.
        """
        problem.check()
        self.problem = problem
        self.rejected: Counter[str] = Counter()
        self._rng = np.random.default_rng(self.seed)
        self._asked: set[tuple[int, ...]] = set()
        self._running: Counter[tuple[int, ...]] = Counter()
        self._exhausted = False
        self._begun = True
        self._start()

    def ask(self) -> IntArray | None:
        """Return the row of the next architecture to train, ``[positions]``.

        Return None if there is none now: either outcomes must come in first, or :attr:`exhausted` is true.

        Raises:
            SearchError: the search has not begun.
        """
        self._check_begun()
        if self._exhausted:
            return None
        row = self._propose()
        if row is not None:
            self._take(row)
        return row

    def _take(self, row: IntArray) -> None:
        """Note that a row was asked for, and that its trial runs."""
        one = key(row)
        self._asked.add(one)
        self._running[one] += 1

    def tell(self, row: npt.ArrayLike, metric: float | None) -> None:
        """Record the outcome of an architecture that :meth:`ask` returned.

        Args:
            row: row of the architecture.
            metric: metric of its trial; more is better. None, NaN or infinite if the trial failed.

        Raises:
            SearchError: no trial of this architecture is running.
        """
        self._check_begun()
        one = key(row)
        if not self._running[one]:
            raise SearchError(f"no trial of {list(one)} is running: it was not asked for, or told before")
        self._running[one] -= 1
        failed = metric is None or not math.isfinite(metric)
        self._learn(np.array(one, dtype=np.int64), None if failed else metric)

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left to ask for, even after more outcomes."""
        return self._exhausted

    def importance(self) -> dict[str, float]:
        """How much of what the strategy has learned it owes to each choice, by label; shares add up to 1.

        Empty if it learns nothing, or has not yet.
        """
        return {}

    @abstractmethod
    def _propose(self) -> IntArray | None:
        """Return the next row. If there is none, return None and change at most :attr:`exhausted`."""

    def _start(self) -> None:
        """Set up the state that only this strategy keeps."""

    def _learn(self, row: IntArray, metric: float | None) -> None:
        """Record an outcome; the metric is None if the trial failed."""

    def shared_arguments(self) -> dict[str, Any]:
        """Return the arguments that every strategy takes, by name."""
        return {name: getattr(self, name) for name in _SHARED}

    def _draw_new(self) -> IntArray | None:
        """Draw a new architecture inside the limits, each equally likely; None if there is none."""
        for drawn in (1, 16, 256, 4096):
            for row in self.problem.draw(drawn, self._rng, self.rejected):
                if key(row) not in self._asked:
                    return row
        listed = self.problem.listed()
        rows = self.problem.draw(_STALE, self._rng) if listed is None else listed
        new = [row for row in rows if key(row) not in self._asked]
        if not new:
            return None
        return new[int(self._rng.integers(len(new)))]

    def _check_begun(self) -> None:
        if not self._begun:
            raise SearchError(f"{type(self).__name__} has no problem yet; call begin first")

    def _check_arguments(self) -> None:
        for name, value in (("max_latency", self.max_latency), ("min_latency", self.min_latency)):
            for ms in value.values() if isinstance(value, Mapping) else [value]:
                number = isinstance(ms, (int, float)) and not isinstance(ms, bool)
                if ms is not None and not (number and 0 < ms < math.inf):
                    raise ValueError(f"{name}={value!r} must be a positive number of milliseconds")
        check_whole("seed", self.seed, 0)
        if self.predictor is not None or isinstance(self.max_latency, Mapping):
            self._devices()  # report an unknown name before NNI starts
        if isinstance(self.objectives, str) or not self.objectives:
            raise ValueError(f"objectives={self.objectives!r} must be a list such as ['latency', 'flops']")

    def _devices(self) -> list[LatencyPredictor | FactorTable]:
        """Return the predictor or table of each device."""
        given = self.predictor
        if given is None:
            given = list(self.max_latency) if isinstance(self.max_latency, Mapping) else []
        listed = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        if not listed:
            raise SearchError("predictor=None: name the device, as in predictor='cortexA76cpu_tflite21'")
        found = [
            load_latency_predictor(one, self.predictor_version) if isinstance(one, str) else one
            for one in listed
        ]
        for one in found:
            if not isinstance(one, LatencyPredictor | FactorTable):
                raise TypeError(
                    f"predictor={one!r} must be a device name, a LatencyPredictor or a FactorTable"
                )
        names = [one.device for one in found]
        if len(set(names)) < len(names):
            raise ValueError(f"predictor names a device twice: {', '.join(names)}")
        return found

    def _latencies(self, space: Space) -> dict[str, Measure]:
        """Return the latency measure of each device."""
        devices = self._devices()
        predictors = [one for one in devices if isinstance(one, LatencyPredictor)]
        predicted = measures.latencies(space, predictors) if predictors else []
        found = dict(zip([one.device for one in predictors], predicted, strict=True))
        for one in devices:
            if isinstance(one, FactorTable):
                if list(one.candidates.items()) != list(space.candidates.items()):
                    raise SearchError(
                        f"the lookup table of {one.header.space!r} has other candidates than {space.name!r}"
                    )
                found[one.device] = Measure(LATENCY_MS, "ms", one)
        names = [f"{LATENCY_MS}_{one.device}" if len(devices) > 1 else LATENCY_MS for one in devices]
        return {
            one.device: replace(found[one.device], name=name)
            for one, name in zip(devices, names, strict=True)
        }

    def _limits_by_name(
        self, argument: str, value: float | Mapping[str, float] | None, latencies: Mapping[str, Measure]
    ) -> dict[str, float]:
        """Return the limits of latencies by the names of their measures."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            return {measure.name: value for measure in latencies.values()}
        names = {device.lower(): measure.name for device, measure in latencies.items()}
        for device in value:
            if device.lower() not in names:
                raise SearchError(
                    f"{argument}: predictor has no device {device!r}; {nearest(device, latencies)}"
                )
        return {names[device.lower()]: ms for device, ms in value.items()}

    def _measure(self, space: Space, quantity: Quantity, known: dict[str, Measure]) -> Measure:
        """Return the measure of a quantity, and put it into ``known`` under its name."""
        if isinstance(quantity, Measure):
            return known.setdefault(quantity.name, quantity)
        if isinstance(quantity, str) and quantity in known:
            return known[quantity]
        if isinstance(quantity, str) and quantity in measures.QUANTITIES:
            made = measures.QUANTITIES[quantity](space)
        elif callable(quantity):
            name = getattr(quantity, "__name__", type(quantity).__name__)
            made = known.get(name) or measures.of_function(space, quantity, name)
        else:
            hint = nearest(str(quantity), [*measures.QUANTITIES, *known])
            raise SearchError(f"no measure is called {quantity!r}; {hint}, or a function of the model graph")
        return known.setdefault(made.name, made)


def check_whole(name: str, value: Any, least: int = 1) -> int:
    """Return ``value`` if it is a whole number from ``least``, else raise a ValueError with its ``name``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number from {least}")
    return value


def key(row: npt.ArrayLike) -> tuple[int, ...]:
    """Return a row as a hashable tuple."""
    return tuple(np.asarray(row).tolist())
