"""Import nn-Meter's predictors: turn a folder or zip of pickled forests into a predictor pack of the user's.

Nothing is unpickled, and no zip is extracted: members are read by name, one at a time, and decoded by
:mod:`.pickles`. No partial pack ever appears: it is written next to its final place and then renamed. If the
same source is imported again, an undamaged pack stays as it is. If another source is imported under the name
and version of a user's pack, it replaces that pack. Packs that ship with the package are never replaced.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import os
import re
import reprlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ...errors import PackError, UnknownDeviceError, nearest
from ...files import user_cache_folder, write_bytes
from ..pack import (
    CARD,
    RULE_FILE,
    forest_file,
    load_pack,
    parse_rule_file,
    read_card,
    read_yaml,
    verify_pack,
    write_card,
    write_checksums,
)
from ..registry import bundled_packs, devices, pack_folders, user_packs
from .download import discard, download
from .forest import read_pickled_forest, write_forest
from .members import META, PICKLE_SUFFIX, Archive, Members, PickleFolder, kernels_of, read_text
from .progress import Progress, shown

RELEASE_URL = "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data/{device}.zip"
_ON_ALL = ("conv-bn-relu", "dwconv-bn-relu", "hswish", "relu", "se", "maxpool", "avgpool", "bn", "bnrelu")
#: Kernel predictors in nn-Meter's release, by device.
RELEASED = {
    "cortexA76cpu_tflite21": (
        *_ON_ALL, "fc", "global-avgpool", "split", "add", "addrelu", "channelshuffle", "concat",
    ),
    "adreno640gpu_tflite21": (*_ON_ALL, "concat"),
    "adreno630gpu_tflite21": (*_ON_ALL, "concat"),
    "myriadvpu_openvino2019r2": (*_ON_ALL, "fc", "addrelu", "channelshuffle"),
}
#: Version of a pack if its source states none.
_RELEASED_VERSION = 1.0
_DEVICE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,99}", re.ASCII)


def import_predictor(
    source: str | Path,
    name: str | None = None,
    version: float | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a predictor pack of nn-Meter's pickled forests; return the pack's folder.

    Args:
        source: a folder of ``*.pkl`` and ``fusion_rules.json`` (and ``meta.yaml``: name, version, category,
            kernel_predictors), a zip of such a folder, its ``https://`` address, or one of the four device
            names, which stands for nn-Meter's release. An existing path is taken as a path.
        name, version: of the pack. If None, they come from ``meta.yaml``, or else are the name of the folder
            and 1.0.
        sha256: hex digest that the zip must match.
        progress: called with a description, bytes done and bytes in total. If None, progress bars are drawn
            on a terminal.

    Raises:
        PackError: files are missing or damaged, a pickle holds anything other than a forest, a zip is an
            attack, the download fails, or a pack with this name and version ships with the package.
        MissingPackageError: ``source`` has to be downloaded and httpx is not installed.
    """
    path, text = Path(source), str(source)
    with shown(progress) as report:
        if os.path.exists(path):  # unlike Path.exists, False for a name that is too long
            return _import_path(path, _Wishes(name, version, sha256), text, report)
        device = next((known for known in RELEASED if known.lower() == text.lower()), None)
        url = (device and _release_url(device)) or text
        if "://" not in url:
            raise PackError(f"{text} is no file, folder or https:// address; {nearest(text, RELEASED)}")
        with _locked(f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}"):
            wishes = _Wishes(name or device, version, sha256)
            if (found := _imported_from(url, wishes)) is not None:
                return found
            archive = download(url, sha256, report)
            try:
                folder = _import_path(archive, wishes, url, report)
            except PackError:
                discard(archive)  # it would only be refused again
                raise
            discard(archive)
        return folder


