"""Extract the stationary part of an NNI 2.10 supernet; ``HardwareLatencyEstimator`` asks for its latency.

NNI takes choices out of the graph to price the rest. It removes some choices with their edges, and leaves
others in the graph, open. The pieces that remain are separate networks here.
"""

from __future__ import annotations

import warnings
from typing import Any

from ..graph.shapes import Shape
from ..predictor import LatencyWarning


def is_cut(model: Any) -> bool:
    """Whether the root graph of the graph IR ``model`` has open choices, or choices were cut out of it."""
    return any(_is_gap(model, node) or _is_loose(node) for node in model.root_graph.hidden_nodes)


def stationary_part(model: Any) -> tuple[Any, dict[str, Shape]]:
    """Copy ``model`` without its choices. Tensors that a piece took from a choice become inputs of the copy.

    Args:
        model: ``nni.retiarii.graph.Model``; not changed.

    Returns:
        The copy and the shapes of its inputs, by name.

    Warns:
        LatencyWarning: open choices are left out; the warning names them.
    """
    part = model.fork()
    root = part.root_graph
    gaps = [node for node in root.hidden_nodes if _is_gap(part, node)]
    labels = dict.fromkeys(node.operation.parameters.get("label") for node in gaps)
    left_out = ", ".join(label for label in labels if label is not None)
    if left_out:
        warnings.warn(f"open choices of the model are left out: {left_out}", LatencyWarning, stacklevel=4)
    loose_ends = [root.input_node, *gaps]
    cut = [edge for edge in root.edges if edge.head in loose_ends or edge.tail in gaps]
    for edge in cut:
        root.del_edge(edge)
    for node in gaps:
        node.remove()
    shapes: dict[str, Shape] = {}
    for node in root.hidden_nodes:
        for slot, shape in _open_slots(node).items():
            root.add_edge((root.input_node, len(shapes)), (node, slot))
            shapes[f"{node.name}.input_{slot}"] = shape
        if not node.outgoing_edges and any(_claimed(node, "output_shape")):
            root.add_edge((node, None), (root.output_node, len(root.output_node.incoming_edges)))
    root.input_node.operation.io_names = list(shapes)
    return part, shapes


def _is_gap(model: Any, node: Any) -> bool:
    """Whether ``node`` is an open layer choice, or a cell that NNI has dropped."""
    operation = node.operation
    if operation.type != "_cell":
        return False
    return operation.parameters.get("mutation") == "layerchoice" or operation.cell_name not in model.graphs


def _is_loose(node: Any) -> bool:
    """Whether ``node`` takes a tensor that no edge brings."""
    return bool(_open_slots(node))


def _open_slots(node: Any) -> dict[int, Shape]:
    """Return the slots of ``node`` that take a tensor and have no edge, with the shapes that NNI noted."""
    fed = {edge.tail_slot or 0 for edge in node.incoming_edges}
    claimed = enumerate(_claimed(node, "input_shape"))
    return {slot: shape for slot, shape in claimed if shape and slot not in fed}


def _claimed(node: Any, key: str) -> list[Shape]:
    """Return the shapes that NNI noted for the tensors at ``node``; an unknown shape is empty."""
    return [tuple(shape) for shape in (node.operation.attributes or {}).get(key) or []]
