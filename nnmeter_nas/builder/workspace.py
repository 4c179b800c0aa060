"""The workspace of a build: everything that was measured, so that a build can go on after a crash.

=================== ==============================================================================
``device.yaml``     the device's name, its backend and the version of its runtime
``models.jsonl``    the networks that were chosen, one a line: id, seed, whether it only judges, and which
                    of its operators are measured, if not all
``measured.jsonl``  the visits, one a line: the latency, the bursts of runs with the speed that the machine
                    had, and what each kernel took; or what went wrong
``rounds.jsonl``    what was known after each round, one a line
``rules.yaml``      the fusion rules that were found, and how often each pair was fused; written last
``pack/``           a copy of the predictor pack
``report.html``     what the build found, to look at
=================== ==============================================================================
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import yaml

from ..backends.base import KernelTime
from ..errors import WorkspaceError
from ..files import is_disk_full, lock_folder, write_bytes
from ..journal import Journal
from .networks import NETWORKS, random_network
from .pieces import piece
from .visits import Undisturbed, Visit, burst_of, to_record

DEVICE, MODELS, MEASURED, ROUNDS, RULES, PACK, REPORT, VERIFIED, _LOCK = (
    "device.yaml", "models.jsonl", "measured.jsonl", "rounds.jsonl", "rules.yaml", "pack", "report.html",
    "verified.csv", "build.lock",
)  # fmt: skip
#: Entry of ``device.yaml`` of a finished build: see :attr:`Workspace.undisturbed`.
UNDISTURBED = "undisturbed"
#: Entries of ``device.yaml`` that must stay as they are, as they decide what is measured.
_FIXED = ("name", "backend", "runtime", "machine")
#: Entry of what else latencies of an attached device depend on, which must stay too.
SETTINGS = "settings"
#: Entry that says which networks the seeds stand for.
_NETWORKS = "networks"


@dataclass
class Measured:
    """What is known of one network, or of a piece of one.

    Attributes:
        seed: decides the network.
        held_out: whether it is never trained on, and only judges.
        operators: those that are measured, alone; none for the whole network.
        visits: measurements, in order.
        faults: what went wrong, in order.
    """

    seed: int
    held_out: bool
    operators: tuple[str, ...] = ()
    visits: list[Visit] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def graph(self) -> nx.DiGraph:
        """Its finished model graph; it must not be changed."""
        return piece(self.seed, self.operators) if self.operators else random_network(self.seed)


class Round(NamedTuple):
    """What is known after a round. Shares are in %, of networks that were not trained on.

    Attributes:
        networks, left_out: networks measured, and those that the device could not run.
        minutes: time spent on measuring.
        within_5, within_10: share predicted within ±5 and ±10 %.
        repeats_5, repeats_10: share of them for which two halves of the visits agree within ±5 and ±10 %.
    """

    networks: int
    left_out: int
    minutes: float
    within_5: float
    within_10: float
    repeats_5: float
    repeats_10: float


class Workspace:
    """An open workspace, locked for this process.

    Attributes:
        folder: where it is.
        device: content of ``device.yaml``.
        networks: what is known of each network, by its id.
        rounds: what was known after each round.
        seconds: how long all visits took.
    """

    def __init__(
        self, folder: Path, device: Mapping[str, Any], models: Journal, measured: Journal, rounds: Journal
    ) -> None:
        self.folder, self.device = folder, dict(device)
        self._models, self._measured, self._rounds = models, measured, rounds
        self.rounds = [Round(**record) for record in rounds.records]
        self.networks: dict[str, Measured] = {}
        self.seconds = 0.0
        for record in models.records:
            operators = tuple(record.get("operators", ()))
            network = Measured(int(record["seed"]), bool(record["held_out"]), operators)
            self.networks[str(record["id"])] = network
        for record in measured.records:
            self._note(record)

    @property
    def tells_kernels(self) -> bool:
        """Whether the device has told what kernels of the networks took, or nothing at all yet."""
        return next(self.visits, None) is None or any(
            name in network.graph
            for network in self.networks.values()
            for visit in network.visits
            for kernel in visit.kernels or ()
            for name in kernel.operators
        )

    @property
    def unknown_operator(self) -> str | None:
        """What the device says that a kernel runs, if it has told of kernels; whether or not it is known."""
        kernels = (kernel for visit in self.visits for kernel in visit.kernels or ())
        return next((name for kernel in kernels for name in kernel.operators), None)

    @property
    def visits(self) -> Iterator[Visit]:
        """All visits."""
        return (visit for network in self.networks.values() for visit in network.visits)

    @cached_property
    def undisturbed(self) -> Undisturbed | None:
        """This machine undisturbed, as all visits so far tell; None where latencies are another's.

        A machine may be slow for minutes, so it is found from all visits.
        """
        return Undisturbed.of(network.visits for network in self.networks.values())

    def add(self, name: str, seed: int, held_out: bool, operators: Sequence[str] = ()) -> None:
        """Add a network to be measured, or some ``operators`` of it alone."""
        record: dict[str, Any] = {"id": name, "seed": seed, "held_out": held_out}
        self._models.append({**record, "operators": list(operators)} if operators else record)
        self.networks[name] = Measured(seed, held_out, tuple(operators))

    def record(self, name: str, visit: Visit, seconds: float) -> None:
        """Record a visit of a network, which took ``seconds`` in all."""
        kernels = None
        if visit.kernels is not None:
            kernels = [[list(kernel.operators), kernel.kind, kernel.ms] for kernel in visit.kernels]
        bursts = {"bursts": list(map(to_record, visit.bursts))} if visit.bursts else {}
        self._append({"id": name, "ms": visit.ms, **bursts, "s": round(seconds, 4), "kernels": kernels})

    def record_fault(self, name: str, reason: str, seconds: float) -> None:
        """Record that a network could not be measured, and why."""
        self._append({"id": name, "fault": reason, "s": round(seconds, 4)})

    def end_round(self, found: Round) -> None:
        """Record what is known after a round."""
        self._rounds.append(found._asdict())
        self.rounds.append(found)

    def _append(self, record: dict[str, Any]) -> None:
        self._measured.append(record)
        self._note(record)

    def _note(self, record: Mapping[str, Any]) -> None:
        network = self.networks[str(record["id"])]
        vars(self).pop("undisturbed", None)  # another visit may tell otherwise
        self.seconds += float(record["s"])
        if "fault" in record:
            network.faults.append(str(record["fault"]))
            return
        kernels = record["kernels"]
        if kernels is not None:
            kernels = tuple(KernelTime(tuple(ops), kind, ms) for ops, kind, ms in kernels)
        bursts = tuple(map(burst_of, record.get("bursts", ())))
        network.visits.append(Visit(float(record["ms"]), kernels, bursts))

    def keep(self, key: str, value: Any) -> None:
        """Add an entry to ``device.yaml``."""
        self.device[key] = value
        _write_yaml(self.folder / DEVICE, self.device)

    def write_yaml(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a file of the workspace."""
        _write_yaml(self.folder / name, content)


