"""List the predictor packs, and find one by device name and version."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..errors import PackError, UnknownDeviceError, nearest
from ..files import user_folder
from .pack import CARD, Pack, check_pack, load_pack, read_card

#: Version of nn-Meter's released predictors.
_NN_METER = 1.0


class PackWarning(UserWarning):
    """A user's predictor pack is skipped because it cannot be read."""


def bundled_packs() -> Path:
    """The package's folder of packs, laid out as ``<device>/<version>/``."""
    return Path(str(resources.files("nnmeter_nas") / "data" / "packs"))


def user_packs() -> Path:
    """Folder of the packs that the user imported, with the same layout."""
    return user_folder() / "packs"


def devices() -> dict[str, dict[str, Any]]:
    """The known devices: name -> category, hardware, runtime and fusion rules."""
    text = (resources.files("nnmeter_nas") / "data" / "devices.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def pack_folders() -> dict[tuple[str, float], Path]:
    """Folder of every pack by (device name, version), the newest version of a device first.

    No pack is opened: name and version come from the folder names.
    """
    found = {**_packs_in(user_packs()), **_packs_in(bundled_packs())}
    return dict(sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])))


def pack_cards() -> list[dict[str, Any]]:
    """Cards of all packs, in the order of :func:`pack_folders`.

    Warns:
        PackWarning: a user's pack is damaged and is skipped.
    """
    cards = []
    for folder in pack_folders().values():
        try:
            cards.append(read_card(folder))
        except PackError as error:
            _warn_or_raise(folder, error)
    return cards


def find_pack(name: str, version: float | None = None) -> Pack:
    """The pack of a device, by default the newest version. Names match case-insensitively.

    Raises:
        UnknownDeviceError: the device or version does not exist; suggests the nearest name.
        PackError: the pack is damaged.

    Warns:
        PackWarning: no version is given, and the newest is a user's damaged pack; the next one is taken.
    """
    folders = pack_folders()
    names = list(dict.fromkeys(n for n, _ in folders))
    exact = next((n for n in names if n.lower() == str(name).lower()), None)
    if exact is None:
        raise UnknownDeviceError(f"no predictor for device {name!r}; {nearest(str(name), names)}")
    versions = [v for n, v in folders if n == exact]
    if version is None:
        for other in versions[:-1]:
            try:
                return _open(folders, exact, other)
            except PackError as error:
                _warn_or_raise(folders[exact, other], error)
        return _open(folders, exact, versions[-1])
    try:
        wanted = float(version)
    except (TypeError, ValueError):
        wanted = math.nan
    if wanted not in versions:
        hint = ""
        if wanted == _NN_METER and exact in devices():
            hint = f"; import nn-Meter's own by `nnmeter-nas predictors import {exact}`"
        raise UnknownDeviceError(
            f"no version {version} of the predictor for {exact!r}; "
            f"there is {', '.join(map(str, versions))}{hint}"
        )
    return _open(folders, exact, wanted)


def _packs_in(root: Path) -> dict[tuple[str, float], Path]:
    found = {}
    for card in root.glob(f"*/*/{CARD}"):
        try:
            version = float(card.parent.name)
        except ValueError:
            continue
        if math.isfinite(version):
            found[card.parents[1].name, version] = card.parent
    return found


def _warn_or_raise(folder: Path, error: PackError) -> None:
    """Warn of a user's damaged pack, which is skipped; raise for a bundled one."""
    if user_packs() not in folder.parents:
        raise error
    warnings.warn(f"left out: {error}", PackWarning, stacklevel=3)


def _open(folders: dict[tuple[str, float], Path], name: str, version: float) -> Pack:
    folder = folders[name, version]
    pack = _load(folder, check_pack(folder))
    if (pack.name, pack.version) != (name, version):
        raise PackError(f"{folder} holds the predictor {pack.name!r} {pack.version}, not {name!r} {version}")
    return pack


@lru_cache(maxsize=16)
def _load(folder: Path, checksums: tuple[tuple[str, str], ...]) -> Pack:
    """The pack in ``folder``, loaded again when its checksums change."""
    return load_pack(folder)
