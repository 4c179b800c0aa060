"""What the measurements of a build tell so far, and the pack that they make."""

from __future__ import annotations

import datetime
import importlib.metadata
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

import nnmeter_nas

from ..errors import MeasurementError
from ..files import write_bytes
from ..kernels.configuration import BoolArray, FloatArray
from ..kernels.fusion import parse_rules
from ..packs.doubt import Prototypes
from ..packs.estimates import fit_rates, rates_to_card
from ..packs.network import KernelNetwork
from ..packs.warmth import COLD, Warmth
from ..training.accuracy import accuracy
from ..training.intervals import LEVEL, choose_prototypes, fit_intervals
from ..training.table import KernelTable
from .findings import findings
from .fitting import CrossFitted, full_fit, is_network, quick_fit, shares_within
from .observations import MOST_FAULTS, Observation, kernel_table, observe
from .pairs import pair_rules
from .plan import Plan
from .report import report_html
from .rules import Found, find_rules
from .warming import as_in_large
from .workspace import REPORT, Round, Workspace

#: Version of the packs that are built.
VERSION = 1.0


@dataclass(frozen=True)
class Evidence:
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
    def of(cls, workspace: Workspace, device: str) -> Evidence:
        """Read a workspace.

        Raises:
            MeasurementError: too few networks could be measured.
        """
        observations, held_out = [], []
        undisturbed = workspace.undisturbed
        for name, network in workspace.networks.items():
            seen = observe(name, network.graph, network.visits, undisturbed)
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

    def fit(self, seed: int) -> KernelNetwork:
        """Fit an ensemble quickly to all networks that do not judge, and to their kernels."""
        return quick_fit(self.table, np.flatnonzero(~self.judges), seed)

    def judge(self, ms: FloatArray, workspace: Workspace) -> Round:
        """Judge what a fit says of the table, ``ms``, by the networks that it was not trained on."""
        judges = self.judges & is_network(self.table)
        repeats = np.array([1 + seen.disagreement for seen in self.observations])[self.held_out]
        return Round(
            sum(not seen.is_piece for seen in self.observations),
            len(workspace.networks) - len(self.observations),
            workspace.seconds / 60,
            *shares_within((ms / self.table.measured(self.device))[judges]),
            *shares_within(repeats),
        )

    @property
    def judges(self) -> BoolArray:
        """Which networks and kernels of the table are not trained on between rounds."""
        return np.array(self.held_out)[self.source]

    def pack(
        self, workspace: Workspace, plan: Plan, warmth: Warmth, crossed: CrossFitted
    ) -> tuple[dict[str, Any], KernelNetwork, Prototypes]:
        """Fit the pack to all that was measured; return its card, its network and its prototypes.

        Accuracy and intervals come from the fits ``crossed`` that each lack some of the networks, so every
        network judges once, and the pack learns from all.
        """
        network = full_fit(as_in_large(self.table, self.source, warmth), plan.members, plan.seed)
        networks, kernels = (np.flatnonzero(is_network(self.table) == whole) for whole in (True, False))
        found = accuracy(crossed.ms[networks], self.table.measured(self.device)[networks])
        last = workspace.rounds[-1]
        card = {
            "name": self.device,
            "version": VERSION,
            "category": workspace.device.get("category", "cpu"),
            "hardware": workspace.device["machine"],
            "runtime": workspace.device["runtime"],
            "fusion_rules": self.rules,
            "kernel_types": list(network.names.measured),
            "trained_on": {
                "networks": len(networks),
                "kernels": len(kernels),
                "minutes_of_measuring": round(workspace.seconds / 60, 2),
            },
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "code_version": importlib.metadata.version(nnmeter_nas.__name__),
            "rates": rates_to_card(fit_rates(network)),
            **({"warmth": warmth.to_card()} if warmth.exponent else {}),
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
        return card, network, choose_prototypes(network, self.table, networks, kernels)

    def report(
        self, workspace: Workspace, ms: FloatArray, unseen: BoolArray | None = None, warmth: Warmth = COLD
    ) -> None:
        """Write the report into the workspace.

        Args:
            workspace: where it goes.
            ms: predicted latency of the networks and kernels of the table.
            unseen: which of them the fit that predicted them had not seen; None if that is so for all, at the
                end of a build.
            warmth: what the pack takes small networks to gain.
        """
        found = findings(
            workspace, self.observations, self.table, ms, unseen, self.rules, self.votes, warmth
        )
        write_bytes(workspace.folder / REPORT, report_html(found).encode())