@contextlib.contextmanager
def open_workspace(folder: Path, device: Mapping[str, Any]) -> Iterator[Workspace]:
    """Open the workspace in ``folder`` for ``device``, a new one if the folder is empty.

    Raises:
        WorkspaceError: it belongs to another device, backend, runtime or machine, or the disk is full.
        SearchError: another process uses it, or it is a file.
    """
    device = {**device, _NETWORKS: NETWORKS}
    lock = lock_folder(folder, _LOCK, "build")
    try:
        path = folder / DEVICE
        if path.exists():
            device = {**_check(folder, device), **device}  # the plan may be another
            _write_yaml(path, device)
        elif any(one.name != _LOCK for one in folder.iterdir()):
            raise WorkspaceError(f"{folder} is not empty and holds no build; name another folder")
        else:
            _write_yaml(path, device)
        with (
            Journal(folder / MODELS) as models,
            Journal(folder / MEASURED) as measured,
            Journal(folder / ROUNDS) as rounds,
        ):
            yield Workspace(folder, device, models, measured, rounds)
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise WorkspaceError(
            f"a disk is full ({error}); make room and give the same command again: all measurements in "
            f"{folder} are kept"
        ) from error
    finally:
        lock.release()


def read_device(folder: Path) -> dict[str, Any]:
    """Read ``device.yaml`` of a workspace.

    Raises:
        WorkspaceError: it is damaged.
    """
    path = folder / DEVICE
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        missing = [key for key in _FIXED if key not in found]
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise WorkspaceError(
            f"{path} is damaged ({error}); restore it, or build in another folder"
        ) from error
    if missing:
        raise WorkspaceError(f"{path} lacks {missing[0]}; restore it, or build in another folder")
    return dict(found)


def _check(folder: Path, device: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``device.yaml`` if the workspace is of ``device``."""
    before = read_device(folder)
    if before.get(_NETWORKS) != NETWORKS:
        raise WorkspaceError(
            f"{folder} holds networks as another version of this package draws and measures them; "
            "build in another folder"
        )
    were, are = _fixed(before), _fixed(device)
    differing = next((key for key in {**were, **are} if were.get(key) != are.get(key)), None)
    if differing is not None:
        raise WorkspaceError(
            f"{folder} holds measurements of another {differing}: {were.get(differing)!r}, not "
            f"{are.get(differing)!r}; the two do not mix, so build in another folder"
        )
    return before


def _fixed(device: Mapping[str, Any]) -> dict[str, Any]:
    """What must stay as it is."""
    return {key: device[key] for key in _FIXED} | dict(device.get(SETTINGS) or {})


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=110)
    write_bytes(path, text.encode())
