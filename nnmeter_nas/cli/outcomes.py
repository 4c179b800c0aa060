"""Predict models one after another here, or in chunks on workers, with a journal to go on from.

A model's outcome depends on nothing but the model, the predictors and the flags, wherever it is predicted.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import MissingPackageError, SettingsError, WorkerError
from ..files import lock_folder
from ..journal import Journal, iter_journal
from ..parallel.bulk import TravellingPredictor, spread
from ..predictor import LatencyPredictor
from ..progress import progress
from .models import Model, Models, Source
from .runs import Run, findings, identity, memory_and_size
from .workers import spreads, using_workers

#: Errors that say nothing of the model: after them, the next run tries it again.
_PASSING = (MissingPackageError, OSError, MemoryError)


class Outcome(NamedTuple):
    """What became of one model.

    Attributes:
        records: a record for each predictor, in their order; ``error`` is None if there is a latency.
        messages: remarks, warnings and errors for people.
        passing: whether an error may be gone next time.
    """

    records: list[dict[str, Any]]
    messages: list[str]
    passing: bool


class Done(NamedTuple):
    """A source, its stamp before it was read, and the outcomes of its models."""

    source: Source
    stamp: list[int] | None
    outcomes: list[Outcome]


@dataclass(frozen=True)
class Order:
    """Models for a worker to predict; with ``sized``, records have columns of memory and size."""

    models: Models
    predictors: tuple[TravellingPredictor, ...]
    strict: bool
    verbose: bool
    sized: bool

    def __str__(self) -> str:
        return str(self.models)

    def of(self, models: Models) -> Order:
        """The same for other models."""
        return replace(self, models=models)


def outcomes(
    models: Models, predictors: Sequence[LatencyPredictor], options: argparse.Namespace
) -> Iterator[Outcome]:
    """Yield the outcome of each model in order.

    With ``options.journal``, those that it knows come first. A terminal shows how far the work has come.
    Memory and size take as long as the latency, so records have them only in files and for a journal, from
    which a file may be written later.

    Raises:
        SettingsError: the journal was begun with other predictors or flags.
        SearchError: the journal is damaged, or another process works with it.
        WorkerError: workers cannot be had, or lack a predictor.
    """
    total, sized = len(models), bool(options.format or options.journal)
    if options.journal is None and not spreads(options):
        with progress(total) as advance:
            for model in models:
                yield _outcome(model, models, predictors, options.strict, options.verbose, sized)
                advance(1)
        return
    travelling = tuple(map(TravellingPredictor.of, predictors))
    order = Order(models.in_ranges(), travelling, options.strict, options.verbose, sized)
    with using_workers(options):
        known = options.journal and _journalled(order, total, options.journal)
        for chunk in known or _spread(order, total):
            for done in chunk:
                yield from done.outcomes


def _outcome(
    model: Model,
    models: Models,
    predictors: Sequence[LatencyPredictor],
    strict: bool,
    verbose: bool,
    sized: bool,
) -> Outcome:
    """Predict one of ``models`` on all devices; with ``sized`` also its memory and size."""
    messages: list[str] = []
    run = Run(models, list(predictors), verbose, warns=True, strict=strict, tell=messages.append)
    results = run.results(model)
    records = [
        {**identity(model, predictor), **(memory_and_size(result) if sized else {}), **findings(result)}
        for predictor, result in zip(predictors, results, strict=True)
    ]
    return Outcome(records, messages, any(isinstance(result, _PASSING) for result in results))


def _predict_chunk(order: Order) -> list[Done]:
    """Predict the models of all sources of an order."""
    return [_predict_source(source, order) for source in order.models.sources]


def _predict_source(source: Source, order: Order) -> Done:
    predictors = list(map(_loaded, order.predictors))
    remarks: list[str] = []
    models = replace(order.models, tell=remarks.append)
    stamp, found = models.stamp(source), []
    for model in models.models_of(source):
        one = _outcome(model, models, predictors, order.strict, order.verbose, order.sized)
        found.append(_as_named(one._replace(messages=remarks + one.messages), models.path(source), source))
        remarks.clear()
    return Done(source, stamp, found)


def _as_named(found: Outcome, path: Path, source: Source) -> Outcome:
    """Name the file as the user did, if a worker in another folder read it by another path."""
    if str(path) == source.name:
        return found
    messages = [text.replace(str(path), source.name) for text in found.messages]
    records = [
        {**record, "error": record["error"] and record["error"].replace(str(path), source.name)}
        for record in found.records
    ]
    return found._replace(records=records, messages=messages)


@lru_cache(maxsize=64)
def _loaded(predictor: TravellingPredictor) -> LatencyPredictor:
    return predictor.load()


def _spread(order: Order, total: int, known: int = 0) -> Iterator[list[Done]]:
    """Predict all sources on the workers in use; ``known`` of ``total`` models were done before."""
    with progress(total, done=known) as advance:
        for chunk in spread(_predict_chunk, list(map(order.of, order.models.chunks())), lost=_one_by_one):
            yield chunk
            advance(sum(len(done.outcomes) for done in chunk))


def _one_by_one(order: Order, error: WorkerError) -> list[Done]:
    """Predict the sources of a chunk that kills its worker each alone, to find the ones to blame."""
    if len(order.models.sources) > 1:
        alone = list(map(order.of, order.models.chunks(most=1)))
        return [done for chunk in spread(_predict_chunk, alone, lost=_one_by_one) for done in chunk]
    [source] = order.models.sources
    lines = "" if source.end is None else f" at the lines from byte {source.start} to {source.end}"
    why = f"its worker dies{lines}, again and again; mostly memory is short: take fewer jobs"
    died = WorkerError(why)
    records = [
        {"model": source.name, "predictor": predictor.device, "version": predictor.version,
         **memory_and_size(died), **findings(died)}
        for predictor in order.predictors
    ]  # fmt: skip
    return [Done(source, None, [Outcome(records, [f"error: {source.name}: {why}"], passing=True)])]


def _journalled(order: Order, total: int, path: Path) -> Iterator[list[Done]]:
    """Yield what the journal at ``path`` knows of the sources, then predict the others and add them to it."""
    place, known = path.absolute(), 0
    with ExitStack() as held:
        held.callback(lock_folder(place.parent, f".{place.name}.lock", f"journal {place.name}").release)
        journal = held.enter_context(Journal(path, keep=False))
        records = iter_journal(path)
        _begin(journal, next(records, None), _title(order))
        sources = order.models.sources
        left = dict.fromkeys(one for one in sources if order.models.path(one).absolute() != place)
        for done in map(_from_record, records):
            if done.source in left and done.stamp == order.models.stamp(done.source):
                del left[done.source]
                known += len(done.outcomes)
                yield [done]
        rest = order.of(replace(order.models, sources=list(left)))
        for chunk in _spread(rest, total, known):
            journal.append(*(_to_record(done) for done in chunk if not _is_passing(done)))
            yield chunk


def _is_passing(done: Done) -> bool:
    return any(outcome.passing for outcome in done.outcomes)


def _title(order: Order) -> dict[str, Any]:
    """What outcomes depend on besides the models: the first record of a journal."""
    return {
        "predictors": [[p.device, p.version, p.fingerprint] for p in order.predictors],
        "input_shape": order.models.input_shape,
        "allow_quantized": order.models.allow_quantized,
        "like_nn_meter": order.models.like_nn_meter,
        "strict": order.strict,
    }


def _begin(journal: Journal, first: dict[str, Any] | None, title: dict[str, Any]) -> None:
    """Begin a new journal by ``title``, or check that one was begun so.

    Raises:
        SettingsError: it was not.
    """
    if first is None:
        journal.append(title)
    elif first != title:
        began = [_how(name, first.get(name)) for name in title if first.get(name) != title[name]]
        raise SettingsError(
            f"journal={journal.path} was begun {', '.join(began)}; name another file, or repeat the command "
            f"that began it"
        )


def _how(name: str, began: Any) -> str:
    """Say how a journal was begun, for a name of its title whose value is another now.

    >>> _how("strict", True), _how("strict", False), _how("predictors", [])
    ('with --strict', 'without --strict', 'with other predictors')
    """
    if name == "predictors":
        return "with other predictors"
    if name == "like_nn_meter":
        return f"by {'lat_pred' if began else 'predict'}"
    flag = f"--{name.replace('_', '-')}"
    if not began:
        return f"without {flag}"
    return f"with {flag}" if began is True else f"with another {flag}"


def _to_record(done: Done) -> dict[str, Any]:
    found = [[outcome.records, outcome.messages] for outcome in done.outcomes]
    return {"source": list(done.source), "stamp": done.stamp, "outcomes": found}


def _from_record(record: dict[str, Any]) -> Done:
    """Inverse of :func:`_to_record`."""
    found = [Outcome(records, messages, passing=False) for records, messages in record["outcomes"]]
    return Done(Source(*record["source"]), record["stamp"], found)
