"""Look up the latency of a search space's candidates in the space's table."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from nnmeter_nas.costs import measures
from nnmeter_nas.costs.table import FactorTable
from nnmeter_nas.errors import LookupTableError, NnMeterNasError, SpaceError
from nnmeter_nas.nni import Origin, carries_operators, origin_of, traced_shape
from nnmeter_nas.nni.asking import space_given
from nnmeter_nas.predictor import LatencyPredictor
from nnmeter_nas.solve.ranking import fastest_running, slowest
from nnmeter_nas.supernet.choices import candidate_name
from nnmeter_nas.supernet.space import Space

logger = logging.getLogger(__name__)

#: A table is trusted after this many candidates were also read whole to test it.
CHECKED = 3
#: Building a table stops after this many models read per block of the space; most tables take three.
_MOST_READ = 20
#: Largest relative difference between a looked-up latency and that of the model read whole.
_SAME = 1e-6


class TableLookup:
    """Look up latencies of candidates if their space and its table are known.

    Reading a candidate whole takes milliseconds, or tens of milliseconds if its network must be built first.
    Looking up its choices takes microseconds.

    If the package or the cache holds a table, it is used from the first candidate. To build one, about as
    many models must be read as the space has blocks. So it is built after that many candidates were read
    whole: a search then spends at most about twice as long on reading as with the better of both ways.

    The first :data:`CHECKED` candidates are both read whole and looked up. If one differs, the table belongs
    to another space, and all later candidates are read whole.

    Args:
        predictor: predictor of the device.
        space: the space, as strategies take it: a name, a ``Space`` or a module of NNI. If None, each
            candidate tells its space if NNI allows it.
        input_shape: NCHW; by default that of the space, or else of the candidate.
    """

    def __init__(
        self, predictor: LatencyPredictor, space: Any = None, input_shape: Sequence[int] | None = None
    ) -> None:
        self._predictor, self._given, self._input_shape = predictor, space, input_shape
        self._origin: Origin | None = None
        self._space: Space | None = None
        self._table: FactorTable | None = None
        self._reach: tuple[float, float] | None = None
        self._forget()

    def latency(self, candidate: Any, sample: Mapping[str, Any]) -> float | None:
        """Return the latency in ms, or None if the candidate must be read whole."""
        origin = origin_of(candidate)
        if not (origin.is_of(self._origin) if origin is not None else self._origin is None):
            self._origin = origin
            self._forget()
        return self._looked_up(sample) if self._left_to_check <= 0 else None

    def learn(self, candidate: Any, sample: Mapping[str, Any], read: float) -> None:
        """Record that ``candidate``, for which :meth:`latency` returned None, takes ``read`` ms.

        Raises:
            SpaceError, ReaderError: the given space cannot be loaded.
        """
        self._read += 1
        if self._dropped or (self._origin is None and self._given is None):
            return
        if self._space is None and self._given is not None:
            self._space = self._load(self._given, candidate)
        try:
            if self._space is None:
                assert self._origin is not None
                self._space = self._load(self._origin.make(), candidate)
            if self._read == 1:
                self._table = self._known(self._space)
            if self._table is None and self._read >= _blocks(self._space):
                self._table = self._built(self._space)
                if self._table is None:
                    self._drop("no table of it is exact")
        except NnMeterNasError as error:
            self._drop(str(error))
        if self._table is not None:
            self._check(self._table, sample, read)

    def reach(self) -> tuple[float, float] | None:
        """Return the latency in ms of the fastest architecture that runs anything, and of the slowest.

        None before a table is trusted.
        """
        if self._table is None or self._left_to_check > 0:
            return None
        if self._reach is None:
            ends = [fastest_running(self._table), slowest(self._table, 1)[0]]
            low, high = map(float, self._table.values(ends))
            self._reach = low, high
        return self._reach

    def _forget(self) -> None:
        """Start over with an unknown space."""
        self._read, self._left_to_check, self._dropped = 0, CHECKED, False
        self._space = self._table = self._reach = None

    def _drop(self, why: str) -> None:
        """Read every later candidate of this space whole."""
        self._forget()
        self._dropped = True
        logger.info("candidates are read whole, and not looked up: %s", why)

    def _check(self, table: FactorTable, sample: Mapping[str, Any], read: float) -> None:
        """Compare the looked-up latency with ``read``, and drop the table if they differ."""
        if missing := set(table.labels).difference(sample):
            self._drop(f"they have no choice {min(missing)!r}, and the space has")
            return
        found = self._looked_up(sample)
        if found is None:
            return  # the table lacks this choice, such as choosing none of several inputs
        if abs(found - read) > _SAME * read:
            self._drop(f"the table says {found} ms of a candidate, and its model {read} ms")
        else:
            self._left_to_check -= 1

    def _looked_up(self, sample: Mapping[str, Any]) -> float | None:
        """Return the table's latency in ms; None if it lacks one of the choices."""
        assert self._table is not None
        try:
            return self._table.value(
                {
                    label: value if type(value := sample[label]) is str else candidate_name(value)
                    for label in self._table.labels
                }
            )
        except (KeyError, SpaceError):
            return None

    def _load(self, space: Any, candidate: Any) -> Space:
        """Load ``space`` with the input shape of ``candidate``, if it has one and none was given."""
        shape = self._input_shape
        if shape is None and carries_operators(candidate):
            shape = traced_shape(candidate)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NNI warns about things that are new in torch
            loaded = space_given(space, shape)
        assert loaded is not None
        return loaded

    def _known(self, space: Space) -> FactorTable | None:
        """Return the latency table of ``space`` from the package or the cache, if there is one."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the candidates already warned about operators left out
            return measures.exact_latency(space, self._predictor, build=False)

    def _built(self, space: Space) -> FactorTable | None:
        """Compute the latency table of ``space`` and put it into the cache."""
        logger.info("building the lookup table of %s on %s", space.name, self._predictor.device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measures.latency(space, self._predictor, functools.partial(_stop_if_endless, space))
        return self._known(space)


def _blocks(space: Space) -> int:
    """Return the number of blocks in ``space``, over all its choices."""
    return sum(map(len, space.candidates.values()))


def _stop_if_endless(space: Space, read: int) -> None:
    """Raise a LookupTableError if a table of ``space`` is not worth reading ``read`` models."""
    if read > _MOST_READ * _blocks(space):
        raise LookupTableError(f"after {read} models of {space.name!r}, its table is not at hand")
