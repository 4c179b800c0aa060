"""What strategies need of a candidate, in whichever line of NNI it was made."""

from __future__ import annotations

import importlib
from typing import Any


def carries_operators(candidate: Any) -> bool:
    """Whether ``candidate`` is a graph IR with operators, as under the graph engine."""
    root = getattr(candidate, "root_graph", None)
    return root is not None and bool(root.edges)


def sample_of(candidate: Any) -> dict[str, Any]:
    """The choice made under each label, as one writes it in a fixed architecture.

    The graph engine calls candidate blocks ``layerchoice_<label>_<name>``; here they are ``<name>``.
    """
    sample = getattr(candidate, "sample", None)
    if sample is None:
        sample = {
            step.mutator.label: step.samples[0] if len(step.samples) == 1 else step.samples
            for step in getattr(candidate, "history", [])
        }
    return plain_sample(sample)


def plain_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """``sample`` without the prefixes that the graph engine gives to names of blocks."""
    return {label: plain_value(label, value) for label, value in sample.items()}


def plain_value(label: str, value: Any) -> Any:
    """``value`` of the choice ``label`` without the prefix that the graph engine gives to names of blocks."""
    return value.removeprefix(f"layerchoice_{label}_") if isinstance(value, str) else value


def build_module(candidate: Any) -> Any:
    """The torch module of a candidate that carries no operators.

    Raises:
        TypeError: ``candidate`` knows neither how to build itself nor the class it comes from.
    """
    if hasattr(candidate, "executable_model"):
        return candidate.executable_model()
    if getattr(candidate, "python_class", None) is None:
        raise TypeError(f"{type(candidate).__name__} is not a candidate of an NNI search space")
    fixed_arch = importlib.import_module("nni.retiarii").fixed_arch
    with fixed_arch(sample_of(candidate), verbose=False):
        return candidate.python_class(**(candidate.python_init_params or {}))


def origin_of(candidate: Any) -> tuple[Any, str] | None:
    """What tells the space of a candidate without operators from others: its class and arguments."""
    if carries_operators(candidate):
        return None
    model: Any = getattr(candidate, "model", None)
    if hasattr(model, "trace_symbol"):  # 3.0, simplified
        return model.trace_symbol, repr((model.trace_args, model.trace_kwargs))
    python_class = getattr(candidate, "python_class", None)
    return None if python_class is None else (python_class, repr(candidate.python_init_params))


def build_space(candidate: Any) -> Any:
    """The space that a candidate with an origin is of, as a torch module with all its choices open."""
    if hasattr(getattr(candidate, "model", None), "trace_symbol"):
        return candidate.model.get()
    return candidate.python_class(**(candidate.python_init_params or {}))
