"""Compare the results of bulk work."""

from __future__ import annotations

import numpy as np

from nnmeter_nas.benchmarks.packs.evaluation import Comparison


def assert_same(found: dict[str, Comparison], expected: dict[str, Comparison]) -> None:
    """Assert that two results are equal bit by bit."""
    assert found.keys() == expected.keys()
    for device, comparison in found.items():
        assert comparison.families == expected[device].families
        np.testing.assert_array_equal(comparison.measured, expected[device].measured)
        np.testing.assert_array_equal(comparison.predicted, expected[device].predicted)
