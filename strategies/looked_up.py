"""Latency of the candidates of one space, looked up: what a filter takes once it has seen some of them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from nnmeter_nas import nni as nni_lines
from nnmeter_nas.costs.measures import exact_latency
from nnmeter_nas.costs.table import FactorTable
from nnmeter_nas.errors import NnMeterNasError
from nnmeter_nas.predictor import LatencyPredictor
from nnmeter_nas.supernet.choices import candidate_name
from nnmeter_nas.supernet.space import Space

logger = logging.getLogger(__name__)

#: Candidates of a space that are predicted one by one before its lookup table is asked for, which takes as
#: long to build as some dozens take to predict.
PATIENCE = 20
#: Relative difference up to which a latency that is looked up is the predicted one.
_SAME = 1e-6


class LookedUp:
    """Latencies of candidates that carry no operators, as under the default engine and simplified format.

    To predict such a candidate its network has to be built and traced, a hundred times what NNI takes to make
    it. Its choices are known, though, and the space can be had from it.

    Args:
        predictor: of the device.
        input_shape: NCHW; by default what the space carries.
    """

    def __init__(self, predictor: LatencyPredictor, input_shape: Sequence[int] | None) -> None:
        self._predictor, self._input_shape = predictor, input_shape
        self._origin: Any = None
        self._seen = 0
        self._positions: dict[str, tuple[int, dict[str, int]]] | None = None
        self._factors: list[tuple[tuple[int, ...], Any]] = []
        self._constant = 0.0

    def latency(self, candidate: Any, sample: Mapping[str, Any]) -> float | None:
        """Latency in ms, or None where it has to be predicted."""
        origin = nni_lines.origin_of(candidate)
        if origin != self._origin:
            self._origin, self._seen, self._positions = origin, 0, None
        if self._positions is None:
            return None
        try:
            row = {
                position: index[value if type(value) is str else candidate_name(value)]
                for value, (position, index) in ((sample[k], at) for k, at in self._positions.items())
            }
        except KeyError:
            return None  # it has other choices than its space; whoever predicts it will say why
        total = self._constant
        for positions, values in self._factors:
            for position in positions:
                values = values[row[position]]
            total += values
        return float(total)

    def learn(self, candidate: Any, sample: Mapping[str, Any], predicted: float) -> None:
        """Take in what a candidate was predicted at; after enough of a space its terms are asked for."""
        self._seen += 1
        if self._origin is None or self._seen != PATIENCE:
            return
        try:
            found = self._terms(candidate)
        except NnMeterNasError as error:
            logger.info("candidates are predicted one by one: %s", error)
            return
        if found is None:
            return
        space, terms = found
        self._keep(space, terms)
        latency = self.latency(candidate, sample)
        if latency is None or abs(latency - predicted) > _SAME * predicted:
            logger.info("candidates are predicted one by one: %s looked up, %s predicted", latency, predicted)
            self._positions = None

    def _terms(self, candidate: Any) -> tuple[Space, FactorTable] | None:
        """The space that ``candidate`` is of, and its latency as a sum, if that is exact and soon known."""
        from nnmeter_nas.supernet.tracing import read_supernet

        shape = self._input_shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is left out was warned of with the candidates
            module = nni_lines.build_space(candidate)
            space = Space.of_supernet(read_supernet(module, None if shape is None else tuple(shape)))
            terms = exact_latency(space, self._predictor)
        return None if terms is None else (space, terms)

    def _keep(self, space: Space, terms: FactorTable) -> None:
        """Keep terms as plain lists, which take less than NumPy for one architecture."""
        self._positions = {
            label: (position, {name: i for i, name in enumerate(known)})
            for position, (label, known) in enumerate(space.candidates.items())
        }
        self._factors = [(positions, values.tolist()) for positions, values in terms.factors.items()]
        self._constant = terms.constant
