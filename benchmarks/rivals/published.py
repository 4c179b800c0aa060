"""Figures that others published, with where they stand; nothing here was measured by this project."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A cell of the table that cites.

    Attributes:
        text: what was published.
        source: where, with its year.
    """

    text: str
    source: str


_PAPER = "[README](https://github.com/microsoft/nn-Meter), 2021"
_LITEPRED = "[NSDI'24](https://www.usenix.org/conference/nsdi24/presentation/feng-chengquan), 2024"
_MOONLIT = "[repository](https://github.com/microsoft/Moonlit/tree/main/LitePred), 2024"

#: (row, tool) -> what was published; the rows and tools are those of :mod:`.page`.
PUBLISHED: dict[tuple[str, str], Published] = {
    ("new", "nn-meter"): Published(
        "cortexA76 99.0 %, adreno640 99.1 %, adreno630 99.0 %, myriad 83.4 % within ±10 %, of its whole "
        "dataset of 26,000 models, not of a part held out",
        _PAPER,
    ),
    ("reads tflite", "litepred"): Published("its example reads one", _MOONLIT),
    ("predicts", "litepred"): Published("latency on 85 platforms", _LITEPRED),
    ("new", "litepred"): Published(
        "99.3 % on average over 85 platforms; on the 8 platforms of its first table 98.6 to 100 % within "
        "±10 %, 79.4 to 95.7 % within ±5 %",
        f"{_LITEPRED}; {_MOONLIT}",
    ),
    ("device", "litepred"): Published(
        "less than an hour of measuring: 1,400 to 17,400 kernels in 0.05 to 0.96 h",
        f"{_LITEPRED}; {_MOONLIT}",
    ),
    ("needs", "litepred"): Published("TensorFlow, torch and nn-Meter, by its imports", _MOONLIT),
    ("python", "litepred"): Published("3.7 in its notebook", _MOONLIT),
    ("download", "nn-meter"): Published(
        "6.9 GB of forests for four devices",
        "[release 1.0](https://github.com/microsoft/nn-Meter/releases), 2021",
    ),
}
