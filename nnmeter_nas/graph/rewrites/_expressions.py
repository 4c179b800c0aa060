"""Patterns written as the formula they match, such as ``"x * relu6(x + 3) / 6"``.

A formula is parsed once into the four kinds of :data:`Expression`, and then searched for in model graphs:

* a name such as ``x`` is any tensor, and the same tensor wherever the name occurs;
* a call is the operator of that name over one tensor; numbers after the tensor are the limits of a ``clip``;
* factors of a product and summands of a sum may come in any order. ``a / 6`` is ``a * (1 / 6)``, ``-a`` is
  ``a * (-1)``, and ``x ** 3`` is ``x * x * x``, in the formula and in the graph alike;
* numbers match within 0.1 %, because formats round them and some models use half precision.

Nothing else may read the intermediate results, and none of them may be an output of the model.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import networkx as nx

from ..editing import Operand, read_once, replace
from ..shapes import operand_shape
from ._rule import Rule

_TOLERANCE = 1e-3
#: The search follows a product through at most this many operators.
_MAX_DEPTH = 4
#: The power that is treated as a product; a square already is one.
_CUBE = 3.0
_PRODUCTS = frozenset({"mul", "div", "neg", "pow"})
_SUMS = frozenset({"add", "sub"})


@dataclass(frozen=True)
class Name:
    """Any tensor."""

    name: str


@dataclass(frozen=True)
class OpPattern:
    """An operator of one tensor."""

    op: str
    argument: Expression
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Product:
    """Factors, each with a flag that says whether it divides, and a number that scales the product."""

    factors: tuple[tuple[Expression, bool], ...]
    scale: float


@dataclass(frozen=True)
class Sum:
    """Summands, and a number added to them."""

    terms: tuple[Expression, ...]
    shift: float


Expression = Name | OpPattern | Product | Sum


@dataclass(frozen=True)
class Match:
    """The tensors that the names of a formula stand for, and the matched operators, unordered."""

    names: Mapping[str, Operand]
    members: frozenset[str] = frozenset()


def parse(formula: str) -> Expression:
    """Parse a formula into an expression.

    >>> parse("x / 2 + 3")
    Sum(terms=(Product(factors=((Name(name='x'), False),), scale=0.5),), shift=3.0)
    """
    found = _parse(ast.parse(formula, mode="eval").body)
    if isinstance(found, float):
        raise ValueError(f"the formula {formula!r} is a number")
    return found


def _parse(node: ast.expr) -> Expression | float:
    match node:
        case ast.Name(id=name):
            return Name(name)
        case ast.Constant(value=int() | float() as value):
            return float(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _product([(_parse(operand), False)], -1.0)
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            return _product([(_parse(left), False), (_parse(right), isinstance(op, ast.Div))])
        case ast.BinOp(left=left, op=ast.Pow(), right=ast.Constant(value=int() as power)):
            return _product([(_parse(left), False)] * power)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum([_parse(left), _parse(right)])
        case ast.Call(func=ast.Name(id=op), args=[argument, *limits]):
            inner, numbers = _parse(argument), [_parse(limit) for limit in limits]
            if not isinstance(inner, float):
                return OpPattern(op, inner, tuple(n for n in numbers if isinstance(n, float)))
    raise ValueError(f"a formula cannot hold {ast.unparse(node)!r}")


def _product(parts: list[tuple[Expression | float, bool]], scale: float = 1.0) -> Expression | float:
    """The product of ``parts``, each with a flag that says whether it divides; nested products are merged."""
    factors: list[tuple[Expression, bool]] = []
    for part, inverse in parts:
        number = part if isinstance(part, float) else part.scale if isinstance(part, Product) else 1.0
        scale = scale / number if inverse else scale * number
        if isinstance(part, Product):
            factors += [(factor, inverted != inverse) for factor, inverted in part.factors]
        elif not isinstance(part, float):
            factors.append((part, inverse))
    return Product(tuple(factors), scale) if factors else scale


def _sum(parts: list[Expression | float]) -> Expression | float:
    """The sum of ``parts``; nested sums are merged."""
    terms: list[Expression] = []
    shift = 0.0
    for part in parts:
        if isinstance(part, Sum):
            terms += part.terms
            shift += part.shift
        elif isinstance(part, float):
            shift += part
        else:
            terms.append(part)
    return Sum(tuple(terms), shift) if terms else shift


def formulas(spellings: Mapping[str, tuple[str, ...]]) -> tuple[Rule, ...]:
    """A rule for each formula in ``spellings``, which maps an operator of ``x`` to its formulas."""
    return tuple(_formula_rule(op, parse(text)) for op, texts in spellings.items() for text in texts)


def inner_matches(graph: nx.DiGraph, expression: Expression, operand: Operand) -> Iterator[Match]:
    """Every way to match ``operand``, which only one operator reads, with ``expression``."""
    return _matches(graph, expression, operand, Match({}))


def _formula_rule(op: str, expression: Expression) -> Rule:
    def apply(graph: nx.DiGraph, name: str) -> bool:
        for match in _matches(graph, expression, (name, 0), Match({}), True):
            source = match.names["x"]
            if operand_shape(graph, name, source) == graph.nodes[name]["out_shapes"][0]:
                replace(graph, name, op, [source], gone=match.members - {name})
                return True
        return False

    needs = tuple(frozenset({called}) for called in sorted(_called(expression)))
    return Rule(apply, _ends(expression), needs, frozenset({op}))


def _ends(expression: Expression) -> frozenset[str]:
    """Operators that a match of ``expression`` may end in."""
    match expression:
        case OpPattern(op=op):
            return frozenset({op})
        case Product():
            return frozenset({"mul", "div"})
        case Sum():
            return _SUMS
    return frozenset()


def _called(expression: Expression) -> set[str]:
    """Names of the operators called in ``expression``."""
    match expression:
        case OpPattern(op=op, argument=argument):
            return {op} | _called(argument)
        case Product(factors=factors):
            return {op for factor, _ in factors for op in _called(factor)}
        case Sum(terms=terms):
            return {op for term in terms for op in _called(term)}
    return set()


def _matches(
    graph: nx.DiGraph, expression: Expression, operand: Operand, so_far: Match, is_last: bool = False
) -> Iterator[Match]:
    """Every way to match ``operand`` with ``expression``, given the match ``so_far``."""
    name = operand[0]
    if isinstance(expression, Name):
        if so_far.names.get(expression.name, operand) == operand:
            yield Match({**so_far.names, expression.name: operand}, so_far.members)
    elif not is_last and not read_once(graph, name):
        return
    elif isinstance(expression, OpPattern):
        data = graph.nodes[name]
        if data["op"] == expression.op and len(data["inputs"]) == 1 and _has_limits(data, expression.numbers):
            here = Match(so_far.names, so_far.members | {name})
            yield from _matches(graph, expression.argument, data["inputs"][0], here)
    elif isinstance(expression, Product):
        for factors, scale, members in _products(graph, name):
            if len(factors) == len(expression.factors) and _close(scale, expression.scale):
                here = Match(so_far.names, so_far.members | members)
                for arranged in set(permutations(factors)):
                    pairs = list(zip(expression.factors, arranged, strict=True))
                    if all(wanted[1] == found[1] for wanted, found in pairs):
                        yield from _all(graph, [(wanted[0], found[0]) for wanted, found in pairs], here)
    else:
        data = graph.nodes[name]
        shift = _shift(data)
        if shift is not None and len(data["inputs"]) == len(expression.terms):
            here = Match(so_far.names, so_far.members | {name})
            for terms in permutations(data["inputs"]) if _close(shift, expression.shift) else ():
                yield from _all(graph, list(zip(expression.terms, terms, strict=True)), here)


def _all(graph: nx.DiGraph, pairs: list[tuple[Expression, Operand]], so_far: Match) -> Iterator[Match]:
    """Every way to match all ``pairs`` at once."""
    if not pairs:
        yield so_far
        return
    (expression, operand), *rest = pairs
    for match in _matches(graph, expression, operand, so_far):
        yield from _all(graph, rest, match)


def _close(found: float, wanted: float) -> bool:
    return math.isclose(found, wanted, rel_tol=_TOLERANCE, abs_tol=1e-9)


def _has_limits(data: Mapping[str, Any], numbers: tuple[float, ...]) -> bool:
    """Whether ``numbers`` are the limits of a ``clip``; empty for a clip whose limits are unknown."""
    if data["op"] != "clip":
        return not numbers
    found = [data["attrs"].get(key) for key in ("min", "max")]
    if not numbers:
        return found == [None, None]
    return all(f is not None and _close(f, wanted) for f, wanted in zip(found, numbers, strict=True))


def _is_plain(data: Mapping[str, Any]) -> bool:
    """Whether an element-wise operator uses only its operands and a number."""
    return "const_shape" not in data["attrs"] and "alpha" not in data["attrs"]


def _shift(data: Mapping[str, Any]) -> float | None:
    """The number that a sum adds to its operands; None if the operator is no sum."""
    if data["op"] not in _SUMS or not _is_plain(data):
        return None
    shift: float | None = data["attrs"].get("const")
    if data["op"] == "add":
        return shift or 0.0
    lone = len(data["inputs"]) == 1 and not data["attrs"].get("const_first")
    return -shift if lone and shift is not None else None


#: Factors, each with a flag that says whether it divides; a number; and the operators that multiply them.
_Factors = tuple[list[tuple[Operand, bool]], float, frozenset[str]]


def _products(graph: nx.DiGraph, name: str) -> Iterator[_Factors]:
    """The product that ``name`` computes: first over its own operands, then expanded step by step."""
    own = _factors(graph.nodes[name])
    if own is None:
        return
    factors, scale = own
    members = frozenset({name})
    for _ in range(_MAX_DEPTH):
        yield factors, scale, members
        expanded: list[tuple[Operand, bool]] = []
        inner = set()
        for operand, inverse in factors:
            part = _factors(graph.nodes[operand[0]]) if read_once(graph, operand[0]) else None
            if part is None:
                expanded.append((operand, inverse))
                continue
            inner.add(operand[0])
            expanded += [(factor, inverted != inverse) for factor, inverted in part[0]]
            scale = scale / part[1] if inverse else scale * part[1]
        if not inner:
            return
        factors, members = expanded, members | inner


def _factors(data: Mapping[str, Any]) -> tuple[list[tuple[Operand, bool]], float] | None:
    """Factors of one operator and the number that scales them; None if it is no such product."""
    op, attrs, inputs = data["op"], data["attrs"], data["inputs"]
    if op not in _PRODUCTS or not _is_plain(data):
        return None
    const: float | None = attrs.get("const")
    if op == "neg":
        return [(inputs[0], False)], -1.0
    if op == "mul":
        return [(operand, False) for operand in inputs], 1.0 if const is None else const
    if op == "pow":
        whole = const == _CUBE and not attrs.get("const_first") and len(inputs) == 1
        return ([(inputs[0], False)] * int(_CUBE), 1.0) if whole else None
    if const is None:
        quotient = [(inputs[0], False), *((operand, True) for operand in inputs[1:])]
        return (quotient, 1.0) if len(inputs) > 1 else None
    return ([(inputs[0], True)], const) if attrs.get("const_first") else None
