"""nn-Meter's procedure on our measurements: lone kernels, a fusion test by time, and a forest a kernel type.

Its sampling, its settings and its forests are those of nn-Meter 2.0 itself, which runs in an environment of
its own (``nn_meter_steps.py``). It samples 57,000 kernels to begin with. On a budget it measures them in
random order until a third of the time is over, and spends the rest on the two rounds of sampling around
kernels that it predicts badly. A kernel is measured in one visit, by the code that measures networks of a
build. The models of the fusion test, which compares small differences, are visited as often as those.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx
import numpy as np

from nnmeter_nas.builder.observations import observe
from nnmeter_nas.builder.visits import Undisturbed, latency_of
from nnmeter_nas.compat.builder.models import lone_kernel
from nnmeter_nas.errors import NnMeterNasError
from nnmeter_nas.kernels.fusion import Kernel, fuse
from nnmeter_nas.packs.nnmeter1.predictors import FEATURES, forest_name
from nnmeter_nas.packs.nnmeter1.rules import parse_nnmeter_rules

from .bench import Bench, visits
from .kernels import Pair, pairs

#: Phases of sampling, each of which ends with its share of the budget.
PHASES = ("prior", "adapted", "adapted again")
#: Phase of the fusion test.
RULES = "rules"
#: Visits of the models of the fusion test.
_TEST_VISITS = 4
#: Operators that start a kernel wherever they are: no forest knows a kernel with one further on.
_ALWAYS_FIRST = frozenset({"conv", "dwconv", "fc", "se"})
_STEPS = Path(__file__).with_name("nn_meter_steps.py")


class ProcedureError(NnMeterNasError):
    """nn-Meter cannot run."""


class NnMeter:
    """nn-Meter 2.0 under its own interpreter."""

    def __init__(self, python: Path) -> None:
        """Use the interpreter ``python``, which has nn-Meter 2.0."""
        self._python = python

    def step(self, name: str, seed: int = 0, **job: Any) -> dict[str, Any]:
        """Do a step; see ``nn_meter_steps.py``.

        Raises:
            ProcedureError: nn-Meter does not run.
        """
        with TemporaryDirectory() as folder:
            job_file, result = Path(folder) / "job.json", Path(folder) / "result.json"
            job_file.write_text(json.dumps({"step": name, "seed": seed, **job}), encoding="utf-8")
            environment = {**os.environ, "HOME": folder, "USERPROFILE": folder}  # it writes settings there
            try:
                subprocess.run(
                    [self._python, "-I", _STEPS, job_file, result],
                    check=True, env=environment, capture_output=True, text=True,
                )  # fmt: skip
            except (OSError, subprocess.CalledProcessError) as error:
                last = getattr(error, "stderr", None) or str(error)
                raise ProcedureError(
                    f"nn-Meter does not run under {str(self._python)!r} (`make procedure` sets it up): "
                    f"{last.strip().splitlines()[-1]}"
                ) from error
            found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
            return found


@dataclass(frozen=True)
class Built:
    """What nn-Meter's procedure found.

    Attributes:
        rules: names of the pairs of operators that passed the fusion test, as in nn-Meter's rule files.
        used: those of them that make kernels for which nn-Meter has forests. With the others it fails.
        tests: number of fusion tests.
        measured: kernels measured by type, each with its sizes and its ms.
        left_out: number of models that could not be measured.
        seconds: how long measuring took.
    """

    rules: tuple[str, ...]
    used: tuple[str, ...]
    tests: int
    measured: Mapping[str, Sequence[tuple[Mapping[str, int], float]]]
    left_out: int
    seconds: float

    @property
    def kernels(self) -> int:
        """Number of kernels measured."""
        return sum(map(len, self.measured.values()))


def build_as_nn_meter(
    nn_meter: NnMeter,
    bench: Bench,
    seconds: float,
    tell: Callable[[str], None],
    undisturbed: Undisturbed | None = None,
) -> Built:
    """Measure for so many seconds what nn-Meter's builder would; ``tell`` hears what goes on.

    Latencies are of the machine when it is ``undisturbed``, if they are of this one.

    Raises:
        ProcedureError: nn-Meter does not run.
    """
    settings = nn_meter.step("settings")["ruletest"]
    tests = pairs(settings)
    ms = _test_fusion(bench, tests, tell, undisturbed)
    spent = sum(float(record["s"]) for record in bench.records(phase=RULES))
    for number, phase in enumerate(PHASES):
        end = spent + max(0.0, seconds - spent) * (number + 1) / len(PHASES)
        if bench.seconds >= end:
            continue
        before = PHASES[:number]
        tell(f"nn-Meter samples kernels ({phase})")
        if before:
            measured = _measured(bench, before, undisturbed)
            samples = nn_meter.step("adapt", number, measured=measured)["samples"]
        else:
            samples = nn_meter.step("prior")["samples"]
        _measure(bench, phase, samples, end, tell)
    alpha = float(settings["EMP_ALPHA"])
    fused = [test for test in tests if _fuses(test, ms, alpha)]
    return Built(
        rules=tuple(test.rule for test in fused),
        used=tuple(test.rule for test in fused if _has_forest(test.first, test.second)),
        tests=len(tests),
        measured=_measured(bench, PHASES, undisturbed),
        left_out=sum("fault" in record for record in bench.records()),
        seconds=bench.seconds,
    )


def _test_fusion(
    bench: Bench,
    tests: Sequence[Pair],
    tell: Callable[[str], None],
    undisturbed: Undisturbed | None,
) -> dict[int, float]:
    """Measure the models of the fusion tests; return the ms of each, by its identity."""
    models = list({id(graph): graph for test in tests for graph in (*test.alone, test.both)}.values())
    for turn in range(_TEST_VISITS):
        for i in np.random.default_rng(turn).permutation(len(models)).tolist():
            if len(bench.records(phase=RULES, model=i)) <= turn:
                tell(f"nn-Meter's fusion test: visit {turn + 1} of {len(models)} models")
                bench.measure({"phase": RULES, "model": i}, models[i])
    ms = {}
    for i, graph in enumerate(models):
        seen = observe(str(i), graph, visits(bench.records(phase=RULES, model=i)), undisturbed)
        if seen is not None:
            ms[id(graph)] = seen.ms
    return ms


def told_rules(lines: Sequence[str]) -> tuple[str, ...]:
    """Return fusion rules of a pack as nn-Meter's, as far as it has forests for what they make.

    >>> told_rules(["conv->relu", "add->swish", "conv->add->relu"])
    ('BF_conv_relu',)
    """
    pairs_of_ops = [line.split("->") for line in lines]
    return tuple(f"BF_{'_'.join(ops)}" for ops in pairs_of_ops if len(ops) == 2 and _has_forest(*ops))


def _has_forest(first: str, second: str) -> bool:
    """Whether nn-Meter has a forest for the kernel that two operators make."""
    kernel = Kernel(first, [], {}, [()], [], [second])
    return second not in _ALWAYS_FIRST and forest_name(kernel) in FEATURES


def _fuses(test: Pair, ms: Mapping[int, float], alpha: float) -> bool:
    """nn-Meter's test: both together save more than a part of the quicker one."""
    times = [ms.get(id(graph)) for graph in (*test.alone, test.both)]
    first, second, both = times
    if first is None or second is None or both is None:
        return False
    return first + second - both > alpha * min(first, second)


