"""nn-Meter's summary of how far predicted latencies are from measured ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def latency_metrics(
    y_pred: Sequence[float] | npt.NDArray[np.float64], y_true: Sequence[float] | npt.NDArray[np.float64]
) -> tuple[float, float, float, float, float, float]:
    """Compare predicted with measured latencies (ms), with nn-Meter's signature and order.

    Returns:
        RMSE (ms), RMSPE (%), RMSE over the mean measurement, and the share of models (0 to 1) within
        ±5 %, ±10 % and ±15 %.

    Raises:
        ValueError: the lengths differ or there is nothing to compare.

    >>> latency_metrics([9.8, 22.0], [10.0, 20.0])[3:]
    (0.5, 1.0, 1.0)
    """
    predicted, measured = np.asarray(y_pred, float), np.asarray(y_true, float)
    if predicted.shape != measured.shape or not predicted.size:
        raise ValueError(
            f"y_pred {predicted.shape} and y_true {measured.shape} must be equally long, not empty"
        )
    relative = np.abs(predicted - measured) / measured
    rmse = float(np.sqrt(np.mean((predicted - measured) ** 2)))
    rmspe = 100 * float(np.sqrt(np.mean(relative**2)))
    shares = [float(np.mean(relative <= limit + 1e-12)) for limit in (0.05, 0.10, 0.15)]
    return rmse, rmspe, rmse / float(measured.mean()), shares[0], shares[1], shares[2]
