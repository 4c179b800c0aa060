"""Which predictor packs there are, and finding one by device name and version."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..errors import UnknownDeviceError, nearest
from .pack import Pack, load_pack, read_card


def bundled_packs() -> Path:
    """Folder of the packs inside the package, laid out as ``<device>/<version>/``."""
    return Path(str(resources.files("nnmeter_nas") / "data" / "packs"))


def devices() -> dict[str, dict[str, Any]]:
    """The known devices: name -> category, hardware, runtime and fusion rules."""
    text = (resources.files("nnmeter_nas") / "data" / "devices.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def pack_folders() -> dict[tuple[str, float], Path]:
    """Folder of every pack by (device name, version), newest version of a device first."""
    cards = [(read_card(path.parent), path.parent) for path in sorted(bundled_packs().glob("*/*/pack.yaml"))]
    found = {(str(card["name"]), float(card["version"])): folder for card, folder in cards}
    return dict(sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])))


def find_pack(name: str, version: float | None = None) -> Pack:
    """The pack of a device, its newest version unless one is given. Names match case-insensitively.

    Raises:
        UnknownDeviceError: there is no such device or version; suggests the nearest name.
        PackError: the pack is damaged.
    """
    folders = pack_folders()
    names = list(dict.fromkeys(n for n, _ in folders))
    exact = next((n for n in names if n.lower() == str(name).lower()), None)
    if exact is None:
        raise UnknownDeviceError(f"no predictor for device {name!r}; {nearest(str(name), names)}")
    versions = [v for n, v in folders if n == exact]
    try:
        wanted = versions[0] if version is None else float(version)
    except (TypeError, ValueError):
        wanted = float("nan")
    if wanted not in versions:
        raise UnknownDeviceError(
            f"no version {version} of the predictor for {exact!r}; there is {', '.join(map(str, versions))}"
        )
    return _load(folders[exact, wanted])


@lru_cache(maxsize=16)
def _load(folder: Path) -> Pack:
    return load_pack(folder)
