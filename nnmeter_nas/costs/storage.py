"""Files of lookup tables: one document, as YAML in NNI's layout or as JSON, with a hash of its content."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ..errors import LookupTableError
from ..files import digest, write_bytes

#: Format of a document's details; another one is refused.
FORMAT = 1
_SUFFIXES = (".json", ".yaml", ".yml")
#: Faster by far where PyYAML has them, and otherwise the same.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def write_document(path: str | Path, document: dict[str, Any]) -> None:
    """Write ``document``, which has ``details``, to ``path`` atomically; NNI has it in a list of one.

    Raises:
        LookupTableError: the suffix is neither ``.json`` nor ``.yaml``.
    """
    suffix = _suffix(path)
    document = {**document, "details": {"format": FORMAT, **document["details"]}}
    document["details"]["sha256"] = digest(document)
    if suffix == ".json":
        text = json.dumps([document], allow_nan=False)
    else:
        text = yaml.dump([document], Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=110)
    write_bytes(path, text.encode())


def read_document(path: str | Path) -> dict[str, Any]:
    """The document that :func:`write_document` wrote to ``path``.

    Raises:
        LookupTableError: there is none, it is damaged or half-written, or something else wrote it.
    """
    parse: Callable[[str], Any] = json.loads if _suffix(path) == ".json" else _parse_yaml
    try:
        entries = parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LookupTableError(f"cannot read the lookup table {path}: {error.strerror}") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise LookupTableError(f"{path} is damaged or no lookup table: {error}") from error
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise LookupTableError(
            f"{path} is damaged, or does not hold one lookup table as this package writes it"
        )
    document: dict[str, Any] = entries[0]
    details = document.get("details")
    if not isinstance(details, dict) or "sha256" not in details:
        raise LookupTableError(
            f"{path} was not written by nnmeter_nas: it does not say of which space and input shape it is; "
            "build the table anew"
        )
    if details.get("format") != FORMAT:
        raise LookupTableError(
            f"{path} has table format {details.get('format')!r}, this version reads {FORMAT}; build it anew"
        )
    if digest({**document, "details": _without_digest(details)}) != details["sha256"]:
        raise LookupTableError(f"{path} is damaged or was edited: its content does not match its hash")
    return {**document, "details": details}


def _without_digest(details: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in details.items() if key != "sha256"}


def _parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_LOADER)


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise LookupTableError(f"{path} names no kind of table; let it end in one of {', '.join(_SUFFIXES)}")
    return suffix
