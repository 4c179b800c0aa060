"""Small supernets built without torch. In some of them choices change each other's latency."""

from __future__ import annotations

import networkx as nx

from nnmeter_nas.graph.model_graph import add_input, add_op, new_graph, set_outputs


def conv(graph: nx.DiGraph, name: str, source: str, channels: int, kernel: int = 3, stride: int = 1) -> str:
    """A convolution, batch norm and ReLU; returns the last operator."""
    attrs = {"out_channels": channels, "kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": "same"}
    add_op(graph, name, "conv", [source], attrs)
    add_op(graph, f"{name}.bn", "bn", [name])
    return add_op(graph, f"{name}.relu", "relu", [f"{name}.bn"])


def choice(graph: nx.DiGraph, label: str, **candidates: str) -> str:
    """A choice with ``label`` between operators, given by candidate name."""
    attrs = {"label": label, "candidates": tuple(candidates)}
    return add_op(graph, f"choice_{label}", "choice", list(candidates.values()), attrs)


def classifier(graph: nx.DiGraph, source: str) -> nx.DiGraph:
    """Add a pool and a dense layer after ``source`` to ``graph``."""
    add_op(graph, "pool", "globalavgpool", [source])
    add_op(graph, "flatten", "flatten", ["pool"])
    set_outputs(graph, [add_op(graph, "fc", "fc", ["flatten"], {"out_features": 10})])
    return graph


def residual_supernet(layers: int = 3, channels: int = 16, size: int = 16) -> nx.DiGraph:
    """Residual layers, each a 3x3 or 5x5 convolution or skipped. No choice changes another's latency."""
    graph = new_graph("residual")
    x = conv(graph, "stem", add_input(graph, "input", (1, 3, size, size)), channels)
    for i in range(1, layers + 1):
        blocks = {f"k{k}": conv(graph, f"layer_{i}.k{k}", x, channels, k) for k in (3, 5)}
        zero = add_op(graph, f"layer_{i}.zero", "mul", [x], {"const": 0.0})
        chosen = choice(graph, f"layer_{i}", **blocks, zero=zero)
        x = add_op(graph, f"layer_{i}.add", "add", [x, chosen])
    return classifier(graph, x)


def width_supernet() -> nx.DiGraph:
    """The first choice sets the channels that the second choice's convolutions read."""
    graph = new_graph("widths")
    x = add_input(graph, "input", (1, 3, 32, 32))
    x = choice(graph, "width", **{f"c{c}": conv(graph, f"width.{c}", x, c) for c in (8, 24, 64)})
    x = choice(graph, "kernel", **{f"k{k}": conv(graph, f"kernel.{k}", x, 32, k) for k in (1, 3, 7)})
    x = choice(graph, "last", **{f"k{k}": conv(graph, f"last.{k}", x, 32, k) for k in (3, 5)})
    return classifier(graph, x)


def fusing_supernet() -> nx.DiGraph:
    """A choice of convolution, then a choice of addition. They interact on devices that fuse the two."""
    graph = new_graph("fusing")
    stem = conv(graph, "stem", add_input(graph, "input", (1, 3, 16, 16)), 16)
    attrs = {"out_channels": 16, "padding": "same"}
    convs = {f"k{k}": add_op(graph, f"k{k}", "conv", [stem], {**attrs, "kernel": (k, k)}) for k in (3, 5)}
    chosen = choice(graph, "kernel", **convs)
    return classifier(
        graph, choice(graph, "skip", no=chosen, yes=add_op(graph, "add", "add", [stem, chosen]))
    )


def depth_supernet(layers: int = 4) -> nx.DiGraph:
    """Convolutions, of which another choice runs only the first few."""
    graph = new_graph("depths")
    x, ends = conv(graph, "stem", add_input(graph, "input", (1, 3, 16, 16)), 16), {}
    for i in range(1, layers + 1):
        x = choice(graph, f"layer_{i}", **{f"k{k}": conv(graph, f"layer_{i}.k{k}", x, 16, k) for k in (3, 5)})
        ends[str(i)] = x
    return classifier(graph, choice(graph, "depth", **ends))


def entangled_supernet() -> nx.DiGraph:
    """Three choices set a convolution's channels, map size and kernel; no sum of pairs gives its latency."""
    graph = new_graph("entangled")
    x = add_input(graph, "input", (1, 3, 64, 64))
    x = choice(graph, "stride", **{f"s{s}": conv(graph, f"stride.{s}", x, 16, 3, s) for s in (8, 1)})
    x = choice(graph, "width", **{f"c{c}": conv(graph, f"width.{c}", x, c, 1) for c in (8, 256)})
    x = choice(graph, "kernel", **{f"k{k}": conv(graph, f"kernel.{k}", x, 64, k) for k in (1, 7)})
    return classifier(graph, x)
