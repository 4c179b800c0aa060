"""Compute the accuracy of predicted latencies against measured ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt


def accuracy(
    predicted: Sequence[float] | npt.NDArray[np.float64], measured: Sequence[float] | npt.NDArray[np.float64]
) -> dict[str, float]:
    """Compute MAPE, RMSPE, share within ±5 % and ±10 % (all in %), RMSE (ms), Spearman's rank correlation.

    >>> accuracy([9.0, 20.0], [10.0, 20.0])["within_10"]
    100.0
    """
    from scipy.stats import spearmanr  # late: reading a dataset does not need it

    p, m = np.asarray(predicted, float), np.asarray(measured, float)
    relative = np.abs(p / m - 1)
    return {
        "models": len(m),
        "within_5": 100 * float(np.mean(relative <= 0.05 + 1e-12)),
        "within_10": 100 * float(np.mean(relative <= 0.10 + 1e-12)),
        "mape": 100 * float(relative.mean()),
        "rmspe": 100 * float(np.sqrt(np.mean(relative**2))),
        "rmse_ms": float(np.sqrt(np.mean((p - m) ** 2))),
        "spearman": float(spearmanr(p, m).statistic) if len(m) > 1 else float("nan"),
    }


def accuracy_by(
    groups: Sequence[str], predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]
) -> Mapping[str, dict[str, float]]:
    """Compute :func:`accuracy` of each group, and of all models under ``"all"``."""
    labels = np.asarray(groups)
    found = {str(g): accuracy(predicted[labels == g], measured[labels == g]) for g in np.unique(labels)}
    return {"all": accuracy(predicted, measured), **found}
