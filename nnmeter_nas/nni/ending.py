"""Experiments of either line that tell when their manager runs, and that always end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class EndingExperiment:
    """The part that both lines share; derive from it and from NNI's experiment.

    Call ``started`` with the port once the manager answers.
    """

    started: Callable[[int], None]
    run: Callable[..., Any]
    stop: Callable[[], None]
    _proc: Any

    def run_to_end(self, started: Callable[[int], None], *arguments: Any) -> None:
        """Call NNI's ``run`` with ``arguments``; return when the strategy does.

        Raises:
            OSError, RuntimeError: the manager did not start, or broke down after ``started`` was called.
        """
        self.started = started
        try:
            self.run(*arguments)
        finally:
            # NNI asks even a dead manager to stop, and complains.
            if self._proc is not None and self._proc.poll() is not None:
                self._proc = None
            self.stop()

    def _wait_completion(self) -> bool:
        """Do nothing: the strategy returns only when all its trials have ended."""
        return True
