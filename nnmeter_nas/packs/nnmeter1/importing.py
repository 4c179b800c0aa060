"""Import nn-Meter's predictors: turn a folder or zip of pickled forests into a predictor pack of the user's.

Nothing is unpickled, and no zip is extracted: members are read by name, one at a time, and decoded by
:mod:`.pickles`. No partial pack ever appears: it is written next to its final place and then renamed. If the
same source is imported again, an undamaged pack stays as it is. If another source is imported under the name
and version of a user's pack, it replaces that pack. Packs that ship with the package are never replaced.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import PackError, nearest
from ...files import write_bytes
from ..pack import (
    CARD,
    RULE_FILE,
    forest_file,
    parse_rule_file,
    read_card,
    read_yaml,
    verify_pack,
    write_card,
    write_checksums,
)
from ..registry import devices, pack_folders, user_packs
from ..store import check_device_name, check_version, locked, user_pack, written_pack
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
#: What nn-Meter's fusion test calls the file of rules that it writes.
_DETECTED = "detected_fusion_rule.json"


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
        with locked(f"url-{hashlib.sha256(url.encode()).hexdigest()[:16]}"):
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
    if not (location / RULE_FILE).exists() and (location / _DETECTED).exists():
        raise PackError(f"{location} lacks {RULE_FILE}; rename {_DETECTED} there, which is that file")
    with shown(progress) as report:
        return _import(PickleFolder(location), meta, _Wishes(), str(location), report)


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
    stated = meta.get("version", _RELEASED_VERSION)
    version = check_version(stated if wishes.version is None else wishes.version)
    kernels = kernels_of(members)
    wanted = meta.get("kernel_predictors") or (RELEASED[name] if origin == _release_url(name) else ())
    missing = [f"{kernel}{PICKLE_SUFFIX}" for kernel in sorted(set(wanted) - set(kernels))]
    if missing or not kernels:
        what = ", ".join(missing) or f"pickled forests (*{PICKLE_SUFFIX})"
        raise PackError(f"{members.label} lacks {what}")
    rule_file = read_text(members, RULE_FILE)
    parse_rule_file(rule_file, f"{RULE_FILE} of {members.label}")
    folder = user_pack(name, version)
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
    with locked(f"{name}-{version}"):
        if not _is_there(folder, digest):
            with written_pack(folder) as partial:
                _write(partial, members, card, rule_file, report)
    return folder


def _write(folder: Path, members: Members, card: dict[str, Any], rule_file: bytes, report: Progress) -> None:
    """Write the pack into ``folder``."""
    write_bytes(folder / RULE_FILE, rule_file)
    kernels, sizes = card["kernel_types"], members.sizes
    total = sum(sizes[f"{kernel}{PICKLE_SUFFIX}"] for kernel in kernels)
    forests, done = {}, 0
    for kernel in kernels:
        report(f"importing {card['name']}", done, total)
        forests[kernel] = _write_forest(folder, members, kernel)
        done += sizes[f"{kernel}{PICKLE_SUFFIX}"]
    report(f"importing {card['name']}", done, total)
    write_card(folder, {**card, "forests": forests})
    write_checksums(folder, [CARD, RULE_FILE, *map(forest_file, kernels)])


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
    """``name`` in the spelling of nn-Meter or of a known pack, or else unchanged."""
    name = check_device_name(name, label)
    return next((device for device in RELEASED if device.lower() == name.lower()), name)
