"""Build a predictor pack of a device: measure networks in rounds, fit, and stop when it no longer helps."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import nnmeter_nas

from ..backends import load_backend
from ..errors import MeasurementError
from ..extras import load_extra
from ..kernels.configuration import FloatArray
from ..kernels.fusion import parse_rules
from ..packs.estimates import fit_rates, rates_to_card
from ..packs.network import KernelNetwork
from ..packs.pack import save_pack
from ..packs.store import check_device_name, locked, user_pack, written_pack
from ..training.accuracy import accuracy
from ..training.intervals import LEVEL, choose_prototypes, errors_of, fit_intervals
from .fitting import fit, predicted, shares_within
from .lone import choose_pieces
from .measuring import MOST_FAULTS, measure
from .networks import random_network
from .observations import Observation, kernel_table, observe
from .pairs import pair_rules
from .rules import Found, find_rules
from .worker import worker
from .workspace import RULES, UNDISTURBED, Workspace, open_workspace, read_device

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
#: Steps of the fit between rounds, and of the last one; members of the former.
_QUICK_STEPS, _STEPS, _QUICK_MEMBERS = 1000, 3000, 2


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        minutes: time to spend on measuring.
        networks: networks to measure at most.
        round_size: networks of a round.
        visits: visits of each network; twice as many if they disagree.
        limit_s: seconds after which a visit counts as hanging.
        members: members of the ensemble.
        seed: decides the networks.
    """

    minutes: float = 5.0
    networks: int = 400
    round_size: int = 24
    visits: int = 4
    limit_s: float = 60.0
    members: int = 3
    seed: int = 0


class Round(NamedTuple):
    """What is known after a round. Shares are in %, of networks that were not trained on.

    Attributes:
        networks, left_out: networks measured, and those that the device could not run.
        minutes: time spent on measuring.
        within_5, within_10: share predicted within ±5 and ±10 %.
        repeats_5, repeats_10: share for which the two halves of the visits agree within ±5 and ±10 %.
    """

    networks: int
    left_out: int
    minutes: float
    within_5: float
    within_10: float
    repeats_5: float
    repeats_10: float


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
        show: is called after each round.
        tell: is called with what goes on within a round.

    Raises:
        WorkspaceError: the workspace belongs to another device, backend, runtime or machine.
        UnknownBackendError, MissingPackageError: no such backend, or its runtime is not installed.
        MeasurementError: too few networks could be measured.
        PackError: no device can have this name.
    """
    for module in ("onnx", "scipy", "torch"):
        load_extra(module, "build", "building a predictor")
    name = check_device_name(name, "the new pack")
    target = user_pack(name, VERSION)
    backend = load_backend(backend_name)
    device = {
        "name": name,
        "backend": backend_name,
        "runtime": f"{backend.name} {backend.version}",
        "machine": machine(),
        "plan": asdict(plan),
    }
    rounds: list[Round] = []
    if _is_built(folder, device, target):
        return target
    with open_workspace(folder, device) as workspace, worker(backend_name, plan.limit_s) as running:
        if getattr(backend, "on_host", False):
            tell("finding the speed of this machine")
            workspace.keep(UNDISTURBED, running.watch_speed(workspace.device.get(UNDISTURBED)))
        names = _choose(workspace, plan, 0, None, [])
        while True:
            measure(workspace, names, backend, running, plan.visits, tell)
            if not workspace.tells_kernels:
                pieces = choose_pieces(workspace, plan.seed, len(rounds), plan.round_size)
                measure(workspace, pieces, backend, running, plan.visits, tell)
            tell("fitting")
            state = _State.of(workspace, name)
            network = state.fit(_QUICK_MEMBERS, _QUICK_STEPS, plan.seed)
            rounds.append(state.judge(network, workspace))
            show(rounds[-1])
            if _is_enough(rounds, plan):
                break
            names = _choose(workspace, plan, len(rounds), network, state.rules)
        tell("fitting the pack")
        network = state.fit(plan.members, _STEPS, plan.seed)
        card, prototypes = state.card(network, workspace, plan)
        workspace.write_yaml(RULES, _rules_entry(state.rules, state.votes))
        with locked(f"{name}-{VERSION}"), written_pack(target) as partial:
            save_pack(partial, card, network, prototypes)
    return target


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
    """

    device: str
    observations: list[Observation]
    held_out: list[bool]
    rules: list[str]
    votes: list[Found]

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
        return cls(device, observations, held_out, rules, votes)

    def fit(self, members: int, steps: int, seed: int) -> KernelNetwork:
        """Fit an ensemble to all networks that do not judge, and to their kernels."""
        table, source = kernel_table(self.observations, parse_rules(self.rules), self.device)
        trained = np.flatnonzero(~np.array(self.held_out)[source])
        return fit(table, trained, members, steps, seed)

    def judge(self, network: KernelNetwork, workspace: Workspace) -> Round:
        """Judge a fit by the networks that it was not trained on."""
        ms, measured = self.judged(network)
        halves = np.array([seen.halves for seen in self.observations if not seen.is_piece])
        return Round(
            len(halves),
            len(workspace.networks) - len(self.observations),
            workspace.seconds / 60,
            *shares_within(ms / measured),
            *shares_within(halves.max(axis=1) / halves.min(axis=1)),
        )

    def judged(self, network: KernelNetwork) -> tuple[FloatArray, FloatArray]:
        """Predicted and measured latency in ms of the networks that judge."""
        judges = [seen for seen, out in zip(self.observations, self.held_out, strict=True) if out]
        graphs = [replace(seen, kernels=()) for seen in judges]
        table, _ = kernel_table(graphs, parse_rules(self.rules), "")
        return predicted(network, table).mean(axis=0), table.measured("")

    def card(self, network: KernelNetwork, workspace: Workspace, plan: Plan) -> tuple[dict[str, Any], Any]:
        """The card of the pack, and its prototypes."""
        table, source = kernel_table(self.observations, parse_rules(self.rules), self.device)
        judges = np.array(self.held_out)[source]
        networks = table.families == "network"
        prototypes = choose_prototypes(network, table, np.flatnonzero(~judges))
        measured = table.measured(self.device)
        errors = errors_of(network, prototypes, table, np.flatnonzero(networks & judges), measured)
        ms, truth = self.judged(network)
        found = {key: round(float(value), 4) for key, value in accuracy(ms, truth).items()}
        last = self.judge(network, workspace)
        card = {
            "name": self.device,
            "version": VERSION,
            "category": "cpu",
            "hardware": workspace.device["machine"],
            "runtime": workspace.device["runtime"],
            "fusion_rules": self.rules,
            "kernel_types": list(network.names.measured),
            "trained_on": {
                "networks": int((networks & ~judges).sum()),
                "kernels": int((~networks & ~judges).sum()),
                "minutes_of_measuring": round(workspace.seconds / 60, 2),
            },
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "code_version": importlib.metadata.version(nnmeter_nas.__name__),
            "rates": rates_to_card(fit_rates(network)),
            "intervals": {**fit_intervals(errors, []).to_card(), "level_of_coverage": LEVEL},
            "training": asdict(plan),
            "accuracy": {
                "held_out_ids": {"all": found | {"models": len(ms)}},
                "repeats": {"within_5": last.repeats_5, "within_10": last.repeats_10},
            },
        }
        return card, prototypes


def _rules_entry(rules: Sequence[str], votes: Sequence[Found]) -> dict[str, Any]:
    return {
        "rules": list(rules),
        "votes": {
            "->".join(one.names): {"fused": one.fused, "seen": one.seen}
            | ({"uncertain": True} if one.uncertain else {})
            for one in votes
        },
    }


