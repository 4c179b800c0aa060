"""Cache of factor tables on disk, safe for many processes at once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from filelock import FileLock

from ..errors import LookupTableError
from ..files import digest, user_cache_folder
from ..predictor import LatencyPredictor
from ..supernet.space import Space
from .build import build_table, latency_header
from .files import load_table, save_table
from .pricing import LatencyMeter, Meter, Pricing
from .probing import EXACT
from .table import FactorTable, Header

#: Architectures whose values are computed again when a table is read: the first, the last and random ones.
_CHECKED = 4


def cached_table(
    space: Space | nx.DiGraph, predictor: LatencyPredictor, folder: str | Path | None = None, **options: Any
) -> FactorTable:
    """The latency of a space on a device: from the cache, or built and put there.

    A table is kept under its space, device, pack and input shape, and found by the content of all of them. Of
    several processes that ask for the same table one builds it, and the others wait for it.

    Args:
        space: a supernet, or a :class:`Space`.
        predictor: of the device.
        folder: where tables are kept; the user's cache folder if None.
        options: as :func:`build_table` takes them.

    Raises:
        LookupTableError, SpaceError, UnpredictedOperatorError: as :func:`build_table`.

    Warns:
        UserWarning: a cached table is damaged or stale, and built anew.
    """
    space = space if isinstance(space, Space) else Space.of_supernet(space)
    header = latency_header(space, predictor)
    path = table_path(header, folder)
    with locked([path]):
        table = find_table(path, space, header, LatencyMeter([predictor]))
        if table is None:
            table = build_table(space, predictor, **options)
            save_table(table, path)
    return table


def find_table(path: Path, space: Space, header: Header, meter: Meter) -> FactorTable | None:
    """The table at ``path``, if there is one and it is whole and up to date; the rest as :func:`check`.

    Warns:
        UserWarning: there is one that is not.
    """
    if not path.exists():
        return None
    try:
        table = load_table(path)
        check(table, space, header, meter)
        return table
    except LookupTableError as error:
        warnings.warn(f"built anew: {error}", stacklevel=3)
        return None


def table_path(header: Header, folder: str | Path | None = None) -> Path:
    """Where a table is kept that is about the same as ``header``, in the user's cache folder if None."""
    root = user_cache_folder() / "tables" if folder is None else Path(folder)
    name = f"{header.device}_{header.pack_version}" if header.device else header.measure
    shape = "x".join(map(str, header.input_shape))
    key = digest([header.space, header.space_fingerprint, header.input_shape, header.pack_fingerprint])
    return root / re.sub(r"[^\w.-]", "_", header.space) / f"{name}_{shape}_{key[:16]}.npz"


@contextmanager
def locked(paths: Sequence[Path]) -> Iterator[None]:
    """Keep other processes from making what belongs at ``paths``, whose folders are made."""
    with ExitStack() as held:
        for path in sorted(set(paths)):  # in one order, lest two processes wait for each other
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path.with_suffix(".lock")))
        yield


def check_table(table: FactorTable, space: Space, predictor: LatencyPredictor) -> None:
    """Raise a LookupTableError that says what differs, unless ``table`` is of this space and predictor."""
    check(table, space, latency_header(space, predictor), LatencyMeter([predictor]))


def check(table: FactorTable, space: Space, header: Header, meter: Meter) -> None:
    """Raise a LookupTableError that says what differs, unless ``table`` is what would be built now.

    Args:
        table: to check.
        space: that it should be of.
        header: what it should say of itself.
        meter: of the one measure that it should be of.
    """
    facts: dict[str, Callable[[FactorTable], object]] = {
        "measure": lambda of: of.header.measure,
        "space": lambda of: of.header.space,
        "device": lambda of: of.header.device,
        "input shape": lambda of: of.header.input_shape,
        "candidates": lambda of: dict(of.candidates),
        "content of the space": lambda of: of.header.space_fingerprint,
        "version of the pack": lambda of: of.header.pack_version,
        "content of the pack": lambda of: of.header.pack_fingerprint,
    }
    wanted = FactorTable(space.candidates, 0.0, {}, header)
    for what, fact in facts.items():
        if fact(table) != fact(wanted):
            raise LookupTableError(
                f"the lookup table is of another {what}: {fact(table)}, not {fact(wanted)}; build it anew"
            )
    # Rules and features are code, which a newer version of this package may have changed.
    rows = np.random.default_rng(0).integers(table.sizes, size=(_CHECKED, len(table.sizes)))
    rows[0], rows[1] = 0, np.array(table.sizes) - 1
    full = Pricing(space, [meter]).values(rows)[:, 0]
    allowed = (EXACT + table.header.worst_error) * np.maximum(np.abs(full), EXACT * np.abs(full).max())
    if (np.abs(table.values(rows) - full) > allowed).any():
        raise LookupTableError(
            f"the lookup table of {space.name!r} is stale: its full graphs have other values now; build it "
            "anew"
        )
