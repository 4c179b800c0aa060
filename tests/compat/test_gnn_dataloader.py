"""nn-Meter's dataset for graph networks: its tensors, its order, its split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ir import IrBuilder
from nnmeter_nas import compat
from nnmeter_nas.errors import DatasetError
from synthetic_bench import CPU, VPU, write_bench

torch = pytest.importorskip("torch")


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """nn-Meter's module ``gnn_dataloader``, over ten made-up models of each of two families."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path))
    (tmp_path / "dataset").mkdir()
    write_bench(tmp_path / "dataset", models=10)
    compat.install(children=False)
    from nn_meter.dataset import gnn_dataloader  # type: ignore[import-not-found]

    yield gnn_dataloader
    compat.uninstall()


def test_split_is_by_id_within_each_family(loader: Any) -> None:
    train, test = loader.GNNDataset(), loader.GNNDataset(train=False)
    assert train.name_list == [f"{family}_{i}" for family in ("plainnet", "wideception") for i in range(8)]
    # int(10 * (1 - 0.8)) is 1, as in nn-Meter
    assert sorted(test.name_list) == ["plainnet_9", "wideception_9"]
    assert len(train) == 16


def test_what_a_device_did_not_measure_is_left_out(loader: Any) -> None:
    names = loader.GNNDataset(device=VPU, split_ratio=1).name_list
    assert sorted(names) == sorted(
        f"{family}_{i}" for family in ("plainnet", "wideception") for i in range(10) if i % 7
    )


def test_unknown_device_names_the_nearest(loader: Any) -> None:
    with pytest.raises(DatasetError, match=f"did you mean '{CPU}'"):
        loader.GNNDataset(device="cortexA76")


@pytest.mark.parametrize("split_ratio", [1.5, -0.2, float("nan")])
def test_a_split_that_is_no_share_is_refused(loader: Any, split_ratio: float) -> None:
    with pytest.raises(DatasetError, match=f"split_ratio={split_ratio} is a share"):
        loader.GNNDataset(split_ratio=split_ratio)


def test_tensors_are_those_of_nn_meter(loader: Any, tmp_path: Path) -> None:
    ir = IrBuilder((1, 32, 32, 3))
    last = ir.unary("act", "Relu", ir.conv("conv", "input", 16, kernel=5, stride=2))
    ir.pool("pool", last)
    ir.nodes["conv"]["inbounds"].append("nowhere")  # weights are no nodes
    for file in (tmp_path / "dataset").iterdir():
        file.unlink()
    line = json.dumps({"id": "one_0", CPU: 2.5, "graph": ir.nodes})
    (tmp_path / "dataset" / "ones.jsonl").write_text(line)
    dataset = loader.GNNDataset(split_ratio=1)
    (adjacency, attributes), latency, types = dataset[0]
    assert latency == 2.5
    order = sorted(types)
    by_name = dict(zip(ir.nodes, attributes.tolist(), strict=True))
    kinds = {name: order[row[: len(order)].index(1)] for name, row in by_name.items()}
    assert kinds == {name: node["attr"]["type"] for name, node in ir.nodes.items()}
    sizes = {name: row[len(order) :] for name, row in by_name.items()}
    assert sizes["input"] == [0] * 6
    assert sizes["conv"] == [3, 16, 16, 16, 5, 2]
    assert sizes["act"] == [16, 16, 16, 16, 0, 0]
    names = list(ir.nodes)
    edges = {(names[a], names[b]) for a, b in torch.nonzero(adjacency).tolist()}
    given = {
        (other, name) for name, node in ir.nodes.items() for other in node["inbounds"] if other in ir.nodes
    }
    assert {("input", "conv"), ("conv", "act"), ("act", "pool")} <= given
    assert edges == given | {(name, name) for name in names}


def test_batches_join_graphs_and_scale_attributes(loader: Any) -> None:
    dataset = loader.GNNDataset()
    batches = list(loader.GNNDataloader(dataset, batchsize=5))
    assert [len(latencies) for latencies, _ in batches] == [5, 5, 5, 1]
    latencies, graphs = batches[0]
    assert latencies.tolist() == pytest.approx([dataset[i][1] for i in range(5)])
    assert graphs.num_graphs == 5
    features = graphs.to("cpu").ndata["h"]
    largest = torch.tensor([1] * len(dataset.op_types) + [6963, 6963, 224, 224, 11, 4])
    first = 0
    for i in range(5):
        (adjacency, attributes), _, _ = dataset[i]
        size = len(attributes)
        assert torch.equal(features[first : first + size], attributes / largest)
        inside = graphs.edge_index[:, graphs.batch[graphs.edge_index[0]] == i] - first
        assert torch.equal(inside.T, torch.nonzero(adjacency))
        first += size
    assert first == graphs.num_nodes


def test_shuffling_keeps_latencies_with_their_graphs(loader: Any) -> None:
    dataset = loader.GNNDataset()
    shuffled = loader.GNNDataloader(dataset, shuffle=True)
    # nn-Meter's example calls next() first
    assert next(shuffled)[0].tolist() == pytest.approx([dataset[0][1]])
    seen = [(round(latency.item(), 4), graph.num_nodes) for latency, graph in shuffled]
    expected = [(round(dataset[i][1], 4), len(dataset[i][0][1])) for i in range(16)]
    assert sorted(seen) == sorted(expected) != expected
    assert len(shuffled) == 16
