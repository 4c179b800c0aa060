"""What a tool needs: the packages that it asks for, and their size as installed."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nnmeter_nas.errors import MissingPackageError

#: Our packages lie in these folders of the checkout; an editable installation lists none of its files.
_CHECKOUT = Path(__file__).resolve().parents[2]
_OURS = ("nnmeter_nas", "benchmarks", "estimators", "search_spaces", "strategies")


def needs(environments: Iterable[Path], packages: Iterable[str], also: Iterable[str] = ()) -> dict[str, Any]:
    """Return what ``packages`` need, as installed in ``environments``.

    Args:
        environments: virtual environments; a package counts as it is in the first that has it.
        packages: what a user installs.
        also: what they need and do not declare.

    Returns:
        ``packages``, name -> MB, with everything that they ask for; ``also``; and ``requires_python``, the
        Pythons that the first of ``packages`` says it runs on.

    Raises:
        MissingPackageError: no environment has one of the packages.
    """
    folders = [str(path) for one in environments for path in one.glob("lib/python*/site-packages")]
    installed: dict[str, Distribution] = {}
    for folder in folders:
        for one in distributions(path=[folder]):
            installed.setdefault(canonicalize_name(one.metadata["Name"]), one)
    asked, undeclared = list(map(canonicalize_name, packages)), list(map(canonicalize_name, also))
    first, found = asked[0], dict[str, float]()
    waiting: list[str] = [*asked, *undeclared]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        if name not in installed:
            where = ", ".join(folders) or "an environment that is not there"
            raise MissingPackageError(f"no package {name!r} in {where}; `make rivals` sets all up")
        found[name] = _size(installed[name]) / 1e6
        waiting += _asked_for(installed[name])
    return {
        "packages": dict(sorted(found.items())),
        "also": sorted(undeclared),
        "requires_python": installed[first].metadata["Requires-Python"],
    }


def _asked_for(one: Distribution) -> list[str]:
    """Names of the packages that a distribution requires here, without any of its extras."""
    wanted = map(Requirement, one.requires or ())
    return [canonicalize_name(w.name) for w in wanted if w.marker is None or w.marker.evaluate({"extra": ""})]


def _size(one: Distribution) -> int:
    """Bytes of its files, without those that Python compiles."""
    paths = [Path(str(path.locate())) for path in one.files or ()]
    ours = canonicalize_name(one.metadata["Name"]) == "nnmeter-nas"
    if ours and not any(path.name == "__init__.py" for path in paths):
        paths = [path for folder in _OURS for path in (_CHECKOUT / folder).rglob("*")]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())
