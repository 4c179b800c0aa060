"""The class of operators, and the one registry of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import OperatorError

Shape = tuple[int, ...]
#: Operand shapes and attributes of an operator -> its output shapes.
ShapeRule = Callable[[list[Shape], dict[str, Any]], list[Shape]]
#: Data of a node of a finished model graph.
Node = Mapping[str, Any]
Count = Callable[[Node], int]
#: An operator that a graph can do without: it returns its operand (identity), the same value for every input
#: (constant), or zeros for every input (zero).
Role = Literal["identity", "constant", "zero"]

#: The formats whose names an operator declares.
FORMATS = ("torch", "modules", "onnx", "tensorflow", "nnmeter")


@dataclass(frozen=True)
class Work:
    """Work of one use of an operator.

    Attributes:
        macs: multiply-adds of matrix products and convolutions only.
        read: values read from operands.
        written: values written.
        params: weights and biases; None if the model does not state their number.
    """

    macs: int
    read: int
    written: int
    params: int | None


def none(node: Node) -> int:
    """No work."""
    return 0


def once(node: Node) -> int:
    """A single launch."""
    return 1


def values_read(node: Node) -> int:
    """Number of values in all operands."""
    return sum(map(math.prod, node["in_shapes"]))


def values_written(node: Node) -> int:
    """Number of values in all outputs."""
    return sum(map(math.prod, node["out_shapes"]))


@dataclass(frozen=True)
class Operator:
    """One operator, and everything that the package knows about it.

    Attributes:
        name: its canonical name.
        shape: its shape rule.
        operands: number of computed operands. None means any number, which broadcast; then a constant operand
            becomes the attribute ``const`` (a number) or ``const_shape``, plus ``const_first`` if its place
            matters.
        attrs: its attributes, if every format uses these names, so that readers can copy them. None if
            formats differ, so that each reader needs an entry for the operator.
        torch: names of ATen operators and torch functions, without overload and trailing underscore;
            names from other libraries include their namespace, as in ``mylib::fold``.
        modules: classes of ``torch.nn``, which NNI's graph IR keeps whole; other classes by their full path.
        onnx: ONNX operator types; types of other domains include the domain, as in ``my.domain.Fold``.
        tensorflow: names of TensorFlow operators.
        nnmeter: types in nn-Meter IR. The writer uses the first.
        macs, read, written: functions that count its work from a node of a finished model graph.
        params: counts its weights and biases likewise; None if shapes and attributes are not enough.
        keeps_zeros: whether the result is zero when all operands are zero, for any weights.
        role: why a graph can do without it, see :data:`Role`; None for most operators.
        kernel: type of the kernel that it makes alone; None if it makes none, like a view of memory.
        like: kernel type whose costs stand in for its own on a device that was never measured on it; see
            :mod:`nnmeter_nas.packs.estimates`.
        passes: how often it goes over the values that it reads and writes; for such estimates only.
        launches: counts the kernels that it runs one after another, such as the steps of a recurrent layer;
            for such estimates only.
        rule: its name in fusion rules.
        quantized: whether it belongs to quantised networks only.
    """

    name: str
    shape: ShapeRule
    operands: int | None
    attrs: tuple[str, ...] | None
    torch: tuple[str, ...]
    modules: tuple[str, ...]
    onnx: tuple[str, ...]
    tensorflow: tuple[str, ...]
    nnmeter: tuple[str, ...]
    macs: Count
    read: Count
    written: Count
    params: Count | None
    keeps_zeros: bool
    role: Role | None
    kernel: str | None
    like: str
    passes: float
    launches: Count
    rule: str
    quantized: bool

    def work(self, node: Node) -> Work:
        """Work of ``node``, one use of this operator in a finished model graph."""
        return Work(self.macs(node), self.read(node), self.written(node), self.params_of(node))

    def params_of(self, node: Node) -> int | None:
        """Weights and biases of ``node``; its attribute ``params`` takes precedence."""
        if "params" in node["attrs"]:
            return int(node["attrs"]["params"])
        return None if self.params is None else self.params(node)


#: Canonical name -> operator.
OPERATORS: dict[str, Operator] = {}
#: Format -> name in that format -> operator.
NAMES: dict[str, dict[str, Operator]] = {form: {} for form in FORMATS}
#: Canonical name -> name in fusion rules, where the two differ.
RULE_NAMES: dict[str, str] = {}
#: Canonical name -> role, of operators that have one.
ROLES: dict[str, Role] = {}
#: Canonical names of operators that make no kernel.
VIEW_OPS: set[str] = set()
#: Names, in model graphs, of operators that belong to quantised networks only.
QUANTIZED_OPS: set[str] = set()


def operator(
    name: str,
    *,
    operands: int | None = 1,
    attrs: str | None = "",
    torch: str = "",
    modules: str = "",
    onnx: str = "",
    tensorflow: str = "",
    nnmeter: str = "",
    macs: Count = none,
    read: Count = values_read,
    written: Count = values_written,
    params: Count | None = none,
    keeps_zeros: bool = False,
    role: Role | None = None,
    kernel: str | None = "",
    like: str = "relu",
    passes: float = 1,
    launches: Count = once,
    rule: str = "",
    quantized: bool = False,
) -> Callable[[ShapeRule], ShapeRule]:
    """Declare the operator ``name``, whose shape rule is the decorated function.

    Arguments are the attributes of :class:`Operator`. Write several names as one string, separated by spaces.
    ``kernel`` and ``rule`` default to ``name``.

    Raises:
        OperatorError: the name is declared already, or another operator has one of its names in a format.

    >>> @operator("relu")
    ... def same_shape(shapes, attrs):
    ...     return shapes
    Traceback (most recent call last):
        ...
    nnmeter_nas.errors.OperatorError: operator 'relu' is declared twice
    """

    def register(shape: ShapeRule) -> ShapeRule:
        _add(
            Operator(
                name=name,
                shape=shape,
                operands=operands,
                attrs=None if attrs is None else tuple(attrs.split()),
                torch=tuple(torch.split()),
                modules=tuple(modules.split()),
                onnx=tuple(onnx.split()),
                tensorflow=tuple(tensorflow.split()),
                nnmeter=tuple(nnmeter.split()),
                macs=macs,
                read=read,
                written=written,
                params=params,
                keeps_zeros=keeps_zeros,
                role=role,
                kernel=name if kernel == "" else kernel,
                like=like,
                passes=passes,
                launches=launches,
                rule=rule or name,
                quantized=quantized,
            )
        )
        return shape

    return register


def _add(declared: Operator) -> None:
    if declared.name in OPERATORS:
        raise OperatorError(f"operator {declared.name!r} is declared twice")
    for form in FORMATS:
        for alias in getattr(declared, form):
            if alias in NAMES[form]:
                raise OperatorError(
                    f"operator {declared.name!r} claims {alias!r} in {form}, "
                    f"which is {NAMES[form][alias].name!r} already"
                )
    OPERATORS[declared.name] = declared
    for form in FORMATS:
        NAMES[form].update(dict.fromkeys(getattr(declared, form), declared))
    if declared.rule != declared.name:
        RULE_NAMES[declared.name] = declared.rule
    if declared.role is not None:
        ROLES[declared.name] = declared.role
    if declared.kernel is None:
        VIEW_OPS.add(declared.name)
    if declared.quantized:
        QUANTIZED_OPS.add(declared.name)


def kernel_of(op: str) -> str | None:
    """Type of the kernel that ``op`` makes alone; an undeclared operator gives its own name.

    >>> kernel_of("relu6"), kernel_of("reshape"), kernel_of("fourier")
    ('relu', None, 'fourier')
    """
    found = OPERATORS.get(op)
    return op if found is None else found.kernel