def register_predictor(meta_yaml: str | Path, progress: Progress | None = None) -> Path:
    """Import the predictor in a file for nn-Meter's ``register --predictor``; return the pack's folder.

    Args:
        meta_yaml: YAML with name, version, category, package_location (the folder of pickles and
            ``fusion_rules.json``; relative to the file) and kernel_predictors.
        progress: as for :func:`import_predictor`.

    Raises:
        PackError: an entry is missing, or as :func:`import_predictor`.
    """
    path = Path(meta_yaml)
    try:
        meta = _checked_meta(read_yaml(path.read_bytes(), str(path)), str(path))
    except OSError as error:
        raise PackError(f"{path} cannot be read: {error.strerror}") from error
    required = ("name", "version", "category", "package_location", "kernel_predictors")
    if missing := [entry for entry in required if entry not in meta]:
        raise PackError(f"{path} lacks {', '.join(missing)}")
    location = path.parent / Path(meta["package_location"]).expanduser()
    if not location.is_dir():
        raise PackError(f"{path} gives as package_location {location}, which is no folder")
    with shown(progress) as report:
        return _import(PickleFolder(location), meta, _Wishes(), str(location), report)


def remove_predictor(name: str, version: float | None = None) -> list[float]:
    """Remove the user's packs of a device, or only one version; return the versions removed.

    Raises:
        UnknownDeviceError: the user has no such pack. Packs that ship with the package stay.
    """
    own = [key for key, folder in pack_folders().items() if user_packs() in folder.parents]
    wanted = None if version is None else _version(version)
    found = [key for key in own if key[0].lower() == name.lower() and wanted in (None, key[1])]
    if not found:
        what = f"{name!r}" if version is None else f"{name!r} {version}"
        known = [f"{device} {number}" for device, number in own]
        raise UnknownDeviceError(f"no imported predictor {what} to remove; {nearest(name, known)}")
    for device, number in found:
        with _locked(f"{device}-{number}"):
            folder = user_packs() / device / str(number)
            _remove(folder)
            with suppress(OSError):  # the folder still holds other versions
                folder.parent.rmdir()
    return [number for _, number in found]


@dataclass(frozen=True)
class _Wishes:
    """The caller's requirements for the pack; None where anything is accepted."""

    name: str | None = None
    version: float | None = None
    sha256: str | None = None


def _import_path(path: Path, wishes: _Wishes, origin: str, report: Progress) -> Path:
    """Import the folder or zip at ``path``, which was obtained from ``origin``."""
    if not path.is_dir():
        members: Members = Archive(path)
    elif wishes.sha256 is None:
        members = PickleFolder(path)
    else:
        raise PackError(f"sha256 is the hash of a zip, and {path} is a folder")
    meta = {}
    if META in members.sizes:
        label = f"{META} of {members.label}"
        meta = _checked_meta(read_yaml(read_text(members, META), label), label)
    return _import(members, meta, wishes, origin, report)


def _import(members: Members, meta: dict[str, Any], wishes: _Wishes, origin: str, report: Progress) -> Path:
    """Make a pack of ``members``; its name and version come from ``wishes``, ``meta`` or the folder."""
    name = _device_name(wishes.name or meta.get("name") or members.device, members.label)
    version = _version(meta.get("version", _RELEASED_VERSION) if wishes.version is None else wishes.version)
    kernels = kernels_of(members)
    wanted = meta.get("kernel_predictors") or (RELEASED[name] if origin == _release_url(name) else ())
    missing = [f"{kernel}{PICKLE_SUFFIX}" for kernel in sorted(set(wanted) - set(kernels))]
    if missing or not kernels:
        what = ", ".join(missing) or f"pickled forests (*{PICKLE_SUFFIX})"
        raise PackError(f"{members.label} lacks {what}")
    rule_file = read_text(members, RULE_FILE)
    parse_rule_file(rule_file, f"{RULE_FILE} of {members.label}")
    if (bundled_packs() / name / str(version)).exists():
        raise PackError(f"version {version} of {name} ships with this package; give another version")
    digest = members.sha256()
    if wishes.sha256 is not None and digest != wishes.sha256.lower():
        raise PackError(f"{members.label} is refused: its SHA-256 is {digest}, not {wishes.sha256}")
    device = devices().get(name, {})
    card: dict[str, Any] = {
        "kind": "forests",
        "name": name,
        "version": version,
        "category": meta.get("category") or device.get("category", "unknown"),
        **{entry: device[entry] for entry in ("hardware", "runtime") if entry in device},
        "source": {"from": origin, "sha256": digest},
        "date": datetime.date.today().isoformat(),
        "kernel_types": kernels,
    }
    folder = user_packs() / name / str(version)
    with _locked(f"{name}-{version}"):
        if not _is_there(folder, digest):
            _write(folder, members, card, rule_file, report)
    return folder


