"""nn-Meter's benchmark dataset for graph networks: its ``GNNDataset`` and ``GNNDataloader`` without dgl.

The tensors are nn-Meter's. A batch of graphs is PyTorch Geometric's ``Batch`` where that is installed, else a
:class:`Graphs`, which has the same fields. Both have ``ndata["h"]``, as dgl's graphs do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any

import torch

from ..errors import DatasetError, nearest
from ..readers.nnmeter_ir.dataset import iter_models
from .interface import bench_dataset

__all__ = ["GNNDataloader", "GNNDataset"]

#: The devices of the dataset.
hws = ["cortexA76cpu_tflite21", "adreno640gpu_tflite21", "adreno630gpu_tflite21", "myriadvpu_openvino2019r2"]
#: Largest input channels, output channels, height, width, kernel and stride, by which nn-Meter divides them.
_LARGEST = (6963, 6963, 224, 224, 11, 4)
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


class GNNDataset(torch.utils.data.Dataset[Any]):
    """The models of the dataset that one device has measured, each as a graph of operators.

    Args:
        train: the first models of each family, by id, else the last ones.
        device: the device whose latencies count.
        split_ratio: share of the models that is for training.
        data_dir: the files of the dataset; by default those of :func:`bench_dataset`.

    An item is ``(adjacency, attributes), latency in ms, types of operators``. The adjacency matrix has a one
    for each edge and for each node with itself, (nodes, nodes). The attributes are the type one-hot, in the
    order of the sorted types, then channels in and out, height, width, kernel and stride, (nodes, types + 6).

    Raises:
        DatasetError: ``device`` is none of the dataset's, ``split_ratio`` is no share, or the files cannot be
            read.
        PackError, MissingPackageError: the dataset cannot be fetched.
    """

    def __init__(
        self,
        train: bool = True,
        device: str = "cortexA76cpu_tflite21",
        split_ratio: float = 0.8,
        data_dir: Sequence[str] | None = None,
    ) -> None:
        if device not in hws:
            raise DatasetError(f"device={device!r} is no device of the dataset; {nearest(device, hws)}")
        if not 0 <= split_ratio <= 1:
            raise DatasetError(f"split_ratio={split_ratio} is a share, which lies between 0 and 1")
        self.device, self.train, self.split_ratio = device, train, split_ratio
        self.op_types: set[str] = set()
        self.name_list: list[str] = []
        self.latencies: dict[str, float] = {}
        self._graphs: dict[str, _Compact] = {}
        self.data_dir = list(bench_dataset() if data_dir is None else data_dir)
        for path in self.data_dir:
            self._load(path)
        if not self.name_list:
            raise DatasetError(f"the dataset has too few latencies of {device} to split")

    @property
    def opname2id(self) -> dict[str, int]:
        """Number of each type of operator."""
        return {op: i for i, op in enumerate(sorted(self.op_types))}

    def _load(self, path: str) -> None:
        """Add the models of one family."""
        graphs = dict[str, _Compact]()
        for model in iter_models(path):
            if self.device in model.latency_ms:
                self.latencies[model.id] = model.latency_ms[self.device]
                graphs[model.id] = _compact(model.graph)
        names = sorted(graphs)
        count = int(len(names) * (self.split_ratio if self.train else 1 - self.split_ratio))
        chosen = names[:count] if self.train else names[len(names) - count :]
        self.name_list += chosen
        for name in chosen:
            self._graphs[name] = graphs[name]
            self.op_types.update(graphs[name].types)

    def edges(self, index: int) -> torch.Tensor:
        """Edges of a model, of each node to itself among them: sources and targets, (2, edges), sorted."""
        return torch.tensor(self._graphs[self.name_list[index]].edges).T

    def attributes(self, index: int) -> torch.Tensor:
        """Attributes of the nodes of a model, (nodes, types + 6)."""
        graph = self._graphs[self.name_list[index]]
        numbers = self.opname2id
        kinds = torch.zeros(len(graph.types), len(numbers))
        kinds[range(len(graph.types)), [numbers[op] for op in graph.types]] = 1
        return torch.cat([kinds, torch.tensor(graph.sizes, dtype=torch.float32)], 1)

    def __getitem__(self, index: int) -> tuple[tuple[torch.Tensor, torch.Tensor], float, set[str]]:
        attributes = self.attributes(index)
        adjacency = torch.zeros(len(attributes), len(attributes), dtype=torch.int32)
        adjacency[tuple(self.edges(index))] = 1
        return (adjacency, attributes), self.latencies[self.name_list[index]], self.op_types

    def __len__(self) -> int:
        return len(self.name_list)


class GNNDataloader:
    """Iterates over a dataset in batches: latencies in ms, (models,), and their graphs as one graph.

    ``next()`` works without ``iter()``, and ``len()`` is the number of models, as in nn-Meter.

    Args:
        dataset: a :class:`GNNDataset`.
        shuffle: change the order for each pass, by the module ``random``.
        batchsize: models in a batch.
    """

    def __init__(self, dataset: GNNDataset, shuffle: bool = False, batchsize: int = 1) -> None:
        self.dataset, self.shuffle, self.batchsize = dataset, shuffle, batchsize
        self.op_num, self.length = len(dataset.op_types), len(dataset)
        self.indexes = list(range(self.length))
        self.pos = 0
        self._largest = torch.tensor([1] * self.op_num + list(_LARGEST))

    def __iter__(self) -> GNNDataloader:
        if self.shuffle:
            random.shuffle(self.indexes)
        self.pos = 0
        return self

    def __len__(self) -> int:
        return self.length

    def __next__(self) -> tuple[torch.Tensor, Any]:
        batch = self.indexes[self.pos : self.pos + self.batchsize]
        if not batch:
            raise StopIteration
        self.pos += len(batch)
        latencies = [self.dataset.latencies[self.dataset.name_list[i]] for i in batch]
        graphs = [(self.dataset.attributes(i) / self._largest, self.dataset.edges(i)) for i in batch]
        return torch.tensor(latencies), (_geometric() or Graphs.of)(graphs)


@dataclass
class Graphs:
    """Several graphs as one.

    Attributes:
        x: attributes of the nodes, (nodes, attributes).
        edge_index: sources and targets of the edges, (2, edges).
        batch: number of the graph that each node belongs to, (nodes,).
        ptr: first node of each graph, and the number of nodes, (graphs + 1,).
    """

    x: torch.Tensor
    edge_index: torch.Tensor
    batch: torch.Tensor
    ptr: torch.Tensor

    @classmethod
    def of(cls, graphs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Graphs:
        """Join graphs, each given as its attributes and its edges."""
        sizes = torch.tensor([len(x) for x, _ in graphs])
        ptr = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
        edges = [edge_index + first for (_, edge_index), first in zip(graphs, ptr[:-1], strict=True)]
        batch = torch.arange(len(graphs)).repeat_interleave(sizes)
        return cls(torch.cat([x for x, _ in graphs]), torch.cat(edges, 1), batch, ptr)

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.x)

    @property
    def num_graphs(self) -> int:
        """Number of graphs."""
        return len(self.ptr) - 1

    @property
    def ndata(self) -> dict[str, torch.Tensor]:
        """The attributes of the nodes under the name that nn-Meter gives them, "h"."""
        return {"h": self.x}

    def to(self, device: Any) -> Graphs:
        """Copy the graphs to a device."""
        return Graphs(*(getattr(self, field.name).to(device) for field in fields(self)))


@cache
def _geometric() -> Any:
    """What joins graphs to a ``Batch`` of PyTorch Geometric, or None where that is not installed."""
    try:
        geometric: Any = import_module("torch_geometric.data")
    except ImportError:
        return None

    class GraphData(geometric.Data):
        """A graph that has its attributes under nn-Meter's name too."""

        @property
        def ndata(self) -> dict[str, torch.Tensor]:
            return {"h": self.x}

    return lambda graphs: geometric.Batch.from_data_list(
        [GraphData(x=x, edge_index=edges) for x, edges in graphs]
    )


