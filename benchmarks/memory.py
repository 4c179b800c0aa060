"""Peak memory and size of networks as predicted, beside what onnxruntime and LiteRT take."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from nnmeter_nas.backends.quiet import no_messages
from nnmeter_nas.errors import DatasetError, NnMeterNasError
from nnmeter_nas.extras import load_extra
from nnmeter_nas.graph.memory import TFLITE, peak_memory, weights_size
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.tflite.writer import to_tflite

from .pages import markdown_table, replace_sections

#: Section of the page.
SECTION = "memory"
#: A prediction is right up to this relative difference.
RIGHT = 0.1
#: Tensors further apart than this are not in one arena.
_GAP = 4096
_HEADER = (
    "network", "onnxruntime (MB)", "predicted", "off", "LiteRT (MB)", "predicted", "off",
    ".onnx (MB)", ".tflite (MB)", "size", "off",
)  # fmt: skip


class Compared(NamedTuple):
    """One network, all in bytes; None if a runtime does not take it.

    Attributes:
        network: its name.
        ort, ort_said: peak memory in onnxruntime, measured and predicted.
        lite, lite_said: the same in LiteRT's own kernels.
        onnx, tflite: size of its files.
        size: size of its weights, predicted.
    """

    network: str
    ort: int
    ort_said: int
    lite: int | None
    lite_said: int
    onnx: int
    tflite: int | None
    size: int

    @property
    def cells(self) -> list[str]:
        """What a table shows."""
        return [
            self.network,
            *_pair(self.ort, self.ort_said),
            *_pair(self.lite, self.lite_said),
            _mb(self.onnx),
            _mb(self.tflite),
            *_pair(self.onnx, self.size)[1:],
        ]


def compare_memory(folder: Path, console: Console, page: Path | None = None) -> None:
    """Measure every ONNX file of ``folder`` in both runtimes, and print what was predicted beside it.

    Args:
        folder: folder of ONNX files with one input each, in float32.
        console: where the table goes.
        page: a Markdown file whose section ``memory`` becomes the table, too.

    Raises:
        DatasetError: the folder holds no ONNX file; ``page`` lacks the marks of its section.
        MissingPackageError: a runtime is not installed.
    """
    files = sorted(folder.glob("*.onnx"))
    if not files:
        raise DatasetError(f"{folder} holds no .onnx file; `networks {folder}` writes some")
    table = Table(*_HEADER)
    found = []
    for one in map(_compared, files):
        table.add_row(*one.cells)
        console.print(" ".join(one.cells), markup=False)
        found.append(one)
    console.print(table)
    if page is not None:
        replace_sections(page, {SECTION: _markdown(found)})


def _compared(path: Path) -> Compared:
    graph = read_model(path)
    lite = tflite = None
    try:
        content = to_tflite(graph)
        lite, tflite = litert_arena(content), len(content)
    except NnMeterNasError:
        pass  # TensorFlow Lite has no word for one of its operators
    return Compared(
        path.stem, onnxruntime_peak(path), peak_memory(graph), lite, peak_memory(graph, TFLITE),
        path.stat().st_size, tflite, weights_size(graph),
    )  # fmt: skip


def onnxruntime_peak(path: Path) -> int:
    """Bytes that onnxruntime's arena holds at most while it runs a file, without weights; plus its input.

    The profiler (onnxruntime 1.32) tells after each kernel what was asked of the arena and is not given back.
    The arena also holds weights, from before the first kernel on, but not the input, which is the caller's.
    What a kernel takes for itself and gives back is not in it.
    """
    runtime = load_extra("onnxruntime", "onnxruntime", "measuring with onnxruntime")
    with tempfile.TemporaryDirectory() as work:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = f"{work}/profile"
        session = runtime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        feeds = {one.name: np.zeros(one.shape, np.float32) for one in session.get_inputs()}
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    kernels: list[Mapping[str, Any]] = [
        event["args"] for event in events if "mem_bytes_requested_in_use" in event.get("args", {})
    ]
    if not kernels:
        raise DatasetError(f"onnxruntime {runtime.__version__} does not profile memory; version 1.32 does")
    in_use = [int(kernel["mem_bytes_requested_in_use"]) for kernel in kernels]
    weights = in_use[0] - int(kernels[0]["mem_requested_in_use_delta"])
    return max(in_use) - weights + sum(feed.nbytes for feed in feeds.values())


def litert_arena(content: bytes) -> int:
    """Bytes of the arena in which LiteRT's reference kernels (no delegate) place all tensors of a model.

    Each tensor tells its address, so the arena reaches from the first to the last of those around the input.
    """
    runtime = load_extra("ai_edge_litert.interpreter", "litert", "measuring with LiteRT")
    reference = runtime.OpResolverType.BUILTIN_REF
    with no_messages():
        interpreter = runtime.Interpreter(
            model_content=content, num_threads=1, experimental_op_resolver_type=reference
        )
        interpreter.allocate_tensors()
    spans = {one["index"]: span for one in interpreter.get_tensor_details()
             if (span := _span(interpreter, one["index"])) is not None}  # fmt: skip
    start, end = spans[interpreter.get_input_details()[0]["index"]]
    for low, high in sorted(spans.values()):
        if start <= low <= end + _GAP:
            end = max(end, high)
    return end - start


def _span(interpreter: Any, index: int) -> tuple[int, int] | None:
    """Address of a tensor and that of its end; None if it has no memory."""
    try:
        values = interpreter.tensor(index)()
    except ValueError:
        return None
    start = int(values.__array_interface__["data"][0])
    return start, start + int(values.nbytes)


def _markdown(found: Sequence[Compared]) -> list[str]:
    """The table of a page, and what it shows in sentences."""
    return [
        *markdown_table(_HEADER, range(1, len(_HEADER)), [one.cells for one in found]),
        "",
        *_verdict("onnxruntime", [(one.network, one.ort, one.ort_said) for one in found]),
        *_verdict("LiteRT", [(one.network, one.lite, one.lite_said) for one in found if one.lite]),
        *_verdict("the size of the .onnx file", [(one.network, one.onnx, one.size) for one in found]),
    ]


def _verdict(runtime: str, pairs: Sequence[tuple[str, int | None, int]]) -> Iterator[str]:
    missed = [name for name, took, said in pairs if took and abs(said / took - 1) > RIGHT]
    names = f"; not for {', '.join(missed)}" if missed else ""
    yield f"- {runtime}: within {RIGHT:.0%} for {len(pairs) - len(missed)} of {len(pairs)} networks{names}."


def _pair(took: int | None, said: int) -> list[str]:
    return [_mb(took), _mb(said), "–" if took is None else f"{said / took - 1:+.1%}"]


def _mb(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e6:.3g}" if size < 1e9 else f"{size / 1e6:.0f}"
