"""Measure networks on a device: in shuffled order, over and over, and again where visits disagree."""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..backends.base import Backend, is_on_host, write
from ..errors import MeasurementError, ReaderError, ToolError
from .attached import patiently, say_what_moved
from .observations import MOST_FAULTS, observe
from .visits import Visit, latency_of
from .worker import Worker
from .workspace import Workspace

#: The files of networks are in a folder of the workspace that begins so, as long as they are measured.
_FILES = ".files-"
#: Halves of the visits of a network that differ by more ask for more visits; of one that judges.
_DISAGREE, _JUDGES_DISAGREE = 0.15, 0.05
#: Networks that judge get so many times the visits: all else is compared with them.
_OF_JUDGES = 2
#: A visit on this machine is but one short burst, and what disturbs it comes and goes. So many stand for a
#: whole one, or fewer of a model that takes long: this in ms is enough for all of its visits.
_SHORT, _ENOUGH_MS = 6, 2000.0
#: Visits that ask what each kernel takes of the latency: the shares hardly change.
_PROFILED = 2
#: The device is busy if its canary takes so much longer than mostly; how long to wait then, in all, in s.
_BUSY, _PATIENCE_S, _PAUSE_S = 1.3, 20.0, 2.0


def measure(
    workspace: Workspace,
    names: Sequence[str],
    backend: Backend,
    worker: Worker,
    visits: int,
    tell: Callable[[str], None],
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Visit each of the networks ``names`` so often, as far as it was not yet.

    ``tell`` hears what goes on, and ``say`` what has changed on an attached device.

    Networks that judge are visited twice as often. All are visited up to twice as often again while their
    visits disagree: a fit makes up for some noise of those that it is trained on. Each visit is on the disk
    before the next begins.
    """
    for left in workspace.folder.glob(f"{_FILES}*"):  # of a build that was killed
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_FILES, dir=workspace.folder) as files:
        for turn in range(2 * visits_wanted(backend, _OF_JUDGES * visits, ())):
            due = [name for name in names if _is_due(workspace, name, turn, backend, visits)]
            if not due:
                continue
            say_what_moved(backend, say, tell)
            _wait_until_quiet(workspace, backend, worker, Path(files), tell)
            order = np.random.default_rng([workspace.networks[due[0]].seed, turn]).permutation(len(due))
            for done, i in enumerate(order.tolist()):
                at = f"visit {turn + 1}: {done} of {len(due)} networks"
                tell(at)
                _visit(workspace, due[i], backend, worker, Path(files), tell, _telling(tell, at))


def _telling(tell: Callable[[str], None], at: str) -> Callable[[str], None]:
    """A function that tells what goes on at a place."""
    return lambda text: tell(f"{at}; {text}")


def visits_wanted(backend: Backend, whole: int, taken: Sequence[Visit]) -> int:
    """How many visits of a model stand for so many whole ones, by what those so far took."""
    if not is_on_host(backend):
        return whole
    ms = min((visit.ms for visit in taken if math.isfinite(visit.ms)), default=0.0)
    return min(whole * _SHORT, max(whole, math.ceil(_ENOUGH_MS / max(ms, 1.0))))


def visit_in_a_row(backend: Backend, whole: int, visit: Callable[[], Visit]) -> list[Visit]:
    """Visit a model until its visits stand for so many whole ones."""
    taken: list[Visit] = []
    while len(taken) < visits_wanted(backend, whole, taken):
        taken.append(visit())
    return taken


def _is_due(workspace: Workspace, name: str, turn: int, backend: Backend, visits: int) -> bool:
    network = workspace.networks[name]
    if len(network.faults) >= MOST_FAULTS or len(network.visits) + len(network.faults) > turn:
        return False
    whole = visits * _OF_JUDGES if network.held_out else visits
    wanted = visits_wanted(backend, whole, network.visits)
    if turn >= 2 * wanted:
        return False
    if turn < wanted or len(network.visits) < 2:
        return True
    seen = observe(name, network.graph, network.visits, workspace.undisturbed)
    return seen is None or seen.disagreement > (_JUDGES_DISAGREE if network.held_out else _DISAGREE)


def _visit(
    workspace: Workspace,
    name: str,
    backend: Backend,
    worker: Worker,
    folder: Path,
    tell: Callable[[str], None],
    tell_of_writing: Callable[[str], None] | None = None,
) -> Visit | None:
    """Visit a network and record what came of it; return what it took, or None after a fault."""
    profiled = sum(visit.kernels is not None for visit in workspace.networks[name].visits) < _PROFILED
    start = time.perf_counter()
    try:
        path = _written(workspace, name, backend, folder, tell_of_writing or tell)
        start = time.perf_counter()  # what it takes to write, or to tune, is no time of measuring
        visit = patiently(lambda: worker.sound_visit(path, profiled), backend, tell)
    except ToolError:
        raise  # no other network could be measured either
    except (MeasurementError, ReaderError) as error:
        workspace.record_fault(name, str(error), time.perf_counter() - start)
        return None
    workspace.record(name, visit, time.perf_counter() - start)
    return visit


def _written(
    workspace: Workspace, name: str, backend: Backend, folder: Path, tell: Callable[[str], None]
) -> Path:
    """The file of a network, written if it is not there yet."""
    path = folder / f"{name}{backend.suffix}"
    if not path.exists():
        write(backend, workspace.networks[name].graph, path, tell)
    return path


def _wait_until_quiet(
    workspace: Workspace, backend: Backend, worker: Worker, folder: Path, tell: Callable[[str], None]
) -> None:
    """Visit the canary, the first network, and wait as long as it takes longer than mostly."""
    canary = next(iter(workspace.networks))
    undisturbed = workspace.undisturbed
    before = [latency_of(visit, undisturbed) for visit in workspace.networks[canary].visits]
    end = time.monotonic() + _PATIENCE_S
    while before and time.monotonic() < end:
        visit = _visit(workspace, canary, backend, worker, folder, tell)
        usual = float(np.median(before))
        if visit is None or (ms := latency_of(visit, undisturbed)) <= _BUSY * usual:
            return
        tell(f"waiting: the device is busy, its first network takes {ms / usual:.2f} times as long as mostly")
        time.sleep(_PAUSE_S)
