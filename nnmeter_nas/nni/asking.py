"""The part of a strategy that is independent of NNI: asking, telling, and replaying recorded events."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import SearchError
from ..supernet.named import load_space
from ..supernet.nni_space import space_of
from ..supernet.space import Space
from .events import Ended, Event, Expected, Submitted, unended
from .patches import patch_when_experiment_starts
from .running import Trials

logger = logging.getLogger(__name__)

#: Seconds between two checks of the running trials.
POLL_S = 0.2

#: Candidate indices of an architecture, in the order of the labels.
Row = Any  # any array or sequence of integers
#: Called with each event before it becomes part of the state.
Listener = Callable[[Event], None]
S = TypeVar("S", bound="AskingStrategy")


class AskingStrategy:
    """A strategy that is asked for architectures and told their metrics.

    Derive from ``NniStrategy`` of :mod:`nnmeter_nas.nni`, which joins this class and NNI's own base class.
    Define :meth:`make_problem`, :meth:`begin`, :meth:`ask`, :meth:`tell` and :attr:`exhausted`. The result of
    :meth:`ask` may depend only on the arguments and on the earlier asks and tells, in their order. An ask
    that returns None must change nothing.

    While a strategy exists, each experiment that starts is patched so that it runs to its end; see
    :mod:`.patches`. Pickling or copying a strategy keeps only its arguments.

    Args:
        space: the space to search: a ``Space``, a module of NNI, or a name that ``load_space`` knows. None
            means the experiment's own space; graph engines keep only its operators.
        input_shape: NCHW, for a space without its own.

    Attributes:
        space, input_shape: as given.
        seed: seed for everything random. It is pickled with the arguments because it may have been drawn.
        problem: the problem from :meth:`make_problem`; None before the search has a space.
        events: everything that happened, in order; see :mod:`nnmeter_nas.nni.events`.
        asks_no_more: whether the search proposes no further trials and ends with those that it has proposed.
            Whoever runs the search may set it at any time.
        trials_folder: folder in which each trial writes its outcome, as ``<number>.json``, before it reports
            to NNI. None means that trials write no files.
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls: type[S], *arguments: Any, **options: Any) -> S:
        """Keep the arguments for pickling."""
        self = super().__new__(cls)
        self._arguments = arguments, options
        return self

    def __init__(self, *, space: Any = None, input_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.space = space
        self.input_shape = input_shape
        self.seed: int | None = None
        self.problem: Any = None
        self.events: list[Event] = []
        self.asks_no_more = False
        self.trials_folder: Path | None = None
        self._listeners: list[Listener] = []
        self._to_replay: list[Event] = []
        self._waits = False
        self._is_whole = False
        patch_when_experiment_starts(self)

    def __reduce__(self) -> tuple[Any, ...]:
        arguments, options = self._arguments
        return functools.partial(type(self), *arguments, **options), (), {"seed": self.seed}

    def make_problem(self, space: Space) -> Any:
        """Make the problem to solve in ``space``; see :class:`nnmeter_nas.solve.problem.Problem`.

        A search uses its ``measures``, ``row``, ``architecture`` and ``values``.
        """
        raise NotImplementedError

    def begin(self, problem: Any) -> None:
        """Start on ``problem`` from the beginning.

        Raises:
            SearchError: no architecture is inside the limits.
        """
        raise NotImplementedError

    def ask(self) -> Row | None:
        """Return the next architecture to try; None if there is none until more trials end, or ever."""
        raise NotImplementedError

    def tell(self, row: Row, metric: float | None) -> None:
        """Record that the trial of ``row`` ended with ``metric``, or failed (None)."""
        raise NotImplementedError

    @property
    def exhausted(self) -> bool:
        """Whether :meth:`ask` has no more architectures, even after more tells."""
        return False

    def expected(self, row: Row) -> Expected | None:
        """Return the metric expected of ``row`` when it was asked for; None if the strategy expected none."""
        return None

    def outcome_file(self, number: int) -> Path | None:
        """Return the file for the outcome of trial ``number``."""
        return None if self.trials_folder is None else self.trials_folder / f"{number:04d}.json"

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with each new event before the strategy acts on it."""
        self._listeners.append(listener)

    def prepare(self, space: Space) -> None:
        """Begin on ``space``, and replay the events given to :meth:`replay`. Experiments call this if needed.

        Raises:
            SearchError: :meth:`replay` raised it, or nothing in the space is inside the limits.
        """
        problem = self.make_problem(space)
        self.begin(problem)
        self.problem = problem
        self.replay(self._to_replay)

    def replay(self, events: Iterable[Event]) -> None:
        """Bring a new strategy to the state after ``events``, without calling listeners.

        If the search has no space yet, it keeps the events until it has one. It submits trials without an end
        again.

        Raises:
            SearchError: the strategy asks for different architectures than before, because its arguments, the
                space, the predictors or the code have changed.
        """
        if self.problem is None:
            self._to_replay = list(events)
            return
        self._is_whole = False
        for event in events:
            if isinstance(event, Submitted):
                self._ask_again(event)
            self.events.append(event)
            if isinstance(event, Ended):
                self._tell(event)
        self._is_whole = True

    def search(self, trials: Trials) -> None:
        """Ask, start, wait and tell until no more trials start, or nothing is left to try or to be asked.

        Trials that were submitted but have not ended come first.

        Raises:
            SearchError: the strategy waits although no trial is running.
        """
        again = trials.take_up(unended(self.events))
        while True:
            for end in trials.ended():
                self._record(end)
            wanted = again or not (self._waits or self.asks_no_more)
            if wanted and trials.has_room() and (trial := again.pop(0) if again else self._ask()):
                trials.start(trial)
                continue
            if trials.are_over() or (self.asks_no_more and not (again or trials.are_running())):
                return
            if self._waits and not trials.are_running():
                if self.exhausted:
                    logger.info("%s has no further candidates", type(self).__name__)
                    return
                raise SearchError(f"{type(self).__name__} waits for a trial to end, but none runs")
            time.sleep(POLL_S)

    def _ask(self) -> Submitted | None:
        """Return the next trial, or None if the strategy waits."""
        row = None if self._waits else self.ask()
        if row is None:
            self._waits = True
            return None
        architecture, values = self.problem.architecture(row), self._values(row)
        trial = Submitted(self._submitted + 1, architecture, values, self.expected(row))
        self._record(trial)
        return trial

    def retake(self, row: Row) -> Row | None:
        """Take an architecture that was asked for before; return the one asked for now, which must be equal.

        A strategy for which asking takes long may take ``row`` as it is, if it could still ask for it.
        """
        return self.ask()

    def _ask_again(self, then: Submitted) -> None:
        """Ask again for a trial that was submitted before."""
        row = self.retake(self.problem.row(then.architecture))
        now = None if row is None else dict(self.problem.architecture(row))
        if now != dict(then.architecture):
            raise SearchError(
                f"trial {then.number} cannot be replayed: {type(self).__name__} asked for "
                f"{dict(then.architecture)} then and asks for {now} now; resume with the same arguments, "
                f"space and predictors"
            )

    def _record(self, event: Event) -> None:
        """Call the listeners with ``event``, then add it to the state."""
        for listener in self._listeners:
            listener(event)
        self.events.append(event)
        if isinstance(event, Ended):
            self._tell(event)

    def _tell(self, end: Ended) -> None:
        trial = next(e for e in self.events if isinstance(e, Submitted) and e.number == end.number)
        self.tell(self.problem.row(trial.architecture), end.metric)
        self._waits = False

    @property
    def _submitted(self) -> int:
        return sum(isinstance(event, Submitted) for event in self.events)

    def _values(self, row: Row) -> dict[str, float]:
        """Return the measures of ``row`` by name."""
        return dict(zip(self.problem.measures, map(float, self.problem.values([row])[0]), strict=True))


def space_given(space: Any, input_shape: Sequence[int] | None) -> Space | None:
    """Load the ``space`` given to a strategy; None if none was given."""
    if space is None or isinstance(space, Space):
        return space
    return load_space(space, input_shape) if isinstance(space, str) else space_of(space, input_shape)
