"""Names that are visible while a graph of an ONNX model is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...errors import GraphError, NnMeterNasError, ReaderError
from .values import Value

#: Maximum nesting depth of local functions and branches.
MAX_DEPTH = 32
#: Errors that a damaged file can raise: an attribute is missing, has the wrong type or is out of range. A bug
#: of ours may raise one too, so the message names the type and keeps the cause.
_ATTRIBUTE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError)


@dataclass(slots=True)
class Scope:
    """The names that are visible in a graph, a branch or a local function.

    Attributes:
        values: tensors by name.
        opsets: opset version by domain.
        prefix: prefix of operator names; empty in the main graph.
        attributes: attributes of the operator that called the function.
        calls: local functions being read, outermost first.
        reads: how often each tensor is read, by name.
        absent: optional inputs of the function that its caller left out.
    """

    values: MutableMapping[str, Value]
    opsets: Mapping[str, int]
    prefix: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    reads: Counter[str] = field(default_factory=Counter)
    absent: frozenset[str] = frozenset()


@contextmanager
def error_context(name: str, op: str) -> Iterator[None]:
    """Add the operator's name to errors raised inside the ``with`` block."""
    try:
        yield
    except GraphError:  # names it already
        raise
    except NnMeterNasError as error:
        raise ReaderError(f"operator {name!r} ({op}): {error}") from error
    except _ATTRIBUTE_ERRORS as error:
        raise ReaderError(
            f"operator {name!r} ({op}): an attribute or input is missing or malformed "
            f"({type(error).__name__}: {error})"
        ) from error


def valid_name(name: Any) -> str:
    """Return ``name`` if it is a string; protobuf returns invalid UTF-8 as bytes.

    Raises:
        ReaderError: the name is not valid UTF-8.
    """
    if not isinstance(name, str):
        raise ReaderError(f"the model is damaged: the name {name!r} is not text")
    return name


def lookup(scope: Scope, name: str, reader: str) -> Value:
    """Return the tensor called ``name``; errors name the ``reader``.

    Raises:
        GraphError: no earlier operator makes it.
    """
    if name not in scope.values:
        raise GraphError(f"{reader} read the tensor {name!r}, which nothing in the model makes before that")
    return scope.values[name]


def bind(scope: Scope, name: str, value: Value) -> None:
    """Bind ``name`` to ``value``.

    Raises:
        GraphError: the name is already bound.
    """
    if name in scope.values:
        raise GraphError(f"the tensor {name!r} is made twice")
    scope.values[valid_name(name)] = value
