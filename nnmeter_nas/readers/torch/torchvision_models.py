"""Models of torchvision by name, built without weights and without memory for them."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import networkx as nx

from ...errors import MissingPackageError, ReaderError, nearest
from .. import read_model
from ..inputs import InputShape

#: nn-Meter's short names of torchvision's models.
SHORT_NAMES = {"mnasnet": "mnasnet1_0", "shufflenet_v2": "shufflenet_v2_x1_0", "squeezenet": "squeezenet1_0"}
#: Models that were made for another input than 224 x 224.
_INPUT_SHAPES = {"inception_v3": (1, 3, 299, 299)}


def read_torchvision(name: str, input_shape: InputShape | None = None) -> nx.DiGraph:
    """The model graph of ``torchvision.models.<name>``.

    Args:
        name: as torchvision or nn-Meter calls it.
        input_shape: NCHW; by default that which the model was made for.

    Raises:
        MissingPackageError: torchvision is not installed, or does not fit the torch that is.
        ReaderError: there is no such model, or it cannot be traced.
    """
    name = SHORT_NAMES.get(name, name)
    return read_model(_build(name), "torch", input_shape or _INPUT_SHAPES.get(name, (1, 3, 224, 224)))


def _build(name: str) -> Any:
    models = _torchvision_models()
    import torch

    build = getattr(models, name, None)
    if not name.islower() or not callable(build):
        public = [n for n in dir(models) if n.islower() and not n.startswith("_")]
        known = [n for n in public if callable(getattr(models, n))]
        raise ReaderError(f"torchvision has no model {name!r}; {nearest(name, known)}")
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # about initial weights, of which there are none
        return build(weights=None)


def _torchvision_models() -> Any:
    try:
        return import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:  # the latter two if it was built for another torch
        raise MissingPackageError(
            "models by name need the torchvision that belongs to the installed torch, and its import failed: "
            f"{error}; install both together (pip install torch torchvision), or pass an ONNX file"
        ) from error
