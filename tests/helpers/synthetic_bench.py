"""A small bench dataset with made-up models and devices, for tests without measured latencies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ir import IrBuilder, small_cnn
from nnmeter_nas.kernels.configuration import Configurations, configuration
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers import read_model

CPU, VPU = "cortexA76cpu_tflite21", "myriadvpu_openvino2019r2"


def inception(width: int, kernel: int, size: int) -> dict[str, Any]:
    """Two blocks of parallel convolutions, joined by a concat, in nn-Meter IR."""
    b = IrBuilder((1, size, size, 3))
    last = b.unary("stem/relu", "Relu", b.conv("stem", "input", width, stride=2))
    for i in range(2):
        branches = [b.conv(f"b{i}/narrow", last, width, 1), b.conv(f"b{i}/wide", last, width, kernel)]
        batch, height, breadth, _ = b.shapes[branches[0]]
        last = b.add(f"b{i}/join", "ConcatV2", branches, [batch, height, breadth, 2 * width], {"axis": 3})
        last = b.pool(f"b{i}/pool", last)
    b.classifier(last)
    return b.nodes


def made_up_latency(graph: dict[str, Any], device: str) -> float:
    """Latency in ms on a device with fixed times per kernel, per operation and per value moved."""
    fused = fuse(read_model(graph), parse_rules(devices()[device]["fusion_rules"]))
    work = Configurations.of(configuration(kernel) for _, kernel in fused.nodes(data="kernel")).work
    return float(np.sum(0.01 + work.macs / 2e7 + (work.read + work.written) / 5e6 + work.weights / 1e8))


def write_bench(folder: Path, models: int = 30) -> Path:
    """Write ``models`` of each of two families into ``folder``; some VPU latencies are missing."""
    rng = np.random.default_rng(0)
    for family, build in (("plainnet", small_cnn), ("wideception", inception)):
        lines = []
        for i in range(models):
            width, kernel = int(rng.integers(2, 12)) * 4, int(rng.choice([1, 3, 5]))
            graph = build(width, kernel, size=int(rng.integers(2, 9)) * 16)
            latency = {CPU: made_up_latency(graph, CPU), VPU: made_up_latency(graph, VPU) if i % 7 else None}
            lines.append(json.dumps({"id": f"{family}_{i}", **latency, "graph": graph}))
        (folder / f"{family}s.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
