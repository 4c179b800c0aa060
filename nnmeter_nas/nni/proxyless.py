"""Patch NNI 2.10.1's own ProxylessNAS, so that latency counts in its search and today's torch runs it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from .parts import price_as_parts
from .patches import need_patches
from .replaced import wrap


def patch_proxyless(user: Any) -> None:
    """Patch NNI's ``HardwareLatencyEstimator`` and ``ProxylessTrainer`` for ``user``; each function says why.

    :func:`nnmeter_nas.nni.unpatch` undoes it.
    """
    need_patches(user)
    module: Any = importlib.import_module("nni.retiarii.oneshot.pytorch.proxyless")
    gain = "the expected latency of ProxylessNAS has a gradient"
    wrap(module.HardwareLatencyEstimator, "cal_expected_latency", _expected_latency, gain)
    price_as_parts(module.HardwareLatencyEstimator, "_form_latency_table", "latency_predictor")
    wrap(module.ProxylessTrainer, "__init__", _with_betas_as_numbers)
    wrap(module.ArchGradientFunction, "backward", _to_weights_too, "candidates of ProxylessNAS learn")


def _expected_latency(_: Any, self: Any, current_architecture_prob: Mapping[str, Any]) -> Any:
    """Sum the latencies by their probabilities.

    NNI copies the products into a new tensor, which loses their gradient: latency never moves the search.
    """
    table = self.block_latency_table
    expected = table["stationary_block"]["root"]
    for label, probabilities in current_architecture_prob.items():
        assert len(probabilities) == len(table[label])
        expected = expected + sum(p * table[label][str(i)] for i, p in enumerate(probabilities))
    return expected


def _to_weights_too(_: Any, context: Any, gradient: Any) -> tuple[Any, ...]:
    """Pass the gradient on to the input, the gates, and the weights of the candidate that ran.

    NNI asks only for the gradient of the input, so no weight of a candidate ever changes.
    """
    torch: Any = importlib.import_module("torch")
    given, output = context.saved_tensors
    torch.autograd.backward(output, gradient)
    return given.grad, context.backward_func(given.data, output.data, gradient.data), None, None


def _with_betas_as_numbers(create: Any, self: Any, *args: Any, **options: Any) -> None:
    """Make the trainer, whose optimizer is given the betas ``(0, 0.999)``; torch now refuses the integer."""
    optim: Any = importlib.import_module("torch").optim
    adam = optim.Adam

    def adam_of_nni(*parameters: Any, betas: Any = (0.9, 0.999), **others: Any) -> Any:
        return adam(*parameters, betas=tuple(map(float, betas)), **others)

    optim.Adam = adam_of_nni
    try:
        create(self, *args, **options)
    finally:
        optim.Adam = adam
