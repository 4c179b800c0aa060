"""Pages of the public Python names, from signatures and docstrings.

The source is read and not run, so that neither torch nor NNI has to be there, in whichever version.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docstrings import summary, to_markdown
from repository import REPOSITORY

#: Modules whose public names have a page, in this order. A package's are those in its ``__all__``.
MODULES = (
    "nnmeter_nas",
    "nnmeter_nas.calibrate",
    "nnmeter_nas.readers",
    "nnmeter_nas.strategies",
    "nnmeter_nas.estimators",
    "nnmeter_nas.estimators.latency_profiler",
    "nnmeter_nas.search_spaces",
    "nnmeter_nas.supernet",
    "nnmeter_nas.costs",
    "nnmeter_nas.solve.ranking",
    "nnmeter_nas.solve.sampling",
    "nnmeter_nas.solve.survey",
    "nnmeter_nas.solve.likeliest",
    "nnmeter_nas.backends",
    "nnmeter_nas.packs",
    "nnmeter_nas.kernels",
    "nnmeter_nas.graph",
    "nnmeter_nas.graph.work",
    "nnmeter_nas.ops",
    "nnmeter_nas.nni",
    "nnmeter_nas.compat",
    "nnmeter_nas.parallel.bulk",
    "nnmeter_nas.benchmarks.networks",
    "nnmeter_nas.errors",
)
#: Packages that stand at the top of the repository.
_AT_THE_TOP = ("benchmarks", "estimators", "search_spaces", "strategies")
#: A signature that is longer than this has each argument on a line of its own.
_LINE = 96
_START = """\
# Python

The public names, from their docstrings. Everything else may change without notice.

| module | what it is for |
| --- | --- |
"""

Definition = ast.ClassDef | ast.FunctionDef


def python_pages() -> Iterator[tuple[str, str]]:
    """Name on the site and Markdown of each page: the list of modules, then each of them."""
    index = _START
    for name in MODULES:
        module = _Module.of(name)
        index += f"| [`{name}`]({name}.md) | {summary(module.docstring)} |\n"
        yield f"reference/python/{name}.md", _module_page(module)
    yield "reference/python/index.md", index


@dataclass(frozen=True)
class _Module:
    """A module's source."""

    name: str
    tree: ast.Module

    @classmethod
    def of(cls, name: str) -> _Module:
        """Parse the module of this import name."""
        return cls(name, ast.parse(_path(name).read_text(encoding="utf-8")))

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.tree) or ""

    def statements(self) -> Iterator[ast.stmt]:
        """Statements of the module, and those for type checkers alone."""
        for statement in self.tree.body:
            if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
                yield from statement.body
            yield statement

    def public(self) -> list[str]:
        """Names in ``__all__``, or names defined here, without modules."""
        for statement in self.tree.body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__":
                if isinstance(statement.value, ast.List):
                    return [ast.literal_eval(name) for name in statement.value.elts]
                return sorted(self.origins())  # the names that it loads on first use
        found = [node.name for node in self.tree.body if isinstance(node, Definition)]
        return [name for name in found if not name.startswith("_")]

    def origins(self) -> dict[str, str]:
        """Name that is imported here -> the module that it comes from."""
        is_package = _path(self.name).name == "__init__.py"
        found = {}
        for statement in self.statements():
            if isinstance(statement, ast.ImportFrom):
                base = self.name.split(".")
                base = base[: len(base) - statement.level + is_package] if statement.level else []
                home = ".".join([*base, *([statement.module] if statement.module else [])])
                if home.startswith("nnmeter_nas") and home != self.name:  # a package imports its modules
                    found.update({name.asname or name.name: home for name in statement.names})
        return {name: home for name, home in found.items() if name != "lazy_names"}

    def definition(self, name: str) -> Definition | None:
        """The class or function of this name, here or where it is imported from; None if it is a value."""
        for statement in self.tree.body:
            if isinstance(statement, Definition) and statement.name == name:
                return statement
        home = self.origins().get(name)
        return _Module.of(home).definition(name) if home and _path(home).exists() else None


def _path(name: str) -> Path:
    """File of a module by its import name."""
    parts = name.split(".")
    inside = parts[1:] if parts[1:2] and parts[1] in _AT_THE_TOP else parts
    package = REPOSITORY.joinpath(*inside)
    return package / "__init__.py" if package.is_dir() else package.with_suffix(".py")


def _module_page(module: _Module) -> str:
    parts = [f"# `{module.name}`", to_markdown(module.docstring)]
    for name in module.public():
        found = module.definition(name)
        if found is not None:
            parts.append(_entry(found))
    return "\n\n".join(part for part in parts if part) + "\n"


def _entry(node: Definition) -> str:
    """Heading, signature and docstring; of a class also its public methods."""
    parts = [f"## `{node.name}`", _signature(node), to_markdown(ast.get_docstring(node) or "")]
    if isinstance(node, ast.ClassDef):
        for method in _methods(node):
            called = _signature(method) if not _is_property(method) else ""
            told = to_markdown(ast.get_docstring(method) or "")
            parts += [f"### `{node.name}.{method.name}`", called, told]
    return "\n\n".join(part for part in parts if part)


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods with a docstring, in their order; an override without one says nothing new."""
    found = [method for method in node.body if isinstance(method, ast.FunctionDef)]
    return [method for method in found if not method.name.startswith("_") and ast.get_docstring(method)]


def _is_property(method: ast.FunctionDef) -> bool:
    return any(ast.unparse(mark).endswith("property") for mark in method.decorator_list)


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        arguments, result = _made_with(node), ""
        name = f"class {node.name}"
    else:
        arguments, result = _arguments(node), f" -> {ast.unparse(node.returns)}" if node.returns else ""
        name = node.name
    line = f"{name}({', '.join(arguments)}){result}"
    if len(line) > _LINE:
        line = f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){result}"
    return f"```python\n{line}\n```"


def _made_with(node: ast.ClassDef) -> list[str]:
    """Arguments of a class: of its ``__init__``, or the fields of a dataclass."""
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return _arguments(method)
    if not any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
        return []
    fields = [field for field in node.body if isinstance(field, ast.AnnAssign)]
    return [ast.unparse(field) for field in fields if not ast.unparse(field.target).startswith("_")]


def _arguments(node: ast.FunctionDef) -> list[str]:
    """Arguments with their types and defaults, without that which stands for the object or its class."""
    given = node.args
    positional = given.posonlyargs + given.args
    defaults = [None] * (len(positional) - len(given.defaults)) + given.defaults
    found = [_argument(*pair) for pair in zip(positional, defaults, strict=True)]
    if positional and positional[0].arg in ("self", "cls"):
        found = found[1:]
    if given.vararg:
        found.append(f"*{_argument(given.vararg, None)}")
    elif given.kwonlyargs:
        found.append("*")
    found += [_argument(*pair) for pair in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return [*found, f"**{_argument(given.kwarg, None)}"] if given.kwarg else found


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    if default is None:
        return text
    return f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"
