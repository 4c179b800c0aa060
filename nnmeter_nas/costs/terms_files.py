"""Files of terms: a compressed ``.npz`` with a hash of its content."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LookupTableError
from ..files import write_npz
from .terms import Terms

#: Format of a file; another one is refused.
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class StoredTerms:
    """Terms, and what is missing from them.

    Attributes:
        terms: the measure.
        left_out: operators that the measure does not know: name -> canonical operator.
    """

    terms: Terms
    left_out: Mapping[str, str]


def write_terms(path: str | Path, stored: StoredTerms) -> None:
    """Write terms to ``path`` atomically."""
    terms = stored.terms
    header = {
        "format": _FORMAT,
        "left_out": dict(stored.left_out),
        "sizes": terms.sizes,
        "constant": terms.constant,
        "positions": list(terms.factors),
    }
    text = json.dumps(header, allow_nan=False)
    arrays = {f"factor_{i}": np.asarray(a, dtype=np.float64) for i, a in enumerate(terms.factors.values())}
    write_npz(path, {"header": np.array(text), "sha256": np.array(_digest(text, arrays)), **arrays})


def read_terms(path: str | Path) -> StoredTerms:
    """The terms that :func:`write_terms` wrote to ``path``.

    Raises:
        LookupTableError: there are none, or they are damaged, half-written or of another format.
    """
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as file:
            content = dict(file)
        text, digest = str(content.pop("header")), str(content.pop("sha256"))
        if _digest(text, content) != digest:
            raise LookupTableError(f"{path} is damaged or was edited: its content does not match its hash")
        header = json.loads(text)
        if header["format"] != _FORMAT:
            raise LookupTableError(f"{path} has format {header['format']!r}, this version reads {_FORMAT}")
        factors = {tuple(p): content[f"factor_{i}"] for i, p in enumerate(header["positions"])}
        terms = Terms(tuple(header["sizes"]), header["constant"], factors)
        return StoredTerms(terms, header["left_out"])
    except OSError as error:
        raise LookupTableError(f"cannot read the terms {path}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, LookupTableError):
            raise
        raise LookupTableError(f"{path} holds no terms: {type(error).__name__}: {error}") from error


def _digest(header: str, arrays: Mapping[str, Any]) -> str:
    """Hash of the header and of all arrays, in the order of their names."""
    found = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape} {arrays[name].dtype}".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
