"""Building lookup tables: blocks are priced in context, and probed against full-graph predictions.

Probing gives all differences between candidates, and the pairs of choices that interact. The level of a
position is set at its anchor: a candidate that runs nothing takes 0 ms, else the base's takes what its own
kernels take.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx

from ..errors import LookupTableError, UnpredictedOperatorError
from ..packs.fingerprint import pack_fingerprint
from ..predictor import LatencyPredictor, LatencyWarning
from ..supernet.space import Space
from .pricing import LatencyMeter, Parts, Pricing, Progress
from .probing import Probed, changes_of_one, probe
from .table import LatencyTable

#: Relative difference beyond which a table is refused.
LIMIT = 0.03


def build_table(space: Space | nx.DiGraph, predictor: LatencyPredictor, **options: Any) -> LatencyTable:
    """The lookup table of a space on one device; arguments and errors as :func:`build_tables`."""
    return build_tables(space, [predictor], **options)[0]


def build_tables(
    space: Space | nx.DiGraph,
    predictors: Sequence[LatencyPredictor],
    probes: int = 48,
    seed: int = 0,
    strict: bool = False,
    progress: Progress | None = None,
) -> list[LatencyTable]:
    """The lookup tables of a space on several devices, which share the model graphs.

    Args:
        space: a supernet, or a :class:`Space`.
        predictors: one for each device.
        probes: random architectures that the tables are tested on, against full-graph predictions.
        seed: of the random architectures.
        strict: raise where a prediction leaves an operator out, or estimates one.
        progress: called with the number of architectures priced so far.

    Raises:
        LookupTableError: a probe is off by more than 3 %, so blocks and pairs do not do; names the label.
        UnpredictedOperatorError: under ``strict``, an operator is of a type that was not measured.
        SpaceError: the space has no choice, or takes several inputs.
        GraphError, ShapeError: the blocks of an architecture do not fit together.

    Warns:
        LatencyWarning: operators are left out or estimated.
    """
    if not predictors:
        raise LookupTableError("predictors is empty; give one for each device")
    if probes < 1:
        raise LookupTableError(f"probes={probes} must be at least 1")
    space = space if isinstance(space, Space) else Space.of_supernet(space)
    pricing = Pricing(space, [LatencyMeter(predictors)], progress)
    tables = []
    for built in try_tables(pricing, predictors, probes, seed):
        if isinstance(built, LookupTableError):
            raise built
        tables.append(built)
        warn_of_left_out(built.unpredicted, space, f"measured on {built.device}", strict)
    return tables


def try_tables(
    pricing: Pricing, predictors: Sequence[LatencyPredictor], probes: int = 48, seed: int = 0
) -> list[LatencyTable | LookupTableError]:
    """The table of each device, or why there is none; the measures of ``pricing`` are their latencies.

    Arguments and errors as :func:`build_tables`.
    """
    sizes = [len(known) for known in pricing.space.candidates.values()]
    changes = changes_of_one(sizes)
    rows = list(dict.fromkeys(changes.values()))
    parts = dict(zip(rows, pricing.parts(rows), strict=True))
    found: list[LatencyTable | LookupTableError] = []
    for device, (predictor, probed) in enumerate(zip(predictors, probe(pricing, probes, seed), strict=True)):
        if not probed.worst_error <= LIMIT:
            found.append(_refusal(pricing.space, predictor, probed))
            continue
        by_change = {change: parts[row][device] for change, row in changes.items()}
        table = _table(pricing.space, predictor, probed, by_change)
        found.append(replace(table, unpredicted=dict(pricing.left_out[device])))
    return found


def _table(
    space: Space,
    predictor: LatencyPredictor,
    probed: Probed,
    by_change: dict[tuple[int, int], Parts],
) -> LatencyTable:
    """The table of what was probed, given the kernels of the base with each ``(position, candidate)``."""
    block_ms = {}
    for position, (label, known) in enumerate(space.candidates.items()):
        own = [_own_ms(space, by_change[position, c], label, name) for c, name in enumerate(known)]
        added = probed.terms.factors[position,]
        if None in own:
            anchor, level = (own.index(None) if space.blocks else int(added.argmin())), 0.0
        else:
            anchor, level = 0, own[0] or 0.0
        block_ms[label] = level + added - added[anchor]
    labels = tuple(space.candidates)
    return LatencyTable(
        space=space.name,
        space_fingerprint=space.fingerprint,
        device=predictor.device,
        pack_version=predictor.version,
        pack_fingerprint=pack_fingerprint(predictor.pack),
        input_shape=space.input_shape,
        candidates=space.candidates,
        stationary_ms=probed.terms.constant - sum(float(ms[0]) for ms in block_ms.values()),
        block_ms=block_ms,
        pair_ms={(labels[f[0]], labels[f[1]]): ms for f, ms in probed.terms.factors.items() if len(f) == 2},
        worst_error=probed.worst_error,
    )


def _own_ms(space: Space, kernels: Parts, label: str, candidate: str) -> float | None:
    """Latency of the kernels that start in a block of the architecture priced; None if there are none."""
    own = [ms for name, ms in kernels.items() if space.blocks.get(name) == (label, candidate)]
    return sum(own) if own else None


def _refusal(space: Space, predictor: LatencyPredictor, probed: Probed) -> LookupTableError:
    label = tuple(space.candidates)[probed.worst_position]
    return LookupTableError(
        f"no lookup table of {space.name!r} holds on {predictor.device}: sums of blocks are off by up to "
        f"{probed.worst_error:.1%}, most at the choice {label!r}, whose cost depends on more than one "
        "other choice; predict the architectures' full graphs instead"
    )


def warn_of_left_out(left_out: Mapping[str, str], space: Space, known: str, strict: bool = False) -> None:
    """Warn of operators (name -> canonical operator) that are not ``known``; raise under ``strict``.

    Raises:
        UnpredictedOperatorError: under ``strict``, there are any.

    Warns:
        LatencyWarning: there are any.
    """
    if not left_out:
        return
    kinds = ", ".join(sorted(set(left_out.values())))
    message = f"{len(left_out)} operator(s) of {space.name!r} are not {known}: {kinds}"
    if strict:
        raise UnpredictedOperatorError(message)
    warnings.warn(message, LatencyWarning, stacklevel=3)
