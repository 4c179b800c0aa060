"""Run nn-Meter 2.0 in this process, from the environment that ``make`` sets up for it.

nn-Meter's packages come after ours on the path, so both use the same NumPy, scikit-learn, torch and NNI.
"""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from nnmeter_nas import LatencyPredictor
from nnmeter_nas.errors import MissingPackageError, NnMeterNasError

from ..parity.comparison import import_forests
from ..parity.predictors import write_predictor
from ..parity.reference import forests

#: Trees per forest for the phone's CPU, averaged over nn-Meter's kernel predictors: nn-Meter 2.0,
#: ``builder/kernel_predictor_builder/predictor_builder/predictor_lib.py``.
TREES = 320
#: Largest difference between equal results, relative or in ms.
TOLERANCE = 1e-9


class DisagreementError(NnMeterNasError):
    """Two programs that should do the same work gave different results."""


def import_nn_meter(environment: Path) -> Any:
    """Import the package ``nn_meter`` from a virtual environment.

    Raises:
        MissingPackageError: it is not installed there.
    """
    found = sorted(environment.glob("lib/python*/site-packages"))
    if not found or not (found[0] / "nn_meter").is_dir():
        raise MissingPackageError(f"{environment} has no nn-Meter; `make bench` sets it up")
    if str(found[0]) not in sys.path:
        sys.path.append(str(found[0]))
    nn_meter = import_module("nn_meter")
    logging.getLogger("nn-Meter").setLevel(logging.CRITICAL)
    return nn_meter


class Both:
    """The same predictor for both sides: in nn-Meter's format, and imported as our pack.

    Attributes:
        folder: holds its ``*.pkl`` files and ``fusion_rules.json``.
        pack: the imported pack.
    """

    def __init__(self, nn_meter: Any, device: str, folder: Path) -> None:
        self.folder = write_predictor(folder / "nn-meter" / device, device, trees=TREES)
        self._nn_meter = nn_meter
        self._forests = forests(self.folder)
        self.pack = import_forests({device: self.folder}, folder / "home")[0].pack

    def ours(self) -> LatencyPredictor:
        """Load our predictor afresh."""
        return LatencyPredictor(self.pack)

    def theirs(self) -> Any:
        """Load a fresh ``nnMeterPredictor``."""
        return self._nn_meter.nnMeterPredictor(self._forests, str(self.folder / "fusion_rules.json"))
