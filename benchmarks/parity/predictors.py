"""Write predictors in nn-Meter's format: forests fitted to made-up kernels, and fusion rules.

nn-Meter's published forests are gigabytes. Any forests show whether two programs read a model the same way,
as long as every feature changes their result.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnmeter_nas.extras import load_extra
from nnmeter_nas.packs.nnmeter1.importing import RELEASED
from nnmeter_nas.packs.registry import devices

#: Largest value of each feature, by forest; see :mod:`nnmeter_nas.packs.nnmeter1.predictors`.
_HIGHEST: Mapping[str, tuple[float, ...]] = {
    "conv-bn-relu": (300, 4096, 4096, 12, 5, 4000, 40),
    "dwconv-bn-relu": (300, 4096, 4096, 12, 5, 200, 1),
    "fc": (30000, 5000, 120, 240),
    "maxpool": (300, 4096, 4096, 60, 60),
    "avgpool": (300, 4096, 4096, 60, 60),
    "global-avgpool": (300, 4096),
    "channelshuffle": (300, 4096),
    "split": (300, 4096),
    "se": (300, 4096),
    "hswish": (300, 4096),
    "bn": (300, 4096),
    "relu": (300, 4096),
    "bnrelu": (300, 4096),
    "add": (300, 4096, 4096),
    "addrelu": (300, 4096, 4096),
    "concat": (300, 7, 4096, 4096, 4096, 4096),
}
_POOLS = ("maxpool", "avgpool")
_ROWS = 1500


def write_predictor(folder: Path, device: str, trees: int = 20) -> Path:
    """Write a device's forests, of ``trees`` trees each, and its ``fusion_rules.json`` to ``folder``."""
    ensemble = load_extra("sklearn.ensemble", "bench", "comparing with nn-Meter")
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name in RELEASED[device]:
        rows = np.exp(rng.uniform(0, np.log(np.array(_HIGHEST[name]) + 1), (_ROWS, len(_HIGHEST[name])))) - 1
        work = np.log1p(rows) / np.log1p(_HIGHEST[name])
        latency = np.exp(4 * work.mean(axis=1)) * rng.lognormal(sigma=0.02, size=_ROWS) / 10
        forest = ensemble.RandomForestRegressor(trees, random_state=0, n_jobs=1).fit(rows, latency)
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(forest))
    rules = nnmeter_rules(devices()[device]["fusion_rules"])
    (folder / "fusion_rules.json").write_text(json.dumps(rules), encoding="utf-8")
    return folder


def nnmeter_rules(rules: Sequence[str]) -> dict[str, dict[str, object]]:
    """Convert a device's rules to nn-Meter's format; convolution, batch norm and relu form a whole pattern.

    >>> sorted(nnmeter_rules(["pool->relu"]))[:3]
    ['BF_avgpool_relu', 'BF_conv_bn_relu', 'BF_dwconv_bn_relu']
    """
    pairs = [rule.split("->") for rule in rules]
    named = [
        f"BF_{name}_{second}" for first, second in pairs for name in (_POOLS if first == "pool" else (first,))
    ]
    named += ["BF_conv_bn_relu", "BF_dwconv_bn_relu"]
    return {**{name: {"obey": True} for name in named}, "MON": {"obey": 0}, "FN": {"obey": True}}
