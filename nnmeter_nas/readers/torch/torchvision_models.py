"""Read torchvision models by name; they are built without allocating weights."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import networkx as nx

from ...errors import MissingPackageError, ReaderError, nearest
from .. import read_model
from ..inputs import InputShape

#: nn-Meter's short names of torchvision models.
_SHORT_NAMES = {"mnasnet": "mnasnet1_0", "shufflenet_v2": "shufflenet_v2_x1_0", "squeezenet": "squeezenet1_0"}
#: Models whose default input is not 224 x 224.
_INPUT_SHAPES = {"inception_v3": (1, 3, 299, 299)}


def read_torchvision(
    name: str, input_shape: InputShape | None = None, allow_quantized: bool = False
) -> nx.DiGraph:
    """Read ``torchvision.models.<name>`` into a model graph.

    Args:
        name: torchvision's or nn-Meter's name of the model.
        input_shape: NCHW shape. The default is the shape that the model was designed for.
        allow_quantized: as :func:`nnmeter_nas.read_model` takes it.

    Raises:
        MissingPackageError: torchvision is not installed, or does not match the installed torch.
        ReaderError: the model does not exist or cannot be traced.
    """
    name = _SHORT_NAMES.get(name, name)
    shape = input_shape or _INPUT_SHAPES.get(name, (1, 3, 224, 224))
    return read_model(_build(name), "torch", shape, allow_quantized)


def _build(name: str) -> Any:
    models = _torchvision_models()
    import torch

    build = getattr(models, name, None)
    if not name.islower() or not callable(build):
        public = [n for n in dir(models) if n.islower() and not n.startswith("_")]
        known = [n for n in public if callable(getattr(models, n))]
        raise ReaderError(f"torchvision has no model {name!r}; {nearest(name, known)}")
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # about weight initialisation, which does not matter here
        return build(weights=None)


def _torchvision_models() -> Any:
    try:
        return import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError and OSError: built for another torch
        raise MissingPackageError(
            "reading a model by name needs a torchvision that matches the installed torch, but importing it "
            f"failed: {error}; install both together (pip install torch torchvision), or pass an ONNX file"
        ) from error
