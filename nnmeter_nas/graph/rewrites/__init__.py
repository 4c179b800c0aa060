"""Rewrites: one graph of operators out of the spellings that formats and authors have for one thing.

Each module holds one idea, with the ``SPELLINGS`` that it was tested with. A rewrite is done only where the
result is equal. What replaces several operators has the name of the last of them.

A pass goes from the inputs to the outputs, so that the operands of each operator are in their final form
already. Passes are repeated until nothing changes. There are two rounds of them:

1. what does nothing goes, and all else that has several spellings gets one;
2. constants fold into the layers before them. That is last, since an activation is no longer found if a
   number among its operators has become the bias of a layer.

A rule is tried only in a graph that has operators of all the kinds that it needs, and there only at
operators that it may end in. So a network without candidates costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import networkx as nx

from . import (
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
    mish,
    neutral,
    padding,
    pixelshuffle,
    sigmoid,
    splits,
    swish,
    views,
)
from ._rule import VIEWS, Apply, Rule

__all__ = ["VIEWS", "rewrite"]

_ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (
        neutral.remove_neutral,
        expands.leave_out_expands,
        views.join_views,
        views.view_instead_of_transpose,
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
        globalpool.join_means,
        globalpool.pool_flattened_map,
        channelshuffle.join_shuffle,
        channelshuffle.join_stack,
        channelshuffle.split_channels,
        pixelshuffle.join_pixel_shuffle,
        padding.fold_padding,
        dilation.join_dilation,
    ),
    (batchnorm.fold_into_layer, batchnorm.join_scale_and_shift),
)


def rewrite(graph: nx.DiGraph, order: Sequence[str]) -> None:
    """Bring all spellings in a pruned model graph with shapes into one form, in place.

    ``order`` names the operators, producers first, and maybe others that are gone.
    """
    for number in range(len(_ROUNDS)):
        while _pass(graph, order, number):
            pass


def _pass(graph: nx.DiGraph, order: Sequence[str], number: int) -> bool:
    """Try the rules of one round everywhere; returns whether one did something."""
    operators = dict(graph.nodes(data="op"))
    rules = _rules(number, frozenset(operators.values()))
    changed = False
    for name in [name for name in order if operators.get(name) in rules]:
        # An operator that was rewritten is another one, to which other rules apply.
        while name in graph and any(apply(graph, name) for apply in rules.get(graph.nodes[name]["op"], ())):
            changed = True
    return changed


@lru_cache(maxsize=1024)
def _rules(number: int, present: frozenset[str]) -> dict[str, list[Apply]]:
    """By the operator that they may end in, the rules of a round for a graph with operators ``present``."""
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
