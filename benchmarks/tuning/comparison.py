"""Compare cost models at equal trials: measure the pools, replay the choices, tell who wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console

from nnmeter_nas.errors import SettingsError
from nnmeter_nas.kernels.configuration import FloatArray

from ..search.statistics import holm, signed_rank
from .pool import Pool, measured_pool
from .replay import CONTESTANTS, replayed

#: A search is over once its best time is so much of the pool's best.
NEAR = 1.05
#: Differences with a smaller p count.
LEVEL = 0.05


class Outcome(NamedTuple):
    """What a comparison found.

    Attributes:
        pools: what was chosen from, by kernel.
        curves: for each setting, by contestant and kernel, the best time so far as a multiple of the pool's
            best, ``[seeds, trials]``; the settings are whether the models know trials of other kernels.
    """

    pools: Mapping[str, Pool]
    curves: Mapping[bool, Mapping[str, Mapping[str, FloatArray]]]


class Verdict(NamedTuple):
    """The winner of a setting against a rival, over all kernels and seeds.

    Attributes:
        winner, rival: names.
        sooner, later: searches in which the winner is near the pool's best in fewer trials, and in more.
        p: of Wilcoxon's signed-rank test on these trials, with Holm's correction over the rivals.
    """

    winner: str
    rival: str
    sooner: int
    later: int
    p: float


def run_comparison(
    kernels: Sequence[str], size: int, seeds: int, trials: int, work: Path, console: Console
) -> Outcome:
    """Compare all cost models on some kernels. Measurements in ``work`` are used again.

    Raises:
        SettingsError: there are more trials than schedules in a pool.
    """
    if trials > size:
        raise SettingsError(f"trials={trials} is more than pool={size}; take larger pools or fewer trials")
    pools = {kernel: measured_pool(kernel, size, work / kernel, console) for kernel in kernels}
    curves: dict[bool, dict[str, dict[str, FloatArray]]] = {}
    for knows in (False, True):
        for name, contestant in CONTESTANTS.items():
            if knows and name == "xgboost-early":
                continue  # what is known ends the warm-up of the other, and they are the same
            for number, (kernel, pool) in enumerate(pools.items()):
                others = [other for other in pools.values() if knows and other is not pool]
                # No two kernels share seeds: searches that begin at the same ranks are no independent ones.
                own = range(number * seeds, (number + 1) * seeds)
                runs = [replayed(contestant.make(seed), pool, trials, seed, others) for seed in own]
                curves.setdefault(knows, {}).setdefault(name, {})[kernel] = np.array(runs)
            console.print(f"{contestant.title} has chosen{', knowing the other kernels' if knows else ''}")
    return Outcome(pools, curves)


def trials_until_near(curves: FloatArray) -> FloatArray:
    """Trials of each search until it is near the pool's best; one more than all if never, ``[seeds]``."""
    near = curves <= NEAR
    return np.where(near.any(axis=1), near.argmax(axis=1), curves.shape[1]) + 1.0


def trials_needed(by_kernel: Mapping[str, FloatArray]) -> FloatArray:
    """The same of the searches of all kernels, ``[kernels * seeds]``."""
    return np.concatenate([trials_until_near(curves) for curves in by_kernel.values()])


def verdicts(of_setting: Mapping[str, Mapping[str, FloatArray]]) -> list[Verdict]:
    """Compare the contestant that needs fewest trials on average with each other one."""
    needed = {name: trials_needed(by_kernel) for name, by_kernel in of_setting.items()}
    winner = min(needed, key=lambda name: needed[name].mean())
    rivals = [name for name in needed if name != winner]
    p = holm([signed_rank(needed[winner] - needed[rival]) for rival in rivals])
    return [
        Verdict(
            winner, rival, int((needed[winner] < needed[rival]).sum()),
            int((needed[winner] > needed[rival]).sum()), corrected,
        )
        for rival, corrected in zip(rivals, p, strict=True)
    ]  # fmt: skip
