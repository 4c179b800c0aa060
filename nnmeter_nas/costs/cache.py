"""A cache of factor tables on disk; many processes can use it at once."""

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

#: Number of architectures to recompute when a table is read: the first, the last and random ones.
_CHECKED = 4


def cached_table(
    space: Space | nx.DiGraph, predictor: LatencyPredictor, folder: str | Path | None = None, **options: Any
) -> FactorTable:
    """The latency table of a space on a device, from the cache, or built and added to it.

    The key of a table is the content of its space, device, pack and input shape. If several processes ask for
    the same table, one builds it and the others wait.

    Args:
        space: a supernet, or a :class:`Space`.
        predictor: predictor of the device.
        folder: folder of tables; the user's cache folder if None.
        options: as :func:`build_table` takes them.

    Raises:
        LookupTableError, SpaceError, UnpredictedOperatorError: as :func:`build_table`.

    Warns:
        UserWarning: a cached table is damaged or stale, and is built again.
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
    """The table at ``path``, if it exists, is whole and is up to date; other arguments as :func:`check`.

    Warns:
        UserWarning: the table is damaged or stale.
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
    """Path of the cached table that fits ``header``; in the user's cache folder if ``folder`` is None."""
    root = user_cache_folder() / "tables" if folder is None else Path(folder)
    name = f"{header.device}_{header.pack_version}" if header.device else header.measure
    shape = "x".join(map(str, header.input_shape))
    key = digest([header.space, header.space_fingerprint, header.input_shape, header.pack_fingerprint])
    return root / re.sub(r"[^\w.-]", "_", header.space) / f"{name}_{shape}_{key[:16]}.npz"


@contextmanager
def locked(paths: Sequence[Path]) -> Iterator[None]:
    """Create the folders of ``paths``, and keep other processes from writing to ``paths``."""
    with ExitStack() as held:
        for path in sorted(set(paths)):  # always in this order, so that no two processes block each other
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path.with_suffix(".lock")))
        yield


def check_table(table: FactorTable, space: Space, predictor: LatencyPredictor) -> None:
    """Raise a LookupTableError that says what differs, unless ``table`` fits this space and predictor."""
    check(table, space, latency_header(space, predictor), LatencyMeter([predictor]))


def check(table: FactorTable, space: Space, header: Header, meter: Meter) -> None:
    """Raise a LookupTableError that says what differs, unless a table built now would equal ``table``.

    Args:
        table: the table to check.
        space: the space that it should be of.
        header: the header that it should have.
        meter: the meter of its one measure.
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
    # Rules and features are code, so a newer version of this package may have changed them.
    rows = np.random.default_rng(0).integers(table.sizes, size=(_CHECKED, len(table.sizes)))
    rows[0], rows[1] = 0, np.array(table.sizes) - 1
    full = Pricing(space, [meter]).values(rows)[:, 0]
    allowed = (EXACT + table.header.worst_error) * np.maximum(np.abs(full), EXACT * np.abs(full).max())
    if (np.abs(table.sums.values(rows) - full) > allowed).any():
        raise LookupTableError(
            f"the lookup table of {space.name!r} is stale: its full graphs have other values now; build it "
            "anew"
        )
