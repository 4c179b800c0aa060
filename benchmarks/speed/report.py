"""Measure and save all figures of a run, and show them in the README and on a page."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from nnmeter_nas.files import write_bytes
from nnmeter_nas.nni.line import NAS, RETIARII

from ..pages import markdown_table, replace_sections
from . import candidates, footprint, profilers, scaling, searches, spaces, tables
from .figures import Figure, Result, load, save
from .machine import is_busy, machine, machine_line
from .markdown import number, row, table
from .nnmeter import Both, import_nn_meter
from .scaling_plot import scaling_plot

_SCALING = "scaling"
_PLOT = "scaling.png"


@dataclass(frozen=True)
class Setting:
    """Settings that the topics of a run share.

    Attributes:
        environment, nni3: virtual environments of nn-Meter, and of NNI 3.0.
        bench: folder of a dataset in the official schema, or None.
        folder: folder for temporary files.
    """

    device: str
    environment: Path
    nni3: Path
    bench: Path | None
    folder: Path

    @cached_property
    def both(self) -> Both:
        """The device's predictor for both sides, made on first use.

        Raises:
            MissingPackageError: nn-Meter is not in its environment.
        """
        return Both(import_nn_meter(self.environment), self.device, self.folder)


def run_speed(
    environment: Path,
    output: Path,
    device: str,
    topics: Iterable[str],
    console: Console,
    bench: Path | None = None,
    nni3: Path = Path(".venv-nni3"),
) -> list[Path]:
    """Measure the figures of ``topics``; write those of each topic to ``<output>/<topic>.json``.

    Args:
        environment, nni3: virtual environments of nn-Meter, and of NNI 3.0.
        output: folder of the results.
        device, topics: applied hardware, and keys of :data:`TOPICS`.
        console: shows progress.
        bench: folder of a dataset in the official schema; without it, figures that need one are left out.

    Raises:
        MissingPackageError: nn-Meter is not in ``environment``.
    """
    described = machine({"nn-Meter": (environment, "nn-meter"), "nni (profilers)": (nni3, "nni")})
    if is_busy(described):
        console.print(
            f"warning: the load is {described['load_before']} on {described['cores']} cores; figures "
            "from a busy machine are unreliable",
            style="yellow", markup=False,
        )  # fmt: skip
    written = []
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(device, environment, nni3, bench, Path(folder))
        for topic in topics:
            results = []
            for result in TOPICS[topic](setting):
                results.append(result)
                console.print(row(result, {}), markup=False, soft_wrap=True)
            written.append(save(results, output, topic, described))
    return written


def write_speed(output: Path, readme: Path, page: Path | None = None) -> None:
    """Write the results in ``output`` into the README and a page.

    Args:
        output: folder of the results, as :func:`run_speed` writes them.
        readme: the table replaces its section ``speed``.
        page: the exponents replace its section ``scaling``; their plot goes next to the page.

    Raises:
        DatasetError: a file lacks the markers of its section, or results cannot be read.
    """
    found = {topic: load(path) for topic in TOPICS if (path := output / f"{topic}.json").is_file()}
    compared = {topic: results for topic, (results, _) in found.items() if topic != _SCALING}
    lines = table(result for results in compared.values() for result in results)
    replace_sections(readme, {"speed": [*lines, "", *_machine_lines({t: found[t][1] for t in compared})]})
    if page is not None and _SCALING in found:
        results, described = found[_SCALING]
        curves = [result for result in results if isinstance(result, Figure)]
        replace_sections(page, {_SCALING: [*_scaling_table(curves), "", machine_line(described)]})
        write_bytes(page.parent / _PLOT, scaling_plot(curves))


def _machine_lines(described: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The machine of each run: one line, or one line per run if there were several."""
    topics: dict[str, list[str]] = {}
    for topic, values in described.items():
        topics.setdefault(machine_line(values), []).append(topic)
    spread = "Figures are the median of the repeats ± half the interquartile range."
    if len(topics) == 1:
        return [f"{line} {spread}" for line in topics]
    return [f"- {', '.join(names)}: {line}" for line, names in topics.items()] + ["", spread]


def _scaling_table(curves: Sequence[Figure]) -> list[str]:
    """Make a table: the exponent of each curve, and the cost of one operator or candidate at both ends."""
    header = ("cost", "exponent", "target", "met", "µs for each, smallest", "largest")
    rows = []
    for figure in curves:
        each = [
            f"{number(1e6 * taken.median / size)} (of {size:,})"
            for size, taken in (figure.points[0], figure.points[-1])
        ]
        met = "yes" if figure.met else "**no**"
        rows.append([figure.name, f"{figure.ours.median:.2f}", f"≤ {figure.limit:g}", met, *each])
    lines = markdown_table(header, (1, 4, 5), rows)
    return [*lines, "", f"![Cost against operators and candidates]({_PLOT})"]


def _footprint(setting: Setting) -> Iterator[Result]:
    yield from footprint.import_figures(setting.device)
    yield from footprint.pack_figures(setting.both.folder)
    yield from footprint.memory_figures(setting.bench, setting.device)


def _profilers(setting: Setting) -> Iterator[Result]:
    python = setting.nni3 / "bin" / "python"
    folder = setting.both.folder
    return profilers.profiler_figures(folder, setting.device, setting.environment, python)


def _spaces(setting: Setting) -> Iterator[Result]:
    lines = [(RETIARII, Path(sys.executable)), (NAS, setting.nni3 / "bin" / "python")]
    return spaces.space_figures(setting.device, lines)


#: The topics, in the order of the table.
TOPICS: Mapping[str, Callable[[Setting], Iterable[Result]]] = {
    "footprint": _footprint,
    "searches": lambda s: chain(searches.ranking_figures(s.device), searches.filter_figures(s.device)),
    "candidates": lambda s: chain(candidates.candidate_figures(s.both), candidates.module_figures(s.both)),
    "tables": lambda s: tables.table_figures(s.both, s.device),
    "profilers": _profilers,
    "spaces": _spaces,
    _SCALING: lambda s: chain(scaling.size_figures(s.device), scaling.number_figures(s.device)),
}
