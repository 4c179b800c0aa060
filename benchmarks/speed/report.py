"""All figures of a run: measured, saved, and shown as a table in the README."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from ..reports import replace_sections
from . import candidates, footprint, searches
from .figures import Figure, load, machine, save, table
from .nnmeter import Both, import_nn_meter


def run_speed(
    environment: Path, output: Path, device: str, topics: Iterable[str], console: Console
) -> list[Path]:
    """Measure the figures of ``topics`` and write each topic's to ``<output>/<topic>.json``.

    Args:
        environment: virtual environment of nn-Meter.
        output: folder of the results.
        device: applied hardware.
        topics: keys of :data:`TOPICS`.
        console: where progress goes.

    Raises:
        MissingPackageError: nn-Meter is not in ``environment``.
    """
    described = machine()
    written = []
    with tempfile.TemporaryDirectory() as folder:
        both = Both(import_nn_meter(environment), device, Path(folder))
        for topic in topics:
            figures = []
            for figure in TOPICS[topic](both, device):
                figures.append(figure)
                console.print(table([figure])[-1], markup=False, soft_wrap=True)
            written.append(save(figures, output, topic, described))
    return written


def write_speed(output: Path, readme: Path) -> None:
    """Replace the section ``speed`` of ``readme`` by the results in ``output``.

    Raises:
        DatasetError: ``readme`` lacks the marks that frame the section.
    """
    results = [load(path) for topic in TOPICS if (path := output / f"{topic}.json").is_file()]
    figures = [figure for found, _ in results for figure in found]
    measured_on = dict.fromkeys(_described(described) for _, described in results)
    replace_sections(readme, {"speed": [*table(figures), "", *measured_on]})


def _footprint(both: Both, device: str) -> Iterator[Figure]:
    yield from footprint.import_figures()
    yield from footprint.pack_figures(both.folder)


def _searches(both: Both, device: str) -> Iterator[Figure]:
    yield from searches.ranking_figures(device)
    yield from searches.filter_figures(device)


def _candidates(both: Both, device: str) -> Iterator[Figure]:
    yield from candidates.candidate_figures(both)
    yield from candidates.module_figures(both)


#: What is measured, in the order of the table.
TOPICS: Mapping[str, Callable[[Both, str], Iterator[Figure]]] = {
    "footprint": _footprint,
    "searches": _searches,
    "candidates": _candidates,
}


def _described(values: Mapping[str, Any]) -> str:
    return (
        f"Medians ± half the interquartile range, on {values['cores']} cores of {values['cpu']}, "
        f"{values['memory_gib']} GiB, Python {values['python']}."
    )
