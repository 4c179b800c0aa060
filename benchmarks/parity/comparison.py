"""Compare with nn-Meter 2.0: both predict the same models, with the same forests and fusion rules.

nn-Meter runs under its own interpreter, which ``make parity`` sets up. If kernels differ, one of
:data:`DIFFERENCES` must explain it, and the totals must differ by exactly those kernels. ``docs/parity.md``
explains the differences; ``tests/packs/test_nnmeter1_differences.py`` tests them one by one.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import networkx as nx
from rich.console import Console
from rich.table import Table

from nnmeter_nas import LatencyPredictor, read_model
from nnmeter_nas.errors import NnMeterNasError
from nnmeter_nas.extras import load_extra
from nnmeter_nas.files import HOME
from nnmeter_nas.kernels.fusion import Kernel
from nnmeter_nas.packs.nnmeter1.importing import import_predictor
from nnmeter_nas.packs.nnmeter1.predictors import FEATURES, forest_name
from nnmeter_nas.packs.pack import load_pack
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models

from ..packs.reports import STANDARD
from ..pages import markdown_table, replace_sections
from .predictors import write_predictor

#: Formats that we read. nn-Meter reads nn-Meter IR and ONNX; it exports torch modules to ONNX.
FORMATS = ("nnmeter-ir", "onnx", "torch")
#: Relative difference allowed between totals, which are summed in different orders.
_TOLERANCE = 1e-9
#: Significant digits in which features must agree.
_DIGITS = 9
#: First operators of the kernels that nn-Meter may predict; only such kernels are compared.
_HEADS = frozenset(
    ["conv", "dwconv", "fc", "maxpool", "avgpool", "gap", "channelshuffle", "split", "se", "hswish", "bn",
     "relu", "add", "concat"]
)  # fmt: skip
_REFERENCE = Path(__file__).with_name("reference.py")

#: A kernel to compare: its type as nn-Meter names it, and its features if a forest predicts it.
Row = tuple[str, tuple[float, ...] | None]


class ParityError(NnMeterNasError):
    """nn-Meter cannot run, or differs for no known reason."""


@dataclass(frozen=True)
class Difference:
    """A deliberate difference.

    Attributes:
        name: as in the table and in ``docs/parity.md``.
        ours: whether it explains a kernel of ours; takes the kernel graph and the kernel's name.
        theirs: operators that may start the kernels that nn-Meter has instead.
    """

    name: str
    ours: Callable[[nx.DiGraph, str], bool]
    theirs: frozenset[str]


def _kernel(graph: nx.DiGraph, name: str) -> Kernel:
    kernel: Kernel = graph.nodes[name]["kernel"]
    return kernel


def _grouped(graph: nx.DiGraph, name: str) -> bool:
    kernel = _kernel(graph, name)
    return kernel.op == "conv" and kernel.attrs.get("groups", 1) > 1


def _not_square(graph: nx.DiGraph, name: str) -> bool:
    kernel = _kernel(graph, name)
    sizes = (kernel.in_shapes[0][2:], kernel.attrs.get("kernel") or (), kernel.attrs.get("stride") or ())
    return any(len(set(size)) > 1 for size in sizes)


def _hswish(graph: nx.DiGraph, name: str) -> bool:
    kernel = _kernel(graph, name)
    return "hswish" in (kernel.op, *kernel.joined)


def _squeeze_excite(graph: nx.DiGraph, name: str) -> bool:
    return _kernel(graph, name).op == "se" or any(_kernel(graph, n).op == "se" for n in graph.pred[name])


#: The first that explains a kernel counts.
DIFFERENCES = (
    Difference("groups", _grouped, frozenset({"conv"})),
    Difference("not square", _not_square, frozenset({"conv", "dwconv", "maxpool", "avgpool"})),
    Difference(
        "squeeze-excite",
        _squeeze_excite,
        frozenset({"gap", "avgpool", "conv", "relu", "hswish", "add"}),
    ),
    Difference("h-swish", _hswish, frozenset({"conv", "dwconv", "fc", "add", "relu"})),
)


@dataclass(frozen=True)
class Model:
    """A model that both predict.

    Attributes:
        name, format: the network, and the format that we read.
        path: the file that nn-Meter reads. We read it too, unless the format is torch.
    """

    name: str
    format: str
    path: Path

    def read(self) -> nx.DiGraph:
        """Read it into a model graph."""
        if self.format != "torch":
            return read_model(self.path, self.format)
        networks = import_module("nnmeter_nas.benchmarks.networks")
        return read_model(networks.build_network(self.name), "torch", networks.input_shape(self.name))


@dataclass(frozen=True)
class Comparison:
    """One model on one device.

    Attributes:
        kernels: number of our kernels that were compared.
        ours_ms, theirs_ms: the totals, in ms.
        reasons: names of the deliberate differences found.
        unexplained: the differences without a known reason; empty if there are none.
    """

    name: str
    format: str
    device: str
    kernels: int
    ours_ms: float
    theirs_ms: float
    reasons: tuple[str, ...]
    unexplained: str

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The reasons, or ``UNEXPLAINED``."""
        return ("UNEXPLAINED",) if self.unexplained else self.reasons

    @property
    def totals(self) -> str:
        """Both totals, or one if they are equal."""
        ours, theirs = f"{self.ours_ms:.3f}", f"{self.theirs_ms:.3f}"
        return ours if ours == theirs else f"{theirs} / {ours}"


