"""The latency tables that ship with the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ..errors import LookupTableError
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor
from ..supernet.space import Space
from .cache import check_table
from .files import load_table
from .table import FactorTable


def table_file(name: str, input_shape: Sequence[int], predictor: LatencyPredictor) -> Path:
    """Path of a space's table in a folder of tables such as the package's."""
    folder = f"{name.replace(':', '.')}_{'x'.join(map(str, input_shape))}"
    return Path(folder) / f"{predictor.device}_{predictor.version}.npz"


def bundled_tables() -> Path:
    """The package's folder of tables."""
    return Path(str(resources.files("nnmeter_nas") / "data" / "luts"))


def bundled_table(name: str, predictor: LatencyPredictor) -> FactorTable | None:
    """The package's table of a space at its own input shape, or None; needs neither torch nor NNI.

    Raises:
        LookupTableError: it is damaged, or was built with other pack content.
    """
    for path in bundled_tables().glob(f"{name}_*/{predictor.device}_{predictor.version}.npz"):
        table = load_table(path)
        check_pack(table, predictor)
        return table
    return None


def bundled_table_of(space: Space, predictor: LatencyPredictor) -> FactorTable | None:
    """The package's table of exactly this space, under any name, if it is up to date."""
    shape = "x".join(map(str, space.input_shape))
    for path in bundled_tables().glob(f"*_{shape}/{predictor.device}_{predictor.version}.npz"):
        try:
            table = load_table(path)
            check_table(table, space, predictor)
            return table
        except LookupTableError:
            continue  # another space, or stale
    return None


def check_pack(table: FactorTable, predictor: LatencyPredictor) -> None:
    """Raise a LookupTableError unless ``table`` was built with this predictor and its current pack."""
    header = table.header
    if header.device != predictor.device:
        raise LookupTableError(
            f"the lookup table is of {header.device or header.measure}, not of {predictor.device}"
        )
    if header.pack_fingerprint != pack_fingerprint(predictor.pack):
        raise LookupTableError(
            f"the lookup table of {header.space!r} is stale: it was built with another content of the pack "
            f"{header.device} {header.pack_version}; build it anew"
        )
