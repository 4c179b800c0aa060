"""Predict a model with nn-Meter 2.0, under nn-Meter's own interpreter: ``python reference.py JOB RESULT``.

JOB is a JSON file: ``predictors`` (device -> folder of ``*.pkl`` and ``fusion_rules.json``) and ``model``
(path of nn-Meter IR, ``.json``, or ONNX, ``.onnx``). nn-Meter simplifies the ONNX that it exports from torch
and reads no other, so a simplified model first overwrites an ONNX file. RESULT is a JSON file that is
written. For each device it holds the total in ms and the kernels, each with its type, its row of features,
whether a forest predicts it, and its ms; or the error that nn-Meter raised.
"""

from __future__ import annotations

import json
import logging
import pickle
import sys
from pathlib import Path
from typing import Any


def main(job_file: str, result_file: str) -> None:
    """Predict the job's model with each of its predictors."""
    import nn_meter

    logging.getLogger("nn-Meter").setLevel(logging.CRITICAL)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    if job["model"].endswith(".onnx"):
        simplify(job["model"])
    results = {}
    for device, folder in job["predictors"].items():
        rules = str(Path(folder) / "fusion_rules.json")
        results[device] = outcome(nn_meter.nnMeterPredictor(forests(Path(folder)), rules), job["model"])
    Path(result_file).write_text(json.dumps(results), encoding="utf-8")


def simplify(path: str) -> None:
    """Simplify the ONNX file in place, as nn-Meter does after its export from torch."""
    import onnx
    import onnxsim

    simple, same = onnxsim.simplify(onnx.load(path))
    if not same:
        raise ValueError(f"simplifying {path} changed what it computes")
    onnx.save(simple, path)


def forests(folder: Path) -> dict[str, Any]:
    """Load the forests of a predictor, by name."""
    found = {}
    for path in sorted(folder.glob("*.pkl")):
        with path.open("rb") as file:
            found[path.stem] = pickle.load(file)
    return found


def outcome(predictor: Any, path: str) -> dict[str, Any]:
    """Total and kernels of one model on one device, or the error that nn-Meter raises."""
    try:
        total = float(predictor.predict(path, "onnx" if path.endswith(".onnx") else "nnmeter-ir"))
        kernels = [described(predictor.kernel_predictors, kernel) for kernel in predictor.kd.get_kernels()]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"total": total, "kernels": kernels}


def described(forests: dict[str, Any], kernel: dict[str, Any]) -> dict[str, Any]:
    """One kernel: its type, its features (if any), whether a forest predicts it, and its ms."""
    from nn_meter.predictor.prediction.extract_feature import get_predict_features
    from nn_meter.predictor.prediction.predict_by_kernel import predict_model
    from nn_meter.predictor.prediction.utils import get_kernel_name

    features = get_predict_features([kernel])
    return {
        "type": kernel["op"],
        "row": features[0][kernel["op"]] if features else None,
        "predicted": bool(features) and get_kernel_name(kernel["op"]) in forests,
        "ms": float(predict_model(features, forests)),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