def _write(folder: Path, members: Members, card: dict[str, Any], rule_file: bytes, report: Progress) -> None:
    """Write the pack next to ``folder``, check that it loads, and rename it."""
    partial = _beside(folder, "partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    try:
        write_bytes(partial / RULE_FILE, rule_file)
        kernels, sizes = card["kernel_types"], members.sizes
        total = sum(sizes[f"{kernel}{PICKLE_SUFFIX}"] for kernel in kernels)
        forests, done = {}, 0
        for kernel in kernels:
            report(f"importing {card['name']}", done, total)
            forests[kernel] = _write_forest(partial, members, kernel)
            done += sizes[f"{kernel}{PICKLE_SUFFIX}"]
        report(f"importing {card['name']}", done, total)
        write_card(partial, {**card, "forests": forests})
        write_checksums(partial, [CARD, RULE_FILE, *map(forest_file, kernels)])
        load_pack(partial)
        _remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _write_forest(partial: Path, members: Members, kernel: str) -> dict[str, int]:
    """Store the forest of ``kernel``; return its entry for the card."""
    name = f"{kernel}{PICKLE_SUFFIX}"
    try:
        path = partial / forest_file(kernel)
    except ValueError as error:
        raise PackError(f"{members.label} is refused: {error}") from error
    with members.open(name) as file:
        forest = read_pickled_forest(file, members.sizes[name], f"{name} of {members.label}")
    write_forest(path, forest)
    return {
        "features": forest.n_features,
        "trees": len(forest.roots),
        "nodes": len(forest.feature),
        "bytes": path.stat().st_size,
        "pickle_bytes": members.sizes[name],
    }


def _is_there(folder: Path, digest: str) -> bool:
    """Whether ``folder`` holds an undamaged pack made from a source with the hash ``digest``."""
    try:
        verify_pack(folder)
        source = read_card(folder).get("source")
    except PackError:
        return False
    return isinstance(source, dict) and source.get("sha256") == digest


def _imported_from(url: str, wishes: _Wishes) -> Path | None:
    """The user's undamaged pack that was imported from ``url`` and fits ``wishes``, or None."""
    for (device, number), folder in pack_folders().items():
        named = wishes.name is None or wishes.name.lower() == device.lower()
        if user_packs() not in folder.parents or not named or wishes.version not in (None, number):
            continue
        try:
            source = read_card(folder).get("source")
            if not isinstance(source, dict) or source.get("from") != url:
                continue
            if wishes.sha256 in (None, source.get("sha256")):
                verify_pack(folder)
                return folder
        except PackError:
            continue
    return None


def _release_url(name: str) -> str | None:
    return RELEASE_URL.format(device=name) if name in RELEASED else None


def _checked_meta(meta: dict[str, Any], label: str) -> dict[str, Any]:
    """The entries of ``meta`` that describe a predictor; checks their types."""
    types: dict[str, tuple[type, ...]] = {
        "name": (str,),
        "version": (int, float, str),
        "category": (str,),
        "package_location": (str,),
    }
    for entry, type_ in types.items():
        if entry in meta and (not isinstance(meta[entry], type_) or isinstance(meta[entry], bool)):
            raise PackError(f"{label} has no usable {entry}: {reprlib.repr(meta[entry])}")
    kernels = meta.get("kernel_predictors", [])
    if not isinstance(kernels, list) or not all(isinstance(kernel, str) for kernel in kernels):
        raise PackError(f"{label} has no usable kernel_predictors: {reprlib.repr(kernels)}")
    return meta


def _device_name(name: str | None, label: str) -> str:
    """``name`` in the spelling of a known pack or device, or else unchanged."""
    if name is None or not _DEVICE_NAME.fullmatch(name):
        raise PackError(
            f"{label} needs the name of a device, of letters, digits and any of ._+- between: got {name!r}"
        )
    known = [*RELEASED, *(device for device, _ in pack_folders())]
    return next((device for device in known if device.lower() == name.lower()), name)


def _version(version: Any) -> float:
    try:
        number = float(version)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1e6:
        raise PackError(f"version {version!r} is no number of a version such as 1.0")
    return number


@contextmanager
def _locked(what: str) -> Iterator[None]:
    """Allow only one process at a time to work on ``what``."""
    locks = user_cache_folder()
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{what}.lock"):
        yield


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
