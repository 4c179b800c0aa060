"""nn-Meter's error metrics of predicted against measured latencies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def latency_metrics(
    y_pred: Sequence[float] | npt.NDArray[np.float64], y_true: Sequence[float] | npt.NDArray[np.float64]
) -> tuple[float, float, float, float, float, float]:
    """Compare predicted with measured latencies (ms). Arguments and results are in nn-Meter's order.

    Returns:
        RMSE (ms), RMSPE (%), RMSE divided by the mean measured latency, and the share of models (0 to 1)
        predicted within ±5 %, ±10 % and ±15 %.

    Raises:
        ValueError: the lengths differ, or both are empty.

    >>> latency_metrics([9.8, 22.0], [10.0, 20.0])[3:]
    (0.5, 1.0, 1.0)
    """
    predicted, measured = np.asarray(y_pred, float), np.asarray(y_true, float)
    if predicted.shape != measured.shape or not predicted.size:
        raise ValueError(
            f"y_pred {predicted.shape} and y_true {measured.shape} must have the same length and not be empty"
        )
    relative = np.abs(predicted - measured) / measured
    rmse = float(np.sqrt(np.mean((predicted - measured) ** 2)))
    rmspe = 100 * float(np.sqrt(np.mean(relative**2)))
    shares = [float(np.mean(relative <= limit + 1e-12)) for limit in (0.05, 0.10, 0.15)]
    return rmse, rmspe, rmse / float(measured.mean()), shares[0], shares[1], shares[2]
