"""Train every architecture of a small space once on the digits, as an NNI trial, and store the accuracies.

Ten searches with each of several strategies would train the same few architectures again and again. Instead
each is trained once, and searches look up its accuracy. Needs NNI 3.0 and torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.space import SimplifiedModelSpace

from nnmeter_nas.errors import SearchError
from nnmeter_nas.estimators.digits import train_on_digits
from nnmeter_nas.journal import Journal

from .digits_space import TRAINING, digits_space


def trained_accuracies(
    file: Path,
    space: Any | None = None,
    training: Mapping[str, Any] = TRAINING,
    progress: Callable[[int, int], None] | None = None,
) -> dict[tuple[str, ...], float]:
    """Return the held-out accuracy of every architecture of a space, by the names of its blocks.

    Args:
        file: stores each accuracy on a line, right after its training. Architectures in the file are not
            trained again.
        space, training: the space, and arguments of :func:`train_on_digits`.
        progress: called at the start and after each training with the number done and the total.

    Raises:
        SearchError: ``file`` holds accuracies of another space or training, or a training fails.
    """
    space = digits_space() if space is None else space
    evaluator = FunctionalEvaluator(train_on_digits, input_shape=space.input_shape, **training)
    trials = SimplifiedModelSpace.from_model(space, evaluator)
    labels = {label: tuple(map(str, choice.values)) for label, choice in space.simplify().items()}
    settings = {"candidates": {k: list(v) for k, v in labels.items()}, "shape": list(space.input_shape),
                "training": dict(training)}  # fmt: skip
    architectures = list(itertools.product(*labels.values()))
    progress = progress or (lambda done, of: None)
    engine = SequentialExecutionEngine()
    file.parent.mkdir(parents=True, exist_ok=True)
    with Journal(file) as journal:
        if not journal.records:
            journal.append(settings)
        if journal.records[0] != settings:
            raise SearchError(
                f"{file} holds accuracies of another space or training; delete it or use another folder"
            )
        known = {tuple(record["blocks"]): record["accuracy"] for record in journal.records[1:]}
        progress(len(known), len(architectures))
        for blocks in itertools.filterfalse(known.__contains__, architectures):
            trial = trials.freeze(dict(zip(labels, blocks, strict=True)))
            # NNI 3.0 builds a trial's network before the trial's function can set the seed.
            torch.manual_seed(training["seed"])
            engine.submit_models(trial)
            if trial.metric is None:
                raise SearchError(f"training {', '.join(blocks)} reported no accuracy")
            known[blocks] = float(trial.metric)
            journal.append({"blocks": list(blocks), "accuracy": known[blocks]})
            progress(len(known), len(architectures))
    return known
