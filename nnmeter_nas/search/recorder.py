"""Write down what happens in a search before anything follows from it, and keep its report up to date."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..nni.events import Ended, Event
from .experiment import Search
from .report.files import write_report
from .run_folder import RunFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorder:
    """Listens to the strategy of a search.

    Attributes:
        search, folder: the search and its folder.
        changed: called when a trial was submitted or has ended.
    """

    search: Search
    folder: RunFolder
    changed: Callable[[RunFolder], None]

    def begin(self) -> bool:
        """Take up what happened while no process ran the search; return whether trials are left to run.

        Call it once nothing of an earlier process runs any more.

        Raises:
            SearchError: the space, a predictor pack, NNI or the code has changed since the search began.
        """
        self.folder.recover()
        self.search.resumed(self.folder)
        self.changed(self.folder)
        return self.folder.is_unfinished

    def listen(self, complete: Callable[[Ended], Ended] = lambda end: end) -> None:
        """Record all events of the strategy from now on; ``complete`` tells in full why a trial failed."""

        def happened(event: Event) -> None:
            self._record(complete(event) if isinstance(event, Ended) else event)

        self.search.strategy.asks_no_more = self.folder.is_spent
        self.search.strategy.listen(happened)

    def _record(self, event: Event) -> None:
        self.folder.record(event)
        if isinstance(event, Ended):
            self.search.strategy.asks_no_more = self.folder.is_spent
            try:
                write_report(self.search.report(self.folder), self.folder.path)
            except Exception:  # the journal has everything, and the end writes the report again
                logger.exception("the report could not be written")
        self.changed(self.folder)
