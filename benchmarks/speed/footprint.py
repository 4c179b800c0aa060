"""What the package weighs: packs on disk, loading one, importing the package."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from nnmeter_nas.packs.pack import load_pack
from nnmeter_nas.packs.registry import bundled_packs, pack_folders

from .figures import Figure, Sample, measured

#: What four devices of nn-Meter 1.0 take, MB, as its release has them.
_RELEASED_MB = 6900.0
#: None of these may be loaded by the import of the package.
_HEAVY = ("torch", "nni", "sklearn", "onnx", "matplotlib")
_IMPORT = f"""
import sys, time
start = time.perf_counter()
import nnmeter_nas
took = time.perf_counter() - start
assert not set({_HEAVY!r}) & set(sys.modules)
print(took)
"""


def pack_figures(forests: Path) -> Iterator[Figure]:
    """Size of the packs in the package; loading one, beside unpickling the forests in ``forests``."""
    files = [path for path in bundled_packs().rglob("*") if path.is_file()]
    yield Figure(
        "packs on disk, four devices", "MB", ours=Sample((sum(f.stat().st_size for f in files) / 1e6,)),
        rival=Sample((_RELEASED_MB,)), rival_name="nn-Meter 1.0's pickles, as released", limit=4,
    )  # fmt: skip
    folder = next(iter(pack_folders().values()))
    pickles = sorted(forests.glob("*.pkl"))
    size = sum(path.stat().st_size for path in pickles) / 1e6

    def unpickle() -> None:
        for path in pickles:
            with path.open("rb") as file:
                pickle.load(file)

    yield Figure(
        "load a predictor", "ms", ours=measured(lambda: load_pack(folder), 9, 1e3),
        rival=measured(unpickle, 5, 1e3), rival_name="pickle.load", at_least=100,
        note=f"of a stand-in of {size:.0f} MB, where a device of nn-Meter 1.0 has {_RELEASED_MB / 4:.0f}",
    )  # fmt: skip


def import_figures(repeats: int = 9) -> Iterator[Figure]:
    """``import nnmeter_nas`` in a fresh interpreter each time; checks that nothing heavy comes along."""
    run = [sys.executable, "-c", _IMPORT]
    taken = [subprocess.run(run, capture_output=True, text=True, check=True).stdout for _ in range(repeats)]
    yield Figure("import nnmeter_nas", "s", ours=Sample(tuple(map(float, taken))), limit=0.25)
