"""TVM: it runs our networks, tells what its kernels run, and keeps what it compiled."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tvm", reason="the extra 'tvm' is not installed")
pytest.importorskip("onnxruntime")

import onnxruntime

from nnmeter_nas.backends import load_backend
from nnmeter_nas.backends.tvm.compiling import compiled, fuse, this_machine
from nnmeter_nas.backends.tvm.stored import nodes_of
from nnmeter_nas.backends.tvm.trial import measured_seconds
from nnmeter_nas.errors import ReaderError, SettingsError
from nnmeter_nas.files import user_cache_folder
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph
from nnmeter_nas.readers.onnx.writer import to_onnx

pytestmark = pytest.mark.tvm

CONV = {"out_channels": 8, "kernel": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1)), "bias": False}


def twins() -> Any:
    """Two branches of the same operators, a batch norm each, which are added; then what is no convolution."""
    graph = new_graph("twins")
    add_input(graph, "x", (1, 4, 12, 12))
    for branch in ("left", "right"):
        add_op(graph, f"{branch}.conv", "conv", ["x"], CONV)
        add_op(graph, f"{branch}.bn", "bn", [f"{branch}.conv"])
        add_op(graph, f"{branch}.act", "swish", [f"{branch}.bn"])
    add_op(graph, "sum", "add", ["left.act", "right.act"])
    add_op(graph, "split", "split", ["sum"], {"sections": 2, "axis": 1})
    add_op(graph, "joined", "concat", [("split", 1), ("split", 0)], {"axis": 1})
    add_op(graph, "pool", "globalavgpool", ["joined"])
    add_op(graph, "flat", "flatten", ["pool"])
    add_op(graph, "fc", "fc", ["flat"], {"out_features": 10})
    return finish(graph)


def convolution(*following: str) -> Any:
    """A convolution, and what follows it."""
    graph = new_graph("convolution")
    add_input(graph, "x", (1, 16, 24, 24))
    last = add_op(graph, "conv", "conv", ["x"], CONV)
    for op in following:
        last = add_op(graph, op, op, [last], {"kernel": (2, 2), "stride": (2, 2)})
    return finish(graph)


def test_it_runs_a_network_and_tells_what_each_kernel_runs(tmp_path: Path) -> None:
    backend, path = load_backend("tvm"), tmp_path / "network.onnx"
    assert backend.version.startswith("0.")
    backend.write(twins(), path)
    session: Any = backend.load(path)
    assert 0 < session.run() < math.inf
    reference = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    [expected] = reference.run(None, {"x": session.inputs[0]})
    [found] = session.results()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    kernels = session.kernels(3)
    groups = {kernel.operators for kernel in kernels}
    kernel_of = {name: group for group in groups for name in group}
    assert {("pool",), ("fc",)} <= groups
    assert kernel_of["left.conv"] != kernel_of["right.conv"]
    for branch in ("left", "right"):
        assert kernel_of[f"{branch}.conv"] == kernel_of[f"{branch}.bn"] == kernel_of[f"{branch}.act"]
    assert {"sum", "split", "joined"} <= kernel_of.keys()
    assert all(0 <= kernel.ms < math.inf for kernel in kernels)
    stored = list((user_cache_folder() / "tvm").glob("*.so"))
    again: Any = load_backend("tvm").load(path)
    assert [kernel.operators for kernel in again.kernels(1)] == [kernel.operators for kernel in kernels]
    assert list((user_cache_folder() / "tvm").glob("*.so")) == stored


def test_a_program_that_is_not_what_was_fused_tells_nothing() -> None:
    target = this_machine()
    fused = fuse(to_onnx(twins()), target)
    other = new_graph("other")
    add_input(other, "x", (1, 4, 12, 12))
    add_op(other, "act", "relu", ["x"])
    unknown = fused._replace(whole=fuse(to_onnx(finish(other)), target).whole)
    made = compiled(unknown, target)
    assert made.kernels is None
    assert nodes_of(unknown, made) is None


def interrupted_at(count: int) -> Callable[[Any, Any], float]:
    """Measures schedules; the user interrupts the one of this number."""
    numbers = iter(range(1, count))

    def seconds(candidate: Any, target: Any) -> float:
        if next(numbers, None) is None:
            raise KeyboardInterrupt
        return measured_seconds(candidate, target)

    return seconds


def test_kernels_are_tuned_once_for_all_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xgboost")
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("nnmeter_nas.backends.tvm.backend._TRIALS", 4)
    tuned, plain = load_backend("tvm", {"tuned": "yes"}), load_backend("tvm", {"tuned": "no"})
    records = tmp_path / "home" / "tvm-records" / "database_tuning_record.json"
    with monkeypatch.context() as patched:
        patched.setattr("nnmeter_nas.backends.tvm.search.measured_seconds", interrupted_at(3))
        with pytest.raises(KeyboardInterrupt):
            tuned.write(convolution(), tmp_path / "once.tuned")
    assert len(records.read_text().splitlines()) == 2, "the kernel as it comes, and one trial"
    tuned.write(convolution(), tmp_path / "once.tuned")
    assert len(records.read_text().splitlines()) == 5, "the trials that it lacked"
    plain.write(convolution(), tmp_path / "once.onnx")
    quick: Any = tuned.load(tmp_path / "once.tuned")
    slow: Any = plain.load(tmp_path / "once.onnx")
    np.testing.assert_allclose(quick.results()[0], slow.results()[0], atol=1e-4)
    assert min(quick.run() for _ in range(20)) < min(slow.run() for _ in range(20))
    tuned.write(convolution(), tmp_path / "again.tuned")
    assert len(records.read_text().splitlines()) == 5, "nothing is tuned twice"
    tuned.write(convolution("maxpool"), tmp_path / "more.tuned")
    assert len(records.read_text().splitlines()) == 10, "the pool is new, the convolution is not"


def test_two_builds_do_not_add_to_the_records_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xgboost")
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    monkeypatch.setattr("nnmeter_nas.backends.tvm.backend._TRIALS", 2)
    records, told, waited = tmp_path / "tvm-records", list[str](), list[str]()
    tuned: Any = load_backend("tvm", {"tuned": "yes"})
    (network := tmp_path / "network.tuned").write_bytes(to_onnx(convolution()))
    with ThreadPoolExecutor() as threads:
        others = []

        def seconds(*_: Any) -> float:
            """Take the place of measuring; meanwhile another build comes, and a visit of this one."""
            if not others:
                other: Any = load_backend("tvm", {"tuned": "yes"})
                file = tmp_path / "other.tuned"
                others.append(threads.submit(other.write_slowly, convolution("maxpool"), file, waited.append))
                while waited[-1:] != ["waiting: another build tunes kernels"]:
                    assert not others[0].done()
                    time.sleep(0.05)
                with (records / "database_tuning_record.json").open("ab") as file:
                    file.write(b"[0, [[[")
                tuned.load(network)
                lines = (records / "database_tuning_record.json").read_bytes()
                assert lines.endswith(b"[0, [[["), "what this build is about to write is left alone"
                os.truncate(records / "database_tuning_record.json", len(lines) - 7)
            return 1e-3

        monkeypatch.setattr("nnmeter_nas.backends.tvm.search.measured_seconds", seconds)
        tuned.write_slowly(convolution(), tmp_path / "once.tuned", told.append)
        others[0].result()
    assert told == ["looking for kernels to tune", "tuning kernel 1 of 1"]
    assert waited[-2:] == ["tuning kernel 1 of 2", "tuning kernel 2 of 2"]
    assert len((records / "database_tuning_record.json").read_text().splitlines()) == 6


def test_it_is_tuned_or_not() -> None:
    with pytest.raises(SettingsError, match="tuned='maybe' must be 'yes' or 'no'"):
        load_backend("tvm", {"tuned": "maybe"})


def test_files_that_it_cannot_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ReaderError, match="TVM compiles ONNX models, and this is none"):
        load_backend("tvm").load(path)
