"""A trial on another machine: a network made and evaluated there from plain values, and its outcome."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

from ..nni.trial import Outcome
from ..supernet.named import make_space
from .evaluators import make_evaluator


def run_task(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run a trial in this process.

    Args:
        task: the ``space``, ``architecture``, ``evaluator``, ``arguments`` and ``input_shape`` of the trial,
            as in the settings of its search.

    Returns:
        The fields of its :class:`Outcome`, and under ``trace`` where it failed, for people to read.
    """
    from ..nni import try_architecture  # late: it loads NNI

    kept: list[Outcome] = []
    trace = ""
    warnings.filterwarnings("ignore", module=r"nni\b")  # NNI warns about parts of torch newer than it
    try:
        evaluator = make_evaluator(task["evaluator"], task["arguments"], task["input_shape"])
        space = partial(make_space, task["space"])
        try_architecture(space, task["architecture"], evaluator, kept.append)
    except (Exception, SystemExit) as error:  # an evaluator can raise anything, and a trial ends then
        trace = traceback.format_exc()
        kept = kept or [Outcome(None, 0.0, f"{type(error).__name__}: {error}")]
    return {**asdict(kept[0]), "trace": trace}
