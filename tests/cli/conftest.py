"""What the tests of several commands share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nnmeter_nas.cli import main


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str], str], None]:
    """A function that checks that the command refuses arguments as wrong usage, with a message."""

    def check(arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit) as exit_info:
            main(arguments)
        assert exit_info.value.code == 2
        assert message in capsys.readouterr().err

    return check
