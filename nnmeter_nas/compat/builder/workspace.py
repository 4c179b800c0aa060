"""nn-Meter's workspace: a folder with three YAML files, and ``builder_config``, which holds them."""

from __future__ import annotations

import os
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ...errors import WorkspaceError
from ...files import write_bytes
from .settings import check_predbuild, check_ruletest

__all__ = ["ConfigData", "ConfigManager", "builder_config", "copy_to_workspace", "load_config_file"]

_CREATE = "create the workspace first: nn-meter create --tflite-workspace PATH"
#: Files of a workspace: section of the settings -> name.
_FILES = {
    "backend": "backend_config.yaml",
    "ruletest": "ruletest_config.yaml",
    "predbuild": "predictorbuild_config.yaml",
}
#: Folders of a workspace: section -> name.
_FOLDERS = {"ruletest": "fusion_rule_test", "predbuild": "predictor_build"}


class ConfigManager:
    """The settings of the workspace in use."""

    def __init__(self) -> None:
        self.workspace_path = ""
        self._settings: dict[str, Any] = {}

    def init(self, workspace_path: str) -> None:
        """Use a workspace, and read its settings again if it is in use.

        Raises:
            WorkspaceError: it is no workspace, or a file or a setting of it is wrong.
        """
        found = dict(zip(_FILES, load_config_file(workspace_path), strict=True))
        for section, folder in _FOLDERS.items():
            found[section]["WORKSPACE"] = os.path.join(workspace_path, folder)
        self.workspace_path, self._settings = workspace_path, found

    def file(self, module: str) -> Path:
        """Path of the file of a section."""
        return Path(self.workspace_path, "configs", _FILES[module])

    def get(self, name: str, module: str = "") -> Any:
        """Return a setting of the section ``module``: "backend", "ruletest" or "predbuild"; None if unset.

        Raises:
            WorkspaceError: no workspace is in use.
        """
        return (self.get_module(module) or {}).get(name)

    def get_module(self, module: str = "") -> Any:
        """Return a section of the settings.

        Raises:
            WorkspaceError: no workspace is in use.
        """
        if module not in self._settings:
            raise WorkspaceError(
                f"no workspace is in use, so {module!r} has no settings; call builder_config.init(PATH), or "
                + _CREATE
            )
        return self._settings[module]

    def set(self, name: str, value: Any, module: str = "") -> None:
        """Change a setting in memory."""
        self.get_module(module)[name] = value

    def set_module(self, value: Any, module: str = "") -> None:
        """Change a section of the settings in memory."""
        self._settings[module] = value

    def get_settings(self) -> dict[str, Any]:
        """Return all settings."""
        return self._settings


#: nn-Meter's name of what holds the settings.
ConfigData = ConfigManager
builder_config = ConfigManager()


def copy_to_workspace(
    backend_type: str,
    workspace_path: str,
    backendConfigFile: str | None = None,  # noqa: N803 nn-Meter's name
) -> None:
    """Write the default settings into a workspace, which is made if it does not exist.

    Args:
        backend_type: "tflite", "openvino" or "customized".
        workspace_path: the workspace.
        backendConfigFile: settings of a customized backend, if it has any.
    """
    folder = Path(workspace_path, "configs")
    folder.mkdir(parents=True, exist_ok=True)
    if backend_type != "customized":
        _copy_default(f"backend_{backend_type}_config.yaml", folder / _FILES["backend"])
    elif backendConfigFile:
        shutil.copyfile(backendConfigFile, folder / _FILES["backend"])
    for section in _FOLDERS:
        _copy_default(_FILES[section], folder / _FILES[section])


def _copy_default(name: str, path: Path) -> None:
    source = resources.files("nnmeter_nas") / "data" / "nn_meter_builder" / name
    write_bytes(path, source.read_bytes())


def load_config_file(workspace_path: str) -> tuple[Any, Any, Any]:
    """Read the settings of a workspace: of the backend, if it has any, of the fusion test, and of kernels.

    Raises:
        WorkspaceError: a file is missing or no YAML, or a setting is missing, misspelt or of the wrong kind.
            What a backend's mean is the backend's business.
    """
    backend, ruletest, predbuild = (Path(workspace_path, "configs", name) for name in _FILES.values())
    found = _read(backend) if backend.is_file() else None, _read(ruletest), _read(predbuild)
    check_ruletest(ruletest, found[1])
    check_predbuild(predbuild, found[2])
    return found


def _read(path: Path) -> Any:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise WorkspaceError(f"{path} cannot be read: {error}; {_CREATE}") from error
    if not isinstance(found, dict):
        raise WorkspaceError(f"{path} is no mapping of settings to values")
    return found
