"""What an operator is, and the one registry of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import OperatorError

Shape = tuple[int, ...]
#: Shapes of the operands and attributes of an operator -> shapes of its outputs.
ShapeRule = Callable[[list[Shape], dict[str, Any]], list[Shape]]
#: Data of a node of a finished model graph.
Node = Mapping[str, Any]
Count = Callable[[Node], int]
#: What a graph can do without: an operator that hands its operand on, one that is the same for every input,
#: and one that is zero for every input.
Role = Literal["identity", "constant", "zero"]

#: The formats whose names an operator declares.
FORMATS = ("torch", "modules", "onnx", "tensorflow", "nnmeter")


@dataclass(frozen=True)
class Work:
    """What an operator does once.

    Attributes:
        macs: multiply-adds, of products of matrices and convolutions alone.
        read: values read from operands.
        written: values written.
        params: weights and biases; None if the model does not tell how many there are.
    """

    macs: int
    read: int
    written: int
    params: int | None


def none(node: Node) -> int:
    """No work."""
    return 0


def values_read(node: Node) -> int:
    """Every value of every operand."""
    return sum(map(math.prod, node["in_shapes"]))


def values_written(node: Node) -> int:
    """Every value of every output."""
    return sum(map(math.prod, node["out_shapes"]))


@dataclass(frozen=True)
class Operator:
    """One operator: everything that the package knows about it.

    Attributes:
        name: its canonical name.
        shape: its shape rule.
        operands: how many computed operands it takes. None is any number that broadcast; then a constant
            operand becomes the attribute ``const`` (a number) or ``const_shape``, and ``const_first`` if its
            place matters.
        attrs: its attributes, where every format calls them by these names and a reader can copy them. None
            if formats spell them in their own ways, so that each reader needs an entry for the operator.
        torch: names of ATen operators and of torch's functions, without overload and underscore at the end;
            those of other libraries with their namespace, as in ``mylib::fold``.
        modules: classes of ``torch.nn``, which the graph IR of NNI keeps whole; others by their full path.
        onnx: types of ONNX operators; those of other domains behind their domain, as in ``my.domain.Fold``.
        tensorflow: names of TensorFlow operators.
        nnmeter: types in nn-Meter IR. The first one is written.
        macs, read, written: its work, counted from a node of a finished model graph.
        params: its weights and biases, counted likewise; None if shapes and attributes do not tell them.
        keeps_zeros: whether zeros in all operands make zeros, whatever the weights.
        role: what a graph can do without, see :data:`Role`; None for most.
        kernel: type of the kernel that it makes on its own; None if it makes none, like a view of memory.
        rule: what fusion rules call it.
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
    rule: str

    def work(self, node: Node) -> Work:
        """Work of ``node``, one use of this operator in a finished model graph."""
        return Work(self.macs(node), self.read(node), self.written(node), self.params_of(node))

    def params_of(self, node: Node) -> int | None:
        """Weights and biases of ``node``; where its attribute ``params`` tells them, as that does."""
        if "params" in node["attrs"]:
            return int(node["attrs"]["params"])
        return None if self.params is None else self.params(node)


#: Canonical name -> operator.
OPERATORS: dict[str, Operator] = {}
#: Format -> name in that format -> operator.
NAMES: dict[str, dict[str, Operator]] = {form: {} for form in FORMATS}
#: Canonical name -> what fusion rules call the operator, where that is another name.
RULE_NAMES: dict[str, str] = {}
#: Canonical names of the operators that make no kernel.
VIEW_OPS: set[str] = set()


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
    rule: str = "",
) -> Callable[[ShapeRule], ShapeRule]:
    """Declare the operator ``name``, whose shape rule is the decorated function.

    Arguments are the attributes of :class:`Operator`. Names are written in one string, with spaces between
    them. ``kernel`` and ``rule`` are ``name`` if left out.

    Raises:
        OperatorError: the name is declared already, or one of its names in a format is another operator's.

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
                rule=rule or name,
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
    if declared.kernel is None:
        VIEW_OPS.add(declared.name)


def kernel_of(op: str) -> str | None:
    """Type of the kernel that ``op`` makes on its own; its own name for an operator that nobody declared.

    >>> kernel_of("relu6"), kernel_of("reshape"), kernel_of("fourier")
    ('relu', None, 'fourier')
    """
    found = OPERATORS.get(op)
    return op if found is None else found.kernel


def role_of(op: str) -> Role | None:
    """What a graph can do without about ``op``; None for most operators, and for those nobody declared."""
    found = OPERATORS.get(op)
    return None if found is None else found.role
