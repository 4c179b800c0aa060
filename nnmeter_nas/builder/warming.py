"""Find how much less small networks take than their kernels: :class:`~nnmeter_nas.packs.warmth.Warmth`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..kernels.configuration import FloatArray
from ..packs.warmth import COLD, Warmth
from ..training.table import KernelTable
from .fitting import CrossFitted, cross_fitted, is_network, predicted, quick_fit

#: Fits, each to kernels as the last warmth says that they are in a large network.
_ROUNDS = 2
#: The latency below which networks may be warm is one that this share of the networks are below.
_BELOW = np.linspace(0.1, 0.6, 26)
_EXPONENTS = np.linspace(0.0, 0.6, 61)
#: A device has no warmth unless this share of the error vanishes with it.
_GAIN = 0.03


def fit_warmth(table: KernelTable, source: npt.NDArray[np.int64], seed: int) -> Warmth:
    """Find the warmth that measured networks and their kernels agree on.

    Args:
        table: networks and kernels.
        source: the network that each of them belongs to.
        seed: decides the fits.
    """
    whole, found = is_network(table), COLD
    measured = table.measured(str(table.devices[0]))[whole]
    for _ in range(_ROUNDS):
        network = quick_fit(as_in_large(table, source, found), np.arange(len(table.ids)), seed, members=1)
        found = _nearest(predicted(network, table)[0][whole], measured)
    return found


def as_in_large(table: KernelTable, source: npt.NDArray[np.int64], warmth: Warmth) -> KernelTable:
    """The table with the latencies that its kernels would have in a large network.

    What was measured alone, without a network around it, stays as it is.
    """
    whole, measured = is_network(table), table.measured(str(table.devices[0]))
    networks = np.full(int(source.max()) + 1, np.inf)
    networks[source[whole]] = measured[whole]
    shares = warmth.share(warmth.sums(networks))[source]
    return replace(table, latency_ms=table.latency_ms / shares[:, None])


def cross_fitted_warm(
    table: KernelTable, source: npt.NDArray[np.int64], warmth: Warmth, seed: int
) -> CrossFitted:
    """Judge each network by a fit without it, as :func:`cross_fitted`, with the ``warmth`` that all tell."""
    whole, measured = is_network(table), table.measured(str(table.devices[0]))
    found = cross_fitted(as_in_large(table, source, warmth), source, seed)
    networks = np.full(int(source.max()) + 1, np.inf)
    networks[source[whole]] = found.ms[whole]
    ms = found.ms * warmth.share(networks)[source]
    errors = replace(found.errors, absolute=np.abs(np.log(ms / measured))[whole])
    return CrossFitted(ms, errors)


def _nearest(sums: FloatArray, measured: FloatArray) -> Warmth:
    """The warmth that turns ``sums`` into what was ``measured``, ``[networks]``, with the least error."""
    least = float(sums.min())
    best, error = COLD, (1 - _GAIN) * _error(sums, measured)
    for below in np.unique(np.quantile(sums, _BELOW)).tolist():
        for exponent in _EXPONENTS.tolist():
            warmth = Warmth(below, round(exponent, 2), least)
            if (found := _error(warmth.ms(sums), measured)) < error:
                best, error = warmth, found
    return best


def _error(ms: FloatArray, measured: FloatArray) -> float:
    return float(np.abs(np.log(ms / measured)).mean())
