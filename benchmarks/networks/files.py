"""Write standard networks as ONNX files, which runtimes run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import networkx as nx
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
        path = folder / f"{name}.onnx"
        write_bytes(path, to_onnx(network_graph(name)))
        yield path


def network_graph(name: str) -> nx.DiGraph:
    """Return the model graph of a reference network or of an unusual one."""
    with torch.device("meta"):
        if name not in UNUSUAL:
            return read_model(build_network(name), input_shape=input_shape(name))
        constructor, size = UNUSUAL[name]
        return read_model(constructor().eval(), input_shape=(1, 3, size, size))
