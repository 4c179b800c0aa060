"""Tables in the layout of NNI's ``latency_table.yaml``: a number for each candidate of each choice.

NNI has no interactions. Interactions of pairs, and everything else in a table, stand beside NNI's layout
under ``details``, with a hash of the content.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import yaml

from ..errors import LookupTableError
from ..files import digest
from ..packs.warmth import COLD, Warmth
from ..predictor import LatencyWarning
from ..supernet.space import STATIONARY
from .table import LATENCY, FactorTable, Header, Positions

#: Format of the details; other formats are refused.
_FORMAT = 1
#: Equal to SafeLoader but far faster, where PyYAML has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def block_latencies(table: FactorTable) -> dict[str, dict[str, float]]:
    """A table in NNI's layout: label -> index of the candidate as text -> ms.

    The constant is under ``"stationary_block"`` -> ``"root"``. Interactions of pairs are left out, and so is
    what small networks run quicker on some devices (:class:`.Warmth`).

    Raises:
        LookupTableError: the table is not of latency, or has factors of more than two choices, which make
            numbers for single candidates meaningless.

    Warns:
        LatencyWarning: architectures of the space take less than the sum.
    """
    if table.header.measure != LATENCY:
        raise LookupTableError(f"NNI's tables are of latency, and this one is of {table.header.measure}")
    if larger := [labels for labels in table.interactions() if len(labels) > 2]:
        raise LookupTableError(
            f"{', '.join(larger[0])} decide latency on {table.header.device} together, and NNI's layout has "
            "one number for each candidate; save the table as .npz"
        )
    if table.warm_share < 1:
        warnings.warn(
            f"NNI sums up the blocks of a table, and on {table.header.device} small networks take less than "
            f"the sum, down to {table.warm_share:.0%}",
            LatencyWarning,
            stacklevel=2,
        )
    blocks = {
        label: {str(i): float(ms) for i, ms in enumerate(table.block(label))} for label in table.labels
    }
    return {**blocks, STATIONARY: {"root": float(table.constant)}}


def to_yaml(table: FactorTable) -> bytes:
    """A YAML list of one table.

    Raises:
        LookupTableError: it does not fit NNI's layout; see :func:`block_latencies`.
    """
    header = table.header
    pairs = [{"labels": list(pair), "ms": array.tolist()} for pair, array in table.interactions().items()]
    document = {
        "applied_hardware": header.device,
        "latency_table": block_latencies(table),
        "details": {
            "format": _FORMAT,
            "space": header.space,
            "space_fingerprint": header.space_fingerprint,
            "pack_version": float(header.pack_version),
            "pack_fingerprint": header.pack_fingerprint,
            "input_shape": list(header.input_shape),
            "candidates": {label: list(known) for label, known in table.candidates.items()},
            "pairs": pairs,
            "unpredicted": dict(header.left_out),
            "worst_error": float(header.worst_error),
            **({"warmth": header.warmth.to_card()} if header.warmth.exponent else {}),
        },
    }
    document["details"]["sha256"] = digest(document)  # type: ignore[index]
    text = yaml.dump([document], Dumper=_DUMPER, sort_keys=False, allow_unicode=True, width=110)
    return bytes(text.encode())


def from_yaml(content: bytes, name: str) -> FactorTable:
    """Read the table from the output of :func:`to_yaml`.

    Args:
        content: content of the file.
        name: name of the file in errors.

    Raises:
        LookupTableError: the content is damaged or half-written, or another program wrote it.
    """
    document, details = _document(content, name)
    try:
        found = document["latency_table"]
        candidates = {label: tuple(known) for label, known in details["candidates"].items()}
        position = {label: p for p, label in enumerate(candidates)}
        factors: dict[Positions, Any] = {
            (p,): np.array([found[label][str(i)] for i in range(len(candidates[label]))], dtype=float)
            for label, p in position.items()
        }
        for pair in details["pairs"]:
            p, q = (position[label] for label in pair["labels"])
            ms = np.array(pair["ms"], dtype=float)
            ascending = (min(p, q), max(p, q))
            factors[ascending] = factors.get(ascending, 0.0) + (ms if p < q else ms.T)
        header = Header(
            space=details["space"],
            space_fingerprint=details["space_fingerprint"],
            input_shape=tuple(details["input_shape"]),
            device=document["applied_hardware"],
            pack_version=details["pack_version"],
            pack_fingerprint=details["pack_fingerprint"],
            left_out=details["unpredicted"],
            worst_error=details["worst_error"],
            warmth=Warmth.from_card(details["warmth"]) if "warmth" in details else COLD,
        )
        return FactorTable(candidates, found[STATIONARY]["root"], factors, header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, LookupTableError):
            raise
        raise LookupTableError(f"{name} is no lookup table: {type(error).__name__}: {error}") from error


def _document(content: bytes, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The only document of a file, and its details; checks the hash."""
    try:
        entries = yaml.load(content, Loader=_LOADER)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise LookupTableError(f"{name} is damaged or no lookup table: {error}") from error
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        raise LookupTableError(
            f"{name} is damaged, or does not hold one lookup table as this package writes it"
        )
    document: dict[str, Any] = entries[0]
    details = document.get("details")
    if not isinstance(details, dict) or "sha256" not in details:
        raise LookupTableError(
            f"{name} was not written by nnmeter_nas: it does not say of which space and input shape it is; "
            "build the table anew"
        )
    if details.get("format") != _FORMAT:
        raise LookupTableError(
            f"{name} has table format {details.get('format')!r}, this version reads {_FORMAT}; build it anew"
        )
    signed = {key: value for key, value in details.items() if key != "sha256"}
    if digest({**document, "details": signed}) != details["sha256"]:
        raise LookupTableError(f"{name} is damaged or was edited: its content does not match its hash")
    return document, details
