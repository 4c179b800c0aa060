"""nn-Meter's graph network, trained on its dataset, beside a predictor pack on the same models.

The network and its training are those of nn-Meter's notebook on the dataset: GraphSAGE with max pooling, an
absolute loss, and its split by id within each family.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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
from .pages import markdown_table, replace_sections

#: Section of the page.
SECTION = "graph network"
#: Passes over the data in nn-Meter's notebook.
NOTEBOOK_EPOCHS = 20
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
        said = torch.relu(self.say(x)).index_select(0, edges[0])  # its gradient takes less than that of x[i]
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


class Judged(NamedTuple):
    """The accuracy of one predictor on some models of a device.

    Attributes:
        device, models, predictor: what was judged.
        figures: accuracy, as :func:`nnmeter_nas.training.accuracy.accuracy` returns it.
    """

    device: str
    models: str
    predictor: str
    figures: dict[str, float]

    @property
    def cells(self) -> list[str]:
        """What tables show of it, after the device."""
        found = self.figures
        shares = (f"{found[key]:.1f}" for key in ("within_5", "within_10"))
        return [self.models, self.predictor, f"{found['models']:.0f}", *shares, f"{found['spearman']:.3f}"]


_HEADER = ("models", "predictor", "number", "±5 %", "±10 %", "Spearman")


def compare_gnn(
    bench: Path,
    devices: Sequence[str],
    epochs: int,
    batch: int,
    console: Console,
    seed: int = 0,
    page: Path | None = None,
) -> None:
    """Train the network for each device, and print its accuracy beside that of the newest pack.

    Models count that are in the test part of nn-Meter's split, and of these those that the pack was not
    trained on either.

    Args:
        bench: folder of the dataset.
        devices: of the dataset.
        epochs, batch, seed: passes over the data, models of a step, and seed of all randomness.
        console: where tables go.
        page: a Markdown file whose section ``graph network`` becomes the table, too.

    Raises:
        DatasetError: the dataset cannot be read, or has no latency of a device; ``page`` lacks the marks of
            its section.
    """
    files = [str(path) for path in dataset_files(bench)]
    rows: list[Judged] = []
    for device in devices:
        train, test = (GNNDataset(train=part, device=device, data_dir=files) for part in (True, False))
        train.op_types = test.op_types = train.op_types | test.op_types
        found = _judged(test, _trained(train, epochs, batch, seed), files)
        table = Table(*_HEADER, title=device)
        for one in found:
            table.add_row(*one.cells)
        console.print(table)
        rows += found
    if page is not None:
        replace_sections(page, {SECTION: _markdown(rows, epochs, batch, seed)})


def _judged(test: GNNDataset, network: GraphNetwork, files: Sequence[str]) -> list[Judged]:
    """The accuracy of the network and of the pack, on all models of the test and on those new to both."""
    said, ours = _predicted(network, test), _of_pack(files, test.device, test.name_list)
    measured = np.array([test.latencies[name] for name in test.name_list])
    fresh = held_out(test.name_list)
    return [
        Judged(test.device, label, name, accuracy(ms[chosen], measured[chosen]))
        for label, chosen in (("tested", np.ones(len(fresh), bool)), ("new to both", fresh))
        for name, ms in (("nn-Meter's graph network", said), ("pack", ours))
        if chosen.any()
    ]


def _markdown(rows: Sequence[Judged], epochs: int, batch: int, seed: int) -> list[str]:
    """The table of a page, and what it rests on."""
    cells = [[f"`{row.device}`", *row.cells] for row in rows]
    steps = "one model" if batch == 1 else f"{batch} models"
    return [
        *markdown_table(("device", *_HEADER), range(3, 7), cells),
        "",
        f"The graph network was trained for {epochs} passes over the data ({NOTEBOOK_EPOCHS} in nn-Meter's "
        f"notebook), by {steps} a step, with seed {seed}.",
    ]


def _trained(dataset: GNNDataset, epochs: int, batch: int, seed: int) -> GraphNetwork:
    torch.manual_seed(seed)
    loader = GNNDataloader(dataset, shuffle=True, batchsize=batch)
    network = GraphNetwork(dataset.attributes(0).shape[1])
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, fused=True)
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
