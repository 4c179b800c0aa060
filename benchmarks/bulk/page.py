"""Write what was measured of bulk predictions into their page: a table, a chart, and what happened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.drawing import new_chart, to_png
from nnmeter_nas.files import write_bytes

from ..pages import markdown_table, replace_sections
from ..speed.machine import machine_line
from .measuring import load_bulk
from .watching import Watched

#: Section of the page.
SECTION = "bulk"
#: Points of the long run that the table shows, as shares of its files.
_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
_BLUE, _ORANGE, _GREY = "#0072b2", "#e69f00", "#555555"


def write_bulk(results: Path, page: Path) -> None:
    """Write the section of ``page``, and its chart beside it.

    Raises:
        DatasetError: there are no results, or the page lacks the marks of its section.
        MissingPackageError: matplotlib is not installed.
    """
    found, killed, resumed = load_bulk(results)
    chart = page.with_suffix(".png")
    write_bytes(chart, _chart(found, killed, resumed))
    lines = [*_speed_table(found), "", *_memory_table(killed, resumed), "", *_told(found, killed, resumed)]
    lines += ["", f"![Files a second by workers, and memory over files]({chart.name})"]
    replace_sections(page, {SECTION: lines})


def _speed_table(found: Mapping[str, Any]) -> list[str]:
    least = found["speeds"][0]["files_per_second"]
    rows = [
        [str(one["workers"]), f"{one['files_per_second']:.1f}", f"{one['files_per_second'] / least:.2f}",
         f"{one['cpu_ms_per_file']:.1f}"]
        for one in found["speeds"]
    ]  # fmt: skip
    fewest = f"times the speed of {found['speeds'][0]['workers']}"
    header = ["workers", "files a second", fewest, "processor ms a file"]
    return markdown_table(header, range(4), rows)


def _memory_table(killed: Watched, resumed: Watched) -> list[str]:
    rows = []
    for share in _SHARES:
        seen = killed if share <= 0.5 else resumed
        at = min(int(np.searchsorted(seen.files, share * resumed.files[-1])), len(seen.files) - 1)
        # The last look may come while the workers end.
        at -= int(seen.workers_mib[at] == 0 and at > 0)
        rows.append([f"{seen.files[at]:,}", f"{seen.command_mib[at]:.0f}", f"{seen.workers_mib[at]:.0f}"])
    return markdown_table(["files done", "command (MiB)", "all workers (MiB)"], range(3), rows)


def _told(found: Mapping[str, Any], killed: Watched, resumed: Watched) -> list[str]:
    long = found["long"]
    table, journal = (long["mib"][name] for name in ("latencies.parquet", "bulk.journal"))
    return [
        f"{long['files']:,} files on {long['workers']} workers for `{found['device']}`; the command got "
        f"SIGKILL when {killed.files[-1]:,} files were in its journal, and was repeated: {long['rows']:,} "
        f"rows, a file each; the {long['broken']:,} broken files have their error. The journal takes "
        f"{journal:.0f} MiB, the Parquet file {table:.1f} MiB. The table of speeds is of {found['sample']:,} "
        f"of the files; a speed is the median over ten parts of a run.",
        "",
        machine_line(found["machine"]),
    ]


def _chart(found: Mapping[str, Any], killed: Watched, resumed: Watched) -> bytes:
    """Draw speed by workers, and memory by files done."""
    picture = new_chart(11, 4, dpi=110)
    speed, memory = picture.subplots(1, 2)
    workers = [one["workers"] for one in found["speeds"]]
    speeds = [one["files_per_second"] for one in found["speeds"]]
    speed.plot(workers, speeds, color=_BLUE, marker="o", label="measured")
    ideal = [speeds[0] / workers[0] * count for count in workers]
    speed.plot(workers, ideal, color=_GREY, linestyle="--", label="in proportion to workers")
    speed.axvline(found["machine"]["cores"], color=_GREY, linewidth=0.8, label="cores of the machine")
    speed.set_xlabel("workers")
    speed.set_ylabel("files a second")
    speed.set_xticks(workers)
    speed.set_ylim(bottom=0)
    for seen, told in ((killed, True), (resumed, False)):
        working = np.array(seen.workers_mib) > 0
        files = np.array(seen.files)[working]
        for name, mib, colour in (
            ("all workers", seen.workers_mib, _BLUE), ("command", seen.command_mib, _ORANGE),
        ):  # fmt: skip
            memory.plot(files, np.array(mib)[working], color=colour, label=name if told else None)
    memory.axvline(killed.files[-1], color=_GREY, linestyle=":", label="killed, and repeated")
    memory.set_xlabel("files done")
    memory.set_ylabel("memory (MiB)")
    memory.set_ylim(bottom=0)
    for panel in (speed, memory):
        panel.grid(alpha=0.3)
        panel.legend(fontsize="small", frameon=False)
    return to_png(picture)
