"""Find the lookup tables that a command names: files, or names of search spaces."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ..costs import FactorTable, cached_table, load_table
from ..costs.bundled import bundled_table, check_pack
from ..costs.files import is_table_file
from ..costs.table import LATENCY
from ..errors import LookupTableError, NnMeterNasError
from ..predictor import LatencyPredictor, load_latency_predictor
from ..supernet.named import SPACES, load_space
from .arguments import add_device_arguments, load_predictors, size
from .messages import note, warn
from .runs import note_default_device


@dataclass(frozen=True)
class NamedTable:
    """A table and the user's name for it: its file or its space."""

    name: str
    table: FactorTable

    @property
    def title(self) -> str:
        """The table's subject, for people."""
        shape = "x".join(map(str, self.table.header.input_shape))
        return f"{self.name}: {self.table.header.space} on {self.table.header.device}, input {shape}"

    @property
    def identity(self) -> dict[str, Any]:
        """The columns that identify a record."""
        header = self.table.header
        return {
            "table": self.name,
            "space": header.space,
            "predictor": header.device,
            "version": header.pack_version,
            "input_shape": "x".join(map(str, header.input_shape)),
        }


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name tables."""
    parser.add_argument("table", nargs="+", metavar="TABLE",
                        help="file of a lookup table (.npz, .yaml), or name of a search space: "
                        f"{', '.join(SPACES)}, or module:attribute")
    add_device_arguments(parser)
    parser.add_argument("--input-shape", type=size, nargs="+", metavar="SIZE",
                        help="for spaces: shape of the input, NCHW with batch 1 (default: the space's own)")


def tables(options: argparse.Namespace) -> list[NamedTable]:
    """Return all tables: the one in each file, and one per named device for each space.

    Raises:
        LookupTableError: a file is damaged, does not hold latencies, or is for a device that ``--predictor``
            does not name.
        UnknownDeviceError, SpaceError, ReaderError: there is no such device or space.
    """
    found = []
    spaces = [name for name in options.table if not is_table_file(name)]
    predictors = load_predictors(options) if spaces or options.predictor else []
    for name in options.table:
        if name in spaces:
            found += [NamedTable(name, _of_space(name, options.input_shape, p)) for p in predictors]
        else:
            found.append(NamedTable(name, _of_file(name, predictors)))
    if spaces:
        note_default_device(options)
    return found


def _of_file(name: str, predictors: list[LatencyPredictor]) -> FactorTable:
    """Load the table in a file; warn if building it now would give another."""
    table = load_table(name)
    header = table.header
    if header.measure != LATENCY:
        raise LookupTableError(f"{name} is a table of {header.measure}, not of latency")
    if predictors and header.device not in [predictor.device for predictor in predictors]:
        raise LookupTableError(f"{name} is of {header.device}, which --predictor does not name")
    try:
        check_pack(table, load_latency_predictor(header.device, header.pack_version))
    except NnMeterNasError as error:
        warn(f"{name}: {error}")
    return table


def _of_space(name: str, input_shape: list[int] | None, predictor: LatencyPredictor) -> FactorTable:
    """Return a space's table: the package's if it is up to date, else a cached or newly built one."""
    if input_shape is None and name in SPACES:
        try:
            if table := bundled_table(name, predictor):
                return table
        except LookupTableError as error:
            note(f"{error}; it is built anew")
    return cached_table(load_space(name, input_shape), predictor)
