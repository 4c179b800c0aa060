"""``nnmeter-nas search``: wrong usage is named before anything starts, and limits out of reach at once."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from limits import limit_in
from nnmeter_nas.cli import main
from nnmeter_nas.errors import SpaceError
from nnmeter_nas.nni import RETIARII, nni_line
from nnmeter_nas.search.run_folder import RunFolder, Settings

pytestmark = pytest.mark.nni3

DEVICE = "cortexA76cpu_tflite21"
SEARCH = ["search", "--space", "spos-small"]
RANKED = [*SEARCH, "--strategy", "ranked"]
LEARNED = [*SEARCH, "--strategy", "learned"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search"], "required: --space (or --resume)"),
        ([*SEARCH, "--predictor", "cortexA76cpu"], f"did you mean '{DEVICE}'?"),
        ([*SEARCH, "--predictor", f"{DEVICE},{DEVICE}"], "no list of different names"),
        ([*SEARCH, "--max-latency", "0"], "0 is not a positive number"),
        ([*SEARCH, "--max-latency", "fast"], "invalid number value: 'fast'"),
        ([*SEARCH, "--max-latency", "1,2"], f"2 limits for 1 devices ({DEVICE}); give one for all"),
        ([*SEARCH, "--max-flops", "3X"], "'3X' is no number such as 3e8 or 300M"),
        ([*SEARCH, "--max-memory", "512X"], "'512X' is no number of bytes such as 512K, 1.5MB"),
        ([*SEARCH, "--max-size", "MB"], "'MB' is no number of bytes such as 512K"),
        ([*SEARCH, "--max-memory-tflite", "0KiB"], "0 is not a positive number"),
        ([*SEARCH, "--objectives", "latency,power"], "'power' is none of latency, flops, params"),
        ([*RANKED, "--population", "4"], "--population: is of --strategy pareto, not of ranked"),
        ([*SEARCH, "--population", "4", "--order", "closest"],
         "--order: is of --strategy ranked, not of pareto"),
        ([*RANKED, "--start", "4"], "--start: is of --strategy learned, not of ranked"),
        ([*RANKED, "--hints", "none"], "--hints: is of --strategy learned, not of ranked"),
        ([*LEARNED, "--hints", "flops,power"], "'power' is none of flops, params, memory"),
        ([*LEARNED, "--hints", "flops,none"], "'none' is none of flops, params, memory"),
        ([*LEARNED, "--start", "0"], "0 is not at least 1"),
        ([*LEARNED, "--population", "4"], "--population: is of --strategy pareto, not of learned"),
        ([*RANKED, "--top-k", "3", "--quantile", "0.1"], "--quantile: not allowed with --top-k"),
        ([*RANKED, "--quantile", "2"], "2 is not from 0 to 1"),
        ([*SEARCH, "--trials", "0"], "0 is not at least 1"),
        ([*SEARCH, "--budget-minutes", "0"], "0 is not a positive number"),
        ([*SEARCH, "--engine", "cgo"], "invalid choice: 'cgo'"),
        ([*SEARCH, "--training-service", "slurm"], "invalid choice: 'slurm'"),
        ([*SEARCH, "--address", "10.0.0.1:6379"], "--address: is of --training-service ray"),
        ([*SEARCH, "--training-service", "remote"], "remote needs --machines"),
        ([*SEARCH, "--training-service", "ray", "--machines", "m.yaml"],
         "--machines: is of --training-service remote"),
        ([*SEARCH, "--trial-gpus", "1"], "--trial-gpus: is of --training-service remote or ray"),
        ([*SEARCH, "--trial-cpus", "0"], "0 is not a positive number"),
        (["search", "--resume", "run", "-o", "other"], "not allowed with argument"),
        (["search", "--resume", "run", "--space", "spos", "--seed", "0"], "so --space, --seed cannot be"),
    ],
)  # fmt: skip
def test_wrong_usage_exits_with_2(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    refused: Callable[[list[str], str], None],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    refused(arguments, message)
    assert list(tmp_path.iterdir()) == []


def test_help_names_spaces_strategies_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["search", "--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for word in ("spos-small", "nasbench201", "NSGA-II", "learns", "--resume run", "examples:",
                 "nnmeter-nas export"):  # fmt: skip
        assert word in text


def test_resuming_what_is_no_search_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nni.nas")
    assert main(["search", "--resume", str(tmp_path)]) == 1
    assert "there is no search in this folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (["--max-latency", "0.001"], ["0.001", "fastest"]),
        (["--max-params", "10"], ["params", "10"]),
    ],
)
def test_limits_that_nothing_meets_end_the_search_at_once(
    limits: list[str], named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("nni.nas")
    monkeypatch.chdir(tmp_path)
    assert main([*SEARCH, *limits, "-o", "run"]) == 1
    errors = capsys.readouterr().err
    assert all(word in errors for word in named), errors
    assert not (tmp_path / "run").exists()


def test_limits_that_leave_nothing_between_them_end_the_search_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nni.nas")
    monkeypatch.chdir(tmp_path)
    below, above = (f"{limit_in('spos-small', DEVICE, share):.4g}" for share in (0.3, 0.6))
    assert main([*SEARCH, "--max-latency", below, "--min-latency", above, "-o", "run"]) == 1
    errors = capsys.readouterr().err
    assert below in errors
    assert above in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        ("training", "write module:function"),
        ("no_such_module:train", "ModuleNotFoundError"),
        ("os:no_such_function", "no_such_function"),
        ("os:sep", "a str is neither a function nor one of NNI's evaluators"),
    ],
)
def test_an_evaluator_that_cannot_be_loaded_is_named(
    evaluator: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("nni.nas")
    monkeypatch.chdir(tmp_path)
    assert main([*SEARCH, "--evaluator", evaluator]) == 1
    errors = capsys.readouterr().err
    assert f"--evaluator {evaluator}: " in errors
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_a_search_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nni.nas")
    RunFolder.create(tmp_path / "run", Settings("spos-small", devices=[DEVICE]), {}).close()
    before = (tmp_path / "run" / "search.json").read_bytes()
    assert main([*SEARCH, "-o", str(tmp_path / "run")]) == 1
    assert "holds a search already" in capsys.readouterr().err
    assert (tmp_path / "run" / "search.json").read_bytes() == before


@pytest.mark.parametrize(("package", "extra"), [("ray", "ray"), ("matplotlib", "plot")])
def test_a_package_that_trials_would_miss_is_told_before_anything_is_made(
    package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    pytest.importorskip("nni.nas")
    monkeypatch.setitem(sys.modules, package, None)
    run = tmp_path / "run"
    assert main([*SEARCH, "--training-service", "ray", "-o", str(run)]) == 1
    error = f"needs the package {package!r}: pip install 'nnmeter_nas[{extra}]'"
    assert error in capsys.readouterr().err
    assert not run.exists()


def test_a_cluster_that_does_not_answer_leaves_the_folder_free(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nni.nas")
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [*RANKED, "--max-latency", "1.8", "--training-service", "ray", "--address", address]
        for _ in range(2):
            assert main([*command, "-o", str(tmp_path / "run")]) == 1
            assert f"no scheduler answers at {address}" in capsys.readouterr().err


def test_machines_need_an_nni_that_notices_that_one_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[[list[str], str], None]
) -> None:
    if nni_line() != RETIARII:
        pytest.skip("of NNI 2.10.1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").touch()
    (tmp_path / "machines.yaml").write_text("machines: [{host: 10.0.0.1, user: me, key: key}]")
    refused([*SEARCH, "--training-service", "remote", "--machines", "machines.yaml"],
            "--training-service remote needs NNI 3.0")  # fmt: skip


@pytest.mark.parametrize(
    ("fact", "then"), [("nni", "1.9"), ("space", "another"), ("packs", {DEVICE: [1.0, "another"]})]
)
def test_a_search_goes_on_only_with_what_it_began_with(
    fact: str, then: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nni.nas")
    settings = Settings("spos-small", devices=[DEVICE], max_latency={DEVICE: 1.8}, folder=str(tmp_path))
    RunFolder.create(tmp_path / "run", settings, {fact: then}).close()
    assert main(["search", "--resume", str(tmp_path / "run")]) == 1
    errors = capsys.readouterr().err
    assert f"the search began with {fact}" in errors
    assert json.loads((tmp_path / "run" / "search.json").read_text())["facts"] == {fact: then}


def test_a_space_that_the_engine_refuses_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nni.nas")
    from nnmeter_nas.search import running

    def refuse(*_: object) -> None:
        raise SpaceError("NNI's graph engine cannot take it; search with engine=py")

    monkeypatch.setattr(running, "run_search", refuse)
    run = tmp_path / "run"
    for _ in range(2):
        assert main([*SEARCH, "--engine", "graph", "-o", str(run)]) == 1
        assert "nnmeter-nas: error: NNI's graph engine cannot take it; search with --engine py\n" in (
            capsys.readouterr().err
        )
        assert not (run / "search.json").exists()


def test_demo_is_a_search_that_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nni.nas")
    from nnmeter_nas.search.experiment import Search
    from nnmeter_nas.strategies import LearnedPareto

    started: dict[str, Any] = {}
    monkeypatch.setattr("nnmeter_nas.cli.demo.start", lambda values, *_, **__: started.update(values) or 0)
    assert main(["demo", "--trials", "4"]) == 0
    assert started["options"] == {"start": 2}
    search = Search(Settings(**started, folder="."))
    assert isinstance(search.strategy, LearnedPareto)
