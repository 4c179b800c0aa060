"""Predictor pack: a folder with a card, the network's weights and a checksum of both; no code, no pickle."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import PackError
from ..fusion import FusionRules, parse_rules
from .files import sha256, write_bytes, write_npz
from .network import KernelNetwork

CARD, WEIGHTS, CHECKSUMS = "pack.yaml", "weights.npz", "SHA256SUMS"
#: Format of the folder; a pack of another one is refused.
FORMAT = 1
_REQUIRED = ("format", "name", "version", "category", "fusion_rules", "kernel_types")


@dataclass(frozen=True)
class Pack:
    """A loaded pack: its ``card`` (see ``pack.yaml``), fusion ``rules`` and kernel ``network``."""

    card: dict[str, Any]
    rules: FusionRules
    network: KernelNetwork

    @property
    def name(self) -> str:
        """Device name."""
        return str(self.card["name"])

    @property
    def version(self) -> float:
        """Pack version."""
        return float(self.card["version"])


def read_card(folder: Path) -> dict[str, Any]:
    """The card of the pack in ``folder``, checked against its checksum.

    Raises:
        PackError: the card is absent, damaged or of an unknown format.
    """
    text = _verified(folder, CARD).decode("utf-8", errors="replace")
    try:
        card = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PackError(f"{folder / CARD} is not valid YAML: {error}") from error
    if not isinstance(card, dict) or any(key not in card for key in _REQUIRED):
        raise PackError(f"{folder / CARD} lacks one of {', '.join(_REQUIRED)}")
    if card["format"] != FORMAT:
        raise PackError(
            f"{folder} has pack format {card['format']}, this version reads {FORMAT}; update nnmeter_nas"
        )
    for entry, parse in (("version", float), ("fusion_rules", parse_rules)):
        try:
            parse(card[entry])
        except (TypeError, ValueError, AttributeError) as error:
            raise PackError(f"{folder / CARD} has no usable {entry}: {card[entry]!r} ({error})") from error
    return card


def load_pack(folder: str | Path) -> Pack:
    """Load the pack in ``folder``.

    Raises:
        PackError: a file is absent or damaged (its SHA-256 differs), or the format is unknown.
    """
    folder = Path(folder)
    card = read_card(folder)
    try:
        with np.load(io.BytesIO(_verified(folder, WEIGHTS)), allow_pickle=False) as stored:
            arrays = dict(stored)
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise PackError(f"{folder / WEIGHTS} holds no arrays: {error}") from error
    return Pack(card, parse_rules(card["fusion_rules"]), KernelNetwork.from_arrays(arrays))


def save_pack(folder: str | Path, card: dict[str, Any], network: KernelNetwork) -> None:
    """Write a pack into ``folder``; the checksums come last, so a half-written pack does not load."""
    folder = Path(folder)
    write_npz(folder / WEIGHTS, network.to_arrays())
    text = yaml.safe_dump({"format": FORMAT, **card}, sort_keys=False, allow_unicode=True, width=110)
    write_bytes(folder / CARD, text.encode())
    sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in (CARD, WEIGHTS))
    write_bytes(folder / CHECKSUMS, sums.encode())


def _verified(folder: Path, name: str) -> bytes:
    """Content of a pack's file, if it matches the checksum."""
    try:
        sums = (folder / CHECKSUMS).read_text(encoding="ascii", errors="replace")
        content = (folder / name).read_bytes()
    except OSError as error:
        raise PackError(f"predictor pack {folder} is incomplete: {error.filename} is missing") from error
    if f"{hashlib.sha256(content).hexdigest()}  {name}" not in sums.splitlines():
        raise PackError(
            f"{folder / name} is damaged: its SHA-256 is not the one in {CHECKSUMS}; reinstall it"
        )
    return content
