"""nn-Meter's kernel predictors: a random forest for each kernel type, on features of its sizes.

A forest is written as scikit-learn's pickle, which ``register --predictor`` decodes without running it.
"""

from __future__ import annotations

import csv
import io
import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import MeasurementError, SettingsError
from ...extras import load_extra
from ...files import write_bytes
from ...metrics import latency_metrics
from ..kernels import get_flops_params
from .registry import load_class, registered
from .results import Latency, Models, merge_info, read_json, read_profiled_results

__all__ = ["BaseFeatureParser", "build_predictor_by_data", "collect_kernel_data"]

_WINDOW = ["HW", "CIN", "COUT", "KERNEL_SIZE"]
#: Sizes of a kernel type that are features.
_SIZES = {
    "maxpool": [*_WINDOW, "POOL_STRIDES"],
    "avgpool": [*_WINDOW, "POOL_STRIDES"],
    "fc": ["CIN", "COUT"],
    "concat": ["HW", "CIN1", "CIN2", "CIN3", "CIN4"],
    "addrelu": ["HW", "CIN", "CIN"],
    "add": ["HW", "CIN", "CIN"],
}
#: Trees of a forest, and the share of the features that a split looks at.
_TREES, _FEATURES = 300, 0.8
#: Share of the kernels that test, and the seed that draws them.
_TEST, _SEED = 0.2, 10
#: Kernels that a forest needs at least, so that one can test it.
_LEAST = 2

logger = logging.getLogger("nn-Meter")


class BaseFeatureParser:
    """The features of a kernel type: its sizes.

    Attributes:
        needed_config: names of the sizes.
    """

    def __init__(self, kernel_type: str) -> None:
        self.kernel_type = kernel_type
        of_conv = [*_WINDOW, "STRIDES"] if "conv" in kernel_type else ["HW", "CIN"]
        self.needed_config: Sequence[str] = _SIZES.get(kernel_type, of_conv)

    def get_feature_by_config(self, config_dict: Mapping[str, Any]) -> list[float]:
        """Return the features of a kernel of these sizes."""
        sizes = {"COUT": config_dict.get("CIN"), "POOL_STRIDES": config_dict.get("STRIDES"), **config_dict}
        return [sizes[name] for name in self.needed_config]

    def get_config_by_feature(self, feature: Sequence[float]) -> dict[str, Any]:
        """Return the sizes of a kernel with these features."""
        found = dict(zip(self.needed_config, feature, strict=True))
        # nn-Meter's samplers give pools their stride by both names.
        return found | {"STRIDES": found["POOL_STRIDES"]} if "POOL_STRIDES" in found else found


class _WorkParser(BaseFeatureParser):
    """Sizes, and the work and the weights that follow from them."""

    def get_feature_by_config(self, config_dict: Mapping[str, Any]) -> list[float]:
        sizes = {"HW": 1, "KERNEL_SIZE": 1, "STRIDES": 1, "COUT": config_dict["CIN"], **config_dict}
        work = get_flops_params(self.kernel_type, *(sizes[name] for name in (*_WINDOW, "STRIDES")))
        flops, params = work or (0.0, 0.0)
        return [*super().get_feature_by_config(config_dict), flops / 2e6, params / 1e6]

    def get_config_by_feature(self, feature: Sequence[float]) -> dict[str, Any]:
        return super().get_config_by_feature(feature[:-2])


class _ConcatParser(BaseFeatureParser):
    """The side, the number of branches, and their channels.

    nn-Meter's builder leaves the number out, so that its predictors of concatenations do not fit what it asks
    them.
    """

    def get_feature_by_config(self, config_dict: Mapping[str, Any]) -> list[float]:
        side, *channels = super().get_feature_by_config(config_dict)
        return [side, sum(map(bool, channels)), *channels]

    def get_config_by_feature(self, feature: Sequence[float]) -> dict[str, Any]:
        return super().get_config_by_feature([feature[0], *feature[2:]])


def load_forests() -> Any:
    """Return the module of scikit-learn that has forests.

    Raises:
        MissingPackageError: it is not installed.
    """
    return load_extra("sklearn.ensemble", "compat-builder", "building a predictor as nn-Meter does")


def get_feature_parser(kernel_type: str) -> Any:
    """Return the parser of a kernel type, the user's if it is registered."""
    own = registered("kernels")
    if kernel_type in own:
        return load_class(own[kernel_type], "parser_module")(kernel_type)
    if "conv" in kernel_type or kernel_type == "fc":
        return _WorkParser(kernel_type)
    return (_ConcatParser if kernel_type == "concat" else BaseFeatureParser)(kernel_type)


def collect_kernel_data(kernel_data: Any, predict_label: str = "latency") -> Models:
    """Return kernels with their sizes and what was measured.

    Args:
        kernel_data: that, or a pair: sizes and measurements, each a path of a JSON file, a list of paths, or
            their contents.
        predict_label: the metric.

    Raises:
        WorkspaceError: a file cannot be read.
    """
    if isinstance(kernel_data, dict):
        return kernel_data
    if isinstance(kernel_data, str):
        return read_profiled_results(read_json(kernel_data))
    sizes, measured = map(_joined, kernel_data)
    for module, kernels in sizes.items():
        for name, kernel in kernels.items():
            found = measured.get(module, {}).get(name, {})
            if predict_label in found:
                value = found[predict_label]
                kernel[predict_label] = Latency(value) if predict_label == "latency" else value
    return sizes


