"""The lookup tables that ship inside the package."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ..errors import LookupTableError
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor
from .table import LatencyTable, load_table

_SUFFIXES = (".json", ".yaml", ".yml")


def table_file(name: str, input_shape: Sequence[int], predictor: LatencyPredictor) -> Path:
    """Where the table of a space lies in a folder of tables, such as that of the package."""
    folder = f"{name.replace(':', '.')}_{'x'.join(map(str, input_shape))}"
    return Path(folder) / f"{predictor.device}_{predictor.version}.yaml"


def is_table_file(name: str | Path) -> bool:
    """Whether ``name`` is that of a table's file by its suffix, and not of a space or device."""
    return Path(name).suffix.lower() in _SUFFIXES


def bundled_tables() -> Path:
    """Folder of the tables inside the package."""
    return Path(str(resources.files("nnmeter_nas") / "data" / "luts"))


def bundled_table(name: str, predictor: LatencyPredictor) -> LatencyTable | None:
    """The table of a space at its own input shape in the package, if there is one; needs no torch and no NNI.

    Raises:
        LookupTableError: it is damaged, or was built with another content of the pack.
    """
    for path in bundled_tables().glob(f"{name}_*/{predictor.device}_{predictor.version}.yaml"):
        table = load_table(path)
        check_pack(table, predictor)
        return table
    return None


def check_pack(table: LatencyTable, predictor: LatencyPredictor) -> None:
    """Raise a LookupTableError unless ``table`` was built with this predictor, as its pack is now."""
    if table.device != predictor.device:
        raise LookupTableError(f"the lookup table is of {table.device}, not of {predictor.device}")
    if table.pack_fingerprint != pack_fingerprint(predictor.pack):
        raise LookupTableError(
            f"the lookup table of {table.space!r} is stale: it was built with another content of the pack "
            f"{table.device} {table.pack_version}; build it anew"
        )
