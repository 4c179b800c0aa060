"""Build a pack, go nn-Meter's way for as long, and judge both by the same networks, in one run."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import networkx as nx
import numpy as np
from rich.console import Console

from nnmeter_nas.backends import load_backend
from nnmeter_nas.backends.base import Backend
from nnmeter_nas.builder.build import build
from nnmeter_nas.builder.observations import Observation, observe
from nnmeter_nas.builder.plan import Plan
from nnmeter_nas.builder.visits import Undisturbed
from nnmeter_nas.builder.worker import worker
from nnmeter_nas.builder.workspace import RULES, UNDISTURBED, Round, read_device
from nnmeter_nas.errors import DatasetError, MeasurementError
from nnmeter_nas.files import HOME, lock_folder, write_bytes
from nnmeter_nas.journal import Journal
from nnmeter_nas.packs.registry import find_pack
from nnmeter_nas.predictor import load_latency_predictor

from ..networks import NETWORKS
from ..networks.files import network_graph
from ..networks.unusual import UNUSUAL
from ..speed.machine import is_busy
from ..speed.machine import machine as described_machine
from .bench import Bench, visits
from .nn_meter import NnMeter, build_as_nn_meter, predict_as_nn_meter, told_rules

#: Networks that judge, unless others are named: one or two of each family, and all unusual ones.
JUDGES = (
    "alexnet", "vgg11", "resnet18", "resnet50", "squeezenet1_1", "densenet121", "googlenet", "mnasnet1_0",
    "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "shufflenet_v2_x1_0",
    "efficientnet_b0", "proxylessnas", *UNUSUAL,
)  # fmt: skip
#: All networks that may judge.
ALL = (*NETWORKS, *UNUSUAL)
#: File of the results.
RESULTS = "procedure.json"
#: Visits of each network that judges: before the build, after it, and after nn-Meter's procedure.
_VISITS = 2
#: A lone kernel that takes longer is left out. nn-Meter would wait for 300 s.
_LIMIT_S = 10.0
#: Name of the pack, in a home of its own.
_NAME = "procedure"


def run_procedure(
    backend_name: str,
    plan: Plan,
    networks: Sequence[str],
    work: Path,
    environment: Path,
    output: Path,
    console: Console,
) -> Path:
    """Compare both procedures on a backend; write what came of it to ``<output>/procedure.json``.

    Results of other backends stay there.

    Args:
        backend_name: as :func:`nnmeter_nas.backends.load_backend` takes it.
        plan: of the build. nn-Meter's procedure gets as many minutes, or more if the build takes more.
        networks: names of the networks that judge, from :data:`ALL`.
        work: folder of all measurements. An interrupted run goes on from there; after a finished one, both
            are fitted and judged again, and nothing is measured.
        environment: virtual environment of nn-Meter 2.0.
        output: folder of results.
        console: shows progress.

    Raises:
        ProcedureError: nn-Meter does not run.
        WorkspaceError: ``work`` belongs to another backend, runtime or machine.
        MeasurementError: too few networks could be measured.
    """
    described = described_machine({"nn-Meter": (environment, "nn-meter")})
    if is_busy(described):
        console.print(
            f"warning: the load is {described['load_before']} on {described['cores']} cores; figures from a "
            "busy machine are unreliable",
            style="yellow", markup=False,
        )  # fmt: skip
    nn_meter = NnMeter(environment / "bin" / "python")
    nn_meter.step("settings")  # if it does not run, say so before minutes of measuring
    with _opened(backend_name, plan, networks, work, console) as run:
        entry = {"machine": described, **run.compare(nn_meter)}
    path = output / RESULTS
    found = load_results(path) if path.exists() else {}
    found[backend_name] = entry
    write_bytes(path, f"{json.dumps(found, indent=1)}\n".encode())
    return path


def load_results(path: Path) -> dict[str, dict[str, Any]]:
    """Read results, by backend.

    Raises:
        DatasetError: there are none.
    """
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} holds no results ({error}); measure them again") from error
    return found


@contextlib.contextmanager
def _opened(
    backend_name: str, plan: Plan, networks: Sequence[str], work: Path, console: Console
) -> Iterator[_Run]:
    """Open the folder of a comparison, locked and with a home of its own, and start what measures."""
    backend = load_backend(backend_name)
    with contextlib.ExitStack() as stack:
        stack.callback(lock_folder(work, "procedure.lock", "comparison").release)
        status = stack.enter_context(console.status("starting"))
        stack.enter_context(patch.dict(os.environ, {HOME: str((work / "home").resolve())}))
        files = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nnmeter-nas-")))
        patient = stack.enter_context(worker(backend_name, plan.limit_s))
        strict = stack.enter_context(worker(backend_name, min(_LIMIT_S, plan.limit_s)))
        judging = Bench(stack.enter_context(Journal(work / "judges.jsonl")), backend, patient, files)
        kernels = Bench(stack.enter_context(Journal(work / "kernels.jsonl")), backend, strict, files)
        graphs = {name: network_graph(name) for name in networks}
        yield _Run(backend_name, backend, plan, work, graphs, judging, kernels, console, status.update)


@dataclass(frozen=True)
class _Run:
    """A comparison.

    Attributes:
        graphs: the networks that judge.
        judging, kernels: measure those, and the models of nn-Meter's procedure.
        console, tell: hear what is done, and what goes on.
    """

    backend_name: str
    backend: Backend
    plan: Plan
    work: Path
    graphs: Mapping[str, nx.DiGraph]
    judging: Bench
    kernels: Bench
    console: Console
    tell: Callable[[str], None]

    def compare(self, nn_meter: NnMeter) -> dict[str, Any]:
        """Measure, predict, and return the results."""
        self._judge(_VISITS)
        ours = self._build()
        self._judge(2 * _VISITS)
        seconds = 60 * max(self.plan.minutes, ours["minutes"])
        # All latencies are of the same undisturbed machine.
        undisturbed = Undisturbed.from_entry(read_device(self.work / "build").get(UNDISTURBED))
        theirs = build_as_nn_meter(nn_meter, self.kernels, seconds, self.tell, undisturbed)
        self.console.print(
            f"nn-Meter: {theirs.kernels} kernels in {theirs.seconds / 60:.2f} minutes, {len(theirs.rules)} "
            f"of {theirs.tests} pairs fuse"
        )
        self._judge(3 * _VISITS)
        self.tell("predicting")
        measured = self._measured(undisturbed)
        graphs = [self.graphs[name] for name in measured]
        said = predict_as_nn_meter(nn_meter, theirs, theirs.used, graphs)
        rules = told_rules(find_pack(_NAME).card["fusion_rules"])
        told = predict_as_nn_meter(nn_meter, theirs, rules, graphs)
        predictor = load_latency_predictor(_NAME)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it only estimates
            predicted = [predictor.predict(graph) for graph in graphs]
        return {
            "runtime": f"{self.backend.name} {self.backend.version}",
            "ours": ours,
            "nn-Meter": {
                "minutes": round(theirs.seconds / 60, 2),
                "kernels": {name: len(rows) for name, rows in sorted(theirs.measured.items())},
                "left_out": theirs.left_out,
                "tests": theirs.tests,
                "rules": theirs.rules,
                "used": theirs.used,
                "told": rules,
            },
            "networks": [
                {
                    "name": seen.name,
                    "measured_ms": seen.ms,
                    "halves_ms": seen.halves,
                    "ours_ms": ours_ms,
                    "nn-Meter_ms": one.ms,
                    "nn-Meter_told_ms": other.ms,
                    "without_forest": other.without,
                }
                for seen, ours_ms, one, other in zip(measured.values(), predicted, said, told, strict=True)
            ],
        }

    def _build(self) -> dict[str, Any]:
        """Build the pack; return how much was measured. A finished build is only fitted again."""
        rounds: list[Round] = []

        def show(found: Round) -> None:
            rounds.append(found)
            self.console.print(
                f"build: {found.networks} networks in {found.minutes:.2f} minutes, {found.within_10} % of "
                "those not trained on within ±10 %"
            )

        (self.work / "build" / RULES).unlink(missing_ok=True)
        build(_NAME, self.backend_name, self.work / "build", self.plan, show, self.tell)
        kernels = int(find_pack(_NAME).card["trained_on"]["kernels"])
        last = rounds[-1]
        return {"minutes": round(last.minutes, 2), "networks": last.networks, "kernels": kernels}

    def _judge(self, turns: int) -> None:
        """Visit the networks that judge in shuffled order, until each has had so many visits."""
        for turn in range(turns):
            names = list(self.graphs)
            for i in np.random.default_rng(turn).permutation(len(names)).tolist():
                name = names[i]
                if len(self.judging.records(name=name)) <= turn:
                    self.tell(f"networks that judge: visit {turn + 1} of {name}")
                    self.judging.visit({"name": name}, self.judging.file(name, self.graphs[name]))

    def _measured(self, undisturbed: Undisturbed | None) -> dict[str, Observation]:
        """What was measured of the networks that judge."""
        found = {}
        for name, graph in self.graphs.items():
            records = self.judging.records(name=name)
            if (seen := observe(name, graph, visits(records), undisturbed)) is not None:
                found[name] = seen
            else:
                self.console.print(f"{name} is left out: {records[-1].get('fault')}", markup=False)
        if len(found) < 2:
            raise MeasurementError(f"only {len(found)} of {len(self.graphs)} networks could be measured")
        return found
