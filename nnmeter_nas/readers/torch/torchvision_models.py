"""Read torchvision models by name, from torchvision's own registry; most are built without their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any

import networkx as nx

from ...errors import MissingPackageError, QuantizedModelError, ReaderError, nearest
from .. import read_model
from ..inputs import InputShape

#: nn-Meter's short names of torchvision models.
_SHORT_NAMES = {"mnasnet": "mnasnet1_0", "shufflenet_v2": "shufflenet_v2_x1_0", "squeezenet": "squeezenet1_0"}
#: Input of most models, and of all in nn-Meter unless another is given.
IMAGE = (1, 3, 224, 224)
#: Package of ``torchvision.models`` -> the input that its models are usually run on.
_SHAPES_BY_KIND: dict[str, InputShape] = {
    "segmentation": (1, 3, 520, 520),
    "video": (1, 3, 16, 112, 112),
    "optical_flow": [(1, 3, 520, 960), (1, 3, 520, 960)],
}
#: Models whose usual input is another one.
_SHAPES: dict[str, InputShape] = {
    **dict.fromkeys(("inception_v3", "quantized_inception_v3"), (1, 3, 299, 299)),
    **dict.fromkeys(
        ("mvit_v1_b", "mvit_v2_s", "s3d", "swin3d_t", "swin3d_s", "swin3d_b"), (1, 3, 16, 224, 224)
    ),
}
_QUANTIZED = "quantized_"


def read_torchvision(
    name: str, input_shape: InputShape | None = None, allow_quantized: bool = False
) -> nx.DiGraph:
    """Read a model of torchvision into a model graph.

    Args:
        name: torchvision's or nn-Meter's name of the model, for classification, segmentation, video or
            optical flow.
        input_shape: as :func:`nnmeter_nas.read_model` takes it. By default, the one that models of its kind
            are usually run on: an image of 224 x 224, for segmentation of 520 x 520, 16 frames of 112 x 112
            (vision transformers and S3D: 224 x 224), two images of 520 x 960 for optical flow.
        allow_quantized: read a quantised model as the float network that it stands for.

    Raises:
        MissingPackageError: torchvision is not installed, or does not match the installed torch.
        QuantizedModelError: the model is quantised, and ``allow_quantized`` is False.
        ReaderError: the model does not exist, detects objects, or cannot be traced.
    """
    return find_torchvision(name).read(input_shape, allow_quantized)


@dataclass(frozen=True)
class TorchvisionModel:
    """A model in torchvision's registry.

    Attributes:
        name: torchvision's name of it.
        builder: makes the module.
    """

    name: str
    builder: Callable[..., Any]

    @property
    def kind(self) -> str:
        """Its package or module of ``torchvision.models``, such as ``segmentation``."""
        return self.builder.__module__.removeprefix("torchvision.models.").partition(".")[0]

    @property
    def usual_shape(self) -> InputShape:
        """The input that it is usually run on."""
        return _SHAPES.get(self.name) or _SHAPES_BY_KIND.get(self.kind, IMAGE)

    def read(self, input_shape: InputShape | None = None, allow_quantized: bool = False) -> nx.DiGraph:
        """Read it into a model graph; arguments and errors as :func:`read_torchvision`."""
        if self.kind == "detection":
            raise ReaderError(
                f"{self.name!r} detects objects: it takes a list of images, and how many boxes it works on "
                "depends on what is in them, so no shape tells its latency; read its backbone in Python, as "
                "a torch module"
            )
        quantized = self.name.startswith(_QUANTIZED)
        if quantized and not allow_quantized:
            raise QuantizedModelError(
                f"{self.name!r} is quantised, and latencies are those of float networks; pass "
                f"{self.name.removeprefix(_QUANTIZED)!r}, or allow_quantized=True to price it as one"
            )
        graph = read_model(_build(self.builder), "torch", input_shape or self.usual_shape)
        if quantized:  # built as the float network that torchvision quantises
            graph.graph["quantized"] = [node for node, op in graph.nodes(data="op") if op != "input"]
        return graph


def find_torchvision(name: str) -> TorchvisionModel:
    """Find a model by torchvision's or nn-Meter's name.

    Raises:
        MissingPackageError, ReaderError: as :func:`read_torchvision`.
    """
    models, name = _torchvision_models(), _SHORT_NAMES.get(name, name)
    known = models.list_models()
    if name not in known:
        raise ReaderError(f"torchvision has no model {name!r}; {nearest(name, known)}")
    return TorchvisionModel(name, models.get_model_builder(name))


def _build(builder: Callable[..., Any]) -> Any:
    """Build a model without weights: none are downloaded, and none allocated unless the model reads them."""
    without = {key: None for key in ("weights", "weights_backbone") if key in signature(builder).parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about weight initialisation, which does not matter here
        try:
            with _weights_without_values():
                return builder(**without)
        except RuntimeError:  # torch's when a value is read that is not there
            return builder(**without)


def _weights_without_values() -> Any:
    """Return a context in which torch leaves tensors to be filled later, such as weights, without memory.

    Tensors with values stay as they are: a constructor may compute widths or positions with them.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class WithoutValues(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **{**(kwargs or {}), **({"device": "meta"} if func is torch.empty else {})})

    return WithoutValues()


def _torchvision_models() -> Any:
    try:
        return import_module("torchvision.models")
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError and OSError: built for another torch
        raise MissingPackageError(
            "reading a model by name needs a torchvision that matches the installed torch, but importing it "
            f"failed: {error}; install both together (pip install torch torchvision), or pass an ONNX file"
        ) from error