@dataclass(frozen=True)
class _Compact:
    """One model: types of its nodes, channels in and out, height, width, kernel and stride of each, edges."""

    types: list[str]
    sizes: list[tuple[int, ...]]
    edges: list[tuple[int, int]]


def _compact(graph: Mapping[str, Any]) -> _Compact:
    numbers = {name: i for i, name in enumerate(graph)}
    return _Compact(
        [node["attr"]["type"] for node in graph.values()],
        [_sizes(graph, node) for node in graph.values()],
        sorted(set(_edges(graph, numbers))),
    )


def _edges(graph: Mapping[str, Any], numbers: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Edges between nodes, which leave out weights, and of each node to itself."""
    for name, node in graph.items():
        here = numbers[name]
        yield here, here
        yield from ((numbers[other], here) for other in node["inbounds"] if other in numbers)
        yield from ((here, numbers[other]) for other in node["outbounds"] if other in numbers)


def _sizes(graph: Mapping[str, Any], node: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels in and out, height, width, kernel and stride of a node; 0 for what it has not."""
    kind, attributes = node["attr"]["type"], node["attr"].get("attr", {})
    out = _shape(node)
    if kind in _CONVOLUTIONS:
        window, _, cin, cout = attributes["weight_shape"]
        return (cin, cout, out[1], out[2], window, attributes["strides"][0])
    if not node["inbounds"]:
        return (0,) * len(_LARGEST)
    cin = (_shape(graph.get(node["inbounds"][0])) or [0])[-1]
    height, width = out[1:3] if len(out) == 4 and kind != "MatMul" else (0, 0)
    return (cin, out[-1] if out else 0, height, width, 0, 0)


def _shape(node: Mapping[str, Any] | None) -> list[int]:
    """Shape of what a node returns first, NHWC; empty for a weight or a number."""
    shapes = node["attr"]["output_shape"] if node is not None else []
    return list(shapes[0]) if shapes else []
