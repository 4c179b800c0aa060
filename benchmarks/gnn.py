"""nn-Meter's graph network, trained on its dataset, beside a predictor pack on the same models.

The network and its training are those of nn-Meter's notebook on the dataset: GraphSAGE with max pooling, an
absolute loss, and its split by id within each family.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import nn

from nnmeter_nas.compat.gnn_dataloader import GNNDataloader, GNNDataset
from nnmeter_nas.predictor import load_latency_predictor
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from nnmeter_nas.training.accuracy import accuracy

from .packs.pack_training import held_out

#: Layers, width and dropout of the network; learning rate.
_LAYERS, _WIDTH, _DROPOUT, _RATE = 3, 400, 0.1, 4e-4


class SageLayer(nn.Module):
    """GraphSAGE (Hamilton et al., NeurIPS 2017) with the maximum over what the neighbours say.

    Args:
        before, after: features of a node that it reads and returns.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.say = nn.Linear(before, before)
        self.own, self.heard = nn.Linear(before, after, bias=False), nn.Linear(before, after)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Return the features of the nodes, (nodes, after); every node has an edge to itself."""
        said = torch.relu(self.say(x))[edges[0]]
        result: torch.Tensor = self.own(x) + self.heard(_largest(said, edges[1], len(x)))
        return result


class GraphNetwork(nn.Module):
    """Predicts the latency of each graph in ms.

    Args:
        features: of a node.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        sizes = [features, *[_WIDTH] * _LAYERS]
        self.layers = nn.ModuleList(map(SageLayer, sizes[:-1], sizes[1:]))
        self.norms = nn.ModuleList(nn.LayerNorm(_WIDTH) for _ in range(_LAYERS))
        self.dropout = nn.Dropout(_DROPOUT)
        self.head = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), nn.Linear(_WIDTH, 1))

    def forward(
        self, x: torch.Tensor, edges: torch.Tensor, batch: torch.Tensor, count: int
    ) -> torch.Tensor:
        """Return the latencies of ``count`` graphs, (count,); ``batch`` is the graph of each node."""
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.dropout(torch.relu(norm(layer(x, edges))))
        latencies: torch.Tensor = self.head(_largest(x, batch, count))[:, 0]
        return latencies


def _largest(values: torch.Tensor, groups: torch.Tensor, count: int) -> torch.Tensor:
    """Maximum over the rows of each group, (count, features)."""
    start = values.new_full((count, values.shape[1]), -torch.inf)
    return start.scatter_reduce(0, groups[:, None].expand_as(values), values, "amax")


def compare_gnn(
    bench: Path, devices: Sequence[str], epochs: int, batch: int, console: Console, seed: int = 0
) -> None:
    """Train the network for each device, and print its accuracy beside that of the newest pack.

    Models count that are in the test part of nn-Meter's split, and of these those that the pack was not
    trained on either.

    Raises:
        DatasetError: the dataset cannot be read, or has no latency of a device.
    """
    files = [str(path) for path in dataset_files(bench)]
    for device in devices:
        train, test = (GNNDataset(train=part, device=device, data_dir=files) for part in (True, False))
        train.op_types = test.op_types = train.op_types | test.op_types
        network = _trained(train, epochs, batch, seed)
        said = _predicted(network, test)
        ours = _of_pack(files, device, test.name_list)
        measured = np.array([test.latencies[name] for name in test.name_list])
        fresh = held_out(test.name_list)
        table = Table("models", "predictor", "number", "±5 %", "±10 %", "Spearman", title=device)
        for label, chosen in (("tested", np.ones(len(fresh), bool)), ("new to both", fresh)):
            for name, ms in (("nn-Meter's graph network", said), ("pack", ours)):
                if chosen.any():
                    found = accuracy(ms[chosen], measured[chosen])
                    shares = (f"{found[key]:.1f}" for key in ("within_5", "within_10"))
                    table.add_row(label, name, str(chosen.sum()), *shares, f"{found['spearman']:.3f}")
        console.print(table)


def _trained(dataset: GNNDataset, epochs: int, batch: int, seed: int) -> GraphNetwork:
    torch.manual_seed(seed)
    loader = GNNDataloader(dataset, shuffle=True, batchsize=batch)
    network = GraphNetwork(dataset.attributes(0).shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in track(range(epochs), f"training for {dataset.device}"):
        for latencies, graphs in loader:
            said = network(graphs.x, graphs.edge_index, graphs.batch, len(latencies))
            loss = (said - latencies).abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def _predicted(network: GraphNetwork, dataset: GNNDataset) -> np.ndarray:
    with torch.no_grad():
        said = [
            network(graphs.x, graphs.edge_index, graphs.batch, len(latencies))
            for latencies, graphs in GNNDataloader(dataset, batchsize=64)
        ]
    return torch.cat(said).numpy()


def _of_pack(files: Sequence[str], device: str, names: Sequence[str]) -> np.ndarray:
    """What the newest pack of a device says of models, in the order of ``names``."""
    predictor, wanted = load_latency_predictor(device), set(names)
    said = {
        model.id: predictor.predict(model.graph, "nnmeter-ir")
        for path in files
        for model in iter_models(path)
        if model.id in wanted
    }
    return np.array([said[name] for name in names])
