"""The steps of nn-Meter 2.0's builder, by its own code: ``python nn_meter_steps.py JOB RESULT``.

It runs under the interpreter that has nn-Meter 2.0. JOB and RESULT are JSON files; JOB names its ``step``:

* ``settings``: nn-Meter's own settings for its fusion test, ``ruletest``.
* ``prior``: ``samples``, the kernels that it measures first: as many as its settings say, in random order.
* ``adapt``: ``samples`` around those kernels of the ``measured`` about which its forests are far off.
* ``predict``: ``ms`` of the ``rows`` of features, by the forests fitted to the ``measured`` kernels.

A sample is a kernel type and its sizes. ``measured`` has for each kernel type ``[sizes, ms]``, and ``rows``
has rows of features.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import warnings
from pathlib import Path
from typing import Any

#: The device whose parameters of forests are taken: nn-Meter's nearest to a CPU of another kind.
_DEVICE = "tflite_cpu"
#: Kernels of a type that it takes to fit a forest: nn-Meter tests with a fifth of them, but one at least.
_LEAST = 2
_POOLS = ("maxpool", "avgpool")


def main(job_file: str, result_file: str) -> None:
    """Do the step of a job."""
    import numpy as np

    warnings.simplefilter("ignore")  # forests of few kernels
    logging.getLogger("nn-Meter").setLevel(logging.CRITICAL)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    random.seed(job["seed"])
    np.random.seed(job["seed"])
    steps = {"settings": settings, "prior": prior, "adapt": adapt, "predict": predict}
    Path(result_file).write_text(json.dumps(steps[job["step"]](job)), encoding="utf-8")


def settings(job: dict[str, Any]) -> dict[str, Any]:
    """The settings of the fusion test."""
    return {"ruletest": _settings("fusion_rule_tester/ruletest_config.yaml")}


def prior(job: dict[str, Any]) -> dict[str, Any]:
    """What nn-Meter measures first: drawn from the sizes in well-known networks."""
    from nn_meter.builder.kernel_predictor_builder.data_sampler.utils import get_sampler_for_kernel

    kernels = _settings("predictor_builder/predictorbuild_config.yaml")["KERNELS"]
    drawn = {
        name: get_sampler_for_kernel(name, found["INIT_SAMPLE_NUM"], "prior")
        for name, found in kernels.items()
    }
    return {"samples": _mixed(drawn)}


def adapt(job: dict[str, Any]) -> dict[str, Any]:
    """Fit, and draw sizes around the tested kernels that are predicted badly."""
    from nn_meter.builder.kernel_predictor_builder.data_sampler.utils import get_sampler_for_kernel

    kernels = _settings("predictor_builder/predictorbuild_config.yaml")["KERNELS"]
    drawn, within_10 = {}, {}
    for name, measured in _enough(job["measured"]).items():
        found = kernels[name]
        _, within_10[name], wrong = _fit(name, measured, found["ERROR_THRESHOLD"])
        count = found["FINEGRAINED_SAMPLE_NUM"]
        drawn[name] = get_sampler_for_kernel(name, count, "finegrained", wrong) if wrong else []
    return {"samples": _mixed(drawn), "within_10": within_10}


def predict(job: dict[str, Any]) -> dict[str, Any]:
    """Fit, and predict rows of features of each kernel type that has a forest."""
    found = {}
    for name, measured in _enough(job["measured"]).items():
        if rows := job["rows"].get(name):
            forest, _, _ = _fit(name, measured, 0.1)
            found[name] = [float(ms) for ms in forest.predict(rows)]
    return {"ms": found}


def _settings(name: str) -> dict[str, Any]:
    """A file of settings that nn-Meter gives to each new workspace."""
    import nn_meter
    import yaml

    path = Path(nn_meter.__file__).parent / "configs" / "builder" / name
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def _mixed(drawn: dict[str, list[dict[str, int]]]) -> list[Any]:
    """All samples in random order, without those that nn-Meter cannot build: without channels."""
    samples = [
        [name, {key: int(size) for key, size in sizes.items()}]
        for name, of_type in drawn.items()
        for sizes in of_type
        if sizes.get("CIN", 1) > 0 and sizes.get("COUT", 1) > 0
    ]
    random.shuffle(samples)
    return samples


def _enough(measured: dict[str, Any]) -> dict[str, Any]:
    return {name: rows for name, rows in measured.items() if len(rows) >= _LEAST}


def _fit(name: str, measured: list[Any], threshold: float) -> Any:
    """Fit the forest of a kernel type; return it, its share within ±10 %, and what it predicts badly."""
    from nn_meter.builder.backend_meta.utils import Latency
    from nn_meter.builder.kernel_predictor_builder import build_predictor_by_data

    data = {}
    for i, (sizes, ms) in enumerate(measured):
        if name in _POOLS:
            sizes = {**sizes, "POOL_STRIDES": sizes["STRIDES"]}
        data[str(i)] = {"model": "", "config": sizes, "latency": Latency(ms)}
    return build_predictor_by_data(name, {name: data}, _DEVICE, error_threshold=threshold)


if __name__ == "__main__":
    main(*sys.argv[1:])
