"""LatencyPredictor: the way of a model from an outside format to milliseconds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from .errors import NnMeterNasError, UnpredictedOperatorError
from .kernels.configuration import Configurations, configuration, kernel_type
from .kernels.fusion import Kernel
from .packs import Pack, find_pack, pack_cards
from .packs.latency import Basis, KernelLatency
from .readers import read_model
from .readers.inputs import InputShape

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

#: Share of the latency that kernels outside the measured range may have before `predict` warns.
EXTRAPOLATED_SHARE = 0.25
#: Kernels that a predictor remembers the latency of, about; some 100 MB.
REMEMBERED = 200_000
#: Models that `predict_many` holds at a time.
BATCH = 16


#: What marks a latency in tables and charts, by what it rests on.
MARKS: dict[Basis, str] = {"measured": "", "extrapolated": " *", "estimated": " ~", "unpredicted": ""}


class LatencyWarning(UserWarning):
    """A predicted latency leaves something out, or rests on more than what was measured."""


@dataclass(frozen=True)
class Explanation:
    """Where a model's latency goes.

    Attributes:
        device: applied hardware.
        latency_ms: sum over all predicted kernels.
        kernel_graph: nodes carry ``kernel``, ``latency_ms`` (None if not predicted) and ``basis``: whether
            the latency is measured, extrapolated or estimated, or the kernel unpredicted.
        shape_mismatches: operators whose shape in the outside format differs from the inferred one.
    """

    device: str
    latency_ms: float
    kernel_graph: nx.DiGraph
    shape_mismatches: list[str]

    @property
    def unpredicted(self) -> dict[str, str]:
        """Kernels without a latency: name -> canonical operator."""
        return {name: kernel.op for name, kernel in self._kernels("unpredicted").items()}

    @property
    def estimated(self) -> dict[str, str]:
        """Kernels of a type that was never measured on the device: name -> kernel type."""
        return {name: kernel_type(kernel) for name, kernel in self._kernels("estimated").items()}

    @property
    def unpredicted_share(self) -> float:
        """Share of the model's work (multiply-adds, or values written) that is not predicted."""
        kernels = self.kernel_graph.nodes(data=True)
        work = Configurations.of(configuration(data["kernel"]) for _, data in kernels).work.macs
        missing = [data["basis"] == "unpredicted" for _, data in kernels]
        return float(work[missing].sum() / work.sum()) if work.any() else 0.0

    @property
    def extrapolated_share(self) -> float:
        """Share of the latency that comes from kernels of measured types outside the range measured."""
        return self._share("extrapolated")

    @property
    def estimated_share(self) -> float:
        """Share of the latency that comes from kernels of types that were never measured on the device."""
        return self._share("estimated")

    def remarks(self) -> list[str]:
        """What a reader of the figures must know, a line each; the marks are those of :data:`MARKS`."""
        lines = []
        if self.extrapolated_share:
            lines.append(f"* outside the range measured: {self.extrapolated_share:.1%} of the latency")
        if self.estimated:
            lines.append(
                f"~ estimated, as {_kinds(self.estimated)} was never measured on the device: "
                f"{self.estimated_share:.1%} of the latency"
            )
        if self.unpredicted:
            lines.append(
                f"not predicted: {len(self.unpredicted)} operator(s), {_kinds(self.unpredicted)}; "
                f"{self.unpredicted_share:.1%} of the work"
            )
        return lines

    def _kernels(self, basis: Basis) -> dict[str, Kernel]:
        nodes = self.kernel_graph.nodes(data=True)
        return {name: data["kernel"] for name, data in nodes if data["basis"] == basis}

    def _share(self, basis: Basis) -> float:
        nodes = self.kernel_graph.nodes(data=True)
        mine = sum(data["latency_ms"] for _, data in nodes if data["basis"] == basis)
        return mine / self.latency_ms if self.latency_ms else 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table  # late: a prediction prints no table

        table = Table(title=f"{self.latency_ms:.3f} ms on {self.device}", title_justify="left")
        for column in ("kernel", "type", "input", "output"):
            table.add_column(column, overflow="fold")
        table.add_column("ms", justify="right")
        table.add_column("share", justify="right")
        for name, data in self.kernel_graph.nodes(data=True):
            kernel, ms = data["kernel"], data["latency_ms"]
            shapes = ("x".join(map(str, s[0][1:])) for s in (kernel.in_shapes, kernel.out_shapes))
            figures = ("not predicted", "")
            if ms is not None:
                figures = f"{ms:.4f}{MARKS[data['basis']]}", f"{ms / self.latency_ms:.1%}"
            table.add_row(name, kernel.type, *shapes, *figures)
        yield table
        yield from self.remarks()
        if self.shape_mismatches:
            yield f"stale shapes in the model, inferred anew: {', '.join(self.shape_mismatches[:5])}"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, record=False, color_system=None)
        with console.capture() as captured:
            console.print(self)
        return captured.get()


