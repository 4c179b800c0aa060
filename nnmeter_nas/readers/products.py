"""Sums of products as every reader builds them: dense layers, products of matrices, and what leads there.

An ``einsum`` becomes the transposes and products that torch makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ShapeError
from ..graph.editing import Operand
from ..ops import Shape

#: Adds an operator ``(op, operands, attributes)`` with one output to the model graph.
Add = Callable[[str, Sequence[Operand], Mapping[str, Any]], Operand]


class Factor(NamedTuple):
    """A tensor to multiply; without ``operand`` it is constant."""

    operand: Operand | None
    shape: Shape


class NoProductError(Exception):
    """No operators of the model graph do the same as this equation."""


@dataclass(frozen=True)
class _Term:
    """A tensor, and a label for each of its axes."""

    operand: Operand | None
    labels: str
    sizes: Mapping[str, int]

    @property
    def shape(self) -> Shape:
        return tuple(self.sizes[label] for label in self.labels)


def is_dense(left: Factor, right: Factor) -> bool:
    """Whether the product of two factors is a dense layer: of a computed one with a matrix of weights."""
    if left.operand is None or right.operand is not None or len(right.shape) < 2:
        return False
    # Further axes of size 1 in front of the matrix change nothing if the other factor has as many.
    return len(right.shape) == 2 or (len(right.shape) <= len(left.shape) and math.prod(right.shape[:-2]) == 1)


def product(add: Add, left: Factor, right: Factor, bias: bool = False) -> Operand:
    """The product of two matrices, batched as in NumPy; at least one of them is computed.

    Args:
        add: adds an operator.
        left, right: the matrices.
        bias: whether it has a bias if it is a dense layer.
    """
    if left.operand is not None and right.operand is not None:
        return add("matmul", [left.operand, right.operand], {})
    if left.operand is not None and is_dense(left, right):
        sizes = {"in_features": right.shape[-2], "out_features": right.shape[-1]}
        return add("fc", [left.operand], sizes if bias else {**sizes, "bias": False})
    if left.operand is not None:
        return add("matmul", [left.operand], {"const_shape": right.shape})
    assert right.operand is not None
    return add("matmul", [right.operand], {"const_shape": left.shape, "const_first": True})


def einsum(
    add: Add, equation: str, factors: Sequence[Factor], path: Sequence[tuple[int, int]] = ()
) -> Operand:
    """The sum of products that ``equation`` says, over at least one computed factor.

    Args:
        add: adds an operator.
        equation: as NumPy writes it.
        factors: the tensors.
        path: which two to take in each step; the result goes to the end of the others. Without it, the first
            two are taken, and the result goes to the front.

    Raises:
        NoProductError: an index occurs twice in one factor (a diagonal).
        ShapeError: the equation does not fit the factors.
    """
    inputs, result = _labels(equation, [len(factor.shape) for factor in factors])
    sizes: dict[str, int] = {}
    for labels, factor in zip(inputs, factors, strict=True):
        for label, size in zip(labels, factor.shape, strict=True):
            if len(set(labels)) < len(labels):
                raise NoProductError
            if 1 != sizes.get(label, 1) != size != 1:
                raise ShapeError(f"sizes of {label!r} differ in {equation!r}")
            sizes[label] = max(size, sizes.get(label, 1))
    terms = [_without_ones(add, *pair, sizes, result) for pair in zip(factors, inputs, strict=True)]
    build, steps = _Einsum(add, sizes), list(path) or [(0, 1)] * (len(terms) - 1)
    for one, other in steps:
        others = [term for i, term in enumerate(terms) if i not in (one, other)]
        done = build.pair(terms[one], terms[other], result + "".join(term.labels for term in others))
        terms = [*others, done] if path else [done, *others]
    return build.ordered(build.summed(terms[0], result), result)


def _labels(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Labels of each factor and of the result, and private ones for the axes that "..." stands for."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    operands = terms.split(",")
    if len(operands) != len(ranks):
        raise ShapeError(f"{equation!r} takes {len(operands)} operands, got {len(ranks)}")
    rest = [rank - len(term.replace("...", "")) for term, rank in zip(operands, ranks, strict=True)]
    if any(n < 0 or (n and "..." not in term) for term, n in zip(operands, rest, strict=True)):
        raise ShapeError(f"{equation!r} does not fit operands of {list(ranks)} dimensions")
    dots = "".join(chr(0xE000 + i) for i in range(max(rest)))
    if not arrow:
        letters = terms.replace("...", "").replace(",", "")
        result = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    named = [term.replace("...", dots[len(dots) - n :]) for term, n in zip(operands, rest, strict=True)]
    return named, result.replace("...", dots)


def _without_ones(add: Add, factor: Factor, labels: str, sizes: Mapping[str, int], result: str) -> _Term:
    """``factor`` without the axes of size 1 that broadcast, or that would be summed over."""
    axes = zip(labels, factor.shape, strict=True)
    kept = "".join(c for c, size in axes if size == sizes[c] and (size > 1 or c in result))
    operand = factor.operand
    if kept != labels and operand is not None:
        operand = add("reshape", [operand], {"shape": tuple(sizes[c] for c in kept)})
    return _Term(operand, kept, sizes)


@dataclass(frozen=True)
class _Einsum:
    """The steps of a sum of products.

    Attributes:
        add: adds an operator.
        sizes: size of each label.
    """

    add: Add
    sizes: Mapping[str, int]

    def pair(self, left: _Term, right: _Term, kept: str) -> _Term:
        """The sum of products of two terms; labels that are not ``kept`` are summed over."""
        left, right = (
            self.summed(one, other.labels + kept) for one, other in ((left, right), (right, left))
        )
        both = [c for c in left.labels if c in right.labels]
        batch, inner = "".join(c for c in both if c in kept), "".join(c for c in both if c not in kept)
        rows, columns = ("".join(c for c in t.labels if c not in both) for t in (left, right))
        if left.operand is None and right.operand is None:
            return self._term(None, batch + rows + columns)
        if not inner:
            return self._multiplied(left, right, "".join(sorted(batch + rows + columns, key=kept.index)))
        # Swap them to have constant weights on the right, or to spare a transpose of the result.
        weighs = not batch and (left.operand is None or right.operand is None)
        turned = bool(rows and columns) and kept.index(rows[0]) > kept.index(columns[0])
        if left.operand is None if weighs else turned:
            left, right, rows, columns = right, left, columns, rows
        out = batch + rows + columns
        # A matrix of weights takes the positions as they are, other products take matrices.
        grouped = [rows] if batch or right.operand is not None else [*rows]
        first = self._laid(left, [*batch, *grouped, inner])
        second = self._laid(right, [*batch, inner, columns])
        return self._seen(product(self.add, first, second), [*batch, *grouped, columns], out)

    def summed(self, term: _Term, kept: str) -> _Term:
        """``term`` summed over the labels that are not ``kept``."""
        axes = tuple(i for i, c in enumerate(term.labels) if c not in kept)
        labels = "".join(c for c in term.labels if c in kept)
        if not axes or term.operand is None:
            return self._term(term.operand, labels)
        return self._term(self.add("sum", [term.operand], {"axes": axes, "keepdims": False}), labels)

    def ordered(self, term: _Term, labels: str) -> Operand:
        """``term`` with its axes in the order of ``labels``; new ones have size 1."""
        laid = self._laid(term, [*labels]).operand
        assert laid is not None
        return laid

    def _multiplied(self, left: _Term, right: _Term, out: str) -> _Term:
        """The product of two terms, value by value."""
        factors = [self._laid(term, [c if c in term.labels else "" for c in out]) for term in (left, right)]
        operands = [factor.operand for factor in factors if factor.operand is not None]
        constant = next((factor.shape for factor in factors if factor.operand is None), None)
        attrs = {} if constant is None else {"const_shape": constant}
        return self._term(self.add("mul", operands, attrs), out)

    def _laid(self, term: _Term, groups: Sequence[str]) -> Factor:
        """``term`` with an axis for each group of labels; an empty group is an axis of size 1."""
        labels = "".join(groups)
        shape = tuple(math.prod(self.sizes[c] for c in group) for group in groups)
        operand = term.operand
        if operand is not None and labels != term.labels:
            perm = tuple(term.labels.index(c) for c in labels)
            operand = self.add("transpose", [operand], {"perm": perm})
        if operand is not None and shape != term.shape:
            operand = self.add("reshape", [operand], {"shape": shape})
        return Factor(operand, shape)

    def _seen(self, operand: Operand, groups: Sequence[str], labels: str) -> _Term:
        """A tensor that has an axis for each group, with an axis for each of ``labels``."""
        if any(len(group) != 1 for group in groups):
            operand = self.add("reshape", [operand], {"shape": tuple(self.sizes[c] for c in labels)})
        return self._term(operand, labels)

    def _term(self, operand: Operand | None, labels: str) -> _Term:
        return _Term(operand, labels, self.sizes)
