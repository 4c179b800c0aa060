"""Classes that users register: backends, operators, test cases and kernels, by their names."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import yaml

from ...errors import SettingsError
from ...files import user_folder, write_bytes
from .models import check_implement

#: What is registered once for each way to write models.
_BY_IMPLEMENT = frozenset({"operators", "testcases"})
#: Entries of a meta file that name a class: module -> class.
_CLASSES = {"class_module": "class_name", "sampler_module": "sampler_name", "parser_module": "parser_name"}
_REQUIRED = {
    "backends": ("class_module",),
    "operators": ("class_module",),
    "testcases": ("class_module",),
    "kernels": tuple(_CLASSES),
}


def registered(kind: str) -> dict[str, Any]:
    """Return what is registered of a kind: "backends", "operators", "testcases" or "kernels".

    The entry of an operator or a test case has an entry for each implementation.
    """
    return dict(_read().get(kind, {}))


def listed(kind: str) -> list[str]:
    """Names of what is registered of a kind, as nn-Meter lists them."""
    return [
        f"* {name} ({', '.join(entry)})" if kind in _BY_IMPLEMENT else f"* {name}"
        for name, entry in registered(kind).items()
    ]


def register(kind: str, meta_file: str | Path) -> str:
    """Register the classes that a meta file names; return the name under which they are known.

    Raises:
        SettingsError: the file is no meta file, or a class cannot be imported.
    """
    meta = _meta(Path(meta_file), kind)
    name = str(meta.pop("builtin_name"))
    for module in _REQUIRED[kind]:
        load_class(meta, module)
    default = meta.get("defaultConfigFile")
    if default is not None and not Path(default).is_file():
        raise SettingsError(f"{meta_file}: defaultConfigFile {default} does not exist")
    content = _read()
    known = content.setdefault(kind, {})
    if kind in _BY_IMPLEMENT:
        known.setdefault(name, {})[meta.pop("implement")] = meta
    else:
        known[name] = meta
    _write(content)
    return name


def unregister(kind: str, name: str, implement: str | None = None) -> bool:
    """Forget a name, of operators and test cases for one implementation; return whether it was known."""
    content = _read()
    known = content.get(kind, {})
    if name not in known or (kind in _BY_IMPLEMENT and implement not in known[name]):
        return False
    if kind in _BY_IMPLEMENT:
        del known[name][implement]
    if kind not in _BY_IMPLEMENT or not known[name]:
        del known[name]
    _write(content)
    return True


def load_class(entry: dict[str, Any], module: str = "class_module") -> Any:
    """Return the class that an entry names.

    The module is found in the entry's folder, and may import its neighbours.

    Raises:
        SettingsError: it cannot be imported, or has no such class.
    """
    folder, words = Path(entry["package_location"]).expanduser(), str(entry[module])
    path = folder.joinpath(*words.split(".")).with_suffix(".py")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    # Modules of two packages may have the same name.
    name = f"_nn_meter_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    try:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, path)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is no module of Python")
            found = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
        return getattr(sys.modules[name], entry[_CLASSES[module]])
    except Exception as error:
        if not isinstance(error, AttributeError):
            sys.modules.pop(name, None)
        hint = (
            "; models are written without TensorFlow here, see docs/coming_from_nn_meter.md"
            if (
                isinstance(error, ImportError)
                and (error.name or "").partition(".")[0] in ("tensorflow", "keras")
            )
            else ""
        )
        raise SettingsError(
            f"{entry[_CLASSES[module]]} cannot be imported from {path}: {type(error).__name__}: {error}{hint}"
        ) from error


def _meta(path: Path, kind: str) -> dict[str, Any]:
    """Read a meta file."""
    try:
        meta = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
    needed = ["builtin_name", "package_location"]
    for module in _REQUIRED[kind]:
        needed += [module, _CLASSES[module]]
    if kind in _BY_IMPLEMENT:
        needed.append("implement")
    missing = [key for key in needed if not isinstance(meta, dict) or not meta.get(key)]
    if missing:
        raise SettingsError(f"{path} lacks {', '.join(missing)}")
    if meta.get("implement") is not None:
        check_implement(meta["implement"], f"{path}: implement")
    return dict(meta)


def _file() -> Path:
    return user_folder() / "registry.yaml"


def _read() -> dict[str, Any]:
    if not _file().is_file():
        return {}
    try:
        return dict(yaml.safe_load(_file().read_text(encoding="utf-8")) or {})
    except (ValueError, yaml.YAMLError) as error:
        raise SettingsError(f"{_file()} is damaged, remove it and register again: {error}") from error


def _write(content: dict[str, Any]) -> None:
    write_bytes(_file(), yaml.safe_dump(content).encode())
