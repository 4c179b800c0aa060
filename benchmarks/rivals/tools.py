"""How each tool is asked for its number of a model, and what else it tells."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from unittest.mock import patch

import torch

from nnmeter_nas import LatencyPredictor
from nnmeter_nas.graph.work import flops
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.predictor import load_latency_predictor
from nnmeter_nas.readers import read_model

from ..parity.reference import described, forests
from ..speed.nnmeter import import_nn_meter
from ..speed.profilers import patched_profiler
from .models import Model

#: Asks a tool for its number of a model.
Ask = Callable[[Model], float]
#: Kernels that move or keep data, whose latency nn-Meter leaves out on purpose.
_MOVES = frozenset(
    ["reshape", "flatten", "transpose", "squeeze", "unsqueeze", "identity", "constant", "shape"]
)


class Tool(Protocol):
    """A tool that tells a number of a network.

    Attributes:
        asks: by source, what is timed; ``"torch, as released"`` is the tool without patches.
        predicts: the numbers that it tells.
    """

    asks: Mapping[str, Ask]
    predicts: list[str]

    def beyond(self, model: Model) -> list[str]:
        """Kinds of kernels of the model asked last for which it has no predictor."""

    def flops(self, model: Model) -> float | None:
        """Multiply-adds times two that it counts in the torch module asked last; None if it counts none."""


class Ours:
    """This package, with the newest pack of a device."""

    def __init__(self, device: str) -> None:
        self._pack = load_latency_predictor(device).pack
        sources = ("torch", "onnx", "nnmeter-ir", "tflite")
        self.asks: Mapping[str, Ask] = dict.fromkeys(sources, self._predict)
        self.predicts = [
            f"latency on {len(devices())} devices, and on your own",
            *("an interval", "peak memory", "size of the weights", "FLOPs", "parameters"),
        ]

    def _predict(self, model: Model) -> float:
        # A fresh predictor has priced no kernel yet, like nn-Meter's.
        return LatencyPredictor(self._pack).predict(model.subject, input_shape=model.shape)

    def beyond(self, model: Model) -> list[str]:
        """Kinds of kernels that are estimated."""
        found = LatencyPredictor(self._pack).explain(model.subject, input_shape=model.shape)
        nodes = found.kernel_graph.nodes(data=True)
        return sorted({data["kernel"].op for _, data in nodes if data["basis"] == "estimated"})

    def flops(self, model: Model) -> float | None:
        """Floating-point operations of the model graph."""
        return float(flops(read_model(model.subject, input_shape=model.shape)))


class NnMeter:
    """nn-Meter 2.0, with forests in its format."""

    def __init__(self, environment: Path, folder: Path) -> None:
        nn_meter = import_nn_meter(environment)
        self._predictor = nn_meter.nnMeterPredictor(forests(folder), str(folder / "fusion_rules.json"))
        self.asks: Mapping[str, Ask] = {
            "torch": self._exported,
            "torch, as released": lambda model: self._ask("torch", model),
            "onnx": lambda model: self._ask("onnx", model),
            "nnmeter-ir": lambda model: self._ask("nnmeter-ir", model),
            "tflite": lambda model: self._ask("tflite", model),
        }
        self.predicts = [f"latency on {len(nn_meter.list_latency_predictors())} devices, and on your own"]

    def _ask(self, kind: str, model: Model) -> float:
        return float(self._predictor.predict(model.subject, kind, input_shape=model.shape))

    def _exported(self, model: Model) -> float:
        """nn-Meter's way from torch, through memory: it hands the export a file, which torch now refuses."""
        onnx, onnxsim = import_module("onnx"), import_module("onnxsim")
        with contextlib.redirect_stdout(io.StringIO()):
            program: Any = torch.onnx.export(
                model.subject, (torch.zeros(model.shape),), dynamo=True, verbose=False
            )
        simple, same = onnxsim.simplify(onnx.load_from_string(program.model_proto.SerializeToString()))
        assert same, "the simplified model computes something else"
        return float(self._predictor.predict(simple, "onnx"))

    def beyond(self, model: Model) -> list[str]:
        """Kinds of kernels that add nothing to the total, views aside."""
        predictors, kernels = self._predictor.kernel_predictors, self._predictor.kd.get_kernels()
        told = [described(predictors, one) for one in kernels]
        return sorted({one["type"] for one in told if not one["predicted"]} - _MOVES)

    def flops(self, model: Model) -> float | None:
        """It counts none."""


class Profiler:
    """NNI 3.0's ``NnMeterProfiler``, on nn-Meter 2.0.

    The network is one leaf, which is exported to ONNX whole: nn-Meter finds no kernel in most single layers,
    and the sum over them would be 0. The export is torch's former one, by TorchScript, for which NNI was
    written.
    """

    def __init__(self, environment: Path, folder: Path) -> None:
        nn_meter = import_nn_meter(environment)
        self._predictor = nn_meter.nnMeterPredictor(forests(folder), str(folder / "fusion_rules.json"))
        self.asks: Mapping[str, Ask] = {"torch": self._patched, "torch, as released": self._released}
        self.predicts = [f"latency on {len(nn_meter.list_latency_predictors())} devices, of a whole space"]

    def _patched(self, model: Model) -> float:
        with patched_profiler(former=True):
            return self._profile(model)

    def _released(self, model: Model) -> float:
        # It imports onnxruntime, which it does not use.
        with patch.dict(sys.modules, onnxruntime=ModuleType("onnxruntime")):
            return self._profile(model)

    def _profile(self, model: Model) -> float:
        module = import_module("nni.nas.profiler.pytorch.nn_meter")
        logging.getLogger("nni").setLevel(logging.CRITICAL)
        profiler = module.NnMeterProfiler(
            model.subject, torch.zeros(model.shape), self._predictor, custom_leaf_types=(type(model.subject),)
        )
        return float(profiler.profile({}))

    def beyond(self, model: Model) -> list[str]:
        """It does not tell: it prices one layer after another, and what is no layer not at all."""
        return []

    def flops(self, model: Model) -> float | None:
        """It counts none."""


class Fvcore:
    """``FlopCountAnalysis`` of fvcore, which runs the network under a tracer."""

    def __init__(self) -> None:
        self._package = import_module("fvcore.nn")
        self._found = 0.0
        self.asks: Mapping[str, Ask] = {"torch": self._count}
        self.predicts = ["FLOPs", "parameters", "activations"]

    def _count(self, model: Model) -> float:
        analysis = self._package.FlopCountAnalysis(model.subject, torch.zeros(model.shape))
        self._found = 2.0 * analysis.unsupported_ops_warnings(False).total()
        return self._found

    def beyond(self, model: Model) -> list[str]:
        """It has no kernels."""
        return []

    def flops(self, model: Model) -> float | None:
        """It counts a multiply-add as one."""
        return self._found


class Torchinfo:
    """``summary`` of torchinfo, which runs the network and looks at its layers."""

    def __init__(self) -> None:
        self._summary = partial(import_module("torchinfo").summary, verbose=0)
        self._found = 0.0
        self.asks: Mapping[str, Ask] = {"torch": self._count}
        self.predicts = ["FLOPs", "parameters", "sum of all outputs in memory", "size of the weights"]

    def _count(self, model: Model) -> float:
        self._found = 2.0 * self._summary(model.subject, input_size=model.shape).total_mult_adds
        return self._found

    def beyond(self, model: Model) -> list[str]:
        """It has no kernels."""
        return []

    def flops(self, model: Model) -> float | None:
        """It counts a multiply-add as one."""
        return self._found
