"""LatencyProfiler: latency as an expression of a model space's choices, for NNI 3.0's strategies.

    profiler = LatencyProfiler(space, (1, 3, 224, 224), "cortexA76cpu_tflite21")
    Proxyless(penalty=ExpectationProfilerPenalty(profiler, baseline=20.0))
    RandomOneShot(filter=RangeProfilerFilter(profiler, max=20.0))
"""

from __future__ import annotations

import functools
import math
import operator
import random
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map_only

from nnmeter_nas.costs.by_kernel import KernelLearner
from nnmeter_nas.costs.pricing import Kernels, LatencyMeter, garbage_at_the_end
from nnmeter_nas.costs.probing import is_exact
from nnmeter_nas.costs.table import FactorTable, Header, Positions
from nnmeter_nas.errors import SpaceError
from nnmeter_nas.kernels.configuration import FloatArray
from nnmeter_nas.nni import oneshot as nni_lines
from nnmeter_nas.predictor import LatencyPredictor, LatencyWarning, load_latency_predictor
from nnmeter_nas.readers.inputs import InputShape
from nnmeter_nas.readers.torch.module import read_torch_module
from nnmeter_nas.supernet.nni3 import SampledSpace
from nnmeter_nas.supernet.nni_space import NamedNetworks

_mutable = nni_lines.nni3("nni.mutable")
_ExpressionProfiler: Any = nni_lines.nni3("nni.nas.profiler").ExpressionProfiler

#: Random samples used to tell kernels apart and to test the table.
_PROBES = 32
#: Rounds in which the table learns from the networks that it got wrong.
_ROUNDS = 8


class LatencyProfiler(_ExpressionProfiler):
    """Latency in ms of every sample of a space, the same as the prediction for the sample's whole network.

    It prices each kernel where it runs, fused with its neighbours as on the device. It handles layer choices,
    input choices, value choices and repeated blocks if their values can be listed. To learn the space, it
    predicts dozens to hundreds of networks; see :mod:`nnmeter_nas.costs.by_kernel`.

    The first profiler patches NNI so that its penalties and filters take effect; see
    :func:`nnmeter_nas.nni.oneshot.patch_oneshot`.

    Args:
        space: ``nni.nas.nn.pytorch.ModelSpace``, before a one-shot strategy changes it; not changed here.
        dummy_input: input of the networks, or its shape, NCHW with batch 1. For several inputs, a list of
            them, or a dict by the argument names of ``forward``.
        applied_hardware: device name, or a ``LatencyPredictor``.
        predictor_version: version of the device's predictor pack; the newest by default.
        strict: raise, instead of warn, if a prediction would leave an operator out.
        seed: seed for the samples to predict.

    Attributes:
        expression: sum of factors over few labels each; a float if the space has no choice. Where small
            networks take less than their kernels, :meth:`profile` tells how much less.
        predictor: predictor of the device.
        table: the same as a factor table; missing if the space has no choice.
        evaluations: number of networks predicted.

    Raises:
        UnknownDeviceError: no predictor pack has this ``applied_hardware`` and ``predictor_version``.
        SpaceError: the space cannot be priced; the message names the label at fault.
        ReaderError: a network cannot be traced with ``dummy_input``.
        UnpredictedOperatorError: under ``strict``, an operator has no kernel predictor.

    Warns:
        LatencyWarning: operators are left out, or far outside what was measured; or small networks of the
            space take less than the expression says.
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
        nni_lines.patch_oneshot(self)
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
        self._operators: set[str] = set()  # kernel types whose predictions were checked
        self._kernels: dict[tuple[str, ...], Kernels] = {}
        warmth = self.predictor.pack.warmth
        if not sampled.values:
            [parts] = self._meter.priced(0, [self._kernels_of({})])
            self.expression = float(warmth.ms(math.fsum(parts.values())))
            return
        self.table = replace(self._learned(seed), header=Header(device=self.predictor.device, warmth=warmth))
        _warn_of_warmth(self.table)
        terms = [_term(self.table, positions, sampled) for positions in self.table.factors]
        self.expression = functools.reduce(operator.add, terms, self.table.constant)

    def profile(self, sample: Mapping[str, Any]) -> float:
        """Latency in ms of a sample, which maps labels to values."""
        found: float = super().profile(sample)
        return float(self.predictor.pack.warmth.ms(found)) if hasattr(self, "table") else found

    def _learned(self, seed: int) -> FactorTable:
        """Learn the table of the space; it must be right for every network predicted."""
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
        """Return the kernels of the network of ``sample``, as the device fuses them."""
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


def _warn_of_warmth(table: FactorTable) -> None:
    """Say that the expression is a sum, if small networks of the space take less than that.

    NNI takes the expectation of an expression term by term, so it cannot be anything but a sum.
    """
    if table.warm_share < 1:
        below = f"networks below {table.header.warmth.below_ms:.3g} ms"
        warnings.warn(
            f"on {table.device} {below} take less than their kernels, down to {table.warm_share:.0%}: "
            "profile() and filters know this; penalties see the sum of the kernels",
            LatencyWarning,
            stacklevel=3,
        )


def _term(table: FactorTable, positions: Positions, space: SampledSpace) -> Any:
    """Turn a factor of ``table`` into an expression of NNI's mutables."""
    labels = [table.labels[position] for position in positions]
    arguments = [_argument(space.mutables[label]) for label in labels]
    shown = ", ".join("{}" for _ in arguments)
    look_up = _LookUp({label: space.values[label] for label in labels}, table.factors[positions])
    return _mutable.MutableExpression(look_up, f"latency({shown})", arguments)


def _argument(mutable: Any) -> Any:
    """Return the mutable that represents a choice in an expression.

    A choice of one input becomes categorical, because strategies give a probability to each input.
    """
    if isinstance(mutable, _mutable.CategoricalMultiple) and mutable.n_chosen == 1:
        one = _mutable.Categorical(mutable.values, label="input")
        one.label = mutable.label  # set here: the constructor refuses a label with a scope
        return one
    return mutable


class _LookUp:
    """Look up the entry of a factor from the values of its labels, in order.

    Args:
        values: NNI's values, by label.
        factor: ms for each combination of values.
    """

    def __init__(self, values: Mapping[str, Sequence[Hashable]], factor: FloatArray) -> None:
        self._index = {label: {value: i for i, value in enumerate(known)} for label, known in values.items()}
        self._factor = factor

    def __call__(self, *values: Any) -> float:
        """Return the latency in ms. Inputs chosen together are a list; a single input may be given as it is.

        Raises:
            SpaceError: a label lacks the given value.
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
    """Return the index of ``value`` among the values of a choice; inputs chosen together are a set."""
    if isinstance(next(iter(index)), frozenset):
        return index[frozenset(value if isinstance(value, list | tuple) else [value])]
    return index[value]
