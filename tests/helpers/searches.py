"""Results of searches, shared by the tests of reports."""

from __future__ import annotations

from dataclasses import replace

from nnmeter_nas.search.report.outcome import Hardware, SearchReport
from nnmeter_nas.search.report.trials import Trial

CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"
CPU_MS, GPU_MS = f"latency_ms_{CPU}", f"latency_ms_{GPU}"
CHOICES = {"layer_1": "k3", "layer_2": "xception"}
FAST = Trial(1, CHOICES, {"latency_ms": 2.0}, 0.90, 9.0)
BALANCED = Trial(2, {**CHOICES, "layer_1": "k5"}, {"latency_ms": 3.0}, 0.95, 9.0)
BEATEN = Trial(3, CHOICES, {"latency_ms": 3.5}, 0.93, 9.0)
FAILED = Trial(4, CHOICES, {"latency_ms": 1.0}, failure="ValueError: no such kernel [/k9]")
RUNNING = Trial(5, CHOICES, {"latency_ms": 2.5})


def report_of(*trials: Trial) -> SearchReport:
    """A search on the CPU with a limit of 4 ms and the given trials."""
    return SearchReport(
        "spos-small",
        (1, 3, 32, 32),
        trials,
        {"latency_ms": Hardware(CPU, 2.0, "abc")},
        maxima={"latency_ms": 4.0},
        strategy="random",
        nni="2.10.1",
        settings={"seed": 7},
    )


def two_devices(*trials: Trial) -> SearchReport:
    """A search on CPU and GPU that also counts operations; adds GPU latency and operations to the trials."""
    measured = [
        replace(t, values={CPU_MS: ms, GPU_MS: 10.0 - ms, "flops": 1e8 * ms})
        for t in trials
        for ms in t.values.values()
    ]
    return replace(
        report_of(*measured),
        hardware={CPU_MS: Hardware(CPU, 2.0), GPU_MS: Hardware(GPU, 2.0)},
        maxima={CPU_MS: 4.0, GPU_MS: 9.0, "flops": 5e8},
        minima={CPU_MS: 1.5},
        objectives=(CPU_MS, GPU_MS, "flops"),
    )
