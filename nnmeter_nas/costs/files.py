"""Files of factor tables: binary ``.npz`` with a hash, or NNI's YAML layout. Partial files never appear."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..errors import LookupTableError
from ..files import write_bytes, write_npz
from ..kernels.configuration import FloatArray
from ..packs.warmth import Warmth
from .nni_yaml import from_yaml, to_yaml
from .table import FactorTable, Header

#: Format of a binary file; other formats are refused.
_FORMAT = 2
_YAML = (".yaml", ".yml")
#: Suffixes of table files.
SUFFIXES = (".npz", *_YAML)


def is_table_file(name: str | Path) -> bool:
    """Whether the suffix of ``name`` says that it is a table file, and not a space or device."""
    return Path(name).suffix.lower() in SUFFIXES


def save_table(table: FactorTable, path: str | Path) -> None:
    """Write ``table`` to ``path`` atomically.

    ``.npz`` is the package's own format. ``.yaml`` is the layout of NNI's ``latency_table.yaml``: a number
    for each candidate. The table's other content is stored beside these.

    Raises:
        LookupTableError: the suffix is unknown, or the table has no YAML form; see :func:`to_yaml`.
    """
    if _suffix(path) in _YAML:
        write_bytes(path, to_yaml(table))
        return
    header = {
        "format": _FORMAT,
        "about": asdict(table.header),
        "candidates": table.candidates,
        "constant": float(table.constant),
        "positions": list(table.factors),
    }
    text = json.dumps(header, allow_nan=False)
    values = np.concatenate([np.empty(0), *(array.ravel() for array in table.factors.values())])
    write_npz(path, {"header": np.array(text), "values": values, "sha256": np.array(_digest(text, values))})


def load_table(path: str | Path) -> FactorTable:
    """Load the table that :func:`save_table` wrote to ``path``.

    Raises:
        LookupTableError: the file is missing, damaged or half-written, or another program wrote it.
    """
    suffix = _suffix(path)
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise LookupTableError(f"cannot read the lookup table {path}: {error.strerror}") from error
    if suffix in _YAML:
        return from_yaml(content, str(path))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            text, values, digest = str(file["header"]), file["values"], str(file["sha256"])
        if _digest(text, values) != digest:
            raise LookupTableError(f"{path} is damaged or was edited: its content does not match its hash")
        header = json.loads(text)
        if header["format"] != _FORMAT:
            raise LookupTableError(f"{path} has format {header['format']!r}, this version reads {_FORMAT}")
        candidates = {label: tuple(known) for label, known in header["candidates"].items()}
        about = {**header["about"], "input_shape": tuple(header["about"]["input_shape"])}
        if "warmth" in about:  # older tables have none
            about["warmth"] = Warmth.from_card(about["warmth"])
        sizes = [len(known) for known in candidates.values()]
        factors, start = {}, 0
        for positions in map(tuple, header["positions"]):
            shape = [sizes[p] for p in positions]
            factors[positions] = values[start : start + math.prod(shape)].reshape(shape)
            start += math.prod(shape)
        return FactorTable(candidates, header["constant"], factors, Header(**about))
    except LookupTableError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise LookupTableError(f"{path} is no lookup table: {type(error).__name__}: {error}") from error


def _digest(header: str, values: FloatArray) -> str:
    """Hash of the header and of all values."""
    found = hashlib.sha256(header.encode())
    found.update(f"{values.shape} {values.dtype}".encode())
    found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise LookupTableError(f"{path} names no kind of table; let it end in one of {', '.join(SUFFIXES)}")
    return suffix
