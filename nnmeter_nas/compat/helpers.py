"""Small functions of ``nn_meter.utils``, with nn-Meter's names, arguments and results."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "NumpyEncoder",
    "get_accuracy",
    "get_conv_flop_params",
    "get_dwconv_flop_params",
    "get_fc_flop_params",
    "get_filename",
    "get_filename_without_ext",
]


def get_accuracy(y_pred: npt.ArrayLike, y_true: Sequence[float], threshold: float = 0.01) -> float:
    """Return the share of predictions that are off by at most ``threshold`` of the true value.

    >>> get_accuracy([10.0, 11.0], [10.0, 10.0], 0.05)
    0.5
    """
    true = np.asarray(y_true)
    return float(np.mean(np.abs((true - np.asarray(y_pred)) / true) <= threshold))


def get_conv_flop_params(
    hw: float, cin: float, cout: float, kernel_size: float, stride: float
) -> tuple[float, float]:
    """Return flops and weights, biases among them, of a convolution over a square map.

    >>> get_conv_flop_params(8, 3, 16, 3, 2)
    (14336.0, 448)
    """
    return _convolution(hw, cout * (kernel_size**2 * cin + 1), stride)


def get_dwconv_flop_params(hw: float, cout: float, kernel_size: float, stride: float) -> tuple[float, float]:
    """Return flops and weights of a depthwise convolution.

    >>> get_dwconv_flop_params(8, 16, 3, 1)
    (20480.0, 160)
    """
    return _convolution(hw, cout * (kernel_size**2 + 1), stride)


def get_fc_flop_params(cin: float, cout: float) -> tuple[float, float]:
    """Return flops and weights of a dense layer, which nn-Meter takes for the same number.

    >>> get_fc_flop_params(4, 10)
    (90, 90)
    """
    count = (2 * cin + 1) * cout
    return count, count


def _convolution(hw: float, params: float, stride: float) -> tuple[float, float]:
    return 2 * hw / stride * hw / stride * params, params


def get_filename(path: str) -> str:
    """Return the name of a file without its folder."""
    return os.path.basename(path)


def get_filename_without_ext(path: str) -> str:
    """Return the name of a file without its folder and its suffix."""
    return os.path.splitext(os.path.basename(path))[0]


class NumpyEncoder(json.JSONEncoder):
    """Writes arrays of NumPy as lists, and bytes as text."""

    def default(self, o: Any) -> Any:
        """Return what stands for ``o``."""
        if isinstance(o, np.ndarray):
            return o.tolist()
        return o.decode() if isinstance(o, bytes | bytearray) else super().default(o)
