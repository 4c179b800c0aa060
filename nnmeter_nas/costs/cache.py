"""Cache of lookup tables and of terms on disk, safe for many processes at once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from filelock import FileLock

from ..errors import LookupTableError
from ..files import digest, user_cache_folder
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor
from ..supernet.space import Space
from .build import build_table
from .pricing import LatencyMeter, Meter, Pricing
from .probing import EXACT, is_exact
from .table import LatencyTable, load_table
from .terms_files import StoredTerms, read_terms

#: Architectures whose values are computed again when terms are read.
_CHECKED = 4


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
    with locked([path]):
        table = find_table(path, space, predictor)
        if table is None:
            table = build_table(space, predictor, **options)
            table.save(path)
    return table


def find_table(path: Path, space: Space, predictor: LatencyPredictor) -> LatencyTable | None:
    """The table at ``path``, if there is one and it is whole and up to date.

    Warns:
        UserWarning: there is one that is not.
    """
    if not path.exists():
        return None
    try:
        table = load_table(path)
        check_table(table, space, predictor)
        return table
    except LookupTableError as error:
        warnings.warn(f"built anew: {error}", stacklevel=3)
        return None


def find_terms(path: Path, space: Space, meter: Meter) -> StoredTerms | None:
    """The terms at ``path`` of the one measure of ``meter``, if they are there, whole and up to date.

    Warns:
        UserWarning: there are some that are not.
    """
    if not path.exists():
        return None
    try:
        stored = read_terms(path)
        _check_terms(stored, space, meter)
        return stored
    except LookupTableError as error:
        warnings.warn(f"computed anew: {error}", stacklevel=3)
        return None


def table_path(space: Space, predictor: LatencyPredictor, folder: str | Path | None = None) -> Path:
    """Where :func:`cached_table` keeps the table of a space on a device."""
    name = f"{predictor.device}_{predictor.version}"
    return _path(space, name, pack_fingerprint(predictor.pack), folder, "json")


def terms_path(space: Space, measure: str, content: str = "", folder: str | Path | None = None) -> Path:
    """Where the terms of a measure of a space are kept.

    Args:
        space: the space.
        measure: what to call the measure.
        content: what the measure depends on beside the space, such as a pack's fingerprint.
        folder: where all are kept; the user's cache folder if None.
    """
    return _path(space, measure, content, folder, "npz")


def _path(space: Space, name: str, content: str, folder: str | Path | None, suffix: str) -> Path:
    root = user_cache_folder() / "tables" if folder is None else Path(folder)
    key = digest([space.name, space.fingerprint, space.input_shape, content])
    shape = "x".join(map(str, space.input_shape))
    return root / re.sub(r"[^\w.-]", "_", space.name) / f"{name}_{shape}_{key[:16]}.{suffix}"


@contextmanager
def locked(paths: Sequence[Path]) -> Iterator[None]:
    """Keep other processes from making what belongs at ``paths``, whose folders are made."""
    with ExitStack() as held:
        for path in sorted(set(paths)):  # in one order, lest two processes wait for each other
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(path.with_suffix(".lock")))
        yield


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
    full = Pricing(space, [LatencyMeter([predictor])]).values(ends)[:, 0]
    if (abs(table.latencies(ends) - full) > (EXACT + table.worst_error) * full).any():
        raise LookupTableError(
            "the lookup table is stale: full-graph predictions have changed; build it anew"
        )


def _check_terms(stored: StoredTerms, space: Space, meter: Meter) -> None:
    """Raise a LookupTableError unless terms give what ``meter`` does for some architectures of ``space``."""
    sizes = tuple(len(known) for known in space.candidates.values())
    if stored.terms.sizes != sizes:
        raise LookupTableError(f"the terms are of a space of {stored.terms.sizes} candidates, not {sizes}")
    rows = np.random.default_rng(0).integers(sizes, size=(_CHECKED, len(sizes)))
    rows[0], rows[1] = 0, np.array(sizes) - 1
    values = Pricing(space, [meter]).values(rows)[:, 0]
    if not is_exact(stored.terms, rows, values).all():
        raise LookupTableError(
            f"the terms of {space.name!r} are stale: its model graphs give other values now"
        )
