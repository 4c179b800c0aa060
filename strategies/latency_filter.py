"""A filter that lets a search try only candidates within a latency limit.

NNI 2.10.1, with the graph engine or the default engine:

    strategy.Random(model_filter=LatencyFilter(5.0, "cortexA76cpu_tflite21"))

NNI 3.0:

    Chain(Random(), Filter(LatencyFilter(5.0, "cortexA76cpu_tflite21", input_shape=(1, 3, 224, 224))))
"""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx

from nnmeter_nas import nni as nni_lines
from nnmeter_nas.errors import GraphError, ReaderError, SearchError
from nnmeter_nas.solve.ranking import NOTHING_MS

if TYPE_CHECKING:
    from .table_lookup import TableLookup

logger = logging.getLogger(__name__)

#: Numeric attributes that are part of a filter's state.
_COUNTS = ("seen", "accepted", "rejected", "unreadable", "fastest_ms", "slowest_ms")

#: Seconds of rejections alone after which the filter warns, each time.
_WARN_S = 30.0


@dataclass(frozen=True)
class Candidate:
    """An accepted candidate: the choice under each label, and its latency in ms."""

    sample: dict[str, Any]
    latency_ms: float


class LatencyFilter:
    """Accept a candidate if its predicted latency is at most ``threshold``.

    A candidate that runs nothing, as its output does not depend on its input, is rejected. It takes 0 ms.

    NNI calls it with a ``Model`` (2.10.1) or an ``ExecutableModelSpace`` (3.0).

    If the space is known, the filter looks the candidate up in the space's table; see
    :class:`~nnmeter_nas.strategies.table_lookup.TableLookup`. The space comes from ``space``, from the
    candidate, or from the running experiment. The filter reads any other candidate whole: from its operators,
    or from the torch module that NNI builds if it carries none (default engine). Both ways give the same
    latency.

    While a filter exists, each experiment that starts is patched so that it runs to its end; see
    :mod:`nnmeter_nas.nni.patches`. Making a filter patches nothing.

    Pickling, as in the checkpoints of 2.10.1, keeps only the arguments. The checkpoints of 3.0 also keep the
    counts and the accepted candidates, so a resumed search continues to count.

    Args:
        threshold: latency limit, ms.
        predictor: device name, a ``LatencyPredictor``, or any object whose ``predict(model_graph)``
            returns ms.
        predictor_version: version of the device's predictor pack; the newest by default.
        reverse: accept only candidates slower than ``threshold``.
        confident: accept only candidates whose whole interval is within ``threshold`` (slower than it, with
            ``reverse``): of ten candidates, the measured latency of about nine lies in the interval. A
            candidate without an interval is rejected, as an operator is not predicted. Reads each candidate
            whole that the table has within ``threshold``. Needs a predictor that knows intervals.
        patience: rejections in a row after which the search stops.
        strict: raise if a candidate cannot be read; by default the filter logs and rejects it.
        input_shape: NCHW, batch 1; by default that of the candidate.
        space: the space of the candidates, as strategies take it: a name that ``load_space`` knows, a
            ``Space`` or a module of NNI. By default the filter gets it from NNI if possible. Used only if the
            predictor is a ``LatencyPredictor``.

    Attributes:
        seen: number of candidates seen; each is accepted or rejected.
        accepted, rejected: number of accepted and of rejected candidates.
        unreadable: number of candidates rejected because they could not be read.
        fastest_ms, slowest_ms: lowest and highest latency of the readable candidates that run anything, or
            None.
        candidates: the accepted :class:`Candidate` objects, in order.

    Raises:
        ValueError: ``threshold`` is not a positive number, or ``patience`` not a positive integer; or
            ``confident``, and the predictor knows no intervals.
        UnknownDeviceError: no predictor pack has this ``predictor`` and ``predictor_version``.
    """

    def __init__(
        self,
        threshold: float,
        predictor: Any,
        predictor_version: float | None = None,
        reverse: bool = False,
        *,
        confident: bool = False,
        patience: int = 500,
        strict: bool = False,
        input_shape: Sequence[int] | None = None,
        space: Any = None,
    ) -> None:
        if not isinstance(threshold, (int, float)) or not 0 < threshold < math.inf:
            raise ValueError(f"threshold={threshold!r} must be a positive number of milliseconds")
        if not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience={patience!r} must be a positive number of rejections")
        self.threshold = threshold
        self.predictor = predictor
        self.predictor_version = predictor_version
        self.reverse = reverse
        self.confident = confident
        self.patience = patience
        self.strict = strict
        self.input_shape = input_shape
        self.space = space
        self.seen = self.accepted = self.rejected = self.unreadable = 0
        self.fastest_ms: float | None = None
        self.slowest_ms: float | None = None
        self.candidates: list[Candidate] = []
        self._rejected_in_a_row = 0
        self._quiet_since = time.monotonic()
        self._reading_error = ""
        self._predictor = _load(predictor, predictor_version)
        if confident and getattr(getattr(self._predictor, "pack", None), "intervals", None) is None:
            raise ValueError(
                f"confident=True needs a predictor that knows intervals: a pack from version 2.1 on, not "
                f"{self._predictor!r}"
            )
        self._table = _table(self._predictor, space, input_shape)
        nni_lines.patch_when_experiment_starts(self)

    def __call__(self, model: Any) -> bool:
        """Return whether to try ``model``.

        Raises:
            SearchError: ``patience`` candidates in a row were rejected, or the table of the space has none
                within the limit.
            ReaderError, GraphError: ``strict``, and ``model`` cannot be read.
        """
        self.seen += 1
        sample = nni_lines.sample_of(model)
        latency = self._latency(model, sample)
        if latency is not None and self._is_within(latency) and self._is_sure(model):
            self.accepted += 1
            self._rejected_in_a_row = 0
            self.candidates.append(Candidate(sample, latency))
            if logger.isEnabledFor(logging.INFO):
                logger.info("accepted at %.4g ms: %s", latency, _name(sample))
            return True
        self.rejected += 1
        self._rejected_in_a_row += 1
        if self._rejected_in_a_row == 1:  # a trial may have run since the last call
            self._quiet_since = time.monotonic()
        if latency is not None and logger.isEnabledFor(logging.DEBUG):
            logger.debug("rejected at %.4g ms: %s", latency, _name(sample))
        if impossible := self._impossible():
            raise SearchError(impossible)
        if self._rejected_in_a_row >= self.patience:
            raise SearchError(self.verdict())
        if time.monotonic() - self._quiet_since >= _WARN_S:
            self._quiet_since = time.monotonic()
            logger.warning("the search goes on, but %s", self.verdict())
        return False

    def latency_of(self, sample: dict[str, Any]) -> float:
        """Return the latency in ms of the accepted candidate with these choices.

        Args:
            sample: choices as NNI exports them, e.g. with ``export_top_models(formatter="dict")``.

        Raises:
            KeyError: no accepted candidate has these choices.
        """
        wanted = nni_lines.plain_sample(sample)
        for candidate in self.candidates:
            if candidate.sample == wanted:
                return candidate.latency_ms
        raise KeyError(f"no accepted candidate has the choices {_name(wanted)}")

    def verdict(self) -> str:
        """Say why a search has found nothing lately."""
        message = f"{self._rejected_in_a_row} candidates in a row were rejected, none {self._limit}"
        if self.fastest_ms is None or self.slowest_ms is None:
            if self.unreadable < self.seen:
                return f"{message}, since all that could be read run nothing, whatever their input"
            return f"{message}, since no candidate could be read; the last: {self._reading_error}"
        way_out = "lower" if self.reverse else "raise"
        return (f"{message}; of {self.seen} seen, {self.unreadable} unreadable, the fastest takes "
                f"{self.fastest_ms:.4g} ms and the slowest {self.slowest_ms:.4g} ms; {way_out} the "
                f"threshold, or raise patience={self.patience}")

    def state_dict(self) -> dict[str, Any]:
        """Return the counts and accepted candidates as plain values for NNI 3.0's checkpoint."""
        state = {name: getattr(self, name) for name in _COUNTS}
        accepted = [[dict(one.sample), one.latency_ms] for one in self.candidates]
        return {**state, "rejected_in_a_row": self._rejected_in_a_row, "candidates": accepted}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` returned."""
        for name in _COUNTS:
            setattr(self, name, state_dict[name])
        self._rejected_in_a_row = state_dict["rejected_in_a_row"]
        self.candidates = [Candidate(dict(sample), ms) for sample, ms in state_dict["candidates"]]

    def __reduce__(self) -> tuple[Any, ...]:
        names = ("confident", "patience", "strict", "input_shape", "space")
        options = {name: getattr(self, name) for name in names}
        make = functools.partial(LatencyFilter, **options)
        return make, (self.threshold, self.predictor, self.predictor_version, self.reverse)

    def __repr__(self) -> str:
        device = self.predictor if isinstance(self.predictor, str) else type(self.predictor).__name__
        return f"LatencyFilter(threshold={self.threshold}, predictor={device!r}, reverse={self.reverse})"

    def _latency(self, model: Any, sample: dict[str, Any]) -> float | None:
        """Return the latency of a candidate in ms, or None if it cannot be read."""
        try:
            latency = self._priced(model, sample)
            if not math.isfinite(latency):
                raise ReaderError(f"its predicted latency is {latency}")
        except (ReaderError, GraphError) as error:
            if self.strict:
                raise
            self.unreadable += 1
            self._reading_error = str(error)
            logger.warning("rejected, cannot be read: %s: %s", _name(sample), error)
            return None
        if self._runs(latency):
            self.fastest_ms = latency if self.fastest_ms is None else min(latency, self.fastest_ms)
            self.slowest_ms = latency if self.slowest_ms is None else max(latency, self.slowest_ms)
        return latency

    def _priced(self, model: Any, sample: dict[str, Any]) -> float:
        """Return a candidate's latency in ms: look it up if its space has a table, else read its model."""
        if self._table is None:
            return float(self._predictor.predict(_read(model, self.input_shape)))
        latency = self._table.latency(model, sample)
        if latency is None:
            latency = self._read_whole(model)
            self._table.learn(model, sample, latency)
        return latency

    def _read_whole(self, model: Any) -> float:
        """Read a candidate's model and predict its latency in ms with our own predictor."""
        return float(self._predictor.predict(*self._readable(model)))

    def _readable(self, model: Any) -> tuple[Any, ...]:
        """Return the first arguments for our own predictor to read a candidate whole."""
        if nni_lines.carries_operators(model):
            return model, "nni-ir", self.input_shape
        return (_read(model, self.input_shape),)

    def _is_within(self, latency: float) -> bool:
        return self._runs(latency) and (latency > self.threshold) == self.reverse

    def _runs(self, latency: float) -> bool:
        """Whether a candidate that takes ``latency`` runs anything, as far as our own predictor tells."""
        return self._table is None or latency >= NOTHING_MS

    def _is_sure(self, model: Any) -> bool:
        """Whether the limit holds for the candidate's whole interval, if this filter asks for that."""
        if not self.confident:
            return True
        interval = self._predictor.explain(*self._readable(model)).interval()
        return interval is not None and self._is_within(interval.low) and self._is_within(interval.high)

    @property
    def _limit(self) -> str:
        """The limit in words."""
        return f"{'slower than' if self.reverse else 'within'} {self.threshold:g} ms"

    def _impossible(self) -> str:
        """Say that nothing in the space meets the limit, if its table tells; else empty."""
        reach = self._table.reach() if self._table is not None else None
        if reach is None or any(map(self._is_within, reach)):
            return ""
        at, kind = (reach[1], "slowest") if self.reverse else (reach[0], "fastest")
        way_out = "below" if self.reverse else "at or above"
        return (f"no architecture of the space is {self._limit}: the {kind} takes {at:.4g} ms, predicted by "
                f"{self._predictor.device}; set threshold {way_out} that, or search another space")


def _load(predictor: Any, version: float | None) -> Any:
    """Return the predictor, loaded if given by device name."""
    if hasattr(predictor, "predict"):
        return predictor
    if not isinstance(predictor, str):
        raise TypeError(
            f"predictor={predictor!r} must be a device name or have a method predict(model_graph)"
        )
    from nnmeter_nas.predictor import load_latency_predictor

    return load_latency_predictor(predictor, version)


def _table(predictor: Any, space: Any, input_shape: Sequence[int] | None) -> TableLookup | None:
    """Return a table lookup if the latencies come from a predictor pack."""
    from nnmeter_nas.predictor import LatencyPredictor

    if type(predictor) is not LatencyPredictor:
        return None
    from .table_lookup import TableLookup

    return TableLookup(predictor, space, input_shape)


def _read(model: Any, input_shape: Sequence[int] | None) -> nx.DiGraph:
    """Read the model graph of a candidate from its operators or from the module that it builds."""
    if nni_lines.carries_operators(model):
        from nnmeter_nas.readers.nni.ir import read_nni_ir

        return read_nni_ir(model, input_shape)
    from nnmeter_nas.readers.torch.module import read_torch_module

    try:
        module = nni_lines.build_module(model)
    except Exception as error:  # the constructor of a user's space may raise anything
        raise ReaderError(f"the candidate cannot be built ({type(error).__name__}: {error})") from error
    shape = input_shape or getattr(module, "input_shape", None)
    if shape is None:
        raise ValueError(
            f"{type(module).__name__} does not tell its input shape, nor does NNI's default engine; pass "
            f"input_shape=(1, channels, height, width) to LatencyFilter"
        )
    return read_torch_module(module, shape)


def _name(sample: dict[str, Any]) -> str:
    """Format a candidate for a log line."""
    return ", ".join(f"{label}={value}" for label, value in sample.items()) or "the only candidate"
