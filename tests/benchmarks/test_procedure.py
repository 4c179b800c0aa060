"""nn-Meter's procedure beside a build: on a simulated device it measures, stops, goes on and predicts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

pytest.importorskip("torch", reason="networks are torch modules")
pytest.importorskip("onnx")
pytest.importorskip("psutil")

from layout import HELPERS, REPOSITORY
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.networks.files import network_graph
from nnmeter_nas.benchmarks.procedure import comparison
from nnmeter_nas.benchmarks.procedure.bench import Bench
from nnmeter_nas.benchmarks.procedure.comparison import load_results, run_procedure
from nnmeter_nas.benchmarks.procedure.nn_meter import (
    PHASES,
    RULES,
    Built,
    NnMeter,
    ProcedureError,
    build_as_nn_meter,
    predict_as_nn_meter,
)
from nnmeter_nas.benchmarks.procedure.page import write_procedure
from nnmeter_nas.builder.plan import Plan
from nnmeter_nas.builder.worker import worker
from nnmeter_nas.compat.builder.models import lone_kernel
from nnmeter_nas.errors import DatasetError
from nnmeter_nas.journal import Journal
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from simulated_device import RULES as SECRET
from simulated_device import Device, kernel_ms

DEVICE = "simulated_device:Device"
ENVIRONMENT = REPOSITORY / ".venv-nnmeter"
#: One size of each kernel type.
SIZES: dict[str, dict[str, int]] = {
    "conv-bn-relu": {"HW": 14, "CIN": 32, "COUT": 48, "KERNEL_SIZE": 3, "STRIDES": 2},
    "dwconv-bn-relu": {"HW": 14, "CIN": 32, "KERNEL_SIZE": 3, "STRIDES": 2},
    "maxpool": {"HW": 14, "CIN": 32, "KERNEL_SIZE": 3, "STRIDES": 2},
    "avgpool": {"HW": 14, "CIN": 32, "KERNEL_SIZE": 2, "STRIDES": 2},
    "fc": {"CIN": 64, "COUT": 10},
    "concat": {"HW": 7, "CIN1": 8, "CIN2": 4, "CIN3": 12, "CIN4": 0},
    **{
        name: {"HW": 7, "CIN": 32}
        for name in ("split", "channelshuffle", "se", "global-avgpool", "bnrelu", "bn", "hswish", "relu",
                     "addrelu", "add")
    },
}  # fmt: skip
#: nn-Meter's settings, as far as they are needed here.
SETTINGS = {
    "HW": 28, "CIN": 64, "SHAPE_1D": 428, "COUT": 128, "KERNEL_SIZE": 3, "STRIDES": 1, "POOL_STRIDES": 2,
    "EMP_ALPHA": 0.5, "LAYERS_1D": ["fc"],
    "BASIC_TESTCASES": ["conv_bn", "conv_relu", "conv_add", "conv_conv", "dwconv_relu", "add_relu", "bn_relu",
                        "relu_add", "fc_relu", "relu_reshape", "concat_relu", "avgpool_relu", "conv_hswish",
                        "relu_relu"],
}  # fmt: skip


class StandIn(NnMeter):
    """Answers as nn-Meter does: ``each`` of all kernel types, and forests that give every kernel its mean."""

    def __init__(self, each: int = 1) -> None:
        self.each = each
        self.steps: list[str] = []

    def step(self, name: str, seed: int = 0, **job: Any) -> dict[str, Any]:
        self.steps.append(name)
        if name == "settings":
            return {"ruletest": SETTINGS}
        if name == "predict":
            mean = {kind: sum(ms for _, ms in rows) / len(rows) for kind, rows in job["measured"].items()}
            return {"ms": {kind: [mean[kind]] * len(r) for kind, r in job["rows"].items() if kind in mean}}
        return {"samples": [[kind, sizes] for kind, sizes in SIZES.items()] * self.each}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without noise, which workers find."""
    monkeypatch.setenv("PYTHONPATH", str(HELPERS))
    monkeypatch.setenv("SIMULATED_NOISE", "0")


@contextlib.contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """A bench of the simulated device."""
    (folder / "files").mkdir(exist_ok=True)
    with Journal(folder / "kernels.jsonl") as journal, worker(DEVICE, 5.0) as running:
        yield Bench(journal, Device(), running, folder / "files")


#: Kernels of a lone kernel, where they are not its type.
KERNELS = {
    "bnrelu": ["bn-relu"],
    "addrelu": ["add-relu"],
    "global-avgpool": ["globalavgpool"],
    "se": ["globalavgpool", "conv-relu", "conv-hswish", "mul"],
}


@pytest.mark.parametrize("kernel_type", SIZES)
def test_a_lone_kernel_is_what_its_type_says(kernel_type: str) -> None:
    graph = lone_kernel(kernel_type, SIZES[kernel_type])
    kernels = fuse(graph, parse_rules(SECRET)).nodes(data="kernel")
    assert [kernel.type for _, kernel in kernels] == KERNELS.get(kernel_type, [kernel_type])


