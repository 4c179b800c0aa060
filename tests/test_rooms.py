"""Imports run one way: each room knows the rooms below it, and no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import networkx as nx
import pytest

from layout import SOURCES

#: The rooms from the bottom up: a room imports from rooms before it. What each is for: docs/architecture.md.
ORDER = (
    # what everything stands on
    "errors", "lazy", "extras", "files", "journal", "metrics", "drawing", "pages", "progress",
    # a model: operators, graphs, kernels, formats, packs, latency
    "ops", "graph", "kernels", "readers", "packs", "training", "predictor", "calibrate", "nnmeter_nas",
    # a device of the user's: running networks on it, and making a pack of what they take
    "backends", "builder",
    # a space: its choices, what they cost, the best of them
    "supernet", "parallel", "costs", "solve",
    # an experiment of NNI: what differs between its lines, the plugins, and running one
    "nni", "search_spaces", "strategies", "estimators", "search",
    # ways in
    "compat", "nn_meter_compat", "cli", "benchmarks",
)  # fmt: skip

#: Modules that load a plugin by the name that a user gives, and the room that their own names lead to.
NAMES_OF_PLUGINS = {
    ("nnmeter_nas.supernet.named", "search_spaces"),
}


@cache
def modules() -> dict[str, tuple[ast.Module, bool]]:
    """Every module of the checkout: its code, and whether it is a package."""
    found = {}
    for package, folder in SOURCES.items():
        for path in folder.rglob("*.py"):
            parts = [*package.split("."), *path.relative_to(folder).with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8")), is_package
    return found


def room(module: str) -> str:
    """The room of a module; the package itself, with its public names, is one of its own."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else parts[0]


def imports(module: str) -> Iterator[tuple[str, int]]:
    """What a module imports of the package: at its top, in functions, by ``import_module``; with the line."""
    code, is_package = modules()[module]
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(code):
        named: list[str] = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            named = [
                full if (full := f"{origin}.{alias.name}") in modules() else origin for alias in node.names
            ]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "load_extra")):
            named = [str(argument.value) for argument in node.args if isinstance(argument, ast.Constant)]
        for name in named:
            if name in modules() and name != module:
                yield name, getattr(node, "lineno", 0)


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in modules()} - set(ORDER) == set()


@pytest.mark.parametrize("here", ORDER)
def test_a_room_imports_from_lower_rooms_alone(here: str) -> None:
    upward = [
        f"{module}:{line} imports {other}"
        for module in modules() if room(module) == here
        for other, line in imports(module)
        if ORDER.index(room(other)) > ORDER.index(here) and (module, room(other)) not in NAMES_OF_PLUGINS
    ]  # fmt: skip
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    arrows = nx.DiGraph((module, other) for module in modules() for other, _ in imports(module))
    assert [sorted(circle) for circle in nx.strongly_connected_components(arrows) if len(circle) > 1] == []


def test_the_check_sees_every_way_to_import() -> None:
    code = (
        "from ..solve import problem\nfrom nnmeter_nas import predictor\nimport nnmeter_nas.costs\n"
        "def f():\n    from .named import load_space\n    import_module('nnmeter_nas.search_spaces')\n"
    )
    modules()["nnmeter_nas.supernet.made_up"] = ast.parse(code), False
    try:
        seen = {name for name, _ in imports("nnmeter_nas.supernet.made_up")}
    finally:
        del modules()["nnmeter_nas.supernet.made_up"]
    assert seen == {
        "nnmeter_nas.solve.problem", "nnmeter_nas.predictor", "nnmeter_nas.costs",
        "nnmeter_nas.supernet.named", "nnmeter_nas.search_spaces",
    }  # fmt: skip
