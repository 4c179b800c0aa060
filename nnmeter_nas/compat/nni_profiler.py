"""Make NNI 3.0's ``NnMeterProfiler`` work on today's torch: read its layers directly, without ONNX.

The profiler passes each layer of a space to its ``to_onnx``, which passes file objects to
``torch.onnx.export`` and ``onnx.load``. Those no longer accept them. Our ``to_onnx`` returns a model graph
instead: every predictor of this package takes one, and making it takes milliseconds, an export seconds.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

import networkx as nx

from ..readers.torch.module import read_torch_module

logger = logging.getLogger(__name__)

_ORIGINALS = "_before_nnmeter_nas"


def patch_profiler(profiler: ModuleType) -> None:
    """Make NNI's module ``profiler`` read layers and load predictors through this package."""
    from ..nni.parts import price_as_parts
    from . import interface

    patched = {
        "to_onnx": layer_graph,
        "load_latency_predictor": interface.load_latency_predictor,
        "nnMeterPredictor": interface.nnMeterPredictor,
    }
    setattr(profiler, _ORIGINALS, {name: getattr(profiler, name) for name in patched})
    vars(profiler).update(patched)
    price_as_parts(profiler.NnMeterProfiler, "estimate_latency", "predictor")
    logger.info("%s: layers are read directly, not exported to ONNX", profiler.__name__)


def restore_profiler(profiler: ModuleType) -> None:
    """Undo :func:`patch_profiler`."""
    vars(profiler).update(vars(profiler).pop(_ORIGINALS))


def layer_graph(model: Any, example_inputs: Any) -> nx.DiGraph:
    """Return the model graph of a layer, in place of the ONNX model that NNI's ``to_onnx`` returns.

    Args:
        model: a ``torch.nn.Module``.
        example_inputs: a tuple of its arguments, or its only argument; tensors may be nested in lists and
            mappings.

    Raises:
        ReaderError, GraphError, ShapeError: the layer cannot be read.
    """
    import torch
    from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

    arguments = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    values, structure = tree_flatten(arguments)
    positions = [i for i, value in enumerate(values) if isinstance(value, torch.Tensor)]

    class Layer(torch.nn.Module):
        """The layer as a function of only its tensors, in order."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = model

        def forward(self, *tensors: torch.Tensor) -> Any:
            """Run the layer on ``tensors`` and its other arguments.

            Copy the results, because a layer that returns its argument would have no operator.
            """
            filled = list(values)
            for position, tensor in zip(positions, tensors, strict=True):
                filled[position] = tensor
            result = self.layer(*tree_unflatten(filled, structure))
            return tree_map_only(torch.Tensor, torch.clone, result)

    return read_torch_module(Layer(), [tuple(values[i].shape) for i in positions])