def test_fusion_rules_come_from_times_and_kernels_from_three_rounds(tmp_path: Path) -> None:
    with bench(tmp_path) as on:
        found = build_as_nn_meter(StandIn(), on, 300.0, lambda text: None)
        records = on.records()
    true = {f"BF_{rule.replace('->', '_')}" for rule in SECRET}
    # Reading a model drops the second of two equal activations, so the device takes no time for it.
    assert set(found.used) == true & {f"BF_{name}" for name in SETTINGS["BASIC_TESTCASES"]}
    assert set(found.rules) - set(found.used) == {"BF_relu_relu"}, "no forest knows such a kernel"
    assert found.tests == len(SETTINGS["BASIC_TESTCASES"]) - 1, "reshape takes no part"
    assert {kind: len(rows) for kind, rows in found.measured.items()} == dict.fromkeys(SIZES, len(PHASES))
    assert found.left_out == 0
    assert list(dict.fromkeys(record["phase"] for record in records)) == [RULES, *PHASES]
    models = [record["model"] for record in records if record["phase"] == RULES]
    assert len(models) == 4 * len(set(models))
    assert len(set(models)) < 3 * found.tests, "an operator alone is one model"
    [(sizes, ms)] = found.measured["fc"][:1]
    kernels = fuse(lone_kernel("fc", sizes), parse_rules(SECRET)).nodes(data="kernel")
    assert ms == pytest.approx(sum(kernel_ms(kernel) for _, kernel in kernels))


def test_a_run_goes_on_and_stops_when_its_budget_is_spent(tmp_path: Path) -> None:
    with bench(tmp_path) as on:
        build_as_nn_meter(StandIn(1000), on, 4.0, lambda text: None)
    journal = tmp_path / "kernels.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("".join(f"{line}\n" for line in lines[:40]))
    with bench(tmp_path) as on:
        first = build_as_nn_meter(StandIn(1000), on, 4.0, lambda text: None)
        again = StandIn(1000)
        assert build_as_nn_meter(again, on, 4.0, lambda text: None) == first
    assert again.steps == ["settings"], "the budget is spent"
    assert journal.read_text().splitlines()[:40] == lines[:40]


def test_a_kernel_that_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIMULATED_FAULTS", "model=error")
    with bench(tmp_path) as on:
        found = build_as_nn_meter(StandIn(), on, 1.0, lambda text: None)
    assert found.rules == ()
    assert found.kernels == 0
    assert found.left_out > 0


def test_a_network_is_the_sum_of_the_kernels_that_have_a_forest() -> None:
    seen: dict[str, Sequence[Sequence[float]]] = {}

    class Counting(StandIn):
        def step(self, name: str, seed: int = 0, **job: Any) -> dict[str, Any]:
            seen.update(job["rows"])
            return {"ms": {kind: list(range(len(r))) for kind, r in job["rows"].items() if kind != "fc"}}

    rules = ("BF_conv_bn", "BF_conv_relu", "BF_dwconv_bn", "BF_dwconv_relu")
    built = Built((*rules, "BF_relu_conv"), rules, 5, {}, 0, 0.0)
    graphs = [network_graph("squeezenet1_1"), network_graph("thin")]
    squeezenet, thin = predict_as_nn_meter(Counting(), built, rules, graphs)
    convolutions = sum(data["op"] == "conv" for _, data in graphs[0].nodes(data=True))
    concats, pools = 8, 3
    assert squeezenet.without == ()
    assert squeezenet.ms == sum(sum(range(n)) for n in (convolutions, concats, pools, 1))
    assert "swish" in thin.without
    assert "fc" in thin.without
    assert {len(row) for row in seen["concat"]} == {5}, "the builder's forests do not count the branches"


ENTRY: dict[str, Any] = {
    "machine": {
        "date": "2026-01-02T03:04+00:00", "cpu": "some", "cores": 2, "memory_gib": 4.0, "system": "Linux 6",
        "python": "3.11.7", "load_before": 1.5, "packages": {"numpy": "2"}, "rivals": {"nn-Meter": "2.0"},
    },
    "runtime": "simulated 1.0",
    "ours": {"minutes": 2.04, "networks": 48, "kernels": 1200},
    "nn-Meter": {
        "minutes": 2.1, "kernels": {"fc": 1000, "bn": 7}, "left_out": 3, "tests": 49,
        "rules": ["BF_conv_bn", "BF_relu_conv"], "used": ["BF_conv_bn"],
        "told": ["BF_conv_bn", "BF_conv_relu"],
    },
    "networks": [
        {"name": "resnet18", "measured_ms": 10.0, "halves_ms": [10.0, 9.3], "ours_ms": 10.4,
         "nn-Meter_ms": 15.0, "nn-Meter_told_ms": 10.0, "without_forest": []},
        {"name": "alexnet", "measured_ms": 20.0, "halves_ms": [20.0, 20.1], "ours_ms": 21.8,
         "nn-Meter_ms": 21.0, "nn-Meter_told_ms": 20.0, "without_forest": []},
        {"name": "vit", "measured_ms": 5.0, "halves_ms": [5.0, 5.1], "ours_ms": 5.0,
         "nn-Meter_ms": 1.0, "nn-Meter_told_ms": 4.0, "without_forest": ["softmax"]},
    ],
}  # fmt: skip


