"""Compiled models, kept on the disk: a build visits a network several times; compiling takes longest."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...files import digest, user_cache_folder, write_bytes
from ..quiet import no_messages
from .compiling import Compiled, Fused, compiled, fuse, this_machine
from .imports import load_tvm

#: The folder holds about so many bytes; what was used longest ago goes first.
_MOST_BYTES = 1 << 30
#: What is known of a program was written by this version of the code below.
_VERSION = 2
#: Suffixes of the program, and of what is known of it.
_LIBRARY, _KNOWN = ".so", ".json"


class Program(NamedTuple):
    """A compiled model that can be run.

    Attributes:
        library: what TVM's virtual machine runs.
        kernels: for each kernel, in order of execution, its name and the nodes of the file that it runs; None
            if TVM does not tell.
        shapes: those of the inputs, in order.
    """

    library: Any
    kernels: list[tuple[str, tuple[str, ...]]] | None
    shapes: tuple[tuple[int, ...], ...]


def program(
    content: bytes, records: Any = None, of_records: str = "", fused: Fused | None = None
) -> Program:
    """Compile an ONNX model, unless that was done before.

    Args:
        content: the file.
        fused: the model, if it was fused already.
        records: a database of tuning records, or None.
        of_records: tells these records from others.
    """
    tvm = load_tvm()
    target = this_machine()
    file = hashlib.sha256(content).hexdigest()
    key = digest([_VERSION, file, str(tvm.__version__), str(target), of_records])
    path = user_cache_folder() / "tvm" / f"{key}{_LIBRARY}"
    if not path.exists():
        fused = fused or fuse(content, target)
        made = compiled(fused, target, records)
        nodes = nodes_of(fused, made)
        if tvm.support.cc.get_cc() is None:  # without a linker it cannot be kept
            return Program(made.program, nodes, fused.shapes)
        known = {"kernels": nodes, "shapes": fused.shapes}
        write_bytes(path.with_suffix(_KNOWN), json.dumps(known).encode())
        export(made.program, path)
        _drop_oldest(path.parent)
    os.utime(path)
    known = json.loads(path.with_suffix(_KNOWN).read_text(encoding="utf-8"))
    return loaded(path, known["kernels"], known["shapes"])


def loaded(path: Path, kernels: Sequence[Any] | None, shapes: Sequence[Sequence[int]]) -> Program:
    """Load a compiled model, of which ``kernels`` and ``shapes`` are known."""
    tvm = load_tvm()
    with no_messages():
        library = tvm.runtime.load_module(str(path))
    told = None if kernels is None else [(str(name), tuple(nodes)) for name, nodes in kernels]
    return Program(library, told, tuple(map(tuple, shapes)))


def export(program: Any, path: Path) -> None:
    """Write what TVM compiled as a library, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = Path(folder) / path.name
        with no_messages():
            program.export_library(str(written))
        os.replace(written, path)


def nodes_of(fused: Fused, made: Compiled) -> list[tuple[str, tuple[str, ...]]] | None:
    """The kernels of a compiled model, each with the names of its nodes, as the file has them."""
    if made.kernels is None:
        return None
    return [(kernel.function, tuple(fused.nodes[node] for node in kernel.nodes)) for kernel in made.kernels]


def _drop_oldest(folder: Path) -> None:
    """Remove the programs that were used longest ago, as far as the folder holds too much."""
    held = 0
    for path in sorted(folder.glob(f"*{_LIBRARY}"), key=lambda one: one.stat().st_mtime, reverse=True):
        held += path.stat().st_size
        if held > _MOST_BYTES:
            path.unlink(missing_ok=True)
            path.with_suffix(_KNOWN).unlink(missing_ok=True)
