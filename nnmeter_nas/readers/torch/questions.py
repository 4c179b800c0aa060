"""Answer what ``forward`` asks about values: whether a tensor is zero, which of two is larger, and so on.

A traced tensor that is computed from the input has no values. A question about it is put to *samples*:
made-up values of all sizes and signs in the place of the results of layers. What follows from zeros,
constants and weights is the same in every sample. If all samples give the same answer, the answer is known:
a convolution's result is never all zero, and a result multiplied by zero always is. If their numbers differ,
the module is traced with each sample, and must compute the same each time (see :mod:`.module`). Otherwise
the question depends on the data, and is refused with the line that asks.

In a search space the answer may depend on what is chosen; :class:`Undecided` says so.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ...errors import ReaderError
from ...graph.editing import Operand
from ...graph.model_graph import is_zero
from ...graph.shapes import Shape

if TYPE_CHECKING:
    import torch

#: ATen operators that hand values of tensors to Python.
ASKING = frozenset({"_local_scalar_dense", "item", "equal", "is_nonzero", "allclose"})
#: How many samples there are.
SAMPLES = 4
#: ATen operators, without the underscore of those in place, that samples pass through. All others are layers:
#: their results can be any values.
_PASSED = frozenset({
    "abs", "absolute", "add", "alias", "all", "amax", "amin", "any", "argmax", "argmin", "bitwise_and",
    "bitwise_not", "bitwise_or", "bitwise_xor", "clone", "contiguous", "count_nonzero", "detach", "div",
    "eq", "expand", "flatten", "full_like", "ge", "gt", "isclose", "isfinite", "isinf", "isnan", "le",
    "linalg_norm", "linalg_vector_norm", "logical_and", "logical_not", "logical_or", "logical_xor",
    "lt", "max", "mean", "min", "mul", "ne", "neg", "new_full", "new_ones", "new_zeros", "norm",
    "ones_like", "permute", "pow", "prod", "reshape", "rsub", "select", "sign", "slice", "square",
    "squeeze", "std", "sub", "sum", "to", "_to_copy", "transpose", "unsqueeze", "var", "view",
    "zeros_like",
})  # fmt: skip
_CASTS = frozenset({"to", "_to_copy"})
#: Operators whose result is any values if one operand is; a product is if both are.
_SUMS, _PRODUCTS = frozenset({"add", "sub", "rsub"}), frozenset({"mul", "div"})
#: The operator that stands for the chosen result; see :mod:`nnmeter_nas.supernet.choices`.
_CHOICE, _CHOICE_CALL = "choice", "nnmeter_nas::choice"
#: A question is put at most this often, with other choices each time.
_MOST_TRIES = 256
#: Sizes of the made-up values of each sample, and their signs; 0 is for values of both signs and zeros.
_SIZES, _SIGNS = (1.0, 1e12, 1e12, 1e-12), (0, 1, -1, 0)

#: Label of a choice -> the candidates that it may still take.
Assumed = Mapping[str, frozenset[str]]


class Undecided(BaseException):
    """The answer to a question depends on a choice. Not an Exception, so that no ``forward`` catches it.

    Attributes:
        label: the choice.
        candidates: all its candidates, in order.
        groups: those that it may still take, in groups with the same answer; the largest first.
        line: the line that asks.
    """

    def __init__(
        self, label: str, candidates: Sequence[str], groups: Sequence[Sequence[str]], line: str
    ) -> None:
        super().__init__(label)
        self.label, self.candidates, self.line = label, tuple(candidates), line
        self.groups = sorted(map(tuple, groups), key=len, reverse=True)


class _Split(Exception):  # noqa: N818 - not an error
    """An evaluation needs to know which of these groups of candidates a choice takes."""

    def __init__(self, label: str, candidates: Sequence[str], groups: Sequence[Sequence[str]]) -> None:
        super().__init__(label)
        self.label, self.candidates, self.groups = label, candidates, groups


@dataclass(frozen=True)
class _Tensor:
    """A computed tensor in the arguments of a noted call."""

    operand: Operand
    shape: Shape
    is_float: bool


@dataclass(frozen=True)
class _Call:
    """How an operand was made.

    Attributes:
        op: name of the ATen operator, without the underscore of those in place.
        func: the ATen operator.
        args, kwargs: its arguments, with a :class:`_Tensor` for each computed one.
        position: which of its results the operand is.
    """

    op: str
    func: Any
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    position: int

    def tensors(self) -> list[_Tensor]:
        """The computed tensors among its arguments."""
        given = [*self.args, *self.kwargs.values()]
        flat = [item for value in given for item in (value if isinstance(value, list | tuple) else [value])]
        return [item for item in flat if isinstance(item, _Tensor)]


@dataclass(frozen=True)
class Asked:
    """A question whose answer is another number in each sample.

    Attributes:
        line: where it is asked.
        operators: how many operators were recorded before.
    """

    line: str
    operators: int


#: The answers of all samples; or a :class:`_Split`, and pairs of a group of candidates and its answers.
_Answers = tuple[Any, ...]


class Questions:
    """The questions of one trace.

    Args:
        graph: the model graph under construction.
        values: returns a tensor of weights or constants with its values; raises if they are not known.
        sample: the sample whose numbers are answers if those of other samples differ.

    Attributes:
        graph: the model graph.
        asked: the questions with such answers.
    """

    def __init__(self, graph: nx.DiGraph, values: Callable[[Any], Any], sample: int = 0) -> None:
        self.asked: list[Asked] = []
        self.graph, self._values, self._sample = graph, values, sample
        self._calls: dict[Operand, _Call] = {}
        # Whether an operator's result is all zero, and whether it follows from zeros, constants and weights;
        # None if a choice decides. Operators for which it is False are left out.
        self._zero: dict[str, bool | None] = {}
        self._fixed: dict[str, bool | None] = {}
        self._assumed: dict[str, frozenset[str]] = {}
        self._tries = 0

    def added(self, name: str) -> None:
        """Note what the new operator ``name`` does with zeros."""
        data = self.graph.nodes[name]
        inputs = [producer for producer, _ in data["inputs"]]
        if self._fixed.keys().isdisjoint(inputs):  # as for most
            if is_zero(data, [False] * len(inputs)):
                self._zero[name] = self._fixed[name] = True
            return
        zeros, fixed = ([known.get(one, False) for one in inputs] for known in (self._zero, self._fixed))
        is_choice = data["op"] == _CHOICE
        zero = _agreed(zeros) if is_choice else _either_way(partial(is_zero, data), zeros)
        follow = _agreed(fixed) if is_choice else _either_way(all, fixed)
        if zero is not False:
            self._zero[name] = zero
        if zero or follow is not False:
            self._fixed[name] = zero or follow
        elif zero is None:
            self._fixed[name] = None

    def removed(self, names: Iterable[str]) -> None:
        """Forget operators that were removed from the graph; others may take their names."""
        gone = set(names)
        for known in (self._zero, self._fixed):
            for name in gone & known.keys():
                del known[name]
        self._calls = {operand: call for operand, call in self._calls.items() if operand[0] not in gone}

    def note(self, op: str, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any],
             operands: Sequence[Operand], described: Callable[[Any], Any]) -> None:  # fmt: skip
        """Note how ``operands`` were made, if samples may pass through the operator.

        ``described`` returns a :class:`_Tensor` for a computed tensor, a copy of a constant, and any other
        value itself.
        """
        inputs = self.graph.nodes[operands[0][0]]["inputs"]
        may_follow = self._fixed and inputs and all(self._fixed.get(p, False) is not False for p, _ in inputs)
        if may_follow or op in _PASSED or op == _CHOICE_CALL:
            args = [_each(described, value) for value in args]
            kwargs = {key: _each(described, value) for key, value in kwargs.items()}
            for position, operand in enumerate(operands):
                self._calls[operand] = _Call(op, func, args, kwargs, position)

    def described(self, tensor: torch.Tensor, operand: Operand) -> Any:
        """Describe a computed tensor for :meth:`note`."""
        return _Tensor(operand, tuple(tensor.shape), tensor.is_floating_point())

    @contextmanager
    def assuming(self, label: str, candidates: Sequence[str]) -> Iterator[None]:
        """While entered, the choice ``label`` takes one of ``candidates``."""
        before = self._assumed
        self._assumed = {**before, label: frozenset(candidates)}
        try:
            yield
        finally:
            self._assumed = before

    @property
    def assumed(self) -> Assumed:
        """What choices may still take, as far as it is assumed."""
        return self._assumed

    def answer(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], described: Any) -> Any:
        """Return the answer of the ATen operator ``func``, one of :data:`ASKING`.

        Raises:
            Undecided: it depends on a choice.
            ReaderError: it depends on the data, or on more choices than can be tried.
        """
        args = [_each(described, value) for value in args]
        kwargs = {key: _each(described, value) for key, value in kwargs.items()}
        self._tries = 0
        answers = self._answers(_Call("", func, args, kwargs, 0), self._assumed)
        if isinstance(answers[0], _Split):
            split, *found = answers
            raise Undecided(split.label, split.candidates, _alike(found), user_line())
        if all(_same(answer, answers[0]) for answer in answers):
            return answers[0]
        if isinstance(answers[0], bool):
            raise ReaderError(depends_on_data(self.graph, user_line()))
        self.asked.append(Asked(user_line(), len(self.graph)))
        return answers[self._sample]

    def _answers(self, question: _Call, assumed: Assumed) -> _Answers:
        """Return the answers of all samples; if a choice decides, a split, and its groups with answers."""
        self._tries += 1
        if self._tries > _MOST_TRIES:
            raise ReaderError(
                f"{user_line()} asks for values that depend on more choices than can be tried one by one; "
                "ask about the result of one choice, before it is added to others"
            )
        try:
            return tuple(_Evaluation(self, assumed, sample).result(question) for sample in range(SAMPLES))
        except _Split as split:
            found = [
                (group, self._answers(question, {**assumed, split.label: frozenset(group)}))
                for group in split.groups
            ]
            first = found[0][1]
            return first if all(_same(answers, first) for _, answers in found) else (split, *found)

    def zero(self, name: str, assumed: Assumed) -> bool:
        """Return whether the result of the operator ``name`` is all zero, or raise a split."""
        if (zero := self._zero.get(name, False)) is not None:
            return zero
        data = self.graph.nodes[name]
        if data["op"] == _CHOICE:
            return _all_or_none(data, assumed, self.zero)
        return is_zero(data, [self.zero(producer, assumed) for producer, _ in data["inputs"]])

    def fixed(self, name: str, assumed: Assumed) -> bool:
        """Return whether ``name`` makes what follows from zeros, constants and weights, or raise a split."""
        if (fixed := self._fixed.get(name, False)) is not None:
            return fixed
        data = self.graph.nodes[name]
        if data["op"] == _CHOICE:
            return _all_or_none(data, assumed, self.fixed)
        follows = all(self.fixed(producer, assumed) for producer, _ in data["inputs"])
        return follows or self.zero(name, assumed)

    def call(self, operand: Operand, assumed: Assumed) -> _Call | None:
        """Return how ``operand`` was made, if samples pass through it; None if it can be any values."""
        call = self._calls.get(operand)
        if call is None or call.op == _CHOICE_CALL:
            return call
        computed = {tensor.operand: tensor for tensor in call.tensors()}
        if call.op not in _PASSED:  # a layer
            return call if all(self.fixed(name, assumed) for name, _ in computed) else None
        if len(computed) > 1 and call.op in _SUMS | _PRODUCTS and all(t.is_float for t in computed.values()):
            free = [one not in self._calls and self._fixed.get(one[0], False) is False for one in computed]
            if all(free) or (any(free) and call.op in _SUMS):
                return None
        return call

    def choice(self, operand: Operand, call: _Call, assumed: Assumed) -> _Tensor | None:
        """Return the result that a choice takes; None for one that can be any values. May raise a split."""
        data = self.graph.nodes[operand[0]]
        handed = dict(zip(data["attrs"]["candidates"], call.args[0], strict=True))
        groups: list[list[str]] = []
        anything: list[str] = []
        for candidate, producer in _allowed(data, assumed):
            free = not self.zero(producer[0], assumed) and isinstance(handed[candidate], _Tensor)
            if free and self.call(producer, assumed) is None:
                anything.append(candidate)
            else:
                groups.append([candidate])
        groups += [anything] if anything else []
        if len(groups) > 1:
            raise _Split(data["attrs"]["label"], data["attrs"]["candidates"], groups)
        return None if anything else handed[groups[0][0]]

    def values(self, tensor: Any) -> Any:
        """Return a tensor that is not computed with its values, and any other value itself."""
        return self._values(tensor)


class _Evaluation:
    """The values of tensors in one sample, with the choices that are assumed."""

    def __init__(self, questions: Questions, assumed: Assumed, sample: int) -> None:
        self._questions, self._assumed, self._sample = questions, assumed, sample
        self._found: dict[Operand, torch.Tensor] = {}

    def result(self, call: _Call) -> Any:
        """Run a call on the values of its arguments."""
        args = [_each(self._value, value) for value in call.args]
        if call.op in _CASTS and args[0].is_floating_point() and _is_float(call):
            return args[0]
        if call.func._schema.is_mutable:
            args = [args[0].clone(), *args[1:]]
        return call.func(*args, **{key: _each(self._value, value) for key, value in call.kwargs.items()})

    def _value(self, value: Any) -> Any:
        import torch

        found = self._of(value) if isinstance(value, _Tensor) else self._questions.values(value)
        if isinstance(found, torch.Tensor) and found.is_floating_point():
            return found.to(torch.float64)
        return torch.device("cpu") if isinstance(found, torch.device) else found

    def _of(self, tensor: _Tensor) -> Any:
        import torch

        if (found := self._found.get(tensor.operand)) is not None:
            return found.reshape(tensor.shape)
        questions, operand = self._questions, tensor.operand
        if tensor.is_float and questions.zero(operand[0], self._assumed):
            found = torch.zeros(tensor.shape, dtype=torch.float64)
        elif (call := questions.call(operand, self._assumed)) is None:
            found = self._anything(tensor)
        elif call.op == _CHOICE_CALL:
            taken = questions.choice(operand, call, self._assumed)
            found = self._anything(tensor) if taken is None else self._value(taken)
        else:
            results = self.result(call)
            found = results[call.position] if isinstance(results, list | tuple) else results
        self._found[operand] = found
        return found

    def _anything(self, tensor: _Tensor) -> torch.Tensor:
        import torch

        if not tensor.is_float:
            raise ReaderError(depends_on_data(self._questions.graph, user_line()))
        return torch.from_numpy(_made_up(self._sample, tensor.shape, len(self._found)))


def _made_up(sample: int, shape: Shape, number: int) -> Any:
    """Return made-up values of a sample; another ``number`` makes others."""
    size, sign = _SIZES[sample], _SIGNS[sample]
    random = np.random.default_rng([sample, number])
    values = random.uniform(0.5, 2.0, shape) * size
    if sign:
        return values * sign
    values *= random.choice([-1.0, 1.0], shape)
    # A few zeros, but never all.
    return np.where(random.random(shape) < 0.25, 0.0, values) if values.size > 32 else values


def _allowed(data: Mapping[str, Any], assumed: Assumed) -> list[tuple[str, Operand]]:
    """List the candidates that a choice may take, with their operands."""
    candidates = data["attrs"]["candidates"]
    allowed = assumed.get(data["attrs"]["label"], frozenset(candidates))
    pairs = zip(candidates, data["inputs"], strict=True)
    return [(candidate, producer) for candidate, producer in pairs if candidate in allowed]


def _agreed(found: Sequence[bool | None]) -> bool | None:
    """Return what is known of all candidates of a choice alike, else None."""
    return found[0] if len(set(found)) == 1 else None


def _either_way(judge: Callable[[Sequence[bool]], bool], found: Sequence[bool | None]) -> bool | None:
    """Judge by what is known of the operands of an operator; None if choices decide."""
    if None not in found:
        return judge([bool(one) for one in found])
    most, least = (judge([end if one is None else one for one in found]) for end in (True, False))
    return most if most == least else None


def _all_or_none(data: Mapping[str, Any], assumed: Assumed, holds: Callable[[str, Assumed], bool]) -> bool:
    """Return whether something holds for the result of a choice; raise a split if candidates differ in it."""
    groups: dict[bool, list[str]] = {}
    for candidate, (producer, _) in _allowed(data, assumed):
        groups.setdefault(holds(producer, assumed), []).append(candidate)
    if len(groups) > 1:
        raise _Split(data["attrs"]["label"], data["attrs"]["candidates"], list(groups.values()))
    return next(iter(groups))


def _alike(found: Sequence[tuple[Sequence[str], Any]]) -> list[list[str]]:
    """Join the groups of candidates with the same answers."""
    joined: list[tuple[list[str], Any]] = []
    for group, answers in found:
        for members, known in joined:
            if _same(answers, known):
                members += group
                break
        else:
            joined.append((list(group), answers))
    return [members for members, _ in joined]


def _same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, or both not a number."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, _Split) and isinstance(other, _Split):
        return one.label == other.label
    return bool(one == other) or (one != one and other != other)


def _is_float(call: _Call) -> bool:
    """Whether a cast is to floats, or of no type at all."""
    import torch

    types = [value for value in (*call.args, *call.kwargs.values()) if isinstance(value, torch.dtype)]
    return all(dtype.is_floating_point for dtype in types)


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    return [function(item) for item in value] if isinstance(value, list | tuple) else function(value)


def depends_on_data(graph: nx.DiGraph, line: str) -> str:
    """Return the message for a question at ``line`` of the module of ``graph`` that depends on the data."""
    return (
        f"cannot trace {graph.graph['name']}: {line} decides by values that depend on the data, so there is "
        "no one latency; a module can be read if no branch and no shape in it depends on tensor values"
    )


def user_line(traceback: TracebackType | None = None) -> str:
    """Return file, line and code of the innermost running code that is not torch's or this package's reader.

    If ``traceback`` is given, the innermost code in it; empty if there is none.
    """
    found = ""
    if traceback is None:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and not _is_users(frame.f_code.co_filename):
            frame = frame.f_back
        return "" if frame is None else _line(frame.f_code.co_filename, frame.f_lineno)
    step: TracebackType | None = traceback
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if _is_users(file):
            found = _line(file, step.tb_lineno)
        step = step.tb_next
    return found


def _line(file: str, number: int) -> str:
    code = linecache.getline(file, number).strip()
    return f"{file}:{number}" + (f" ({code})" if code else "")


@cache
def _is_users(file: str) -> bool:
    """Whether a file is code of a model: not of torch, Python, or what traces models."""
    import torch

    path, package = Path(file), Path(__file__).parents[2]
    inside = [Path(torch.__file__).parent, package / "readers", package / "supernet"]
    return path.parent != Path(os.__file__).parent and not any(path.is_relative_to(one) for one in inside)
