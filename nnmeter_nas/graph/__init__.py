"""The model graph: a ``networkx.DiGraph`` of operators with shapes."""

from .editing import Operand
from .model_graph import (
    add_input,
    add_op,
    finish,
    input_names,
    new_graph,
    output_names,
    prune,
    set_outputs,
    validate,
)
from .shapes import Shape

__all__ = [
    "Operand",
    "Shape",
    "add_input",
    "add_op",
    "finish",
    "input_names",
    "new_graph",
    "output_names",
    "prune",
    "set_outputs",
    "validate",
]
