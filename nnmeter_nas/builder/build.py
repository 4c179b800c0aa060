"""Build a predictor pack of a device: measure networks in rounds, fit, and stop when it no longer helps."""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import nnmeter_nas

from ..backends import load_backend
from ..errors import MeasurementError, PackError, SettingsError
from ..extras import load_extra
from ..files import write_bytes
from ..kernels.configuration import BoolArray, FloatArray
from ..kernels.fusion import parse_rules
from ..packs.doubt import Prototypes
from ..packs.estimates import fit_rates, rates_to_card
from ..packs.network import KernelNetwork
from ..packs.pack import read_card, save_pack
from ..packs.registry import pack_folders, user_packs
from ..packs.store import check_device_name, locked, user_pack, written_pack
from ..training.accuracy import accuracy
from ..training.intervals import LEVEL, choose_prototypes, fit_intervals
from ..training.table import KernelTable
from .findings import findings
from .fitting import CrossFitted, cross_fitted, fit, is_network, predicted, shares_within
from .lone import choose_pieces
from .measuring import measure
from .networks import random_network
from .observations import MOST_FAULTS, Observation, kernel_table, observe
from .pairs import pair_rules
from .report import report_html
from .rules import Found, find_rules
from .worker import worker
from .workspace import PACK, REPORT, RULES, UNDISTURBED, Round, Workspace, open_workspace, read_device

#: Version of the packs that are built.
VERSION = 1.0
#: Every so many networks of a round judge, and are not trained on.
_JUDGE_ONE_IN = 4
#: How many networks are looked at for each that is chosen because the members disagree about it.
_CANDIDATES = 4
#: Seeds of these networks start here, those of the others at 0.
_CANDIDATE_SEEDS = 1_000_000
#: A build stops when so many rounds gained less than so many points within ±10 %.
_PATIENCE, _GAIN = 3, 1.0
#: Steps of the fits that judge, and of the last one; members of the former.
_QUICK_STEPS, _STEPS, _QUICK_MEMBERS = 1000, 3000, 2
#: Parts of the networks, each of which is judged by a fit without it.
_FOLDS = 4
#: Networks of a round at least: two of them must judge.
LEAST_ROUND = 2 * _JUDGE_ONE_IN
#: Least values of a plan: two visits must be compared.
_LEAST = {"round_size": LEAST_ROUND, "visits": 2, "members": 1, "seed": 0}



