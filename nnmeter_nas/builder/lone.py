"""What a device that does not tell what each kernel took is asked beside whole networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..kernels.configuration import Configuration, Configurations, configuration
from ..kernels.fusion import fuse, parse_rules
from ..packs.vocabulary import new_vocabulary
from .networks import random_network
from .pairs import choose_pairs
from .pieces import is_large
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

    They are kernels of random networks: of each kind the more, the more there are, but rare kinds are drawn
    more often than they occur.
    """
    names = [f"kernel{i:04d}" for i in range(number * count, (number + 1) * count)]
    if names[-1] in workspace.networks:
        return names
    found = _kernels([seed + _SEEDS + number * _SOURCES + i for i in range(_SOURCES)])
    random = np.random.default_rng([seed, number])
    shares = np.array([math.sqrt(len(of_kind)) / len(of_kind) for of_kind in found for _ in of_kind])
    kernels = [kernel for of_kind in found for kernel in of_kind]
    drawn = random.choice(len(kernels), count, len(kernels) < count, shares / shares.sum())
    for name, i in zip(names, drawn.tolist(), strict=True):
        if name not in workspace.networks:
            source, members = kernels[i]
            workspace.add(name, source, held_out=False, operators=members)
    return names


def _kernels(seeds: Sequence[int]) -> list[list[tuple[int, tuple[str, ...]]]]:
    """The kernels of random networks by kind, each once: the seed of the network, and the operators."""
    rules = parse_rules(COMMON_RULES)
    large: dict[Configuration, tuple[int, tuple[str, ...]]] = {}
    for seed in seeds:
        for _, kernel in fuse(random_network(seed), rules).nodes(data="kernel"):
            if is_large(kernel):
                large.setdefault(configuration(kernel), (seed, tuple(kernel.members)))
    found = Configurations.of(large)
    kinds = new_vocabulary(found.types.tolist()).kinds_of(found).tolist()
    by_kind: dict[int, list[tuple[int, tuple[str, ...]]]] = {}
    for kind, kernel in zip(kinds, large.values(), strict=True):
        by_kind.setdefault(kind, []).append(kernel)
    return list(by_kind.values())
