"""Tell which operators of the model graph each row of ``benchmark_model``'s table runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ...readers.tflite.file import Operator
from ...readers.tflite.writer import is_layout, operator_of
from ..base import KernelTime
from .benchmark import Row
from .xnnpack import joined, operators_of_rows


def kernels_of(rows: Sequence[Row], operators: Callable[[], Sequence[Operator]]) -> list[KernelTime] | None:
    """Return the executed kernels; None if the table does not tell them, as that of a GPU.

    Parts of an operator are one kernel. A change of layout is part of the kernel after it, which needs it.

    Args:
        rows: the table.
        operators: is asked for the operators of the file if rows have no names of theirs.
    """
    inside = [row for row in rows if row.inside]
    # The row of a delegate is the sum of those inside it.
    outside = [row for row in rows if not row.inside and not (inside and _is_delegate(row))]
    named = [(row, row.name.split(", ")) for row in outside]
    if not rows or any(_is_delegate(row) for row, _ in named):
        return None
    if not inside:
        return _summed_up(named)
    elsewhere = {name for _, names in named for name in names}
    delegated = [one for one in operators() if elsewhere.isdisjoint(one.outputs)]
    positions = operators_of_rows(inside, delegated)
    if positions is None:
        return None
    more = joined(delegated, positions)
    for row, position in zip(inside, positions, strict=True):
        names = list(delegated[position].outputs)
        names += [name for i, owner in more.items() if owner == position for name in delegated[i].outputs]
        named.append((row, names))
    return _summed_up(named)


def _summed_up(rows: Iterable[tuple[Row, Sequence[str]]]) -> list[KernelTime]:
    """A kernel for each row, or for all rows of the same operators, from the tensors that they compute."""
    spent: dict[tuple[str, ...], float] = {}
    kinds: dict[tuple[str, ...], dict[str, None]] = {}
    waiting = 0.0
    for row, names in rows:
        waiting += row.ms
        if not all(map(is_layout, names)):
            operators = tuple(dict.fromkeys(map(operator_of, names)))
            spent[operators] = spent.get(operators, 0.0) + waiting
            kinds.setdefault(operators, {})[row.kind] = None
            waiting = 0.0
    return [KernelTime(operators, " + ".join(kinds[operators]), ms) for operators, ms in spent.items()]


def _is_delegate(row: Row) -> bool:
    """Whether a row is all that a delegate ran."""
    return row.kind.startswith("TfLite") and "Delegate" in row.kind
