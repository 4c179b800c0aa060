"""scikit-learn forests, and pickles of them as old releases wrote them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from nnmeter_nas.packs.nnmeter1.forest import Forest, read_pickled_forest

DEVICE = "cortexA76cpu_tflite21"
RULES = {"BF_conv_relu": {"obey": True}, "BF_conv_add": {"obey": False}, "MON": {"obey": 0}}
#: Features of the forests of a small predictor.
KERNELS = {"conv-bn-relu": 7, "fc": 4, "relu": 2}

Nodes = np.ndarray[Any, Any]


def rows(count: int, n_features: int = 4, seed: int = 0) -> Nodes:
    """Random sizes like those of kernels, ``[count, n_features]``."""
    return np.random.default_rng(seed).integers(1, 300, (count, n_features)).astype(float)


def fitted(model: Any = None, n_features: int = 4, count: int = 300) -> Any:
    """Fit ``model``, by default a small random forest, to made-up latencies of :func:`rows`."""
    x = rows(count, n_features)
    noise = np.random.default_rng(1).lognormal(0, 0.1, count)
    if model is None:
        model = RandomForestRegressor(7, random_state=0)
    return model.fit(x, 1e-3 * x[:, 0] * x[:, -1] * noise)


def forest(n_features: int) -> Forest:
    """A small forest, decoded from a pickle."""
    content = pickle.dumps(fitted(n_features=n_features, count=80))
    return read_pickled_forest(io.BytesIO(content), len(content), "test.pkl")


class ReleasePickler(pickle._Pickler):
    """Writes pickles like scikit-learn 0.23 on NumPy 1.x.

    Nodes lack ``missing_go_to_left`` (new in 1.3), ``n_features_`` replaces ``n_features_in_`` (new in 0.24),
    and NumPy's functions have their module names from before NumPy 2. ``node_dtype`` simulates machines with
    other word sizes and byte orders.
    """

    def __init__(self, file: io.BytesIO, protocol: int, node_dtype: Any = None) -> None:
        super().__init__(file, protocol)
        self.node_dtype = node_dtype

    def reducer_override(self, value: Any) -> Any:
        module = type(value).__module__
        if module == "sklearn.tree._tree":
            kind, arguments, state = value.__reduce__()
            fields = [(name, state["nodes"].dtype[name]) for name in state["nodes"].dtype.names[:7]]
            nodes = np.empty(len(state["nodes"]), self.node_dtype or fields)
            for name in nodes.dtype.names:
                nodes[name] = state["nodes"][name]
            return kind, arguments, {**state, "nodes": nodes}
        if module.startswith("sklearn."):
            state = {**value.__dict__, "_sklearn_version": "0.23.1"}
            if "n_features_in_" in state:
                state["n_features_"] = state.pop("n_features_in_")
            return (*value.__reduce_ex__(self.proto)[:2], state)
        return NotImplemented

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = pickle.whichmodule(value, name or value.__name__)
        if not module.startswith("numpy._core"):
            super().save_global(value, name)
            return
        old = module.replace("numpy._core", "numpy.core"), value.__name__
        if self.proto >= 4:
            self.save(old[0])
            self.save(old[1])
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + "{}\n{}\n".format(*old).encode())
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, FunctionType: save_global}  # noqa: RUF012  # as the base class has it


def release_pickle(model: Any, protocol: int = 3, node_dtype: Any = None) -> bytes:
    """Pickle ``model`` as scikit-learn 0.23 did."""
    file = io.BytesIO()
    ReleasePickler(file, protocol, node_dtype).dump(model)
    return file.getvalue()


def write_predictor(folder: Path, kernels: dict[str, int] | None = None, rules: Any = None) -> Path:
    """Write a folder like nn-Meter's unpacked release: a pickled forest per kernel, and the fusion rules."""
    folder.mkdir(parents=True, exist_ok=True)
    for kernel, n_features in (KERNELS if kernels is None else kernels).items():
        (folder / f"{kernel}.pkl").write_bytes(release_pickle(fitted(n_features=n_features, count=60)))
    (folder / "fusion_rules.json").write_text(json.dumps(RULES if rules is None else rules))
    return folder


def zipped(folder: Path, path: Path, prefix: str = f"{DEVICE}/", **extra: bytes) -> Path:
    """Zip ``folder`` like nn-Meter's release, with extra entries."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, prefix + file.name)
        for name, content in extra.items():
            archive.writestr(name, content)
    return path
