"""Cache of lookup tables on disk, safe for many processes at once."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import networkx as nx
from filelock import FileLock

from ..errors import LookupTableError
from ..packs.files import user_cache_folder
from ..predictor import LatencyPredictor
from .build import EXACT, build_table
from .fingerprints import pack_fingerprint
from .pricing import Pricing
from .space import Space, digest
from .table import LatencyTable, load_table


def cached_table(
    space: Space | nx.DiGraph, predictor: LatencyPredictor, folder: str | Path | None = None, **options: Any
) -> LatencyTable:
    """The lookup table of a space on a device: from the cache, or built and put there.

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
    path = table_path(space, predictor, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            try:
                table = load_table(path)
                check_table(table, space, predictor)
                return table
            except LookupTableError as error:
                warnings.warn(f"built anew: {error}", stacklevel=2)
        table = build_table(space, predictor, **options)
        table.save(path)
    return table


def table_path(space: Space, predictor: LatencyPredictor, folder: str | Path | None = None) -> Path:
    """Where :func:`cached_table` keeps the table of a space on a device."""
    root = user_cache_folder() / "tables" if folder is None else Path(folder)
    key = digest([space.name, space.fingerprint, space.input_shape, pack_fingerprint(predictor.pack)])
    shape = "x".join(map(str, space.input_shape))
    name = f"{predictor.device}_{predictor.version}_{shape}_{key[:16]}.json"
    return root / re.sub(r"[^\w.-]", "_", space.name) / name


def check_table(table: LatencyTable, space: Space, predictor: LatencyPredictor) -> None:
    """Raise a LookupTableError that says what differs, unless ``table`` is of this space and predictor."""
    expected = {
        "space": (table.space, space.name),
        "device": (table.device, predictor.device),
        "input shape": (table.input_shape, space.input_shape),
        "candidates": (dict(table.candidates), dict(space.candidates)),
        "content of the space": (table.space_fingerprint, space.fingerprint),
        "version of the pack": (table.pack_version, predictor.version),
        "content of the pack": (table.pack_fingerprint, pack_fingerprint(predictor.pack)),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise LookupTableError(
                f"the lookup table is of another {what}: {found}, not {wanted}; build it anew"
            )
    # Rules and features are code, which a newer version of this package may have changed.
    ends = table.indices(
        [{label: known[end] for label, known in space.candidates.items()} for end in (0, -1)]
    )
    full = Pricing(space, [predictor]).latencies(ends)[:, 0]
    if (abs(table.latencies(ends) - full) > (EXACT + table.worst_error) * full).any():
        raise LookupTableError(
            "the lookup table is stale: full-graph predictions have changed; build it anew"
        )