@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        minutes: time to spend on measuring.
        networks: networks to measure at most.
        round_size: networks of a round.
        visits: visits of each network; more if they disagree, and of networks that judge.
        limit_s: seconds after which a visit counts as hanging.
        members: members of the ensemble.
        seed: decides the networks.

    Raises:
        SettingsError: a value is out of its range.
    """

    minutes: float = 5.0
    networks: int = 400
    round_size: int = 48
    visits: int = 2
    limit_s: float = 60.0
    members: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not least <= value < math.inf:
                raise SettingsError(f"{name}={value} must be at least {least}")
        for name in ("minutes", "limit_s"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise SettingsError(f"{name}={value} must be a number above 0")
        if self.networks < self.round_size:
            raise SettingsError(
                f"networks={self.networks} is less than one round measures; give at least {self.round_size}"
            )


def build(
    name: str,
    backend_name: str,
    folder: Path,
    plan: Plan,
    show: Callable[[Round], None],
    tell: Callable[[str], None],
) -> Path:
    """Build the pack of a device, and keep it among the user's packs; return its folder.

    If that was done already, it does nothing.

    Args:
        name: name of the device.
        backend_name: as :func:`nnmeter_nas.backends.load_backend` takes it.
        folder: workspace. A build that was interrupted goes on from there, and measures nothing twice.
        plan: how much to measure.
        show: is called after each round, and at the start with the rounds of a build that goes on.
        tell: is called with what goes on within a round.

    Raises:
        WorkspaceError: the workspace belongs to another device, backend, runtime or machine.
        UnknownBackendError, MissingPackageError: no such backend, or its runtime is not installed.
        MeasurementError: too few networks could be measured.
        SettingsError: no device can have this name, or another pack has it.
    """
    for module in ("onnx", "scipy", "torch"):
        load_extra(module, "build", "building a predictor")
    name = _own_name(name)
    target = user_pack(name, VERSION)
    backend = load_backend(backend_name)
    device = {
        "name": name,
        "backend": backend_name,
        "runtime": f"{backend.name} {backend.version}",
        "machine": machine(),
        "plan": asdict(plan),
    }
    if _is_built(folder, device, target):
        return target
    with open_workspace(folder, device) as workspace, worker(backend_name, plan.limit_s) as running:
        if getattr(backend, "on_host", False):
            tell("finding the speed of this machine")
            workspace.keep(UNDISTURBED, running.watch_speed(workspace.device.get(UNDISTURBED)))

        def within_budget(text: str) -> None:
            tell(f"{text}, {workspace.seconds / 60:.2f} of {plan.minutes:g} minutes")

        # The rules are written last: they tell that a build with this plan has come to its end.
        (folder / RULES).unlink(missing_ok=True)
        for found in workspace.rounds:
            show(found)
        network, rules = None, list[str]()
        if workspace.rounds:
            tell("fitting")
            state = _State.of(workspace, name)
            network, rules = state.fit(_QUICK_MEMBERS, _QUICK_STEPS, plan.seed), state.rules
        while not _is_enough(workspace.rounds, plan):
            names = _choose(workspace, plan, len(workspace.rounds), network, rules)
            measure(workspace, names, backend, running, plan.visits, within_budget)
            if not workspace.tells_kernels:
                pieces = choose_pieces(workspace, plan.seed, len(workspace.rounds), plan.round_size)
                measure(workspace, pieces, backend, running, plan.visits, within_budget)
            tell("fitting")
            state = _State.of(workspace, name)
            network, rules = state.fit(_QUICK_MEMBERS, _QUICK_STEPS, plan.seed), state.rules
            workspace.end_round(state.judge(network, workspace))
            state.report(workspace, predicted(network, state.table).mean(axis=0), state.judges)
            show(workspace.rounds[-1])
        tell("fitting the pack")
        crossed = cross_fitted(state.table, state.source, _FOLDS, _QUICK_MEMBERS, _QUICK_STEPS, plan.seed)
        card, network, prototypes = state.pack(workspace, plan, crossed)
        with locked(f"{name}-{VERSION}"), written_pack(target) as partial:
            save_pack(partial, card, network, prototypes)
        shutil.rmtree(folder / PACK, ignore_errors=True)
        shutil.copytree(target, folder / PACK)
        state.report(workspace, crossed.ms)
        workspace.write_yaml(RULES, _rules_entry(state.rules, state.votes))
    return target


def _own_name(name: str) -> str:
    """Return the name of a device of the user's own, in the spelling of a pack that was built of it.

    Raises:
        SettingsError: it is no name, or that of a pack that was not built.
    """
    try:
        name = check_device_name(name, "the new pack")
    except PackError as error:
        raise SettingsError(str(error)) from error
    for (device, version), folder in pack_folders().items():
        own = user_packs() in folder.parents
        if device == name and not (own and version == VERSION and _was_built(read_card(folder))):
            origin = "is there already and was not built" if own else "comes with this package"
            remove = f", or remove that one: nnmeter-nas predictors remove {name}" if own else ""
            raise SettingsError(
                f"a predictor {name} {version} {origin}; give your device another name{remove}"
            )
    return name


def _was_built(card: Mapping[str, Any]) -> bool:
    """Whether a pack with this card comes from a build as it is, and was not calibrated since."""
    return "trained_on" in card and "calibration" not in card


def _is_built(folder: Path, device: Mapping[str, Any], target: Path) -> bool:
    """Whether a build with the same plan has come to its end here."""
    if not (folder / RULES).exists() or not target.exists():
        return False
    before = read_device(folder)
    return all(before.get(key) == value for key, value in device.items())


def machine() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _choose(
    workspace: Workspace, plan: Plan, number: int, network: KernelNetwork | None, rules: Sequence[str]
) -> list[str]:
    """Names of the networks of a round, which are added to the workspace as far as they are not yet there.

    Half of them are drawn, and some of those judge. The members disagree most about the other half.
    """
    first, last = number * plan.round_size, (number + 1) * plan.round_size
    names = [f"network{i:04d}" for i in range(first, last)]
    if names[-1] in workspace.networks:
        return names
    drawn = plan.round_size if network is None else plan.round_size // 2
    seeds = [plan.seed + first + i for i in range(drawn)]
    if network is not None:
        seeds += _disputed(plan, number, network, rules)
    for i, (name, seed) in enumerate(zip(names, seeds, strict=True)):
        if name not in workspace.networks:
            workspace.add(name, seed, held_out=i < drawn and i % _JUDGE_ONE_IN == 1)
    return names


def _disputed(plan: Plan, number: int, network: KernelNetwork, rules: Sequence[str]) -> list[int]:
    """Seeds of the networks about whose latency the members of ``network`` disagree most."""
    wanted = plan.round_size - plan.round_size // 2
    start = plan.seed + _CANDIDATE_SEEDS + number * _CANDIDATES * wanted
    seeds = list(range(start, start + _CANDIDATES * wanted))
    graphs = [Observation(str(seed), random_network(seed), 1.0, (1.0, 1.0), ()) for seed in seeds]
    table, _ = kernel_table(graphs, parse_rules(rules), "")
    spread = np.log(np.maximum(predicted(network, table), 1e-9)).std(axis=0)
    return [seeds[i] for i in np.argsort(-spread, kind="stable")[:wanted].tolist()]


def _is_enough(rounds: Sequence[Round], plan: Plan) -> bool:
    if not rounds:
        return False
    last = rounds[-1]
    if last.minutes >= plan.minutes or last.networks + last.left_out + plan.round_size > plan.networks:
        return True
    if len(rounds) <= _PATIENCE:
        return False
    before = max(one.within_10 for one in rounds[:-_PATIENCE])
    return max(one.within_10 for one in rounds[-_PATIENCE:]) < before + _GAIN


@dataclass(frozen=True)
class _State:
    """What the measurements so far tell.

    Attributes:
        device: name of the device.
        observations: the networks measured.
        held_out: which of them only judge.
        rules, votes: the fusion rules, and what they rest on.
        table, source: the networks and their kernels, and the position of each in ``observations``.
    """

    device: str
    observations: list[Observation]
    held_out: list[bool]
    rules: list[str]
    votes: list[Found]
    table: KernelTable
    source: npt.NDArray[np.int64]

    @classmethod
    def of(cls, workspace: Workspace, device: str) -> _State:
        """Read a workspace.

        Raises:
            MeasurementError: too few networks could be measured.
        """
        observations, held_out = [], []
        for name, network in workspace.networks.items():
            seen = observe(name, network.graph, network.visits)
            if seen is not None and len(network.faults) < MOST_FAULTS:
                observations.append(replace(seen, is_piece=bool(network.operators)))
                held_out.append(network.held_out)
        whole = sum(not seen.is_piece for seen in observations)
        if sum(held_out) < 2 or whole - sum(held_out) < 2:
            faults = [one.faults[-1] for one in workspace.networks.values() if one.faults]
            raise MeasurementError(
                f"only {len(observations)} of {len(workspace.networks)} networks could be measured"
                + (f"; the last fault: {faults[-1]}" if faults else "")
            )
        if workspace.tells_kernels:
            rules, votes = find_rules((seen.graph, seen.kernels) for seen in observations)
        else:
            rules, votes = pair_rules(seen for seen in observations if seen.is_piece)
        table, source = kernel_table(observations, parse_rules(rules), device)
        return cls(device, observations, held_out, rules, votes, table, source)

    def fit(self, members: int, steps: int, seed: int) -> KernelNetwork:
        """Fit an ensemble to all networks that do not judge, and to their kernels."""
        return fit(self.table, np.flatnonzero(~self.judges), members, steps, seed)

    def judge(self, network: KernelNetwork, workspace: Workspace) -> Round:
        """Judge a fit by the networks that it was not trained on."""
        judges = self.judges & is_network(self.table)
        ms = predicted(network, self.table).mean(axis=0)
        halves = np.array([seen.halves for seen in self.observations])[self.held_out]
        return Round(
            sum(not seen.is_piece for seen in self.observations),
            len(workspace.networks) - len(self.observations),
            workspace.seconds / 60,
            *shares_within((ms / self.table.measured(self.device))[judges]),
            *shares_within(halves.max(axis=1) / halves.min(axis=1)),
        )

    @property
    def judges(self) -> BoolArray:
        """Which networks and kernels of the table are not trained on between rounds."""
        return np.array(self.held_out)[self.source]

    def pack(
        self, workspace: Workspace, plan: Plan, crossed: CrossFitted
    ) -> tuple[dict[str, Any], KernelNetwork, Prototypes]:
        """Fit the pack to all that was measured; return its card, its network and its prototypes.

        Accuracy and intervals come from the fits ``crossed`` that each lack some of the networks, so every
        network judges once, and the pack learns from all.
        """
        network = fit(self.table, np.arange(len(self.table.ids)), plan.members, _STEPS, plan.seed)
        networks = np.flatnonzero(is_network(self.table))
        found = accuracy(crossed.ms[networks], self.table.measured(self.device)[networks])
        last = workspace.rounds[-1]
        card = {
            "name": self.device,
            "version": VERSION,
            "category": "cpu",
            "hardware": workspace.device["machine"],
            "runtime": workspace.device["runtime"],
            "fusion_rules": self.rules,
            "kernel_types": list(network.names.measured),
            "trained_on": {
                "networks": len(networks),
                "kernels": len(self.table.ids) - len(networks),
                "minutes_of_measuring": round(workspace.seconds / 60, 2),
            },
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "code_version": importlib.metadata.version(nnmeter_nas.__name__),
            "rates": rates_to_card(fit_rates(network)),
            "intervals": {**fit_intervals(crossed.errors, []).to_card(), "level_of_coverage": LEVEL},
            "training": asdict(plan),
            "accuracy": {
                "held_out_ids": {
                    "all": {key: round(float(value), 4) for key, value in found.items()}
                    | {"models": len(networks)}
                },
                "repeats": {"within_5": last.repeats_5, "within_10": last.repeats_10},
            },
        }
        return card, network, choose_prototypes(network, self.table, networks)

    def report(self, workspace: Workspace, ms: FloatArray, unseen: BoolArray | None = None) -> None:
        """Write the report into the workspace.

        Args:
            workspace: where it goes.
            ms: predicted latency of the networks and kernels of the table.
            unseen: which of them the fit that predicted them had not seen; None if that is so for all, at the
                end of a build.
        """
        found = findings(workspace, self.observations, self.table, ms, unseen, self.rules, self.votes)
        write_bytes(workspace.folder / REPORT, report_html(found).encode())


def _rules_entry(rules: Sequence[str], votes: Sequence[Found]) -> dict[str, Any]:
    return {
        "rules": list(rules),
        "votes": {
            "->".join(one.names): {"fused": one.fused, "seen": one.seen}
            | ({"uncertain": True} if one.uncertain else {})
            for one in votes
        },
    }


