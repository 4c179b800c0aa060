"""Time lookup tables of a space on all devices against NNI 2.10.1's estimator, which uses nn-Meter 2.0."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nnmeter_nas.costs import FactorTable, build_tables
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.search_spaces import proxylessnas
from nnmeter_nas.search_spaces.proxylessnas import ZERO
from nnmeter_nas.supernet.nni_space import space_of

from .figures import Figure, measured
from .nnmeter import TOLERANCE, Both, DisagreementError

#: NNI's table: label of a choice -> candidate -> ms.
NNITable = Mapping[str, Mapping[str, float]]


def table_figures(both: Both, device: str) -> Iterator[Figure]:
    """Time the tables of the ImageNet-sized ProxylessNAS space for all devices, both from NNI's module.

    ``both`` is the predictor of ``device``; those of the other devices are written here.

    Raises:
        DisagreementError: the two sides price a candidate differently.
    """
    nn_meter = import_module("nn_meter")  # `both` has put it on the path
    with tempfile.TemporaryDirectory() as folder:
        others = {name: Both(nn_meter, name, Path(folder)) for name in devices() if name != device}
        yield measure_tables([both, *others.values()], proxylessnas("imagenet"))


def measure_tables(pairs: Sequence[Both], space: Any, repeats: int = 5) -> Figure:
    """Time one run of NNI and ``repeats`` of ours, each of all tables, and check that the tables agree.

    Args:
        pairs: the predictor of each device.
        space: an NNI module with the choices of the ProxylessNAS space.
        repeats: number of our repeats.

    Raises:
        DisagreementError: the two sides price a candidate differently.
    """
    theirs: list[NNITable] = []
    ours = measured(lambda: _our_tables(pairs, space), repeats)
    rival = measured(lambda: theirs.extend(_nni_table(one, space) for one in pairs), 1, warm=False)
    for table, nni_one in zip(_our_tables(pairs, space), theirs, strict=True):
        check_prices(table, nni_one)
    return Figure(
        f"lookup tables of {type(space).__name__}, {len(pairs)} devices", "s", ours=ours, rival=rival,
        rival_name="NNI's HardwareLatencyEstimator with nn-Meter 2.0", at_least=50,
        note="same forests and rules; NNI, run once, leaves out residual additions and the pool",
    )  # fmt: skip


def _our_tables(pairs: Sequence[Both], space: Any) -> list[FactorTable]:
    """Build the tables of ``space`` as ``nnmeter-nas lut build`` does, in the order of ``pairs``."""
    return build_tables(space_of(space), [one.ours() for one in pairs])


def _nni_table(one: Both, space: Any) -> NNITable:
    """Build the table of ``space`` with NNI's estimator, which takes one device.

    NNI's code runs unchanged except for the forests: nn-Meter's released forests would be downloaded.
    """
    proxyless = import_module("nni.retiarii.oneshot.pytorch.proxyless")
    with patch("nn_meter.load_latency_predictor", lambda name: one.theirs()):
        estimator = proxyless.HardwareLatencyEstimator(one.pack.name, space, space.input_shape, None)
    table: NNITable = estimator.block_latency_table
    return table


def check_prices(table: FactorTable, theirs: NNITable) -> None:
    """Raise a DisagreementError unless NNI prices the candidates of each choice as ``table`` does.

    NNI takes the addition of a residual layer out of the network together with its choice, so our prices for
    these layers are all higher by the same number. NNI names a candidate by the text after its last
    underscore, so of ``k3_e3``, ``k5_e3`` and ``k7_e3`` only the last one stays.
    """
    for label, known in table.candidates.items():
        prices = dict(zip((name.split("_")[-1] for name in known), table.block(label), strict=True))
        more = {name: float(ms) - theirs[label][name] for name, ms in prices.items() if name != ZERO}
        expected = max(more.values()) if ZERO in known else 0.0
        if expected < -TOLERANCE or any(abs(ms - expected) > TOLERANCE for ms in more.values()):
            raise DisagreementError(
                f"nnmeter_nas prices the candidates of {label!r} on {table.device} by {more} ms more than NNI"
            )
