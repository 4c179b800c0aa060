"""Rewrites: one graph of operators out of the spellings that formats and authors have for one thing.

Each module holds one idea, with the ``SPELLINGS`` that it was tested with. A rewrite is done only where the
result is equal. What replaces several operators has the name of the last of them.

A pass goes from the inputs to the outputs, so that the operands of each operator are in their final form
already. Passes are repeated until nothing changes. There are three rounds of them:

1. what does nothing goes, and views, concats and slices find their simplest form;
2. activations, pools, shuffles and padding, which would no longer be found if numbers among their operators
   had become the bias of a layer;
3. constants fold into the layers before them.

A rule is tried only in a graph that has operators of all the kinds that it needs, and there only at
operators that it may end in. So a network without candidates costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from ._rule import VIEW_OPS, Apply, Rule

__all__ = ["VIEW_OPS", "rewrite"]

_ROUNDS: tuple[tuple[Rule, ...], ...] = (
    (
        neutral.remove_neutral,
        expands.leave_out_expands,
        views.join_views,
        views.view_instead_of_transpose,
        views.join_transposes,
        concats.join_concats,
        splits.join_slices,
        concats.join_split,
    ),
    (
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
        neutral.remove_neutral,
        views.join_views,
        splits.join_slices,
        concats.join_split,
    ),
    (batchnorm.fold_into_layer, batchnorm.join_scale_and_shift, neutral.remove_neutral),
)


def rewrite(graph: nx.DiGraph, order: Sequence[str]) -> None:
    """Bring all spellings in a pruned model graph with shapes into one form, in place.

    ``order`` names the operators, producers first, and maybe others that are gone.
    """
    for number in range(len(_ROUNDS)):
        while _pass(graph, order, number):
            pass


def _pass(graph: nx.DiGraph, order: Iterable[str], number: int) -> bool:
    """Try the rules of one round everywhere; returns whether one did something."""
    nodes = graph.nodes
    rules = _rules(number, frozenset(data["op"] for _, data in nodes(data=True)))
    changed = False
    for name in order if rules else ():
        # An operator that was rewritten is another one, to which other rules apply.
        while name in graph and any(apply(graph, name) for apply in rules.get(nodes[name]["op"], ())):
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
