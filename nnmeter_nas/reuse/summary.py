"""What is remembered of a unit, whichever model it is at work in; an error where nothing can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..fusion import Kernel
from ..shapes import Shape


class InseparableError(Exception):
    """A model cannot be divided into units that say what the whole would."""


@dataclass(frozen=True)
class Consumer:
    """An operator that reads an argument of its unit.

    Attributes:
        data: of its node in the unit's model graph.
        fused_with: name of the operator or pattern that it is fused as.
        type: of that, in the words of the rules; None of what becomes no kernel.
    """

    data: Mapping[str, Any]
    fused_with: str
    type: str | None


@dataclass(frozen=True)
class Producer:
    """An operator whose output is a result of its unit.

    Attributes:
        data: of its node in the unit's model graph.
        kernel: that ends with it; None if none does.
        pooled: whether squeeze-excite might hold it.
        read_inside: whether its own unit reads it, too.
    """

    data: Mapping[str, Any]
    kernel: Kernel | None
    pooled: bool
    read_inside: bool


@dataclass(frozen=True)
class Argument:
    """A result that is the argument of place ``name`` among the distinct names."""

    name: int


@dataclass(frozen=True)
class PassedOn:
    """A result whose operator is pruned, so that an argument takes its place.

    Attributes:
        argument: place among the distinct tensors.
        alias: number of the operator.
    """

    argument: int
    alias: int


@dataclass(frozen=True)
class Result:
    """A result that an operator of the unit hands out.

    Attributes:
        producer: place among the summary's.
        slot: output of the producer.
        shape: of the tensor.
        alias: number of the operator that handed it out until it was pruned; None if it is the producer.
    """

    producer: int
    slot: int
    shape: Shape
    alias: int | None


@dataclass(frozen=True)
class KernelLatencies:
    """Latencies of a unit's kernels.

    Attributes:
        ms: of each that is predicted.
        extrapolated_ms: of each that is outside the range seen in training.
        unpredicted: operators that no kernel predictor covers.
        kernels: how many there are.
    """

    ms: tuple[float, ...]
    extrapolated_ms: tuple[float, ...]
    unpredicted: frozenset[str]
    kernels: int


@dataclass
class Summary:
    """What is to be known of a unit.

    Attributes:
        result: what it evaluates to, with an :class:`Argument`, a :class:`PassedOn` or a :class:`Result` in
            place of each tensor.
        runs: whether it has operators; one without only passes values on.
        producers: the operators that hand results out.
        consumers: those that read each argument.
        kernels: what it runs, until they are priced.
        latencies: of the kernels, once they are.
    """

    result: Any
    runs: bool = False
    producers: list[Producer] = field(default_factory=list)
    consumers: list[list[Consumer]] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    latencies: KernelLatencies | None = None
