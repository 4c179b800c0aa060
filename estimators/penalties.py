"""Penalties that make a one-shot search heed a reference latency, with NNI's names and parameters.

``add#linear`` and ``mul#log`` are the two losses of NNI 2.10.1. They are prices: they reward every saved
millisecond, below the reference too. ``add#hinge`` is a limit: it is nothing up to the reference. It is what
NNI 3.0 calls ``aggregate="add", nonlinear="positive"``.

    >>> import torch
    >>> penalised = latency_penalty("add#linear", {"lambda": 0.2}, reference_latency=20.0)
    >>> penalised(torch.tensor(2.0), torch.tensor(30.0))  # 2 + 0.2 * (30 - 20) / 20
    tensor(2.1000)
    >>> limited = latency_penalty("add#hinge", {"lambda": 0.2}, reference_latency=20.0)
    >>> limited(torch.tensor(2.0), torch.tensor(30.0)), limited(torch.tensor(2.0), torch.tensor(10.0))
    (tensor(2.1000), tensor(2.))

Cai et al., "ProxylessNAS: Direct Neural Architecture Search on Target Task and Hardware", ICLR 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real

import torch

from nnmeter_nas.errors import SearchError, SettingsError, nearest

#: Turns the task's loss and the expected latency in ms (scalar tensors) into the loss to minimise.
Penalty = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class AddLinear:
    """``add#linear``: loss + lambda * (expected - reference) / reference.

    Args:
        reference_latency: in ms, above 0.
        lambda_: penalty for twice the reference latency; 0 ignores latency.

    Raises:
        SettingsError: an argument is out of range.
        SearchError: when called, the expected latency is not finite.
    """

    reference_latency: float
    lambda_: float = 0.2

    def __post_init__(self) -> None:
        _check("reference_latency", self.reference_latency, "above 0 ms", self.reference_latency > 0)
        _check("lambda", self.lambda_, "of at least 0", self.lambda_ >= 0)

    def __call__(self, loss: torch.Tensor, expected_latency: torch.Tensor) -> torch.Tensor:
        """Return the task's loss plus the penalty."""
        _finite(expected_latency)
        excess = self._counted(expected_latency - self.reference_latency) / self.reference_latency
        return loss + self.lambda_ * excess

    def _counted(self, excess_ms: torch.Tensor) -> torch.Tensor:
        """Return what counts of the latency beyond the reference, which is negative below it."""
        return excess_ms


@dataclass(frozen=True)
class AddHinge(AddLinear):
    """``add#hinge``: loss + lambda * max(0, expected - reference) / reference.

    Arguments and errors are those of :class:`AddLinear`; ``lambda_`` is 1 by default.
    """

    lambda_: float = 1.0

    def _counted(self, excess_ms: torch.Tensor) -> torch.Tensor:
        return torch.relu(excess_ms)


@dataclass(frozen=True)
class MulLog:
    """``mul#log``: alpha * loss * (log expected / log reference) ** beta, logarithms of ms.

    Both latencies must exceed 1 ms. Below 1 ms the logarithm is negative: its fractional power is undefined,
    and with a reference below 1 ms the slower architecture would win. ``add#linear`` takes any latency.

    Args:
        reference_latency: in ms, above 1.
        alpha: factor of the product, above 0.
        beta: the higher, the more latency counts; 0 ignores it.

    Raises:
        SettingsError: an argument is out of range.
        SearchError: when called, the expected latency is 1 ms or less, or not finite.
    """

    reference_latency: float
    alpha: float = 1.0
    beta: float = 0.6

    def __post_init__(self) -> None:
        bound = "above 1 ms under mul#log (add#linear takes shorter ones)"
        _check("reference_latency", self.reference_latency, bound, self.reference_latency > 1)
        _check("alpha", self.alpha, "above 0", self.alpha > 0)
        _check("beta", self.beta, "of at least 0", self.beta >= 0)

    def __call__(self, loss: torch.Tensor, expected_latency: torch.Tensor) -> torch.Tensor:
        """Return the task's loss times the penalty."""
        if _finite(expected_latency) <= 1:
            raise SearchError(
                f"the expected latency is {expected_latency.item():g} ms, and mul#log needs more than 1 ms; "
                "take add#linear"
            )
        quotient = torch.log(expected_latency) / math.log(self.reference_latency)
        return self.alpha * loss * quotient**self.beta


#: Penalty -> its class, and NNI's names for its parameters.
_PENALTIES: dict[str, tuple[Callable[..., Penalty], dict[str, str]]] = {
    "add#hinge": (AddHinge, {"lambda": "lambda_"}),
    "add#linear": (AddLinear, {"lambda": "lambda_"}),
    "mul#log": (MulLog, {"alpha": "alpha", "beta": "beta"}),
}
#: Values of ``grad_reg_loss_type`` other than None.
PENALTIES = tuple(_PENALTIES)


def latency_penalty(
    grad_reg_loss_type: str,
    grad_reg_loss_params: Mapping[str, float] | None = None,
    reference_latency: float = 65.0,
) -> Penalty:
    """Make the penalty from the arguments of NNI's ``ProxylessTrainer``.

    Args:
        grad_reg_loss_type: "add#hinge", or one of NNI's: "add#linear" or "mul#log".
        grad_reg_loss_params: "lambda" for add#hinge (1 by default) and add#linear (0.2); "alpha" (1) and
            "beta" (0.6) for mul#log.
        reference_latency: in ms.

    Raises:
        SettingsError: the penalty or a parameter is unknown, or a value is out of range.
    """
    if grad_reg_loss_type not in _PENALTIES:
        hint = nearest(str(grad_reg_loss_type), PENALTIES)
        raise SettingsError(f"grad_reg_loss_type={grad_reg_loss_type!r} is no penalty; {hint}")
    penalty, names = _PENALTIES[grad_reg_loss_type]
    values = {}
    for name, value in (grad_reg_loss_params or {}).items():
        if name not in names:
            hint = nearest(str(name), names)
            raise SettingsError(
                f"grad_reg_loss_params: no parameter {name!r} of {grad_reg_loss_type}; {hint}"
            )
        values[names[name]] = _number(name, value)
    return penalty(_number("reference_latency", reference_latency), **values)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise SettingsError(f"{name}={value!r} is no number")
    return float(value)


def _check(name: str, value: float, bound: str, holds: bool) -> None:
    if not holds or not math.isfinite(value):
        raise SettingsError(f"{name}={value!r} is no finite number {bound}")


def _finite(expected_latency: torch.Tensor) -> float:
    """Return the latency as a number; raise if it is not finite, to stop a search that diverged."""
    if not math.isfinite(value := expected_latency.item()):
        raise SearchError(f"the expected latency is {value}; the architecture parameters went astray")
    return value
