"""Rewrites: turn the many spellings of one thing into one graph of operators.

Each module holds one idea, and lists the ``SPELLINGS`` that it was tested with. A rewrite happens only if the
result is equal. The operator that replaces several others takes the name of the last of them.

A pass goes from the inputs to the outputs, so the operands of each operator are already in their final form.
Passes repeat until nothing changes. There are two rounds of passes:

1. The first removes what does nothing and gives everything else one spelling.
2. The second folds constants into the layers before them. It comes last because an activation can no longer
   be recognised once one of its numbers has become the bias of a layer.

A rule is tried only if the graph has all kinds of operators that the rule needs, and only at operators that
its spelling may end in. So a network without matches costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import networkx as nx

from . import (
    arithmetic,
    batchnorm,
    channelshuffle,
    clips,
    concats,
    dilation,
    expands,
    gelu,
    globalpool,
    hsigmoid,
    hswish,
    leakyrelu,
    mish,
    neutral,
    norms,
    padding,
    pixelshuffle,
    sigmoid,
    splits,
    sums,
    swish,
    views,
)
from ._rule import VIEWS, Apply, Rule

__all__ = ["VIEWS", "rewrite"]

_ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (
        neutral.remove_neutral,
        arithmetic.multiply_by_inverse,
        arithmetic.multiply_by_itself,
        arithmetic.larger_operand_first,
        arithmetic.scale_smaller_operand,
        expands.leave_out_expands,
        views.join_views,
        views.view_instead_of_transpose,
        views.view_instead_of_reduction,
        views.join_transposes,
        concats.join_concats,
        concats.join_split,
        splits.join_slices,
        clips.join_clips,
        *sigmoid.RULES,
        *hsigmoid.RULES,
        *hswish.RULES,
        *swish.RULES,
        *mish.RULES,
        *gelu.RULES,
        leakyrelu.join_slopes,
        sums.add_in_pairs,
        sums.add_stacked,
        sums.join_sums,
        sums.mean_instead_of_sum,
        norms.leave_out_views,
        globalpool.join_means,
        globalpool.join_maxima,
        globalpool.pool_flattened_map,
        globalpool.pool_largest,
        channelshuffle.join_shuffle,
        channelshuffle.join_stack,
        channelshuffle.split_channels,
        pixelshuffle.join_pixel_shuffle,
        padding.fold_padding,
        dilation.join_dilation,
    ),
    (batchnorm.fold_into_layer, norms.fold_into_norm, batchnorm.join_scale_and_shift),
)


def rewrite(graph: nx.DiGraph, order: Sequence[str]) -> None:
    """Give all spellings in a pruned model graph with shapes one form, in place.

    ``order`` lists the operators, producers first. It may also list removed ones.
    """
    for number in range(len(_ROUNDS)):
        while _pass(graph, order, number):
            pass


def _pass(graph: nx.DiGraph, order: Sequence[str], number: int) -> bool:
    """Try all rules of one round everywhere; return whether any of them changed the graph."""
    operators = dict(graph.nodes(data="op"))
    rules = _rules(number, frozenset(operators.values()))
    changed = False
    for name in [name for name in order if operators.get(name) in rules]:
        # A rewritten operator is a different one, so other rules may apply to it.
        while name in graph and any(apply(graph, name) for apply in rules.get(graph.nodes[name]["op"], ())):
            changed = True
    return changed


@lru_cache(maxsize=1024)
def _rules(number: int, present: frozenset[str]) -> dict[str, list[Apply]]:
    """Rules of a round for a graph with operators ``present``, keyed by the operator a spelling ends in."""
    found: dict[Rule, None] = {}
    reached = set(present)
    while more := [r for r in _ROUNDS[number] if r not in found and _may_apply(r, reached)]:
        found.update(dict.fromkeys(more))
        reached.update(*(r.makes for r in more))
    by_end: dict[str, list[Apply]] = {}
    for rule in (rule for rule in _ROUNDS[number] if rule in found):
        for op in rule.ends:
            by_end.setdefault(op, []).append(rule.apply)
    return by_end


def _may_apply(rule: Rule, present: set[str]) -> bool:
    return not rule.ends.isdisjoint(present) and not any(wanted.isdisjoint(present) for wanted in rule.needs)