def run_parity(
    python: Path,
    bench: Path | None,
    formats: Sequence[str],
    networks: Sequence[str] | None,
    devices: Sequence[str],
    output: Path | None,
    console: Console,
) -> None:
    """Compare all models, print a table, and write it into the section ``parity`` of ``output``.

    Args:
        python: interpreter of an environment that has nn-Meter 2.0 and onnxsim.
        bench: folder of the bench dataset in the official schema. Its standard networks are the nn-Meter IR
            to compare; without it, no nn-Meter IR is compared.
        formats: from :data:`FORMATS`.
        networks: names of the networks to compare; None compares all.
        devices, output, console: applied hardware, a page of Markdown or None, and where progress is shown.

    Raises:
        ParityError: nn-Meter cannot run, or a difference has no known reason.
    """
    results: list[Comparison] = []
    with TemporaryDirectory() as folder:
        work = Path(folder)
        sources = {device: write_predictor(work / "forests" / device, device) for device in devices}
        predictors = import_forests(sources, work / "home")
        for batch in _batches(bench, formats, networks, work):
            console.print(", ".join(dict.fromkeys(model.name for model in batch)))
            theirs = run_nnmeter(python, sources, batch[0].path, work)
            for model in batch:
                graph = model.read()
                results += [compare(model, graph, p, theirs[p.device]) for p in predictors]
    if not results:
        raise ParityError(f"nothing to compare: no network of {networks} in the formats {formats}")
    Console().print(_table(results))
    if output:
        replace_sections(output, {"parity": _markdown(results)})
    different = [r for r in results if r.unexplained]
    for r in different:
        console.print(f"{r.name} ({r.format}) on {r.device}: {r.unexplained}", markup=False)
    if different:
        raise ParityError(f"{len(different)} of {len(results)} comparisons differ for no known reason")


def compare(
    model: Model, graph: nx.DiGraph, predictor: LatencyPredictor, theirs: Mapping[str, Any]
) -> Comparison:
    """Compare our prediction of ``model``, read as ``graph``, with nn-Meter's (see ``reference.py``).

    Estimates are left out: where nn-Meter has no forest, it adds nothing.
    """
    found = predictor.explain(graph)
    nodes = found.kernel_graph.nodes
    total = math.fsum(data["latency_ms"] for _, data in nodes(data=True) if data["basis"] == "measured")
    ours = [(row, name) for name in nodes if (row := _row(predictor, model, nodes[name]["kernel"]))]
    compared = partial(Comparison, model.name, model.format, predictor.device, len(ours), total)
    if "error" in theirs:
        return compared(math.nan, (), theirs["error"])
    their_rows = [
        ((kernel["type"], _rounded(kernel["row"]) if kernel["predicted"] else None), kernel["ms"])
        for kernel in theirs["kernels"]
        if _head(kernel["type"]) in _HEADS
    ]
    only_ours = _without(ours, Counter(row for row, _ in their_rows))
    only_theirs = _without(their_rows, Counter(row for row, _ in ours))
    reasons: list[Difference] = []
    unexplained = []
    for row, name in only_ours:
        reason = next((d for d in DIFFERENCES if d.ours(found.kernel_graph, name)), None)
        if reason:
            reasons.append(reason)
        else:
            unexplained.append(f"ours {row}")
    replaced = frozenset[str]().union(*(reason.theirs for reason in reasons))
    unexplained += [f"nn-Meter's {row}" for row, _ in only_theirs if _head(row[0]) not in replaced]
    left_out = sum(ms for _, ms in only_theirs)
    added = sum(nodes[name]["latency_ms"] for _, name in only_ours if nodes[name]["basis"] == "measured")
    expected = theirs["total"] - left_out + added
    if abs(total - expected) > _TOLERANCE * expected:
        unexplained.append(f"a total of {total} ms, where those kernels explain {expected} ms")
    names = tuple(dict.fromkeys(reason.name for reason in reasons))
    return compared(theirs["total"], names, "; ".join(unexplained))


def _head(kernel_type: str) -> str:
    return kernel_type.split("-")[0]