def test_the_table_stands_between_the_marks_of_the_page(tmp_path: Path) -> None:
    results, page = tmp_path / "procedure.json", tmp_path / "page.md"
    results.write_text(json.dumps({DEVICE: ENTRY}))
    page.write_text("before\n<!-- procedure: begin -->\nold\n<!-- procedure: end -->\nafter\n")
    write_procedure(results, page)
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    rows = [[cell.strip() for cell in line.split("|")[3:-1]] for line in lines[4:8]]
    ours, theirs, told, repeats = rows
    assert ours == ["2.0", "48 networks (1,200 kernels in them)", "50", "100", "1.000", "100", "100", "–"]
    assert theirs == ["2.1", "1,007 kernels, 49 pairs of operators", "50", "50", "1.000", "0", "0", "–"]
    assert told == ["", "", "100", "100", "1.000", "0", "0", "–"]
    assert repeats == ["", "", "50", "100", "1.000", "100", "100", "–"]
    assert "resnet18, alexnet" in lines[9]
    assert "2 of the 3 networks" in lines[9]
    assert "a busy machine" in lines[9]
    with pytest.raises(DatasetError, match="holds no results"):
        write_procedure(tmp_path / "none.json", page)


def test_wrong_usage_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(["procedure", "--network", "resnet81"])
    assert error.value.code == 2
    assert "did you mean 'resnet18'" in capsys.readouterr().err
    work = tmp_path / "work"
    arguments = ["procedure", "--backend", DEVICE, "--environment", str(tmp_path), "--work", str(work)]
    assert main(arguments) == 1
    assert "`make procedure` sets it up" in " ".join(capsys.readouterr().err.split())
    assert not work.exists()


needs_nn_meter = pytest.mark.skipif(
    not (ENVIRONMENT / "bin" / "python").exists(), reason="nn-Meter 2.0 is not set up"
)


@needs_nn_meter
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nn_meter_itself_samples_fits_and_predicts() -> None:
    nn_meter = NnMeter(ENVIRONMENT / "bin" / "python")
    assert nn_meter.step("settings")["ruletest"]["EMP_ALPHA"] == 0.5
    samples = nn_meter.step("prior")["samples"]
    assert nn_meter.step("prior")["samples"][:50] == samples[:50], "a run goes on with the same samples"
    assert {kind for kind, _ in samples} == set(SIZES)
    assert len(samples) > 50_000
    measured: dict[str, list[Any]] = {}
    few = ("conv-bn-relu", "maxpool", "fc", "concat")
    for kind, sizes in [one for one in samples[:300] if one[0] in few]:
        measured.setdefault(kind, []).append([sizes, float(sizes.get("CIN", 1))])
    around = nn_meter.step("adapt", 1, measured=measured)["samples"]
    assert {"conv-bn-relu", "maxpool"} <= {kind for kind, _ in around} <= set(few)
    assert all(lone_kernel(kind, sizes) for kind, sizes in around[:100])
    answer: Mapping[str, list[float]] = nn_meter.step(
        "predict", measured={"fc": [[{"CIN": c, "COUT": 10}, float(c)] for c in range(1, 101)]},
        rows={"fc": [[50, 10, 0.000505, 0.00101]], "bn": [[7, 8]]},
    )["ms"]  # fmt: skip
    assert answer["fc"] == [pytest.approx(50, abs=5)]
    assert "bn" not in answer, "no forest without kernels"
    with pytest.raises(ProcedureError, match="KeyError"):
        nn_meter.step("no such step")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_ways_are_judged_by_the_same_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "NnMeter", lambda python: StandIn(1000))
    monkeypatch.setattr("nnmeter_nas.builder.fitting._QUICK_STEPS", 50)  # only the pack predicts
    plan = Plan(minutes=0.02, networks=16, round_size=16, visits=2, limit_s=5.0, members=1)
    networks = ("thin", "grouped", "squeezenet1_1", "mobilenet_v2")

    def run() -> dict[str, Any]:
        results = run_procedure(
            DEVICE, plan, networks, tmp_path / "work", tmp_path, tmp_path / "results", Console(quiet=True)
        )
        return load_results(results)[DEVICE]

    found = run()
    assert [one["name"] for one in found["networks"]] == list(networks)
    assert all(abs(one["ours_ms"] / one["measured_ms"] - 1) < 0.2 for one in found["networks"])
    assert all(one["halves_ms"] == pytest.approx([one["measured_ms"]] * 2) for one in found["networks"])
    assert found["ours"]["networks"] == 16
    assert found["nn-Meter"]["minutes"] >= found["ours"]["minutes"] - 0.01
    before = [(tmp_path / "work" / name).read_bytes() for name in ("judges.jsonl", "kernels.jsonl")]
    again = run()
    assert [(tmp_path / "work" / name).read_bytes() for name in ("judges.jsonl", "kernels.jsonl")] == before
    assert {**again, "machine": None} == {**found, "machine": None}
