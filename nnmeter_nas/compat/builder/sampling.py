"""Sizes of kernels to measure: drawn like those of networks, or around those that are predicted badly.

nn-Meter draws from a list of well-known networks. Here sides are those of maps of 224, 192 and 32 pixels
that were halved a few times, and channels are drawn on a log scale, the more on smaller maps.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["BaseConfigSampler"]

Config = dict[str, int]

#: Sides of maps, windows and strides, and how often each is drawn.
_SIDES = {
    224: 1, 112: 3, 96: 1, 56: 5, 48: 1, 32: 2, 28: 6, 24: 1, 16: 2, 14: 6, 12: 1, 8: 2, 7: 5, 4: 1, 1: 1,
}  # fmt: skip
_WINDOWS = {1: 5, 3: 6, 5: 2, 7: 1}
_STRIDES = {1: 4, 2: 1}
#: Channels are drawn between these; steps between them, and how often each.
_LEAST, _MOST = 3, 2048
_STEPS = {8: 6, 4: 1, 1: 1}
#: Values of a map at most, so that large maps have few channels; multiply-adds of a convolution in millions.
_MOST_VALUES, _MOST_MACS = 3_000_000, 3000
#: Channels of dense layers between these, and the classes that half of them end in.
_DENSE, _CLASSES = (64, 8192), 1000
#: New sizes lie between these parts of the old ones.
_AROUND = (0.5, 1.2)
#: Draws for each kernel that is wanted, as equal ones count once.
_DRAWS = 20


class BaseConfigSampler:
    """Draws sizes of a kernel of the user's."""

    def prior_config_sampling(self, sample_num: int) -> list[Config]:
        """Return the sizes of about ``sample_num`` kernels."""
        raise NotImplementedError(f"{type(self).__name__} has no prior_config_sampling")

    def finegrained_config_sampling(
        self, configs: Sequence[Mapping[str, int]], sample_num: int
    ) -> list[Config]:
        """Return the sizes of about ``sample_num`` kernels around each of ``configs``."""
        raise NotImplementedError(f"{type(self).__name__} has no finegrained_config_sampling")


class Sampler(BaseConfigSampler):
    """Draws sizes of a kernel type of nn-Meter's.

    Args:
        draw: draws the sizes of one kernel.
        varied: sizes that change around a kernel; the others stay.
        even: whether channels must be even.
    """

    def __init__(self, draw: Callable[[], Config], varied: Sequence[str], even: bool = False) -> None:
        self._draw, self._varied, self._even = draw, varied, even

    def prior_config_sampling(self, sample_num: int) -> list[Config]:
        """Return the sizes of ``sample_num`` different kernels, or of as many as there are."""
        drawn = (self._checked(self._draw()) for _ in range(_DRAWS * sample_num))
        return _different(drawn, sample_num)

    def finegrained_config_sampling(
        self, configs: Sequence[Mapping[str, Any]], sample_num: int
    ) -> list[Config]:
        """Return the sizes of up to ``sample_num`` different kernels around each of ``configs``."""
        found: list[Config] = []
        for config in configs:
            around = (self._checked(self._near(config)) for _ in range(_DRAWS * sample_num))
            found += _different(around, sample_num)
        return _different(found, len(found))

    def _near(self, config: Mapping[str, Any]) -> Config:
        new = {name: int(value) for name, value in config.items()}
        for name in self._varied:
            if new[name]:
                low, high = (max(1, int(part * new[name])) for part in _AROUND)
                new[name] = random.randint(low, max(low, high))
        return new

    def _checked(self, config: Config) -> Config:
        if self._even:
            config["CIN"] += config["CIN"] % 2
        if "COUT" in config and "COUT" not in self._varied:
            config["COUT"] = config["CIN"]
        return config


def _different(drawn: Any, count: int) -> list[Config]:
    """The first ``count`` configurations that differ."""
    found: dict[tuple[tuple[str, int], ...], Config] = {}
    for config in drawn:
        if len(found) == count:
            break
        found.setdefault(tuple(sorted(config.items())), config)
    return list(found.values())


def _one_of(odds: Mapping[int, float]) -> int:
    return random.choices(list(odds), list(odds.values()))[0]


def _between(low: int, high: int) -> int:
    """A number of channels, log-uniform."""
    step = _one_of(_STEPS)
    value = math.exp(random.uniform(math.log(low), math.log(max(low, high))))
    return max(low, round(value / step) * step)


def _map(branches: int = 1) -> tuple[int, int]:
    """The side of a map, and its channels."""
    side = _one_of(_SIDES)
    return side, _between(_LEAST, min(_MOST, _MOST_VALUES // (side * side * branches)))


def _of_map() -> Config:
    side, channels = _map()
    return {"HW": side, "CIN": channels}


def _conv() -> Config:
    while True:
        side, channels = _map()
        window, stride = _one_of(_WINDOWS), _one_of(_STRIDES)
        out = max(_LEAST, _between(max(_LEAST, channels // 4), min(_MOST, channels * 4)))
        if (side / stride) ** 2 * window**2 * channels * out <= _MOST_MACS * 1e6:
            return {"HW": side, "CIN": channels, "COUT": out, "KERNEL_SIZE": window, "STRIDES": stride}


def _dwconv() -> Config:
    side, channels = _map()
    window = random.choice((3, 3, 5, 7))
    return {
        "HW": side, "CIN": channels, "COUT": channels, "KERNEL_SIZE": window, "STRIDES": _one_of(_STRIDES),
    }  # fmt: skip


def _pool() -> Config:
    side, channels = _map()
    stride = random.choice((1, 2, 2))
    return {
        "HW": side, "CIN": channels, "COUT": channels, "KERNEL_SIZE": random.choice((2, 3)),
        "STRIDES": stride, "POOL_STRIDES": stride,
    }  # fmt: skip


def _fc() -> Config:
    return {"CIN": _between(*_DENSE), "COUT": random.choice((_CLASSES, _between(*_DENSE)))}


def _concat() -> Config:
    branches = random.choice((2, 2, 3, 4, 4))
    side, _ = _map(branches)
    most = min(_MOST, _MOST_VALUES // (side * side * branches))
    return {"HW": side} | {f"CIN{i + 1}": _between(_LEAST, most) if i < branches else 0 for i in range(4)}


_CONV = Sampler(_conv, ("CIN", "COUT"))
_DWCONV = Sampler(_dwconv, ("CIN",))
_POOL = Sampler(_pool, ("CIN",))
_MAP = Sampler(_of_map, ("CIN",))
_EVEN = Sampler(_of_map, ("CIN",), even=True)
_OF_TYPE = {
    "maxpool": _POOL,
    "avgpool": _POOL,
    "fc": Sampler(_fc, ("CIN", "COUT")),
    "concat": Sampler(_concat, ("CIN1", "CIN2", "CIN3", "CIN4")),
    "split": _EVEN,
    "channelshuffle": _EVEN,
    "se": _EVEN,
}


def sampler_of(kernel_type: str) -> Sampler:
    """Return what draws sizes of a kernel type of nn-Meter's."""
    if "conv" in kernel_type:
        return _DWCONV if kernel_type.startswith("dwconv") else _CONV
    return _OF_TYPE.get(kernel_type, _MAP)
