"""Measure size and start-up cost: packs on disk, loading a pack, importing the package, evaluation memory."""

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

#: Size of nn-Meter 1.0's release for four devices, MB.
_RELEASED_MB = 6900.0
#: Importing the package and loading a first predictor must import none of these.
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
#: Number of models in the official dataset.
MODELS = 26_000
_EVALUATION = f"peak memory, {MODELS:,} models evaluated"
#: Script that runs a command and prints the peak memory of the command's largest process, in bytes. A forked
#: process starts with its parent's memory, so this parent is small.
_PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak if sys.platform == "darwin" else 1024 * peak)
"""


class EvaluationError(NnMeterNasError):
    """The measured evaluation failed."""


def pack_figures(forests: Path) -> Iterator[Figure]:
    """Measure the bundled packs: their size, and the time to load one against unpickling ``forests``."""
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
        note=f"the rival is a stand-in as large as one device of nn-Meter 1.0: {len(read)} forests of "
        f"{size:.0f} MB, some of them read more than once",
    )  # fmt: skip


def as_large_as(files: list[Path], size: float) -> list[Path]:
    """Repeat ``files`` until they add up to at least ``size`` bytes."""
    sizes = itertools.accumulate(path.stat().st_size for path in itertools.cycle(files))
    count = next(i for i, total in enumerate(sizes, 1) if total >= size)
    return list(itertools.islice(itertools.cycle(files), count))


def unpickled(files: list[Path]) -> list[Any]:
    """Unpickle all ``files`` and keep the objects together."""
    found = []
    for path in files:
        with path.open("rb") as file:
            found.append(pickle.load(file))
    return found


def import_figures(device: str) -> Iterator[Figure]:
    """Time ``import nnmeter_nas``, each time in a fresh interpreter; check that it imports nothing heavy."""
    load = f"nnmeter_nas.load_latency_predictor({device!r})"
    yield Figure("import nnmeter_nas", "s", ours=_imported(""), limit=0.25)
    yield Figure("import, and the first predictor loaded", "s", ours=_imported(load), limit=0.25)


def _imported(more: str) -> Sample:
    """Measure the seconds to import the package and run the statements in ``more``."""
    run = [sys.executable, "-c", _IMPORT.format(more=more, heavy=_HEAVY)]
    taken = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(9)]
    return Sample(tuple(map(float, taken)))


def memory_figures(bench: Path | None, device: str, models: int = MODELS) -> Iterator[Result]:
    """Measure the peak memory of the command ``evaluate`` on a dataset of ``models`` models.

    It is measured on one device, because all would take minutes longer. If ``bench`` has fewer models, they
    are repeated under other ids.

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
    """Write a dataset of ``models`` models into ``folder``; return how many of them ``bench`` has.

    If ``bench`` has too few, its models are repeated under other ids, from its first file on.

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
