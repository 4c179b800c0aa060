"""Run a search on either line of NNI, from its folder to its report; a killed search loses nothing.

The search writes every submission and every end of a trial to the run folder (:mod:`.run_folder`) before it
acts on it, so another process can resume from there. Where its trials run changes nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from .experiment import Search
from .on_nni import run_on_nni
from .on_ray import run_on_ray
from .recorder import Recorder
from .report.files import write_report
from .report.outcome import SearchReport
from .run_folder import RunFolder

logger = logging.getLogger(__name__)


def run_search(
    search: Search,
    folder: RunFolder,
    port: int | None = None,
    started: Callable[[int], None] = lambda port: None,
    changed: Callable[[RunFolder], None] = lambda folder: None,
    told: Callable[[str], None] = logger.warning,
) -> SearchReport:
    """Run a search, or the rest of one, and keep its report up to date.

    Args:
        search, folder: the search, and its folder; trials in it are not run again.
        port: port for NNI's web page and REST interface on 127.0.0.1; if it is in use, another one is taken.
        started: called with the manager's port once NNI's manager runs.
        changed: called when a trial was submitted or has ended.
        told: called with what the user should know of the machines that trials run on.

    Returns:
        The report, which is also written to the folder.

    Raises:
        SearchError: NNI fails, no machine can run a trial, or no trial finished its training.
        WorkerError: no cluster answers at the address in the settings.
    """
    recorder = Recorder(search, folder, changed)
    if search.settings.training_service == "ray":
        run_on_ray(recorder, told)
    else:
        run_on_nni(recorder, port, started, told)
    report = search.report(folder, _early(folder), is_final=True)
    write_report(report, folder.path)
    return report


def _early(folder: RunFolder) -> str:
    """Say why a search ended before it had all the trials that it was asked for; empty if it did not."""
    settings = folder.settings
    if settings.trials is not None and folder.ended >= settings.trials:
        return ""
    if not folder.is_spent:
        return "the strategy had no further architectures"
    if settings.trials is None:
        return ""  # a budget alone is how it was to end
    return f"the trials took the {settings.budget_minutes:g} minutes of the budget"
