"""How much a build measures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import SettingsError

#: Every so many of the networks that are drawn judge, and are not trained on between rounds.
JUDGE_ONE_IN = 4
#: Networks of a round at least: two of them must judge.
LEAST_ROUND = 2 * JUDGE_ONE_IN
#: Least values: two visits must be compared.
_LEAST = {"round_size": LEAST_ROUND, "visits": 2, "members": 1, "seed": 0}


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        minutes: time to spend on measuring.
        networks: networks to measure at most.
        round_size: networks of a round.
        visits: visits of each network; more if they disagree, and of networks that judge.
        limit_s: seconds after which a visit counts as hanging.
        members: members of the ensemble.
        seed: decides the networks.

    Raises:
        SettingsError: a value is out of its range.
    """

    minutes: float = 5.0
    networks: int = 400
    round_size: int = 48
    visits: int = 2
    limit_s: float = 60.0
    members: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise SettingsError(f"{name}={value} must be at least {least}")
        for name in ("minutes", "limit_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SettingsError(f"{name}={value} must be a number above 0")
        if self.networks < self.round_size:
            raise SettingsError(
                f"networks={self.networks} is less than one round measures; give at least {self.round_size}"
            )