def _measure(
    bench: Bench, phase: str, samples: Sequence[Any], end: float, tell: Callable[[str], None]
) -> None:
    """Measure the samples that a phase has not yet measured, until measuring has taken ``end`` seconds."""
    for i in range(len(bench.records(phase=phase)), len(samples)):
        if bench.seconds >= end:
            return
        tell(f"nn-Meter's kernels ({phase}): {i} measured, {bench.seconds / 60:.2f} minutes")
        kernel_type, sizes = samples[i]
        bench.measure({"phase": phase, "type": kernel_type, "sizes": sizes}, lone_kernel(kernel_type, sizes))


def _measured(
    bench: Bench, phases: Sequence[str], undisturbed: Undisturbed | None
) -> dict[str, list[tuple[Mapping[str, int], float]]]:
    found: dict[str, list[tuple[Mapping[str, int], float]]] = {}
    for record in bench.records():
        if record["phase"] in phases:
            for visit in visits([record]):
                ms = latency_of(visit, undisturbed)
                found.setdefault(record["type"], []).append((record["sizes"], ms))
    return found


@dataclass(frozen=True)
class Said:
    """A prediction.

    Attributes:
        ms: the sum of all kernels that have a forest.
        without: types of the kernels that have none, for which nn-Meter adds nothing.
    """

    ms: float
    without: tuple[str, ...]


def predict_as_nn_meter(
    nn_meter: NnMeter, built: Built, rules: Sequence[str], graphs: Sequence[nx.DiGraph]
) -> list[Said]:
    """Predict networks as the sums of what the forests say of their kernels under the fusion ``rules``.

    Raises:
        ProcedureError: nn-Meter does not run.
    """
    parsed = parse_nnmeter_rules({name: {"obey": True} for name in rules})
    kernels = [[kernel for _, kernel in fuse(graph, parsed).nodes(data="kernel")] for graph in graphs]
    rows: dict[str, list[list[float]]] = {}
    for kernel in (kernel for of_graph in kernels for kernel in of_graph):
        if (name := forest_name(kernel)) in FEATURES:
            rows.setdefault(name, []).append(_row(name, FEATURES[name](kernel)))
    answers = nn_meter.step("predict", measured=built.measured, rows=rows)["ms"]
    left = {name: iter(ms) for name, ms in answers.items()}
    found = []
    for of_graph in kernels:
        names = [(kernel.type, forest_name(kernel)) for kernel in of_graph]
        ms = sum(next(left[name]) for _, name in names if name in left)
        found.append(Said(ms, tuple(sorted({kind for kind, name in names if name not in left}))))
    return found


def _row(name: str, row: list[float]) -> list[float]:
    """Features as the builder's forests have them: no count of the branches of a concatenation."""
    return [row[0], *row[2:]] if name == "concat" else row
