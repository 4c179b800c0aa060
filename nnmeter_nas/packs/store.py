"""The folder of the user's packs: store a pack in it whole or not at all, and remove one."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..errors import PackError, UnknownDeviceError, nearest
from ..files import user_cache_folder
from .pack import load_pack
from .registry import bundled_packs, pack_folders, user_packs

_DEVICE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)


def check_device_name(name: str | None, label: str) -> str:
    """Return ``name`` in the spelling of a known pack or device, or else unchanged.

    Raises:
        PackError: it is no name of a device; the message says that ``label`` needs one.
    """
    if name is None or not _DEVICE_NAME.fullmatch(name):
        raise PackError(
            f"{label} needs the name of a device, of letters, digits and any of ._+- between: got {name!r}"
        )
    known = [device for device, _ in pack_folders()]
    return next((device for device in known if device.lower() == name.lower()), name)


def check_version(version: Any) -> float:
    """Return the number of a version.

    Raises:
        PackError: it is no such number.
    """
    try:
        number = float(version)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1e6:
        raise PackError(f"version {version!r} is no number of a version such as 1.0")
    return number


def user_pack(name: str, version: float) -> Path:
    """Folder of the user's pack with this name and version, whether or not it exists.

    Raises:
        PackError: a pack with this name and version ships with the package.
    """
    if (bundled_packs() / name / str(version)).exists():
        raise PackError(f"version {version} of {name} ships with this package; give another version")
    return user_packs() / name / str(version)


@contextmanager
def locked(what: str) -> Iterator[None]:
    """Allow only one process at a time to work on ``what``."""
    locks = user_cache_folder()
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{what}.lock"):
        yield


@contextmanager
def written_pack(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write a pack into; at the end it replaces the user's pack in ``folder``.

    It replaces it only if it loads. The caller holds the lock of the pack.
    """
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    try:
        yield partial
        load_pack(partial)
        _remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_predictor(name: str, version: float | None = None) -> list[float]:
    """Remove the user's packs of a device, or only one version; return the versions removed.

    Raises:
        UnknownDeviceError: the user has no such pack. Packs that ship with the package stay.
    """
    own = [key for key, folder in pack_folders().items() if user_packs() in folder.parents]
    wanted = None if version is None else check_version(version)
    found = [key for key in own if key[0].lower() == name.lower() and wanted in (None, key[1])]
    if not found:
        what = f"{name!r}" if version is None else f"{name!r} {version}"
        known = [f"{device} {number}" for device, number in own]
        raise UnknownDeviceError(f"no imported predictor {what} to remove; {nearest(name, known)}")
    for device, number in found:
        with locked(f"{device}-{number}"):
            folder = user_packs() / device / str(number)
            _remove(folder)
            with suppress(OSError):  # the folder still holds other versions
                folder.parent.rmdir()
    return [number for _, number in found]


def _beside(folder: Path, suffix: str) -> Path:
    """A folder on the same file system as the pack ``folder``, in a place that is not searched for packs."""
    return user_packs() / f".{folder.parent.name}-{folder.name}.{suffix}"


def _remove(folder: Path) -> None:
    """Remove a pack so that nobody sees half of it: rename it, then delete it."""
    removed = _beside(folder, "removed")
    shutil.rmtree(removed, ignore_errors=True)
    if folder.exists():
        os.replace(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)
