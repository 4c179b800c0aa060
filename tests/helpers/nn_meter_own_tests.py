"""Run nn-Meter's own tests on this package, from a checkout of nn-Meter.

    python tests/helpers/nn_meter_own_tests.py PATH_OF_CHECKOUT

These are its integration tests: those of the command and, under NNI 2.10.1, those of torch modules. In place
of the models that they download, they run on small ones made here. Left out are its unit tests, which are of
the builder, and its tests of torchvision's own models. Nothing is written into the checkout. Prints what
passed; exits with 1 if anything failed.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from nnmeter_nas import compat

#: Their folder of models -> the flag of the command, and the suffix of a file.
_FORMATS = {"ir": ("nn-meter-ir", ".json"), "pb": ("tensorflow", ".pb"), "onnx": ("onnx", ".onnx")}
#: Parts of torchvision that its networks in nn-Meter import.
_UNUSED = ("detection", "quantization", "segmentation", "video")
_MODEL = "mobilenetv3small_0"
#: Largest difference from the latencies that nn-Meter's tests expect of its own predictors, and the largest
#: share of latencies that may differ by more: nn-Meter leaves out operators, and its forests err, too.
_TOLERANCE, _OUTLIERS = 0.25, 0.25


def main(checkout: Path) -> int:
    """Run the tests in ``checkout`` and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "checkout"
        shutil.copytree(checkout / "tests" / "integration_test", work / "tests" / "integration_test")
        compat.install()
        importlib.import_module("nn_meter")  # their tests use the levels that it gives to logging
        os.environ["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        sys.path.insert(0, str(work / "tests" / "integration_test"))
        os.chdir(work)
        models = write_models(checkout / "material" / "testmodels", work.parent / "data" / "testmodels")
        try:
            failed = [name for name, test in tests(models, work).items() if not passes(name, test)]
        finally:
            compat.uninstall()
            os.chdir(checkout)
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return bool(failed)


def write_models(given: Path, folder: Path) -> dict[str, Path]:
    """Write a model of each format, as far as packages are there; return the folders by name."""
    ir = json.loads((given / f"{_MODEL}.json").read_text())
    contents = {"ir": json.dumps(ir).encode()}
    if find_spec("tensorboard"):
        contents["pb"] = importlib.import_module("ir_to_tensorflow").graph_def_of_ir(ir).SerializeToString()
    if find_spec("onnx") and find_spec("torch"):
        networks = importlib.import_module("nnmeter_nas.benchmarks.networks")
        network = networks.build_network("mobilenet_v3_small").eval()
        export = importlib.import_module("recorded").onnx_of
        contents["onnx"] = export(network, (1, 3, 224, 224)).SerializeToString()
    folders = {name: folder / name for name in contents}
    for name, content in contents.items():
        folders[name].mkdir(parents=True)
        (folders[name] / f"{_MODEL}{_FORMATS[name][1]}").write_bytes(content)
    return folders


def tests(models: dict[str, Path], work: Path) -> dict[str, Callable[[], None]]:
    """Return nn-Meter's tests that can run here, by what they test."""
    command: Any = importlib.import_module("test_latency_predictor")
    found: dict[str, Callable[[], None]] = {"nn-meter -h": command.check_package_status}
    expected = reference(work / "tests" / "integration_test" / "data" / "reference_result.txt", "tensorflow")

    def predict(name: str) -> None:
        results = work / f"{name}.txt"
        command.integration_test(_FORMATS[name][0], "", str(models[name]), str(results))
        check(results, {(file.stem, p): expected[_MODEL, p] for file in models[name].iterdir()
                        for p, _ in command.get_predictors()}, len(command.get_predictors()))  # fmt: skip

    for name in models:
        found[f"nn-meter predict --{_FORMATS[name][0]}"] = lambda name=name: predict(name)
    for name in models.keys() - {"ir"}:
        flag, folder = _FORMATS[name][0], str(models[name])
        found[f"nn-meter get_ir --{flag}"] = lambda flag=flag, folder=folder: command.check_getir_module(
            flag, folder
        )
    if find_spec("nni") and find_spec("nni.retiarii"):
        import_networks()
        torch_tests: Any = importlib.import_module("test_latency_predictor_torch")

        def predict_torch() -> None:
            results = work / "torch.txt"
            torch_tests.integration_test_nni_based_torch(str(results))
            file = work / "tests" / "integration_test" / "data" / "reference_result_nni_based_torch.txt"
            count = len(torch_tests.__dict__["__torchvision_model_zoo__"]) * len(command.get_predictors())
            check(results, reference(file, "torch"), count)

        found["predict of torch modules, apply_nni=True"] = predict_torch
    return found


def import_networks() -> None:
    """Import nn-Meter's copies of torchvision's networks; they import parts of it that they do not use."""
    importlib.import_module("nni.retiarii.nn.pytorch")
    names = ["torchvision", "torchvision.models", *map("torchvision.models.{}".format, _UNUSED)]
    absent = names if find_spec("torchvision") is None else []
    for name in absent:
        sys.modules[name] = ModuleType(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    importlib.import_module("data.torchmodels")
    for name in absent:
        del sys.modules[name]


def reference(file: Path, model_type: str) -> dict[tuple[str, str], float]:
    """Read the latencies that nn-Meter's tests expect: (model, predictor) -> ms."""
    rows = [line.split(", ") for line in file.read_text().splitlines()[1:]]
    return {(Path(row[0]).stem, row[2]): float(row[4]) for row in rows if row[1] == model_type}


def check(results: Path, expected: dict[tuple[str, str], float], count: int) -> None:
    """Check that a test wrote ``count`` latencies, and how far those of known devices are off."""
    rows = [line.split(", ") for line in results.read_text().splitlines()[1:]]
    assert len(rows) == count, f"{len(rows)} results, not {count}"
    off = []
    for model, _, predictor, version, latency in rows:
        known = expected.get((Path(model).stem, predictor))
        assert float(latency) > 0
        if known is not None:
            told = f"{model} on {predictor} {version}: {latency}, {known} there"
            off.append((abs(float(latency) / known - 1), told))
    print(f"  {len(rows)} latencies, {len(off)} of them known; largest differences from nn-Meter's:")
    for share, text in sorted(off, reverse=True)[:3]:
        print(f"  {share:7.1%}  {text}")
    off_by_much = [text for share, text in off if share > _TOLERANCE]
    assert len(off_by_much) <= _OUTLIERS * len(off), "\n".join(off_by_much)


def passes(name: str, test: Callable[[], None]) -> bool:
    """Run a test and say how it ended."""
    try:
        test()
    except Exception:
        traceback.print_exc()
        print(f"FAILED  {name}", flush=True)
        return False
    print(f"passed  {name}", flush=True)
    return True


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1], "tests", "integration_test").is_dir():
        print("usage: nn_meter_own_tests.py PATH_OF_A_CHECKOUT_OF_NN_METER", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1]).resolve()))