def _row(predictor: LatencyPredictor, model: Model, kernel: Kernel) -> Row | None:
    """The row to compare for ``kernel``; None if nn-Meter never predicts such a kernel.

    In ONNX files batch norm is already folded into convolutions; in torch modules it is not.
    """
    if kernel.op not in _HEADS:
        return None
    covered = predictor.pack.predictors.covers(kernel)
    row = _rounded(FEATURES[forest_name(kernel)](kernel)) if covered else None
    return kernel.type.replace("conv-bn", "conv") if model.format == "torch" else kernel.type, row


def _rounded(row: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in row)


def _without(rows: Sequence[tuple[Row, Any]], others: Counter[Row]) -> list[tuple[Row, Any]]:
    """The ``rows`` that have no match in ``others``."""
    left = []
    for row, what in rows:
        if others[row]:
            others[row] -= 1
        else:
            left.append((row, what))
    return left


def import_forests(sources: Mapping[str, Path], home: Path) -> list[LatencyPredictor]:
    """Import the folders as a user would, but into ``home``, and load the predictors."""
    with patch.dict(os.environ, {HOME: str(home)}):
        packs = [load_pack(import_predictor(folder, name)) for name, folder in sources.items()]
    return [LatencyPredictor(pack) for pack in packs]


def run_nnmeter(
    python: Path, sources: Mapping[str, Path], path: Path, work: Path
) -> dict[str, Mapping[str, Any]]:
    """Run nn-Meter on the model in ``path``; return its results by device (see ``reference.py``).

    Args:
        python: interpreter of an environment that has nn-Meter 2.0, and onnxsim for ONNX.
        sources: folder of forests and fusion rules by device.
        path: nn-Meter IR (``.json``) or ONNX (``.onnx``). A simplified model overwrites an ONNX file.
        work: folder for exchanged files; nn-Meter also uses it as its home folder.

    Raises:
        ParityError: nn-Meter does not run. If a model makes nn-Meter raise, the result holds the error.
    """
    job, result = work / "job.json", work / "result.json"
    job.write_text(json.dumps({"predictors": {d: str(f) for d, f in sources.items()}, "model": str(path)}))
    environment = {**os.environ, "HOME": str(work), "USERPROFILE": str(work)}
    try:
        subprocess.run(
            [python, "-I", _REFERENCE, job, result],
            check=True,
            env=environment,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        last = getattr(error, "stderr", None) or str(error)
        raise ParityError(
            f"nn-Meter does not run under {str(python)!r} (`make parity` sets it up): "
            f"{last.strip().splitlines()[-1]}"
        ) from error
    found: dict[str, Mapping[str, Any]] = json.loads(result.read_text(encoding="utf-8"))
    return found


def _batches(
    bench: Path | None, formats: Sequence[str], networks: Sequence[str] | None, work: Path
) -> Iterator[list[Model]]:
    """Yield the models in batches that share a file. The file is deleted before the next batch."""
    if "nnmeter-ir" in formats and bench:
        for source in dataset_files(bench):
            for record in iter_models(source):
                if STANDARD.fullmatch(record.id) and (not networks or record.id in networks):
                    path = work / f"{record.id}.json"
                    path.write_text(json.dumps(record.graph), encoding="utf-8")
                    yield [Model(record.id, "nnmeter-ir", path)]
    through_onnx = [name for name in formats if name != "nnmeter-ir"]
    if through_onnx:
        yield from _exported(through_onnx, networks, work)


def _exported(formats: Sequence[str], networks: Sequence[str] | None, work: Path) -> Iterator[list[Model]]:
    """Export the reference networks to ONNX, one at a time."""
    torch = load_extra("torch", "bench", "exporting networks to ONNX")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    known = import_module("nnmeter_nas.benchmarks.networks")
    for name in known.NETWORKS:
        if not networks or name in networks:
            path, example = work / f"{name}.onnx", torch.zeros(known.input_shape(name))
            network = known.build_network(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # libraries warn about each other
                torch.onnx.export(network, (example,), path, dynamo=True, external_data=False, verbose=False)
            yield [Model(name, format_, path) for format_ in formats]
            path.unlink()


def _rows(results: Sequence[Comparison]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table: one row per model, one column per device."""
    devices = list(dict.fromkeys(r.device for r in results))
    models: dict[tuple[str, str], dict[str, Comparison]] = {}
    for result in results:
        models.setdefault((result.name, result.format), {})[result.device] = result
    rows = []
    for (name, format_), by_device in models.items():
        verdicts = dict.fromkeys(v for r in by_device.values() for v in r.verdicts)
        rows.append([name, format_, *(by_device[d].totals for d in devices), ", ".join(verdicts)])
    return ["network", "read as", *devices, "differs by"], rows


def _table(results: Sequence[Comparison]) -> Table:
    header, rows = _rows(results)
    table = Table(caption="ms; nn-Meter / ours where they differ")
    for column in header:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _markdown(results: Sequence[Comparison]) -> list[str]:
    header, rows = _rows(results)
    return markdown_table(header, range(2, len(header) - 1), rows)