class LatencyPredictor:
    """Predicts latency on one device, from the graph alone.

    Args:
        pack: the device's predictor pack.
    """

    def __init__(self, pack: Pack) -> None:
        self.pack = pack
        self._warned: set[str] = set()
        self._known: dict[Hashable, KernelLatency] = {}

    @property
    def device(self) -> str:
        """Applied hardware."""
        return self.pack.name

    @property
    def version(self) -> float:
        """Version of the pack."""
        return self.pack.version

    def predict(
        self,
        model: Any,
        model_type: str | None = None,
        input_shape: InputShape | None = None,
        apply_nni: bool = False,
        strict: bool = False,
    ) -> float:
        """Latency of ``model`` in ms, batch 1.

        Args:
            model, model_type, input_shape: as :func:`nnmeter_nas.read_model` takes them.
            apply_nni: accepted for nn-Meter's sake; candidates of NNI are recognised.
            strict: raise where a prediction would leave an operator out, or estimate one.

        Raises:
            UnpredictedOperatorError: under ``strict``, an operator is of a kernel type that was not measured.
            ReaderError, GraphError, ShapeError: the model cannot be read.

        Warns:
            LatencyWarning: once a predictor for each kind of operator that is left out or estimated, and
                once if a model is far outside what was measured or has nothing to run.
        """
        found = self.explain(model, model_type, input_shape)
        self.check(found, strict)
        return found.latency_ms

    def predict_many(
        self,
        models: Iterable[Any],
        model_type: str | None = None,
        input_shape: InputShape | None = None,
        strict: bool = False,
    ) -> Iterator[float]:
        """Latencies of ``models`` in ms, batch 1, one after another, in their order.

        :data:`BATCH` models are taken at a time, however many there are, and what is new among their kernels
        is predicted in one call. That may change the last digit, beside :meth:`predict`.
        ``list(predictor.predict_many(models))`` gives all at once.

        Args:
            models: each as :meth:`predict` takes it; may be an iterator without end.
            model_type, input_shape, strict: of all of them, as :meth:`predict` takes them.

        Raises:
            NnMeterNasError: as :meth:`predict`, after the latencies of all models before the one at fault;
                the message names that by its number, from 0, and its path.

        Warns:
            LatencyWarning: as :meth:`predict`, for all models together.
        """
        left, done = iter(models), 0
        while True:
            batch: list[Any] = []
            graphs: list[nx.DiGraph] = []
            trouble: Exception | None = None
            try:
                for model in islice(left, BATCH):
                    batch.append(model)
                    graphs.append(read_model(model, model_type, input_shape))
            except Exception as error:  # waits until the latencies before it are given
                trouble = error
            for model, found in zip(batch, self.explain_many(graphs), strict=False):  # one may be at fault
                try:
                    self.check(found, strict)
                except UnpredictedOperatorError as error:
                    _say_which(error, done, model)
                    raise
                yield found.latency_ms
                done += 1
            if trouble is not None:
                if len(batch) > len(graphs):
                    _say_which(trouble, done, batch[-1])
                raise trouble
            if len(batch) < BATCH:
                return

    def check(self, found: Explanation, strict: bool = False) -> None:
        """Say what the latency in ``found`` leaves out; raises and warns as :meth:`predict` does."""
        not_measured: dict[str, set[str]] = {}
        if unpredicted := found.unpredicted:
            message = (
                f"{len(unpredicted)} operator(s), {found.unpredicted_share:.1%} of the work, are not "
                f"predicted on {self.device}: {_listed(unpredicted)}"
            )
            not_measured[message] = set(unpredicted.values())
        if estimated := found.estimated:
            message = (
                f"{len(estimated)} kernel(s), {found.estimated_share:.1%} of the latency, are estimated on "
                f"{self.device}, where {_kinds(estimated)} was never measured: {_listed(estimated)}"
            )
            not_measured[message] = {f"estimated {name}" for name in estimated.values()}
        if strict and not_measured:
            raise UnpredictedOperatorError("; ".join(not_measured))
        for message, topics in not_measured.items():
            self._warn(message, topics)
        if not len(found.kernel_graph):
            message = "the model runs nothing, as its branches are all zero or only reshape its input: 0 ms"
            self._warn(message, {"nothing to run"})
        if found.extrapolated_share > EXTRAPOLATED_SHARE:
            message = (
                f"{found.extrapolated_share:.0%} of the predicted latency comes from kernels outside the "
                f"range measured on {self.device}; `explain` lists them"
            )
            self._warn(message, {"outside the range"})

    def explain(
        self, model: Any, model_type: str | None = None, input_shape: InputShape | None = None
    ) -> Explanation:
        """Latency of each kernel of ``model``; arguments and errors as :meth:`predict`."""
        return self.explain_many([read_model(model, model_type, input_shape)])[0]

    def explain_many(self, graphs: Sequence[nx.DiGraph]) -> list[Explanation]:
        """Latency of each kernel of finished model graphs.

        Kernels that no earlier graph had are predicted in one call. The others are remembered, since the
        candidates of a search differ in few.
        """
        kernel_graphs = [self.pack.kernel_graph(graph) for graph in graphs]
        nodes = [data for kernel_graph in kernel_graphs for _, data in kernel_graph.nodes(data=True)]
        found = self.kernel_latencies([data["kernel"] for data in nodes])
        for data, (ms, basis) in zip(nodes, found, strict=True):
            data.update(latency_ms=ms, basis=basis)
        return [self._explanation(*pair) for pair in zip(graphs, kernel_graphs, strict=True)]

    def kernel_latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel.

        The kernels must be fused by the rules of this predictor's pack. New forms are predicted in one call.
        """
        forms = [kernel.form for kernel in kernels]
        if len(self._known) > REMEMBERED:
            self._known.clear()
        new = {form: k for form, k in zip(forms, kernels, strict=True) if form not in self._known}
        if new:
            found = self.pack.predictors.latencies(list(new.values()))
            self._known.update(zip(new, found, strict=True))
        return [self._known[form] for form in forms]

    def _explanation(self, graph: nx.DiGraph, kernel_graph: nx.DiGraph) -> Explanation:
        """What the latencies on the nodes of ``kernel_graph`` come to."""
        latencies = kernel_graph.nodes(data="latency_ms")
        total = math.fsum(ms for _, ms in latencies if ms is not None)
        mismatches = [name for name, *_ in graph.graph["shape_mismatches"]]
        return Explanation(self.device, total, kernel_graph, mismatches)

    def _warn(self, message: str, topics: set[str]) -> None:
        """Warn, unless each of ``topics`` was warned of before."""
        if not topics <= self._warned:
            warnings.warn(message, LatencyWarning, stacklevel=4)  # where the caller of predict stands
            self._warned |= topics

    def __reduce__(self) -> tuple[Any, ...]:
        return load_latency_predictor, (self.device, self.version)

    def __repr__(self) -> str:
        return f"LatencyPredictor({self.device!r}, version={self.version})"


def load_latency_predictor(predictor_name: str, predictor_version: float | None = None) -> LatencyPredictor:
    """The predictor of a device; names match case-insensitively, None takes the newest version.

    Raises:
        UnknownDeviceError: there is none by that name or version; suggests the nearest.
        PackError: its pack is damaged.
    """
    return LatencyPredictor(find_pack(predictor_name, predictor_version))


def list_latency_predictors() -> list[dict[str, Any]]:
    """Cards of all predictor packs, newest version of a device first.

    Warns:
        PackWarning: an imported pack is damaged, and left out.
    """
    return pack_cards()


def _say_which(error: Exception, number: int, model: Any) -> None:
    """Make one of our errors name the model that it is about."""
    if isinstance(error, NnMeterNasError):
        path = f" ({model})" if isinstance(model, str | Path) and str(model) not in str(error) else ""
        error.args = (f"models[{number}]{path}: {error}",)


def _kinds(operators: Mapping[str, str]) -> str:
    """The kinds among ``operators``, such as ``relu or split``."""
    *most, last = sorted(set(operators.values()))
    return f"{', '.join(most)} or {last}" if most else last


def _listed(operators: Mapping[str, str], limit: int = 5) -> str:
    names = [f"{name} ({op})" for name, op in list(operators.items())[:limit]]
    more = len(operators) - limit
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
