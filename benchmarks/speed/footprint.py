"""What the package weighs: packs on disk, loading one, importing the package, memory of an evaluation."""

from __future__ import annotations

import itertools
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnmeter_nas.errors import DatasetError, NnMeterNasError
from nnmeter_nas.packs.pack import load_pack
from nnmeter_nas.packs.registry import bundled_packs, pack_folders
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files

from .figures import Figure, Result, Sample, Unmeasured, measured

#: What four devices of nn-Meter 1.0 take, MB, as its release has them.
_RELEASED_MB = 6900.0
#: None of these may be loaded by the import of the package, nor by its first predictor.
_HEAVY = ("torch", "nni", "sklearn", "onnx", "matplotlib")
_IMPORT = """
import sys, time
start = time.perf_counter()
import nnmeter_nas
{more}
took = time.perf_counter() - start
assert not set({heavy!r}) & set(sys.modules)
print(took)
"""
#: Models of the official dataset.
MODELS = 26_000
_EVALUATION = f"peak memory, {MODELS:,} models evaluated"
#: Runs the command that follows it and prints the most memory that one process of it held, in bytes. What a
#: process is forked from counts as its own, so this is a small one.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak if sys.platform == "darwin" else 1024 * peak)
"""


class EvaluationError(NnMeterNasError):
    """The process whose memory is measured failed."""


def pack_figures(forests: Path) -> Iterator[Figure]:
    """Size of the packs in the package; loading one, beside unpickling the forests in ``forests``."""
    files = [path for path in bundled_packs().rglob("*") if path.is_file()]
    yield Figure(
        "packs on disk, four devices", "MB", ours=Sample((sum(f.stat().st_size for f in files) / 1e6,)),
        rival=Sample((_RELEASED_MB,)), rival_name="nn-Meter 1.0's pickles, as released", limit=4,
    )  # fmt: skip
    folder = next(iter(pack_folders().values()))
    read = as_large_as(sorted(forests.glob("*.pkl")), 1e6 * _RELEASED_MB / 4)
    size = sum(path.stat().st_size for path in read) / 1e6
    yield Figure(
        "load a predictor", "ms", ours=measured(lambda: load_pack(folder), 9, 1e3),
        rival=measured(lambda: unpickled(read), 5, 1e3), rival_name="pickle.load", at_least=100,
        note=f"the rival is a stand-in of the size of a device of nn-Meter 1.0: {len(read)} forests of "
        f"{size:.0f} MB, some of them read more than once",
    )  # fmt: skip


def as_large_as(files: list[Path], size: float) -> list[Path]:
    """``files`` again and again until they are of at least ``size`` bytes."""
    sizes = itertools.accumulate(path.stat().st_size for path in itertools.cycle(files))
    count = next(i for i, total in enumerate(sizes, 1) if total >= size)
    return list(itertools.islice(itertools.cycle(files), count))


def unpickled(files: list[Path]) -> list[Any]:
    """What each of ``files`` holds, all at once."""
    found = []
    for path in files:
        with path.open("rb") as file:
            found.append(pickle.load(file))
    return found


def import_figures(device: str, repeats: int = 9) -> Iterator[Figure]:
    """``import nnmeter_nas`` in a fresh interpreter each time; checks that nothing heavy comes along."""
    load = f"nnmeter_nas.load_latency_predictor({device!r})"
    yield Figure("import nnmeter_nas", "s", ours=_imported("", repeats), limit=0.25)
    yield Figure("import, and the first predictor loaded", "s", ours=_imported(load, repeats), limit=0.25)


def _imported(more: str, repeats: int) -> Sample:
    """Seconds from the import to the end of the statements in ``more``."""
    run = [sys.executable, "-c", _IMPORT.format(more=more, heavy=_HEAVY)]
    taken = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(repeats)]
    return Sample(tuple(map(float, taken)))


def memory_figures(bench: Path | None, device: str, models: int = MODELS) -> Iterator[Result]:
    """Peak memory of the command ``evaluate`` on a dataset of ``models`` models.

    Args:
        bench: folder of a dataset in the official schema; one of fewer models is repeated under other ids.
        device: applied hardware; all of them would take minutes more.
        models: how many.

    Raises:
        DatasetError: ``bench`` holds no dataset.
        EvaluationError: the evaluation failed.
    """
    if bench is None:
        yield Unmeasured(_EVALUATION, "needs the bench dataset: `make bench BENCH=DIR`")
        return
    with tempfile.TemporaryDirectory() as folder:
        there = repeated_dataset(bench, models, Path(folder))
        evaluate = ["-m", "nnmeter_nas.benchmarks", "evaluate", folder, "--predictor", device]
        command = [sys.executable, "-c", _PEAK, sys.executable, *evaluate]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise EvaluationError(f"evaluating {bench} failed: {run.stderr.strip()[-500:]}")
    note = f"{device} alone, one process"
    if there < models:
        note += f"; a dataset of {there:,} models, some of them repeated under other ids"
    yield Figure(_EVALUATION, "MB", ours=Sample((int(run.stdout) / 1e6,)), limit=400, note=note)


def repeated_dataset(bench: Path, models: int, folder: Path) -> int:
    """Write a dataset of ``models`` models into ``folder``; returns how many ``bench`` has for it.

    What ``bench`` lacks is repeated under other ids, from its first file on.

    Raises:
        DatasetError: ``bench`` holds no dataset, or an empty one.
    """
    there = written = turn = 0
    while written < models:
        for path in dataset_files(bench):
            with path.open("rb") as lines, (folder / f"{turn or ''}{path.name}").open("wb") as out:
                for line in itertools.islice(filter(bytes.strip, lines), models - written):
                    out.write(_under_other_id(line, f"turn {turn}: ") if turn else line)
                    written += 1
        there = there or written
        if not there:
            raise DatasetError(f"the files in {bench} hold no models")
        turn += 1
    return there


def _under_other_id(line: bytes, prefix: str) -> bytes:
    record = json.loads(line)
    record["id"] = f"{prefix}{record['id']}"
    return f"{json.dumps(record)}\n".encode()
