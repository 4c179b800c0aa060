"""nn-Meter's own tests pass on this package, where a checkout of nn-Meter is there to take them from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from layout import HELPERS

CHECKOUT = os.environ.get("NNMETER_CHECKOUT")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not CHECKOUT, reason="NNMETER_CHECKOUT names no checkout of nn-Meter")
def test_nn_meters_own_tests_pass(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", HELPERS / "nn_meter_own_tests.py", str(CHECKOUT)]
    environment = {**os.environ, "NNMETER_NAS_HOME": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed  nn-meter predict --nn-meter-ir" in result.stdout
    assert result.stdout.splitlines()[-1] == "all passed"


def test_script_refuses_what_is_no_checkout(tmp_path: Path) -> None:
    command = [sys.executable, HELPERS / "nn_meter_own_tests.py", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "usage" in result.stderr
