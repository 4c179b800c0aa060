"""LatencyProfiler: the latency of a model space as an expression of its choices, for NNI 3.0's strategies.

    profiler = LatencyProfiler(space, (1, 3, 224, 224), "cortexA76cpu_tflite21")
    Proxyless(penalty=ExpectationProfilerPenalty(profiler, baseline=20.0))
    RandomOneShot(filter=RangeProfilerFilter(profiler, max=20.0))
"""

from __future__ import annotations

import functools
import math
import operator
import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from nnmeter_nas.costs.by_kernel import KernelLearner
from nnmeter_nas.costs.pricing import Kernels, LatencyMeter, garbage_at_the_end
from nnmeter_nas.costs.probing import is_exact
from nnmeter_nas.costs.table import FactorTable, Positions
from nnmeter_nas.errors import SpaceError
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.nni import oneshot as nni_lines
from nnmeter_nas.predictor import LatencyPredictor, load_latency_predictor
from nnmeter_nas.readers.inputs import InputShape
from nnmeter_nas.readers.torch.module import read_torch_module
from nnmeter_nas.supernet.nni3 import SampledSpace
from nnmeter_nas.supernet.nni_space import NamedNetworks

_mutable = nni_lines.nni3("nni.mutable")
_ExpressionProfiler: Any = nni_lines.nni3("nni.nas.profiler").ExpressionProfiler

#: Random samples that kernels are told apart by, and that the table is tested on.
_PROBES = 32
#: How often the table is corrected by networks of which it was wrong.
_ROUNDS = 8


class LatencyProfiler(_ExpressionProfiler):
    """Latency in ms of every sample of a space, equal to that of the sample's whole network.

    Kernels are priced where they run, fused with their neighbours as the device fuses them. Layer choices,
    input choices, value choices and repeated blocks are handled wherever their values can be listed. For it,
    dozens to hundreds of networks are predicted; see :mod:`nnmeter_nas.costs.by_kernel`.

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
        table: the same as a factor table; there is none if nothing is to choose.
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
    table: FactorTable

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
        sampled = SampledSpace(space)
        self._networks = NamedNetworks(sampled)
        self._input_shape: InputShape = tree_map_only(torch.Tensor, lambda t: tuple(t.shape), dummy_input)
        self._strict = strict
        self._meter = LatencyMeter([self.predictor])
        self._operators: set[str] = set()  # whose predictions were checked
        self._kernels: dict[tuple[str, ...], Kernels] = {}
        if not sampled.values:
            self.expression = math.fsum(self._meter.priced(0, [self._kernels_of({})])[0].values())
            return
        self.table = self._learned(seed)
        terms = [_term(self.table, positions, sampled) for positions in self.table.factors]
        self.expression = functools.reduce(operator.add, terms, self.table.constant)

    def _learned(self, seed: int) -> FactorTable:
        """The table of the space, which gives the latency of every network that was predicted."""
        candidates, draw = self._networks.candidates, random.Random(seed)
        probes = [{label: draw.choice(known) for label, known in candidates.items()} for _ in range(_PROBES)]
        learner = KernelLearner(self._kernels_of, candidates, self._networks.places, probes, seed)
        for _ in range(_ROUNDS):
            table, samples = learner.table(functools.partial(self._meter.priced, 0)), list(learner.samples)
            priced = self._meter.priced(0, [self._kernels_of(sample) for sample in samples])
            whole = np.array([math.fsum(parts.values()) for parts in priced])
            right = is_exact(table, table.indices(samples), whole)
            if right.all():
                return table
            learner.learn([sample for sample, is_right in zip(samples, right, strict=True) if not is_right])
        raise SpaceError("the latency of the space is no sum over kernels that few choices decide")

    def _kernels_of(self, sample: Mapping[str, str]) -> Kernels:
        """The kernels of the network of ``sample``, as the device fuses them."""
        key = tuple(sample.values())
        if key not in self._kernels:
            with garbage_at_the_end():
                graph = read_torch_module(self._networks.network(sample), self._input_shape)
                [self._kernels[key]] = self._meter.seen(graph).values()
            if new := {kernel.op for kernel in self._kernels[key].values()} - self._operators:
                self.predictor.check(self.predictor.explain(graph), self._strict)
                self._operators |= new
            self.evaluations += 1
        return self._kernels[key]


def _term(table: FactorTable, positions: Positions, space: SampledSpace) -> Any:
    """A factor of ``table`` as an expression of NNI's mutables."""
    labels = [table.labels[position] for position in positions]
    arguments = [_argument(space.mutables[label]) for label in labels]
    shown = ", ".join("{}" for _ in arguments)
    look_up = _LookUp({label: space.values[label] for label in labels}, table.factors[positions])
    return _mutable.MutableExpression(look_up, f"latency({shown})", arguments)


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
    """The entry of a factor for the values of its labels, in order.

    Args:
        values: NNI's values, by label.
        factor: ms for each combination of them.
    """

    def __init__(self, values: Mapping[str, Sequence[Hashable]], factor: FloatArray) -> None:
        self._index = {label: {value: i for i, value in enumerate(known)} for label, known in values.items()}
        self._factor = factor

    def __call__(self, *values: Any) -> float:
        """Latency, ms. Inputs that are chosen together come as a list, an only one also by itself.

        Raises:
            SpaceError: a label has no such value.
        """
        try:
            row = tuple(_index_of(value, of) for value, of in zip(values, self._index.values(), strict=True))
        except KeyError:
            named = zip(self._index, values, strict=True)
            chosen = ", ".join(f"{label}={value!r}" for label, value in named)
            message = f"no sample of the space has {chosen}; give each label one of its values"
            raise SpaceError(message) from None
        return float(self._factor[row])


def _index_of(value: Any, index: Mapping[Hashable, int]) -> int:
    """Which of the values of a choice ``value`` is; inputs that are chosen together are a set."""
    if isinstance(next(iter(index)), frozenset):
        return index[frozenset(value if isinstance(value, list | tuple) else [value])]
    return index[value]
