"""Information that filters and strategies need about a candidate of either NNI line."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..readers.nni.ir import root_inputs
from .patches import experiment_space

#: Prefix of the graph engine's names of candidate blocks; the label and the name follow.
_PREFIX = "layerchoice_"


def carries_operators(candidate: Any) -> bool:
    """Return whether ``candidate`` is a graph IR with operators, as under the graph engine."""
    root = getattr(candidate, "root_graph", None)
    return root is not None and bool(root.edges)


def sample_of(candidate: Any) -> dict[str, Any]:
    """Return the choice under each label, as in a fixed architecture of NNI.

    The graph engine names candidate blocks ``layerchoice_<label>_<name>``; here they are ``<name>``.
    """
    sample = getattr(candidate, "sample", None)
    if sample is None:
        sample = {
            step.mutator.label: step.samples[0] if len(step.samples) == 1 else step.samples
            for step in getattr(candidate, "history", [])
        }
    return plain_sample(sample)


def plain_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """Return ``sample`` without the prefixes that the graph engine adds to block names."""
    return {
        label: plain_value(label, value) if type(value) is str and value.startswith(_PREFIX) else value
        for label, value in sample.items()
    }


def plain_value(label: str, value: Any) -> Any:
    """Return ``value`` of the choice ``label`` without the prefix that the graph engine adds to blocks."""
    return value.removeprefix(f"{_PREFIX}{label}_") if isinstance(value, str) else value


def build_module(candidate: Any) -> Any:
    """Build the torch module of a candidate without operators.

    Raises:
        TypeError: ``candidate`` has neither a method to build itself nor a class.
    """
    if hasattr(candidate, "executable_model"):
        return candidate.executable_model()
    if getattr(candidate, "python_class", None) is None:
        raise TypeError(f"{type(candidate).__name__} is not a candidate of an NNI search space")
    fixed_arch = importlib.import_module("nni.retiarii").fixed_arch
    with fixed_arch(sample_of(candidate), verbose=False):
        return candidate.python_class(**(candidate.python_init_params or {}))


@dataclass(frozen=True)
class Origin:
    """The space of a candidate, as far as NNI tells.

    Attributes:
        key: identifies this space; see :meth:`is_of`.
        make: makes the space as a torch module with all its choices open.
    """

    key: tuple[Any, ...]
    make: Callable[[], Any]

    def is_of(self, other: Origin | None) -> bool:
        """Return whether both are the same space, made with the same arguments."""
        return other is not None and _same(self.key, other.key)


def origin_of(candidate: Any) -> Origin | None:
    """Find the space of ``candidate``; None if it cannot be found.

    The default engine of 2.10.1 and the formats of 3.0 without operators keep the class and arguments of the
    space. Graphs keep neither: they belong to the space of the running experiment.
    """
    if carries_operators(candidate):
        space, history = experiment_space(), candidate.history
        return Origin((space, history[0].from_), lambda: space) if space is not None and history else None
    model: Any = getattr(candidate, "model", None)
    if hasattr(model, "trace_symbol"):  # 3.0, simplified
        return Origin((model.trace_symbol, list(model.trace_args), model.trace_kwargs), model.get)
    if hasattr(candidate, "model_space"):  # 3.0, raw
        return Origin((candidate.model_space,), lambda: candidate.model_space)
    kind = getattr(candidate, "python_class", None)
    if kind is None:
        return None
    arguments = candidate.python_init_params or {}
    return Origin((kind, arguments), lambda: kind(**arguments))


def traced_shape(candidate: Any) -> tuple[int, ...] | None:
    """Return the input shape, NCHW, of the trace of a candidate with operators; None for several inputs.

    Raises:
        ReaderError: the candidate carries no input shape.
    """
    shapes = [shape for _, shape in root_inputs(candidate, None)]
    return tuple(shapes[0]) if len(shapes) == 1 else None


def _same(one: Any, other: Any) -> bool:
    """Return whether two arguments are the same object, or equal plain values.

    Tensors and similar objects are compared by identity only: comparing contents is slow or ambiguous.
    """
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    return isinstance(one, str | int | float) and bool(one == other)
