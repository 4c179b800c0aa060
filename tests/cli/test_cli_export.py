"""`export`: an architecture that a search found becomes an ONNX file of the same network and latency."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("nni.nas")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

import onnx
import torch
from onnx.reference import ReferenceEvaluator

from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main
from nnmeter_nas.search.rebuild import load_architecture, rebuild
from nnmeter_nas.search.report.files import write_report
from nnmeter_nas.search.report.outcome import Hardware
from nnmeter_nas.search.report.trials import Trial
from nnmeter_nas.supernet.named import load_space
from searches import CPU, GPU, report_of

pytestmark = [
    pytest.mark.nni3,
    pytest.mark.filterwarnings("ignore::nnmeter_nas.LatencyWarning"),  # the networks are small
]
DEVICES = {f"latency_ms_{device}": Hardware(device, 2.1) for device in (CPU, GPU)}

torch.set_num_threads(1)


def found(folder: Path, space_name: str, first: int = 0, **changes: Any) -> Path:
    """What a search leaves of one architecture, whose choices go through the candidates from ``first`` on."""
    space = load_space(space_name)
    choices = {
        label: known[(first + i) % len(known)] for i, (label, known) in enumerate(space.candidates.items())
    }
    graph = space.model_graph(choices)
    values = {
        name: load_latency_predictor(hardware.device).predict(graph) for name, hardware in DEVICES.items()
    }
    report = replace(
        report_of(Trial(1, choices, values, 0.9)),
        space=space_name,
        input_shape=space.input_shape,
        hardware=DEVICES,
        maxima={},
        objectives=tuple(values),
    )
    write_report(report, folder)
    path = folder / "best" / "1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.slow
def test_trained_network_comes_out_as_the_same_function_of_the_latency_that_was_found(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = found(tmp_path, "spos-small")
    architecture = load_architecture(path)
    network = rebuild(architecture)
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, -0.3, 0.3)
    torch.save(network.state_dict(), tmp_path / "trained.pt")
    output = tmp_path / "net.onnx"
    assert main(["export", str(path), "-o", str(output), "--weights", str(tmp_path / "trained.pt")]) == 0
    printed, remarks = capfd.readouterr()
    for name, hardware in DEVICES.items():
        latency = load_latency_predictor(hardware.device).predict(output)
        assert latency == pytest.approx(architecture.values[name], rel=1e-6)
        assert f"{latency:.4g} ms on {hardware.device}" in printed
    assert "random" not in remarks
    assert "torchvision" not in remarks

    model = onnx.load(output)
    onnx.checker.check_model(model)
    image = np.random.default_rng(0).normal(size=architecture.input_shape).astype(np.float32)
    [logits] = ReferenceEvaluator(model).run(["output"], {"input": image})
    with torch.no_grad():
        expected = network(torch.from_numpy(image)).numpy()
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["nnmeter_nas"])["choices"] == dict(architecture.choices)


@pytest.mark.slow
def test_network_lies_beside_its_architecture_and_what_differs_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = load_space("nasbench201-small").candidates
    # Pools of the same input do the same, so that the exporter merges them.
    pools = dict.fromkeys(labels, "avg_pool_3x3")
    path = found(tmp_path, "nasbench201-small", choices=pools, values={f"latency_ms_{CPU}": 123.0})
    assert main(["export", str(path)]) == 0
    printed, remarks = capfd.readouterr()
    assert str(path.with_suffix(".onnx")) in printed
    assert path.with_suffix(".onnx").is_file()
    assert "its weights are random" in remarks
    assert "the search predicted 123 ms" in remarks
    assert "torch's exporter merges operators" in remarks


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "'input_shape'"),
        ('{"space": "spos-small", "input_shape": [1, 3, 0, 1], "choices": {"a": "b"}}', "no input shape"),
        ('{"space": "spos-small", "input_shape": [1, 3, 8, 8], "choices": {}}', "no choices"),
    ],
)
def test_file_that_is_no_architecture_is_an_error(
    tmp_path: Path, text: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1.json"
    path.write_text(text)
    assert main(["export", str(path), "-o", str(tmp_path / "net.onnx")]) == 1
    error = capfd.readouterr().err
    assert "1.json is no architecture that a search saved" in error
    assert reason in error
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"space": "spos-smal"}, "did you mean 'spos-small'"),
        ({"choices": {"layer_1": "k3"}}, "layer_2"),
        ({"choices": {f"layer_{i}": "k9" for i in range(1, 7)}}, "k9"),
    ],
)
def test_architecture_of_another_space_is_an_error(
    tmp_path: Path, changes: dict[str, Any], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = found(tmp_path, "spos-small", **changes)
    assert main(["export", str(path), "-o", str(tmp_path / "net.onnx")]) == 1
    assert reason in capfd.readouterr().err
    assert not (tmp_path / "net.onnx").exists()


def test_weights_of_another_network_are_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = found(tmp_path, "spos-small")
    other = rebuild(load_architecture(found(tmp_path / "other", "spos-small", first=1)))
    torch.save(other.state_dict(), tmp_path / "other.pt")
    (tmp_path / "text.pt").write_text("no weights")
    for name in ("other.pt", "text.pt"):
        weights = tmp_path / name
        assert main(["export", str(path), "--weights", str(weights)]) == 1
        assert f"{weights} holds no weights of this network" in capfd.readouterr().err
    assert main(["export", str(path), "--weights", str(tmp_path / "none.pt")]) == 1
    assert "none.pt" in capfd.readouterr().err
    assert not path.with_suffix(".onnx").exists()


def test_folder_in_place_of_the_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path / "1.json"), "-o", str(tmp_path)])
    assert ended.value.code == 2
