"""Choose the networks of a round: some are drawn, and about the others the fit so far is least sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels.fusion import parse_rules
from ..packs.network import KernelNetwork
from .fitting import predicted
from .networks import random_network
from .observations import Observation, kernel_table
from .plan import JUDGE_ONE_IN, Plan
from .workspace import Workspace

#: How many networks are looked at for each that is chosen because the members disagree about it.
_CANDIDATES = 4
#: Seeds of these networks start here, those of the others at 0.
_CANDIDATE_SEEDS = 1_000_000


def choose_networks(
    workspace: Workspace, plan: Plan, number: int, network: KernelNetwork | None, rules: Sequence[str]
) -> list[str]:
    """Names of the networks of a round, which are added to the workspace as far as they are not yet there.

    Half of them are drawn, and some of those judge. The members disagree most about the other half.
    """
    first, last = number * plan.round_size, (number + 1) * plan.round_size
    names = [f"network{i:04d}" for i in range(first, last)]
    if names[-1] in workspace.networks:
        return names
    drawn = plan.round_size if network is None else plan.round_size // 2
    seeds = [plan.seed + first + i for i in range(drawn)]
    if network is not None:
        seeds += _disputed(plan, number, network, rules)
    for i, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        if name not in workspace.networks:
            workspace.add(name, seed, held_out=i < drawn and i % JUDGE_ONE_IN == 1)
    return names


def _disputed(plan: Plan, number: int, network: KernelNetwork, rules: Sequence[str]) -> list[int]:
    """Seeds of the networks about whose latency the members of ``network`` disagree most."""
    wanted = plan.round_size - plan.round_size // 2
    start = plan.seed + _CANDIDATE_SEEDS + number * _CANDIDATES * wanted
    seeds = list(range(start, start + _CANDIDATES * wanted))
    graphs = [Observation(str(seed), random_network(seed), 1.0, (1.0, 1.0), ()) for seed in seeds]
    table, _ = kernel_table(graphs, parse_rules(rules), "")
    spread = np.log(np.maximum(predicted(network, table), 1e-9)).std(axis=0)
    return [seeds[i] for i in np.argsort(-spread, kind="stable")[:wanted].tolist()]
