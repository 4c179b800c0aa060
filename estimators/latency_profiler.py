"""LatencyProfiler: the latency of a model space as an expression of its choices, for NNI 3.0's strategies.

    profiler = LatencyProfiler(space, (1, 3, 224, 224), "cortexA76cpu_tflite21")
    Proxyless(penalty=ExpectationProfilerPenalty(profiler, baseline=20.0))
    RandomOneShot(filter=RangeProfilerFilter(profiler, max=20.0))
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from nnmeter_nas.costs.pricing import LatencyMeter, Parts
from nnmeter_nas.errors import SpaceError
from nnmeter_nas.nni import oneshot as nni_lines
from nnmeter_nas.predictor import LatencyPredictor, load_latency_predictor
from nnmeter_nas.readers.inputs import InputShape
from nnmeter_nas.readers.torch.module import read_torch_module
from nnmeter_nas.supernet.influence import InfluenceTable, learn_influences
from nnmeter_nas.supernet.nni3 import SampledSpace

_mutable = nni_lines.nni3("nni.mutable")
_ExpressionProfiler: Any = nni_lines.nni3("nni.nas.profiler").ExpressionProfiler


class LatencyProfiler(_ExpressionProfiler):
    """Latency in ms of every sample of a space, equal to that of the sample's whole network.

    Kernels are priced where they run, fused with their neighbours as the device fuses them. Layer choices,
    input choices, value choices and repeated blocks are handled wherever their values can be listed. For it,
    dozens to hundreds of networks are predicted; see :mod:`nnmeter_nas.supernet.influence`.

    Making the first one patches what keeps NNI's penalties and filters from their effect; see
    :func:`nnmeter_nas.nni.oneshot.patch_oneshot`.

    Args:
        space: ``nni.nas.nn.pytorch.ModelSpace``, before a one-shot strategy has changed it; not changed here.
        dummy_input: input of the networks, or its shape, NCHW with batch 1; for several inputs a list of
            them, or a dict by the names of the arguments of ``forward``.
        applied_hardware: device name, or a ``LatencyPredictor``.
        predictor_version: version of the device's predictor pack; the newest by default.
        strict: raise where a prediction would leave an operator out, instead of a warning.
        seed: of the samples that are predicted.

    Attributes:
        expression: sum of what the labels decide together, few at a time; a float if nothing is to choose.
        predictor: the device's.
        evaluations: networks that were predicted.

    Raises:
        UnknownDeviceError: no predictor pack goes by ``applied_hardware`` and ``predictor_version``.
        SpaceError: the space cannot be priced; names the label at fault.
        ReaderError: a network cannot be traced with ``dummy_input``.
        UnpredictedOperatorError: under ``strict``, an operator has no kernel predictor.

    Warns:
        LatencyWarning: operators are left out, or far outside what was measured.
    """

    expression: Any

    def __init__(
        self,
        space: torch.nn.Module,
        dummy_input: torch.Tensor | InputShape,
        applied_hardware: str | LatencyPredictor,
        predictor_version: float | None = None,
        *,
        strict: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(space)
        nni_lines.patch_oneshot()
        self.predictor = (
            load_latency_predictor(applied_hardware, predictor_version)
            if isinstance(applied_hardware, str)
            else applied_hardware
        )
        self.evaluations = 0
        self._space = SampledSpace(space)
        self._input_shape: InputShape = tree_map_only(torch.Tensor, lambda t: tuple(t.shape), dummy_input)
        self._strict = strict
        self._meter = LatencyMeter([self.predictor])
        self._unpredicted: set[str] = set()
        tables = learn_influences(self._kernel_latencies, self._space.values, self._space.places, seed)
        terms = [_term(table, self._space.mutables) for table in tables]
        self.expression = functools.reduce(operator.add, terms, 0.0)

    def _kernel_latencies(self, sample: Mapping[str, Hashable]) -> Parts:
        """Latency of each kernel in the network of ``sample``, ms."""
        graph = read_torch_module(self._space.network(sample), self._input_shape)
        [[latencies]] = self._meter.parts([graph])
        unpredicted = set(self._meter.left_out[0].values())
        if not self.evaluations or not unpredicted <= self._unpredicted:
            self.predictor.check(self.predictor.explain(graph), self._strict)
            self._unpredicted |= unpredicted
        self.evaluations += 1
        return latencies


def _term(table: InfluenceTable, mutables: Mapping[str, Any]) -> Any:
    """The entries of ``table`` as an expression of NNI's mutables; a number if no label decides them."""
    if not table.labels:
        return table.latencies[()]
    arguments = [_argument(mutables[label]) for label in table.labels]
    shown = ", ".join("{}" for _ in arguments)
    return _mutable.MutableExpression(_LookUp(table), f"latency({shown})", arguments)


def _argument(mutable: Any) -> Any:
    """What stands for a choice in an expression.

    A choice of one input is categorical there, as strategies give a probability to each input.
    """
    if isinstance(mutable, _mutable.CategoricalMultiple) and mutable.n_chosen == 1:
        one = _mutable.Categorical(mutable.values, label="input")
        one.label = mutable.label  # which a constructor would refuse if it has a scope
        return one
    return mutable


class _LookUp:
    """The entry of a table for the values of its labels, in order."""

    def __init__(self, table: InfluenceTable) -> None:
        self.table = table
        self._takes_sets = [isinstance(value, frozenset) for value in next(iter(table.latencies))]

    def __call__(self, *values: Any) -> float:
        """Latency, ms. Inputs that are chosen together come as a list, an only one also by itself.

        Raises:
            SpaceError: a label has no such value.
        """
        key = tuple(
            frozenset(value if isinstance(value, list | tuple) else [value]) if takes_set else value
            for value, takes_set in zip(values, self._takes_sets, strict=True)
        )
        if key not in self.table.latencies:
            named = zip(self.table.labels, values, strict=True)
            chosen = ", ".join(f"{label}={value!r}" for label, value in named)
            raise SpaceError(f"no sample of the space has {chosen}; give each label one of its values")
        return self.table.latencies[key]
