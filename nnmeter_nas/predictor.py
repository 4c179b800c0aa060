"""LatencyPredictor: takes a model from an outside format to milliseconds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from .errors import NnMeterNasError, PackError, UnpredictedOperatorError
from .graph.memory import TFLITE, Footprint
from .graph.model_graph import notes_of
from .kernels.batch import as_one_item, has_batch
from .kernels.configuration import Configurations, configuration, kernel_type
from .kernels.fusion import Kernel
from .packs import Pack, find_pack, pack_cards
from .packs.doubt import Doubt
from .packs.intervals import Interval
from .packs.latency import Basis, KernelLatency
from .readers import read_model
from .readers.inputs import InputShape

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from typing_extensions import Self

#: `predict` warns if kernels outside the measured range have more than this share of the latency.
EXTRAPOLATED_SHARE = 0.25
#: `predict` warns if kernels of types that were never measured have more than this share of the latency.
ESTIMATED_SHARE = 0.05
#: About how many kernel latencies a predictor remembers; some 100 MB.
REMEMBERED = 200_000
#: Number of models that `predict_many` holds at a time.
BATCH = 16
#: Level of confidence of intervals, unless another is asked for.
LEVEL = 0.9


#: Mark of a latency in tables and charts, by its basis.
MARKS: dict[Basis, str] = {"measured": "", "extrapolated": " *", "estimated": " ~", "unpredicted": ""}


class LatencyWarning(UserWarning):
    """A predicted latency leaves something out, or does not rest on measurements alone."""


@dataclass(frozen=True)
class Explanation:
    """Where a model's latency goes.

    Attributes:
        device: applied hardware.
        latency_ms: sum over all predicted kernels, and ``offset_ms``.
        kernel_graph: nodes carry ``kernel``, ``latency_ms`` (None if not predicted) and ``basis``: measured,
            extrapolated, estimated or unpredicted.
        shape_mismatches: operators whose shape in the outside format differs from the inferred shape.
        quantized: operators that tell of a quantised network, priced as the float network.
        notes: what else the reader of the model has to say, such as which branch of a condition counts.
        pack: the pack that predicted.
        footprint: memory and size of the model, which are the same on all devices.
        warm_share: share that a network this small takes of what its kernels take in a large one.
    """

    device: str
    latency_ms: float
    kernel_graph: nx.DiGraph
    shape_mismatches: list[str]
    quantized: list[str]
    notes: list[str]
    pack: Pack = field(repr=False)
    footprint: Footprint = field(repr=False)
    warm_share: float = 1.0

    @property
    def offset_ms(self) -> float:
        """Latency in ms that each run takes besides its kernels; calibrated packs know it."""
        return self.pack.offset_ms * self.warm_share if len(self.kernel_graph) else 0.0

    def interval(self, level: float = LEVEL) -> Interval | None:
        """The latency in ms, and the limits that hold the measured one at a level of confidence.

        None if the pack knows no intervals, or the latency leaves an operator out: then nothing tells how
        far it is off.

        Raises:
            ValueError: ``level`` is not between 0.5 and 0.99.
        """
        if self.pack.intervals is None or self.unpredicted or not self.latency_ms or self.doubt is None:
            return None
        return self.pack.intervals.around(self.latency_ms, self.doubt, level)

    @cached_property
    def doubt(self) -> Doubt | None:
        """How far the model is from what was measured; None if the pack does not know what was."""
        nodes = [data for _, data in self.kernel_graph.nodes(data=True)]
        kernels = [as_one_item(data["kernel"]) for data in nodes]
        return self.pack.doubt(kernels, [KernelLatency(data["latency_ms"], data["basis"]) for data in nodes])

    @property
    def memory_bytes(self) -> int | None:
        """Peak activation memory, as onnxruntime uses memory; None if the size of a tensor is unknown."""
        return self.footprint.memory()

    @property
    def memory_tflite_bytes(self) -> int | None:
        """The same, as TensorFlow Lite's own kernels use memory."""
        return self.footprint.memory(TFLITE)

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the weights on disk; None if an operator does not state its weights."""
        return self.footprint.size()

    @property
    def is_predicted(self) -> bool:
        """Whether the sum says something: it has a kernel's latency in it, or there are no kernels."""
        latencies = [ms for _, ms in self.kernel_graph.nodes(data="latency_ms")]
        return not latencies or any(ms is not None for ms in latencies)

    @property
    def title(self) -> str:
        """Latency and device in one line."""
        if not self.is_predicted:
            return f"no kernel predicted on {self.device}"
        interval = self.interval()
        told = f"{self.latency_ms:.3f} ms" if interval is None else str(interval)
        return f"{told} on {self.device}"

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
        """Share of the model's work (multiply-adds, or values written) that is not predicted.

        NaN if it is unknown, because the size of a tensor is, or how often an operator runs.
        """
        if any(kernel.has_unknown_work for kernel in self._kernels("unpredicted").values()):
            return math.nan
        kernels = self.kernel_graph.nodes(data=True)
        found = [configuration(as_one_item(data["kernel"])) for _, data in kernels]
        work = Configurations.of(found).work.macs
        missing = [data["basis"] == "unpredicted" for _, data in kernels]
        return float(work[missing].sum() / work.sum()) if work.any() else 0.0

    @property
    def measured_share(self) -> float:
        """Share of the latency from kernels inside the range measured."""
        return self._share("measured")

    @property
    def extrapolated_share(self) -> float:
        """Share of the latency from kernels of measured types that are outside the measured range."""
        return self._share("extrapolated")

    @property
    def estimated_share(self) -> float:
        """Share of the latency from kernels whose type was never measured on the device."""
        return self._share("estimated")

    def remarks(self) -> list[str]:
        """Lines that a reader of the figures must know; marks as in :data:`MARKS`."""
        lines = []
        if (interval := self.interval()) is not None and (doubt := self.doubt) is not None:
            assert self.pack.intervals is not None
            lines.append(
                f"9 of 10 such models take {interval.low:.4g} to {interval.high:.4g} ms when measured: "
                f"{self.pack.intervals.scale(doubt):.1f} times the least width, as kernels are "
                f"{doubt.distance:.2g} octaves from those measured, their mix is {doubt.unlikeness:.0%} "
                f"unlike the nearest model's, and the pack's members are {doubt.disagreement:.1%} apart"
            )
        told = [self.memory_bytes, self.memory_tflite_bytes, self.size_bytes]
        peak, tflite, size = ("unknown" if n is None else f"{n / 1e6:.3g} MB" for n in told)
        lines.append(
            f"activations take at most {peak} at a time ({tflite} in TensorFlow Lite's own kernels); "
            f"weights on disk: {size}"
        )
        if self.offset_ms:
            share = self.offset_ms / self.latency_ms
            lines.append(f"besides the kernels: {self.offset_ms:.3f} ms, {share:.1%} of the latency")
        if self.warm_share < 1:
            lines.append(
                f"below {self.pack.warmth.below_ms:.3g} ms a network stays in the processor's caches: this "
                f"one takes {self.warm_share:.0%} of what its kernels take in a large network"
            )
        if self.quantized:
            where = f"quantised at {len(self.quantized)} operator(s)"
            lines.append(f"{where}, and priced and sized as the float network")
        if self.extrapolated_share or self.estimated:
            lines.append(f"inside the range measured: {self.measured_share:.1%} of the latency")
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
                f"{self.unpredicted_work}"
            )
        return lines + self.notes

    @property
    def unpredicted_work(self) -> str:
        """What :attr:`unpredicted_share` is, in words."""
        share = self.unpredicted_share
        return "their share of the work is unknown" if math.isnan(share) else f"{share:.1%} of the work"

    def _kernels(self, basis: Basis) -> dict[str, Kernel]:
        nodes = self.kernel_graph.nodes(data=True)
        return {name: data["kernel"] for name, data in nodes if data["basis"] == basis}

    def _share(self, basis: Basis) -> float:
        nodes = self.kernel_graph.nodes(data=True)
        mine = sum(data["latency_ms"] for _, data in nodes if data["basis"] == basis)
        return mine / self.latency_ms if self.latency_ms else 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table  # imported here because predictions print no table

        table = Table(title=self.title, title_justify="left")
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
    """Predicts latency on one device from the graph alone.

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
        allow_quantized: bool = False,
    ) -> float:
        """Latency of ``model`` in ms, batch 1.

        Args:
            model, model_type, input_shape: as :func:`nnmeter_nas.read_model` takes them.
            apply_nni: accepted for compatibility with nn-Meter; NNI's candidates are recognised anyway.
            strict: raise if a prediction would leave out or estimate an operator.
            allow_quantized: price a quantised network as the float network that it stands for.

        Raises:
            UnpredictedOperatorError: with ``strict``, the kernel type of an operator was not measured; or no
                operator can be predicted.
            QuantizedModelError: the model is quantised, and ``allow_quantized`` is False.
            ReaderError, GraphError, ShapeError: the model cannot be read.

        Warns:
            LatencyWarning: once per predictor and kind of operator that is left out, or that is estimated if
                estimates exceed :data:`ESTIMATED_SHARE` of the latency; once if a model is far outside the
                measured range, is quantised, or has nothing to run; once per note of the reader, such as on
                control flow.
        """
        found = self.explain(model, model_type, input_shape, allow_quantized)
        self.check(found, strict)
        return found.latency_ms

    def predict_interval(
        self,
        model: Any,
        level: float = LEVEL,
        model_type: str | None = None,
        input_shape: InputShape | None = None,
        strict: bool = False,
        allow_quantized: bool = False,
    ) -> Interval:
        """Latency of ``model`` in ms with its interval: ``(low, ms, high)``, batch 1.

        The measured latency is within the limits for a share of models of about ``level``. The card says how
        often it was on models held out of training, and on families held out. The interval is wider the more
        of the latency is extrapolated or estimated, the further the kernels are from those measured, and the
        less the members of the pack agree.

        Args:
            level: share of models from 0.5 to 0.99.
            model, model_type, input_shape, strict, allow_quantized: as :meth:`predict` takes them.

        Raises:
            ValueError: ``level`` is out of range.
            PackError: the pack knows no intervals, as packs before 2.1 and nn-Meter's.
            UnpredictedOperatorError: the latency would leave out an operator.
            ReaderError, GraphError, ShapeError: the model cannot be read.

        Warns:
            LatencyWarning: as :meth:`predict`.
        """
        found = self.explain(model, model_type, input_shape, allow_quantized)
        if self.pack.intervals is None:
            raise PackError(
                f"version {self.version} of {self.device} knows no intervals; use a version from 2.1 on"
            )
        self.check(found, strict)
        if not found.latency_ms:
            return Interval(0.0, 0.0, 0.0)
        interval = found.interval(level)
        if interval is None:
            self.check(found, strict=True)
            raise PackError(f"the pack of {self.device} lacks the prototypes that its intervals need")
        return interval

    def predict_many(
        self,
        models: Iterable[Any],
        model_type: str | None = None,
        input_shape: InputShape | None = None,
        strict: bool = False,
        allow_quantized: bool = False,
    ) -> Iterator[float]:
        """Latencies of ``models`` in ms, batch 1, one after another, in order.

        Takes :data:`BATCH` models at a time, for any number of models, and predicts the new kernels among
        them in one call. The last digit may therefore differ from :meth:`predict`.
        ``list(predictor.predict_many(models))`` gives all latencies.

        Args:
            models: each as :meth:`predict` takes it; may be an endless iterator.
            model_type, input_shape, strict, allow_quantized: for all models, as :meth:`predict` takes them.

        Raises:
            NnMeterNasError: as :meth:`predict`, after the latencies of all models before the failing one. The
                message names that by its number (from 0) and its path.

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
                    graphs.append(read_model(model, model_type, input_shape, allow_quantized))
            except Exception as error:  # raised after the latencies before it have been returned
                trouble = error
            for model, found in zip(batch, self.explain_many(graphs), strict=False):  # one may be unread
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
        """Report what the latency in ``found`` leaves out; raises and warns as :meth:`predict`."""
        not_measured: dict[str, set[str]] = {}
        if unpredicted := found.unpredicted:
            message = (
                f"{len(unpredicted)} operator(s), {found.unpredicted_work}, are not predicted on "
                f"{self.device}: {_listed(unpredicted)}"
            )
            if len(unpredicted) == len(found.kernel_graph):
                raise UnpredictedOperatorError(f"nothing of the model is predicted: {message}")
            not_measured[message] = set(unpredicted.values())
        if (estimated := found.estimated) and (strict or found.estimated_share > ESTIMATED_SHARE):
            message = (
                f"{len(estimated)} kernel(s) are estimated on {self.device} ({found.estimated_share:.1%} of "
                f"the latency), where {_kinds(estimated)} was never measured: {_listed(estimated)}"
            )
            not_measured[message] = {f"estimated {name}" for name in estimated.values()}
        if strict and not_measured:
            raise UnpredictedOperatorError("; ".join(not_measured))
        for message, topics in not_measured.items():
            self._warn(message, topics)
        if found.quantized:
            message = "the model is quantised; its latency is that of the float network that it stands for"
            self._warn(message, {"quantised"})
        for note in found.notes:
            self._warn(note, {note})
        if not len(found.kernel_graph):
            message = "the model runs nothing, as its branches are all zero or only reshape its input: 0 ms"
            self._warn(message, {"nothing to run"})
        if found.extrapolated_share > EXTRAPOLATED_SHARE:
            message = (
                f"much of the latency comes from kernels outside the range measured on {self.device} "
                f"({found.extrapolated_share:.0%} of the latency); `explain` lists them"
            )
            self._warn(message, {"outside the range"})

    def explain(
        self,
        model: Any,
        model_type: str | None = None,
        input_shape: InputShape | None = None,
        allow_quantized: bool = False,
    ) -> Explanation:
        """Latency of each kernel of ``model``; arguments and errors as :meth:`predict`."""
        return self.explain_many([read_model(model, model_type, input_shape, allow_quantized)])[0]

    def explain_many(self, graphs: Sequence[nx.DiGraph]) -> list[Explanation]:
        """Latency of each kernel of finished model graphs.

        New kernels are predicted in one call. The others are remembered, since the candidates of a search
        differ in only a few.
        """
        kernel_graphs = [self.pack.kernel_graph(graph) for graph in graphs]
        nodes = [data for kernel_graph in kernel_graphs for _, data in kernel_graph.nodes(data=True)]
        found = self.kernel_latencies([data["kernel"] for data in nodes])
        for data, (ms, basis) in zip(nodes, found, strict=True):
            data.update(latency_ms=ms, basis=basis)
        return [self._explanation(*pair) for pair in zip(graphs, kernel_graphs, strict=True)]

    def kernel_latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel in a network that is not small, see :class:`.Warmth`.

        The kernels must be fused by the rules of this predictor's pack. New forms are predicted in one call.
        """
        forms = [kernel.form for kernel in kernels]
        if len(self._known) > REMEMBERED:
            self._known.clear()
        new = {form: k for form, k in zip(forms, kernels, strict=True) if form not in self._known}
        if new:
            found = self.pack.latencies([as_one_item(kernel) for kernel in new.values()])
            for (form, kernel), latency in zip(new.items(), found, strict=True):
                beyond = latency.basis == "measured" and has_batch(kernel)
                self._known[form] = latency._replace(basis="extrapolated") if beyond else latency
        return [self._known[form] for form in forms]

    def of_parts(self) -> Self:
        """The predictor of models that are parts of large networks, and take what they take there."""
        if not self.pack.warmth.exponent:
            return self
        card = {name: entry for name, entry in self.pack.card.items() if name != "warmth"}
        return type(self)(replace(self.pack, card=card))

    def _explanation(self, graph: nx.DiGraph, kernel_graph: nx.DiGraph) -> Explanation:
        """Sum up the latencies on the nodes of ``kernel_graph``, which become those in this network."""
        nodes = [data for _, data in kernel_graph.nodes(data=True) if data["latency_ms"] is not None]
        total = math.fsum(data["latency_ms"] for data in nodes)
        total += self.pack.offset_ms if len(kernel_graph) else 0.0
        share = float(self.pack.warmth.share(total))
        for data in nodes:
            data["latency_ms"] *= share
        mismatches = [name for name, *_ in graph.graph["shape_mismatches"]]
        quantized = graph.graph["quantized"]
        return Explanation(
            self.device, total * share, kernel_graph, mismatches, quantized, notes_of(graph), self.pack,
            Footprint(graph), share,
        )  # fmt: skip

    def _warn(self, message: str, topics: set[str]) -> None:
        """Warn, unless a warning was already given for each of ``topics``."""
        if not topics <= self._warned:
            warnings.warn(message, LatencyWarning, stacklevel=4)  # points at the caller of predict
            self._warned |= topics

    def __reduce__(self) -> tuple[Any, ...]:
        if self.pack.calibration is not None:  # it may not be stored
            return LatencyPredictor, (self.pack,)
        return load_latency_predictor, (self.device, self.version)

    def __repr__(self) -> str:
        return f"LatencyPredictor({self.device!r}, version={self.version})"


def load_latency_predictor(predictor_name: str, predictor_version: float | None = None) -> LatencyPredictor:
    """Load the predictor of a device. Names match case-insensitively; version None takes the newest.

    Raises:
        UnknownDeviceError: no predictor has that name or version; suggests the nearest name.
        PackError: its pack is damaged.
    """
    return LatencyPredictor(find_pack(predictor_name, predictor_version))


def list_latency_predictors() -> list[dict[str, Any]]:
    """Cards of all predictor packs, the newest version of a device first.

    Warns:
        PackWarning: an imported pack is damaged and is skipped.
    """
    return pack_cards()


def _say_which(error: Exception, number: int, model: Any) -> None:
    """Make an error of this package name the model that caused it."""
    if isinstance(error, NnMeterNasError):
        path = f" ({model})" if isinstance(model, str | Path) and str(model) not in str(error) else ""
        error.args = (f"models[{number}]{path}: {error}",)


def _kinds(operators: Mapping[str, str]) -> str:
    """The kinds in ``operators``, such as ``relu or split``."""
    *most, last = sorted(set(operators.values()))
    return f"{', '.join(most)} or {last}" if most else last


def _listed(operators: Mapping[str, str], limit: int = 5) -> str:
    names = [f"{name} ({op})" for name, op in list(operators.items())[:limit]]
    more = len(operators) - limit
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