def _joined(files: Any) -> Models:
    if isinstance(files, dict):
        return files
    found: Models = {}
    for file in [files] if isinstance(files, str) else files:
        found = merge_info(read_json(file), prev_info=found)
    return found


def build_predictor_by_data(
    kernel_type: str,
    kernel_data: Any,
    backend: Any = None,
    error_threshold: float = 0.1,
    mark: str = "",
    save_path: str | None = None,
    predict_label: str = "latency",
    final_predictor: bool = False,
) -> tuple[Any, float | None, list[dict[str, Any]] | None]:
    """Fit a forest; return it, its share within ±10 % of the fifth that tests, and the sizes that it misses.

    Args:
        kernel_type: of the kernels.
        kernel_data: as :func:`collect_kernel_data` takes it.
        backend: has no effect: all devices have the same kind of forest.
        error_threshold: relative error above which a kernel is missed.
        mark: part of the names of the files.
        save_path: folder of the forest, ``predictors/<kernel_type>_<mark>.pkl``, and of tables, if any.
        predict_label: the metric.
        final_predictor: fit all kernels; then no share and no sizes are returned.

    Raises:
        MeasurementError: too few kernels were measured.
        SettingsError: an argument is wrong.
        MissingPackageError: scikit-learn is not installed.
    """
    if error_threshold < 0:
        raise SettingsError(f"error_threshold={error_threshold} is below 0")
    ensemble = load_forests()
    parser = get_feature_parser(kernel_type)
    kernels = collect_kernel_data(kernel_data, predict_label)
    _, rows, values = _table(kernel_type, parser, kernels, predict_label)
    if len(rows) < _LEAST:
        raise MeasurementError(
            f"{len(rows)} kernels of type {kernel_type} were measured, and a predictor needs {_LEAST}; "
            "see predictor_build/results/profile_error.log of the workspace"
        )
    forest = ensemble.RandomForestRegressor(_TREES, max_features=_FEATURES, random_state=_SEED)
    within_10, missed = None, None
    if final_predictor:
        forest.fit(rows, values)
    else:
        order = np.random.default_rng(_SEED).permutation(len(rows))
        count = max(1, round(_TEST * len(rows)))
        test, train = order[:count], order[count:]
        forest.fit(rows[train], values[train])
        said = forest.predict(rows[test])
        *_, within_10, _ = latency_metrics(said, values[test])
        errors = np.abs(said - values[test]) / values[test]
        missed = [
            parser.get_config_by_feature(list(map(_size, rows[i]))) for i in test[errors > error_threshold]
        ]
        if save_path:
            header = [f"feature{i}" for i in range(rows.shape[1])] + ["True", "Pred", "Error"]
            tested = np.column_stack([rows[test], values[test], said, errors])
            _write_csv(
                os.path.join(save_path, "collection", f"TestResult_{kernel_type}_{mark}.csv"), header, tested
            )
    if save_path:
        save_kernel_data(kernel_type, kernels, mark, save_path, predict_label)
        path = os.path.join(save_path, "predictors", f"{kernel_type}_{mark}.pkl")
        write_bytes(path, pickle.dumps(forest))
        logger.info("Saved the predictor for %s in path %s.", kernel_type, path)
    return forest, within_10, missed


def save_kernel_data(
    kernel_type: str, kernels: Models, mark: str, save_path: str, predict_label: str = "latency"
) -> str:
    """Write the features of kernels and what was measured as a table; return its path."""
    parser = get_feature_parser(kernel_type)
    names, rows, values = _table(kernel_type, parser, kernels, predict_label)
    extra = [f"feature_{i}" for i in range(rows.shape[1] - len(parser.needed_config))]
    header = ["model_path", *parser.needed_config, *extra, predict_label]
    table = [[name, *row, value] for name, row, value in zip(names, rows, values, strict=True)]
    path = os.path.join(save_path, "collection", f"Data_{kernel_type}_{mark}.csv")
    _write_csv(path, header, table)
    return path


def _table(kernel_type: str, parser: Any, kernels: Models, label: str) -> tuple[list[str], Any, Any]:
    """Files, features and measured values of the kernels that were measured."""
    names, rows, values = [], [], []
    for kernel in kernels.get(kernel_type, {}).values():
        value = kernel.get(label)
        number = value.avg if isinstance(value, Latency) else value
        if number:
            names.append(os.path.basename(str(kernel.get("converted_model") or kernel.get("model", ""))))
            rows.append(parser.get_feature_by_config(kernel["config"]))
            values.append(float(number))
    return names, np.array(rows, dtype=float), np.array(values)


def _size(value: float) -> float:
    """A feature as it was before it became a float; sizes are whole."""
    return int(value) if value == int(value) else float(value)


def _write_csv(path: str, header: Sequence[str], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
