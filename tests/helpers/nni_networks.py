"""Networks that NNI 2.10.1 or 3.0 builds from an architecture, to compare model graphs with."""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx

from nnmeter_nas.readers.torch.module import read_torch_module
from nnmeter_nas.supernet import Space


def frozen(make: Callable[[], Any], sample: Mapping[str, Any]) -> Any:
    """Return the module that NNI builds from a sample."""
    space = make()
    if hasattr(space, "freeze"):
        return space.freeze(dict(sample)).eval()
    with importlib.import_module("nni.retiarii").fixed_arch(dict(sample), verbose=False):
        return make().eval()


def operators(graph: nx.DiGraph) -> list[tuple[Any, ...]]:
    """Return the operators of a model graph in order, with their inputs but without their names."""
    position = {name: i for i, name in enumerate(graph)}
    return [
        (data["op"], data["attrs"], data["in_shapes"], data["out_shapes"],
         [(position[producer], slot) for producer, slot in data["inputs"]])
        for _, data in graph.nodes(data=True)
    ]  # fmt: skip


def assert_as_nni_makes_them(space: Space, make: Callable[[], Any], count: int, seed: int = 0) -> None:
    """Assert that random architectures have the model graphs of the networks that NNI builds of them."""
    rng = random.Random(seed)
    for _ in range(count):
        rows = {label: rng.randrange(len(known)) for label, known in space.candidates.items()}
        architecture = {label: space.candidates[label][row] for label, row in rows.items()}
        network = frozen(make, {label: space.values[label][row] for label, row in rows.items()})
        ours, theirs = space.model_graph(architecture), read_torch_module(network, space.input_shape)
        assert operators(ours) == operators(theirs), architecture
