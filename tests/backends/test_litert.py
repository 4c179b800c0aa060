"""LiteRT: it runs our networks in the thread that calls it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")

from nnmeter_nas.backends import load_backend
from nnmeter_nas.builder.networks import random_network


def test_networks_run_in_this_thread(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    backend = load_backend("litert")
    assert backend.version[0].isdigit()
    for seed in range(6):
        backend.write(random_network(seed), tmp_path / "network.tflite")
        session = backend.load(tmp_path / "network.tflite")
        session.run()
        before = time.process_time()
        ms = sum(session.run() for _ in range(5))
        assert 0 < ms < math.inf
        assert ms == pytest.approx(1e3 * (time.process_time() - before), rel=0.2, abs=1.0)
        assert not hasattr(session, "kernels")
    assert capfd.readouterr().err == ""


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "network.tflite").write_bytes(b"not a model")
    with pytest.raises(ValueError, match="not a valid Flatbuffer"):
        load_backend("litert").load(tmp_path / "network.tflite")
