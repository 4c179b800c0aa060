"""nn-Meter's kernel detector and helpers, by its names: the kernels and features that nn-Meter finds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ir import IrBuilder
from layout import REPOSITORY
from nnmeter_nas import compat, load_latency_predictor
from nnmeter_nas.errors import PackError

NNMETER = Path(os.environ.get("NNMETER_PYTHON", REPOSITORY / ".venv-nnmeter/bin/python"))
RULES = {
    "BF_conv_relu": {"obey": True}, "BF_conv_add": {"obey": True}, "BF_conv_bn": {"obey": False},
    "MON": {"obey": 0},
}  # fmt: skip


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    compat.install()
    yield
    compat.uninstall()


@pytest.fixture
def rule_file(tmp_path: Path) -> str:
    file = tmp_path / "fusion_rules.json"
    file.write_text(json.dumps(RULES))
    return str(file)


def network() -> dict[str, Any]:
    """Two branches that are added, a pool, a concatenation and a classifier."""
    ir = IrBuilder((1, 16, 16, 3))
    stem = ir.unary("relu", "Relu", ir.conv("stem", "input", 8, stride=2))
    added = ir.unary("add", "Add", ir.conv("wide", stem, 8), stem)
    pooled = ir.pool("pool", added)
    deep = ir.conv("deep", pooled, 8, depthwise=True)
    ir.add("joined", "ConcatV2", [pooled, deep], [1, 4, 4, 16], {"axis": 3})
    ir.classifier("joined")
    return ir.nodes


def test_kernels_are_told_as_by_nn_meter(rule_file: str) -> None:
    from nn_meter.kernel_detector import KernelDetector

    detector = KernelDetector(rule_file)
    detector.load_graph(network())
    kernels = detector.get_kernels()
    assert [kernel["name"] for kernel in kernels] == [
        "conv-relu#0", "conv-add#1", "maxpool#2", "dwconv#3", "concat#4", "gap#5", "fc#6",
    ]  # fmt: skip
    assert kernels[0] == {
        "op": "conv-relu", "name": "conv-relu#0", "input_tensors": [[1, 16, 16, 3]], "ks": [3, 3],
        "strides": [2, 2], "inputh": 16, "inputw": 16, "cin": 3, "cout": 8,
        "inbounds": [], "outbounds": ["conv-add#1"],
    }  # fmt: skip
    assert kernels[4]["input_tensors"] == [[1, 4, 4, 8], [1, 4, 4, 8]]
    assert kernels[4]["inbounds"] == ["maxpool#2", "dwconv#3"]
    assert (kernels[6]["cin"], kernels[6]["cout"], kernels[6]["outbounds"]) == (16, 10, [])


def test_features_are_those_of_nn_meters_predictors(rule_file: str) -> None:
    from nn_meter.kernel_detector import KernelDetector
    from nn_meter.predictor.prediction.extract_feature import get_predict_features

    detector = KernelDetector(rule_file)
    detector.load_graph(network())
    features = get_predict_features(detector.get_kernels())
    params = 8 * (9 * 3 + 1)
    assert features[0] == {"conv-relu": [16, 3, 8, 3, 2, 2 * 8 * 8 * params / 2e6, params / 1e6]}
    assert features[2] == {"maxpool": [8, 8, 8, 2, 2]}
    assert features[4] == {"concat": [4, 2, 8, 8, 0, 0]}
    assert features[5] == {"gap": [1, 16]}
    assert get_predict_features([{"op": "unheard", "input_tensors": [[1, 2]]}]) == {}


def test_a_predictor_has_its_devices_detector() -> None:
    import nn_meter

    predictor = nn_meter.load_latency_predictor("adreno640gpu_tflite21")
    detector = predictor.kd
    detector.load_graph(network())
    ops = [kernel["op"] for kernel in detector.get_kernels()]
    assert ops == ["conv-relu", "conv-add", "maxpool", "dwconv", "concat", "gap", "fc"]
    assert len(ops) == len(load_latency_predictor("adreno640gpu_tflite21").explain(network()).kernel_graph)


def test_a_file_without_rules_is_refused(tmp_path: Path) -> None:
    from nn_meter.kernel_detector import KernelDetector

    (tmp_path / "rules.json").write_text("no rules")
    with pytest.raises(PackError, match=r"rules\.json is not valid JSON"):
        KernelDetector(str(tmp_path / "rules.json"))


BOTH = """
import json, logging, sys
if sys.argv[1] == "ours":
    import nnmeter_nas.compat; nnmeter_nas.compat.install()
from nn_meter.kernel_detector import KernelDetector
from nn_meter.predictor.prediction.extract_feature import get_flops_params, get_predict_features
from nn_meter.predictor.prediction.utils import get_accuracy, get_kernel_name
import numpy as np
logging.getLogger("nn-Meter").setLevel("ERROR")
detector = KernelDetector(sys.argv[2])
detector.load_graph(json.load(open(sys.argv[3])))
kernels = detector.get_kernels()
print(json.dumps({
    "features": list(get_predict_features(kernels).values()),
    "names": [get_kernel_name(kernel["op"]) for kernel in kernels],
    "helpers": [
        get_flops_params("conv-relu", 7, 3, 5, 3, 2), get_flops_params("dwconv-relu", 7, 5, 5, 3, 2),
        get_accuracy(np.array([1.0, 2.0]), np.array([1.005, 3.0])),
    ],
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not NNMETER.exists(), reason="nn-Meter itself is not there; `make test` sets it up")
def test_nn_meter_itself_finds_the_same(rule_file: str, tmp_path: Path) -> None:
    (tmp_path / "network.json").write_text(json.dumps(network()))
    found = []
    for python, which in ((sys.executable, "ours"), (str(NNMETER), "theirs")):
        command = [python, "-W", "ignore", "-c", BOTH, which, rule_file, str(tmp_path / "network.json")]
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": ""}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        found.append(json.loads(result.stdout.splitlines()[-1]))
    ours, theirs = found
    assert ours["helpers"] == theirs["helpers"]
    assert Counter(ours["names"]) == Counter(theirs["names"])
    assert Counter(map(str, ours["features"])) == Counter(map(str, theirs["features"]))


def test_helpers_have_nn_meters_names() -> None:
    from nn_meter.predictor.prediction.predict_by_kernel import merge_conv_kernels
    from nn_meter.utils import get_conv_flop_params, get_dwconv_flop_params, get_fc_flop_params
    from nn_meter.utils.path import get_filename, get_filename_without_ext
    from nn_meter.utils.utils import NumpyEncoder

    assert get_conv_flop_params(8, 3, 16, 3, 2) == (2 * 4 * 4 * 448, 448)
    assert get_dwconv_flop_params(8, 16, 3, 1) == (2 * 8 * 8 * 160, 160)
    assert get_fc_flop_params(4, 10) == (90, 90)
    assert json.dumps({"a": np.arange(2), "b": b"text"}, cls=NumpyEncoder) == '{"a": [0, 1], "b": "text"}'
    with pytest.raises(TypeError):
        json.dumps({1j}, cls=NumpyEncoder)
    assert (get_filename("a/b.onnx"), get_filename_without_ext("a/b.onnx")) == ("b.onnx", "b")
    assert merge_conv_kernels("dwconv-relu") == "dwconv-bn-relu"
