"""Write standard networks as ONNX files, which runtimes run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from nnmeter_nas.files import write_bytes
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.onnx.writer import to_onnx

from . import NETWORKS, build_network, input_shape
from .unusual import UNUSUAL


def write_networks(folder: Path) -> Iterator[Path]:
    """Write all reference networks and some unusual ones, with random weights; yield each file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*NETWORKS, *UNUSUAL):
        with torch.device("meta"):
            if name in NETWORKS:
                module, shape = build_network(name), input_shape(name)
            else:
                constructor, size = UNUSUAL[name]
                module, shape = constructor().eval(), (1, 3, size, size)
        path = folder / f"{name}.onnx"
        write_bytes(path, to_onnx(read_model(module, input_shape=shape)))
        yield path
