"""What a device that does not tell what each kernel took is asked beside whole networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..kernels.configuration import Configuration, Configurations, configuration
from ..kernels.fusion import Kernel, fuse, parse_rules
from ..packs.vocabulary import new_vocabulary
from .networks import random_network
from .pairs import choose_pairs
from .pieces import can_be_alone, cost
from .rules import COMMON_RULES
from .workspace import Workspace

#: Lone kernels of a round for each of its networks.
_KERNELS_OF_A_NETWORK = 5
#: They are taken from so many networks, whose seeds start here.
_SOURCES, _SEEDS = 30, 2_000_000


def choose_pieces(workspace: Workspace, seed: int, number: int, networks: int) -> list[str]:
    """Names of the pieces to measure in a round of so many networks: lone kernels, and first of all pairs."""
    kernels = _choose_kernels(workspace, seed, number, networks * _KERNELS_OF_A_NETWORK)
    return kernels if number else [*choose_pairs(workspace), *kernels]


def _choose_kernels(workspace: Workspace, seed: int, number: int, count: int) -> list[str]:
    """Names of ``count`` lone kernels for a round, which are added to the workspace if they are not there.

    They are kernels of random networks: of each kind the more, the more time goes to it, but of the root of
    that, so that all kinds are drawn.
    """
    names = [f"kernel{i:04d}" for i in range(number * count, (number + 1) * count)]
    if names[-1] in workspace.networks:
        return names
    found = _kernels([seed + _SEEDS + number * _SOURCES + i for i in range(_SOURCES)])
    kinds = np.array([kernel.kind for kernel in found])
    costs, of_kind = np.bincount(kinds, [kernel.cost for kernel in found]), np.bincount(kinds)
    shares = (np.sqrt(costs) / np.maximum(of_kind, 1))[kinds]
    random = np.random.default_rng([seed, number])
    drawn = random.choice(len(found), count, len(found) < count, shares / shares.sum())
    for name, i in zip(names, drawn.tolist(), strict=True):
        if name not in workspace.networks:
            workspace.add(name, found[i].seed, held_out=False, operators=found[i].operators)
    return names


class _Kernel(NamedTuple):
    """A kernel of the random network of a seed: its operators, its kind, and about what it takes."""

    seed: int
    operators: tuple[str, ...]
    kind: int
    cost: float


def _kernels(seeds: Sequence[int]) -> list[_Kernel]:
    """The kernels of random networks that can be measured alone, each once."""
    rules = parse_rules(COMMON_RULES)
    large: dict[Configuration, tuple[int, Kernel]] = {}
    for seed in seeds:
        for _, kernel in fuse(random_network(seed), rules).nodes(data="kernel"):
            if can_be_alone(kernel):
                large.setdefault(configuration(kernel), (seed, kernel))
    found = Configurations.of(large)
    kinds = new_vocabulary(found).kinds_of(found).tolist()
    return [
        _Kernel(seed, tuple(kernel.members), kind, cost(kernel))
        for kind, (seed, kernel) in zip(kinds, large.values(), strict=True)
    ]
