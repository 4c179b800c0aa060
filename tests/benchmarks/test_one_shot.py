"""The one-shot search of the comparison: within its limits, run once, and judged like the others."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.search.digits_space import digits_space
from nnmeter_nas.benchmarks.search.one_shot import QUANTILES, landings
from nnmeter_nas.costs import cached_table
from nnmeter_nas.supernet.nni_space import space_of

GPU = "adreno640gpu_tflite21"


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("nni.retiarii"), reason="ProxylessNAS is NNI 2.10.1's")
def test_one_shot_searches_stay_within_their_limits_and_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["one-shot", "--seeds", "1", "--epochs", "3", "--work", str(tmp_path)]
    assert main(command) == 0
    kept = (tmp_path / "one_shot.jsonl").read_bytes()
    (landing,) = landings(GPU, tmp_path).values()
    table = cached_table(space_of(digits_space()), load_latency_predictor(GPU))
    names = list(table.candidates.values())
    rows = [
        [known.index(name) for known, name in zip(names, one, strict=True)] for one in landing.architectures
    ]
    everything = table.latencies(list(itertools.product(range(4), repeat=5)))
    assert (table.latencies(rows) <= np.quantile(everything, QUANTILES)).all()
    assert landing.trials > 0
    # What ran does not run again, and other devices have not searched.
    (tmp_path / "one_shot.jsonl").write_bytes(kept[: kept[:-1].rindex(b"\n") + 1])
    assert landings(GPU, tmp_path) == {}
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().err.count("ms allowed") == 1
    assert (tmp_path / "one_shot.jsonl").read_bytes().count(b"\n") == len(QUANTILES)
    assert landings("cortexA76cpu_tflite21", tmp_path) == {}
