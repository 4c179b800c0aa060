"""``nnmeter-nas search``: search a space with NNI for architectures that learn well and are fast."""

from __future__ import annotations

import argparse
import os
import shlex
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import SearchError, SpaceError, WorkerError
from ..extras import load_extra
from ..pages import figure
from ..predictor import load_latency_predictor
from ..supernet.named import SPACES
from .arguments import DEFAULT_DEVICE, count, port, positive_float, positive_int, share, size
from .commands import set_command
from .messages import console, note, pricing

if TYPE_CHECKING:
    from ..search.run_folder import RunFolder, Settings

#: Measures that need no device; each has its limit, --max-NAME. (Their room would take long to import.)
_QUANTITIES = ("flops", "params", "memory", "memory_tflite", "size")
#: Those in bytes.
_IN_BYTES = _QUANTITIES[2:]
#: Units of numbers, and of bytes, the longer ones first.
_THOUSANDS = {"k": 1000, "m": 1000**2, "g": 1000**3}
_BYTES = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, **_THOUSANDS}
NEEDS = "pip install 'nnmeter_nas[search]'"
#: Option of a strategy -> the strategy.
_OPTIONS = {
    "population": "pareto", "mutation": "pareto", "crossover": "pareto",
    "start": "learned", "hints": "learned",
    "order": "ranked", "top_k": "ranked", "quantile": "ranked", "pool_size": "ranked",
}  # fmt: skip
#: Options that --resume takes besides the folder.
_RESUMABLE = ("trials", "budget_minutes", "concurrency", "port", "training_service", "machines", "address",
              "trial_cpus", "trial_gpus")  # fmt: skip
#: Options that need a training service -> the services that take them.
_OF_SERVICES = {"machines": ["remote"], "address": ["ray"], "trial_cpus": ["ray"],
                "trial_gpus": ["remote", "ray"]}  # fmt: skip
#: Architectures to train if neither their number nor a budget is given.
_TRIALS = 20

_EPILOG = f"""\
SPACE is one of {", ".join(SPACES)};
or module:attribute, where a module of the current folder or an installed one has an NNI search space, or
what makes one when it is called without arguments.

strategies:
  learned  learns the accuracy from the trials, and trains what improves the front most in the light of it;
           it finds more in fewer trials than the others, and takes up to a second or two for a proposal
  pareto   evolves towards the Pareto front of accuracy and latency (NSGA-II); what is too slow is repaired;
           the choice where a trial takes less time than a proposal of learned
  ranked   draws a pool inside the limits, ranks it by latency, and trains it in that order
  random   draws evenly among all architectures inside the limits

FUNCTION is module:function of yours; it gets the network (on NNI 2.10.1: the class that makes it) and those
of the arguments input_shape, epochs and seed that it takes, and calls nni.report_final_result(accuracy).
module:attribute may also be one of NNI's evaluators. Trials run in the current folder, those of the graph
engine of NNI 2.10.1 in one of their own.

RUN gets trials.csv, pareto.png, report.html, the best architectures (best/1.json ...), which `nnmeter-nas
export` turns into ONNX files, and what is needed to go on after a crash: --resume loses no trial and repeats
none. It needs: {NEEDS}, with NNI 2.10.1 or 3.0.

examples:
  nnmeter-nas search --space spos-small --max-latency 0.8
  nnmeter-nas search --space spos-small --strategy pareto --max-latency 1.6 --trials 200
  nnmeter-nas search --space proxylessnas-small --strategy random --max-latency 3 --min-latency 2 --trials 30
  nnmeter-nas search --space spos-small --predictor cortexA76cpu_tflite21,adreno640gpu_tflite21 \\
      --max-latency 0.8,0.6 --max-flops 8M -o two-devices
  nnmeter-nas search --space spos-small --max-memory 128K --max-size 220K --objectives latency,size -o small
  nnmeter-nas search --space my_net:space --evaluator my_training:train --epochs 20 --max-latency 12 -o run
  nnmeter-nas search --space my_net:space --evaluator my_training:train --budget-minutes 600 -o run
  nnmeter-nas search --space my_net:space --evaluator my_training:train \\
      --training-service ray --address 10.0.0.1:6379 --trial-gpus 0.5 -o run
  nnmeter-nas search --resume run
  nnmeter-nas export run/best/1.json -o best.onnx
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-o", "--output", type=Path, metavar="RUN",
                       help="folder of the search (default: search-output)")
    where.add_argument("--resume", type=Path, metavar="RUN",
                       help="go on with the search in this folder; beside it only --trials, "
                       "--budget-minutes, --concurrency, --port and the options under machines may be given")
    parser.add_argument("--overwrite", action="store_true", help="replace a search that is in the folder")
    space = parser.add_argument_group("what to search")
    space.add_argument("--space", metavar="SPACE", help="name of a search space, or module:attribute")
    space.add_argument("--input-shape", type=size, nargs="+", metavar="SIZE",
                       help="NCHW with batch 1, such as 1 3 224 224 (default: the space's own)")
    _add_limits(parser)
    _add_strategies(parser)
    training = parser.add_argument_group("training")
    training.add_argument("--evaluator", metavar="FUNCTION",
                          help="what a trial runs (default: training on scikit-learn's digits)")
    training.add_argument("--epochs", type=positive_int, metavar="N",
                          help="epochs a trial, for FUNCTION (default: 3)")
    training.add_argument("--trials", type=positive_int, metavar="N",
                          help=f"architectures to train (default: {_TRIALS}, or as many as "
                          "--budget-minutes allows)")
    training.add_argument("--budget-minutes", type=positive_float, metavar="M",
                          help="propose no further architecture once the trials that ended have taken M "
                          "minutes in all; trials that run at once both count, and those that run then still "
                          "end (default: no limit)")
    training.add_argument("--concurrency", type=positive_int, metavar="N",
                          help="trials at once (default: 2; on other machines as many as they have room "
                          "for)")
    training.add_argument("--trial-limit", type=positive_int, metavar="S",
                          help="seconds after which a trial is stopped and counts as failed (default: none)")
    training.add_argument("--seed", type=count, metavar="S", help="of strategy and training (default: 0)")
    add_nni_arguments(training)
    _add_machines(parser)


def add_nni_arguments(group: Any) -> None:
    """Add the flags that set how NNI runs a search."""
    group.add_argument("--engine", choices=["py", "graph"],
                       help="how NNI makes networks: py from Python, graph from its own graph of the space "
                       "(default: py)")
    group.add_argument("--port", type=port, metavar="P",
                       help="port of NNI's web page on 127.0.0.1; another is taken if it is in use")


def _add_machines(parser: argparse.ArgumentParser) -> None:
    machines = parser.add_argument_group("machines", "see docs/many_machines.md")
    machines.add_argument("--training-service", choices=["local", "remote", "ray"],
                          help="where trials run: with NNI on this machine, with NNI 3.0 on the --machines, "
                          "or as tasks of Ray (default: local)")
    machines.add_argument("--machines", type=Path, metavar="FILE",
                          help="remote: YAML file with host, user and key of each machine")
    machines.add_argument("--address", metavar="HOST:PORT",
                          help="ray: of a running cluster, or auto for the one that this machine is in; "
                          "without it, a cluster is started on this machine")
    machines.add_argument("--trial-cpus", type=positive_float, metavar="N",
                          help="ray: CPUs of a trial (default: 1)")
    machines.add_argument("--trial-gpus", type=positive_float, metavar="N",
                          help="GPUs of a trial; with ray, 0.5 lets two trials share one (default: none)")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits and objectives")
    limits.add_argument("--predictor", type=_names, metavar="DEVICE[,DEVICE]",
                        help=f"applied hardware, see `predictors list` (default: {DEFAULT_DEVICE})")
    limits.add_argument("--predictor-version", type=float, metavar="V",
                        help="version of the predictor packs (default: the newest)")
    limits.add_argument("--max-latency", type=_milliseconds, metavar="MS[,MS]",
                        help="the most that the latency may be: one limit for all devices, or one each in "
                        "their order; without any limit, the median of random architectures")
    limits.add_argument("--min-latency", type=_milliseconds, metavar="MS[,MS]",
                        help="the least that the latency may be, likewise")
    limits.add_argument("--max-flops", type=_amount, metavar="N",
                        help="the most floating-point operations, such as 3e8 or 300M; a multiply-add is two")
    limits.add_argument("--max-params", type=_amount, metavar="N", help="the most parameters, such as 4M")
    limits.add_argument("--max-memory", type=_bytes, metavar="BYTES",
                        help="the most memory that activations take at a time, such as 512K, 1.5MB (a K is "
                        "1000) or 512KiB (1024); as onnxruntime uses memory")
    limits.add_argument("--max-memory-tflite", type=_bytes, metavar="BYTES",
                        help="the same, as TensorFlow Lite's own kernels use memory, and microcontrollers")
    limits.add_argument("--max-size", type=_bytes, metavar="BYTES",
                        help="the most bytes of weights on disk, likewise")
    limits.add_argument("--objectives", type=_names, metavar="NAME[,NAME]",
                        help=f"what to keep low beside a high accuracy: latency, {', '.join(_QUANTITIES)} "
                        "(default: latency)")


def _add_strategies(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("strategy")
    group.add_argument("--strategy", choices=["pareto", "learned", "ranked", "random"],
                       help="(default: learned, or the one that another option belongs to)")
    group.add_argument("--population", type=positive_int, metavar="N",
                       help="pareto: architectures in a generation (default: 20, or half of --trials if that "
                       "is less)")
    group.add_argument("--mutation", type=share, metavar="P",
                       help="pareto: probability that a choice changes (default: 1 / number of choices)")
    group.add_argument("--crossover", type=share, metavar="P",
                       help="pareto: probability of two parents (default: 0.9)")
    group.add_argument("--start", type=positive_int, metavar="N",
                       help="learned: architectures to train before it asks its model (default: 12, or half "
                       "of --trials if that is less)")
    group.add_argument("--hints", type=_hints, metavar="NAME[,NAME]",
                       help="learned: what may help to tell the accuracy beside the choices, the paths "
                       f"through the network and its latency: {', '.join(_QUANTITIES)} (default: none)")
    group.add_argument("--order", choices=["ascending", "closest"],
                       help="ranked: the fastest first, or those closest to the limit (default: ascending)")
    group.add_argument("--top-k", type=positive_int, metavar="N",
                       help="ranked: how many of the pool to train")
    group.add_argument("--quantile", type=share, metavar="P", help="ranked: the same as a share of the pool")
    group.add_argument("--pool-size", type=positive_int, metavar="N",
                       help="ranked: architectures to draw (default: 10000)")


def run(options: argparse.Namespace) -> int:
    """Start or resume a search."""
    if options.resume is not None:
        return _resume(options)
    _check(options)
    names = options.predictor or [DEFAULT_DEVICE]
    # Loading torch and NNI takes seconds, so report a wrong device before that.
    devices = [load_latency_predictor(name, options.predictor_version).device for name in names]
    trials = options.trials or (_TRIALS if options.budget_minutes is None else None)
    strategy = _strategy(options)
    chosen = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    if strategy == "pareto":
        chosen.setdefault("population", at_most_half(20, trials))
    if strategy == "learned":
        chosen.setdefault("start", at_most_half(12, trials))
    seed = options.seed or 0
    limits = {name: getattr(options, f"max_{name}") for name in _QUANTITIES}
    values = {
        "space": options.space,
        "strategy": strategy,
        "options": chosen,
        "devices": devices,
        "predictor_version": options.predictor_version,
        "max_latency": _by_device(options, "max_latency", devices),
        "min_latency": _by_device(options, "min_latency", devices),
        "limits": {name: most for name, most in limits.items() if most is not None},
        "input_shape": options.input_shape,
        "trials": trials,
        "budget_minutes": options.budget_minutes,
        "arguments": {"epochs": options.epochs or 3, "seed": seed},
        "trial_limit_s": options.trial_limit,
        "seed": seed,
        **_machines(options),
    }
    usual = ("objectives", "concurrency", "evaluator", "engine")  # Settings knows what they are by default
    values |= {name: getattr(options, name) for name in usual if getattr(options, name) is not None}
    return start(values, options.output or Path("search-output"), options.port, options.overwrite)


def _machines(options: argparse.Namespace, service: str = "local") -> dict[str, Any]:
    """Return the settings of where trials run; report wrong usage if they do not go together.

    ``service`` is what it was so far.
    """
    values: dict[str, Any] = {}
    if options.training_service is not None:
        values["training_service"] = service = options.training_service
    for name, owners in _OF_SERVICES.items():
        if getattr(options, name) is not None:
            if service not in owners:
                flag = f"--{name.replace('_', '-')}"
                options.parser.error(f"argument {flag}: is of --training-service {' or '.join(owners)}")
            values[name] = getattr(options, name)
    if options.training_service == "remote" and options.machines is None:
        options.parser.error("argument --training-service: remote needs --machines")
    if options.machines is not None:
        from ..search.machines import read_machines
        from ..search.remote import check_line

        check_line()
        values["machines"] = [asdict(machine) for machine in read_machines(options.machines)]
    if options.concurrency is None and (options.machines or options.address):
        values["concurrency"] = None
    return values


def start(values: dict[str, Any], output: Path, at: int | None, overwrite: bool) -> int:
    """Start a search in the folder ``output`` with the settings in ``values``.

    Raises:
        SearchError: no architecture is inside the limits, the folder holds a search, or the search fails.
    """
    experiment, run_folder = _search_room()
    settings = run_folder.Settings(**values, folder=str(Path.cwd()))
    run_folder.RunFolder.check(output, overwrite)
    with pricing("the search space") as priced:
        search = experiment.Search(settings, priced)
    with run_folder.RunFolder.create(output.absolute(), search.settings, search.facts, overwrite) as folder:
        try:
            return _search(search, folder, at)
        except (SpaceError, WorkerError):  # the graph engine cannot take the space, or no cluster answers
            if not folder.events:  # so there is nothing to go on with, and the same command may be repeated
                folder.clear()
            raise


def _resume(options: argparse.Namespace) -> int:
    fixed = [
        name for name, value in vars(options).items()
        if value is not None and value is not False and name in _fixed(options.parser)
    ]  # fmt: skip
    if fixed:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in fixed)
        options.parser.error(
            f"argument --resume: goes on with the settings in {options.resume / 'search.json'}, so {flags} "
            f"cannot be given; start another search with -o"
        )
    experiment, run_folder = _search_room()
    path = options.resume.absolute()
    given = {name: getattr(options, name) for name in ("trials", "budget_minutes", "concurrency")}
    changed = {name: value for name, value in given.items() if value is not None}
    changed |= _machines(options, run_folder.read_settings(path)[0].training_service)
    with run_folder.RunFolder.resume(path, **changed, **_moved(path)) as folder:
        os.chdir(folder.settings.folder)  # the user's modules and data are there
        with pricing("the search space") as priced:
            search = experiment.Search(folder.settings, priced)
        return _search(search, folder, options.port)


def _moved(path: Path) -> dict[str, str]:
    """Return the changed setting of a search whose original folder is gone: it resumes in the current one."""
    from ..search.run_folder import read_settings

    began = read_settings(path)[0].folder
    if os.access(began, os.X_OK) and Path(began).is_dir():
        return {}
    here = str(Path.cwd())
    note(f"the search began in {began}, which is not here; it goes on with the modules and data of {here}")
    return {"folder": here}


def _search(search: Any, folder: RunFolder, at: int | None) -> int:
    """Run a search with a progress bar, and print the results."""
    from ..search.report.files import trials_table
    from ..search.running import run_search

    out = console()
    _print_limits(search.settings, out)
    again = f"nnmeter-nas search --resume {shlex.quote(str(folder.path))}"
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True, markup=False)) as bar:
        task = bar.add_task("Trials", total=search.settings.trials)

        def changed(folder: RunFolder) -> None:
            bar.update(task, completed=folder.ended, description=_state(folder))

        def started(port: int) -> None:
            note(f"NNI's web page while it runs: http://127.0.0.1:{port}")

        try:
            report = run_search(search, folder, at, started, changed, note)
        except SearchError:
            if folder.is_unfinished:
                note(f"go on with: {again}")
            raise
        except SystemExit:
            note(f"interrupted; no trial that finished is lost. Go on with: {again}")
            raise
    out.print(trials_table(report))
    for reason, candidates in report.rejected.items():
        out.print(f"{candidates} candidates not trained: {reason}")
    if report.note:
        asked = "" if report.asked is None else f" of {report.asked}"
        note(f"ended after {folder.ended}{asked} trials: {report.note}")
    if report.budget_minutes is not None:
        out.print(f"Trials took {report.minutes:.1f} minutes of a budget of {report.budget_minutes:g}")
    best = report.best
    values = ", ".join(f"{name} {figure(value)}" for name, value in best.values.items())
    out.print(f"Best: {best.metric:.4f} with {values}: {' '.join(best.choices.values())}", soft_wrap=True)
    for name in ("report.html", "trials.csv", "pareto.png", "best"):
        out.print(f"Saved {folder.path / name}", soft_wrap=True)
    return 0


def _state(folder: RunFolder) -> str:
    """Return the text of the bar: running and failed trials, the best metric, and what the trials took."""
    from ..search.report.trials import trained_minutes

    trials = folder.trials()
    states = [trial.state for trial in trials]
    metrics = [trial.metric for trial in trials if trial.metric is not None]
    parts = [f"{states.count('running')} running"]
    parts += [f"{states.count('failed')} failed"] * ("failed" in states)
    parts += [f"best {max(metrics):.4f}"] if metrics else []
    budget = folder.settings.budget_minutes
    parts += [] if budget is None else [f"{trained_minutes(trials):.1f} of {budget:g} minutes"]
    return f"Trials: {', '.join(parts)}"


def _print_limits(settings: Settings, out: Console) -> None:
    for device in settings.devices:
        bounds = {"at least": settings.min_latency.get(device), "at most": settings.max_latency.get(device)}
        limits = [f"{name} {ms:.4g} ms" for name, ms in bounds.items() if ms is not None]
        out.print(f"Latency on {device}: {', '.join(limits) or 'no limit'}")
    for name, most in settings.limits.items():
        unit = " bytes" if name in _IN_BYTES else ""
        out.print(f"{name}: at most {figure(most)}{unit}")


def _check(options: argparse.Namespace) -> None:
    """Report wrong usage if options do not go together."""
    error = options.parser.error
    if options.space is None:
        error("the following arguments are required: --space (or --resume)")
    strategy = _strategy(options)
    for name, owner in _OPTIONS.items():
        if getattr(options, name) is not None and owner != strategy:
            error(f"argument --{name.replace('_', '-')}: is of --strategy {owner}, not of {strategy}")
    if options.top_k is not None and options.quantile is not None:
        error("argument --quantile: not allowed with --top-k, which says the same")
    known = ("latency", *_QUANTITIES)
    for objective in options.objectives or []:
        if objective not in known:
            error(f"argument --objectives: {objective!r} is none of {', '.join(known)}")


def _strategy(options: argparse.Namespace) -> str:
    """The strategy that is named, or that an option belongs to, or the default."""
    owners = (owner for name, owner in _OPTIONS.items() if getattr(options, name) is not None)
    return options.strategy or next(owners, "learned")


def at_most_half(most: int, trials: int | None) -> int:
    """Return how many architectures come before a strategy learns: ``most``, or half of few trials."""
    return most if trials is None else min(most, max(2, trials // 2))


def _by_device(options: argparse.Namespace, name: str, devices: list[str]) -> dict[str, float]:
    """Return the values of a limit by device; a single value holds for all devices."""
    values = getattr(options, name)
    if values is None:
        return {}
    if len(values) not in (1, len(devices)):
        options.parser.error(
            f"argument --{name.replace('_', '-')}: {len(values)} limits for {len(devices)} devices "
            f"({', '.join(devices)}); give one for all, or one for each"
        )
    return dict(zip(devices, values if len(values) > 1 else values * len(devices), strict=True))


def _fixed(parser: argparse.ArgumentParser) -> set[str]:
    """Return the names of the options that a resumed search keeps."""
    free = {"help", "verbose", "resume", *_RESUMABLE}
    return {action.dest for action in parser._actions} - free


def _search_room() -> tuple[Any, Any]:
    """Return the modules that run a search and keep its folder.

    Raises:
        MissingPackageError: a package that searches need is not installed.
    """
    # NNI warns about parts of torch that are newer than it.
    warnings.filterwarnings("ignore", module=r"nni\b")
    purpose = "a search with NNI 2.10.1 or 3.0"
    experiment, run_folder, _ = (
        load_extra(f"nnmeter_nas.search.{name}", "search", purpose)
        for name in ("experiment", "run_folder", "running")
    )
    return experiment, run_folder


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different names, with commas between them")
    return names


def _hints(text: str) -> list[str]:
    names = [] if text == "none" else _names(text)
    for name in names:
        if name not in _QUANTITIES:
            known = ", ".join(_QUANTITIES)
            raise argparse.ArgumentTypeError(f"{name!r} is none of {known}; or give none alone")
    return names


def _milliseconds(text: str) -> list[float]:
    return [positive_float(part) for part in text.split(",")]


def _amount(text: str) -> float:
    """Parse a number that may end in k, M or G.

    >>> _amount("300M"), _amount("3e8")
    (300000000.0, 300000000.0)
    """
    return _in_units(text, text, _THOUSANDS, "number such as 3e8 or 300M")


def _bytes(text: str) -> float:
    """Parse bytes such as ``512K``, ``1.5MB`` and ``512KiB``; a K is 1000, a Ki 1024.

    >>> _bytes("512K"), _bytes("1.5MB"), _bytes("512KiB"), _bytes("2048")
    (512000.0, 1500000.0, 524288.0, 2048.0)
    """
    number = text.lower().removesuffix("b")
    return _in_units(text, number, _BYTES, "number of bytes such as 512K, 1.5MB or 512KiB")


def _in_units(text: str, number: str, units: dict[str, int], kind: str) -> float:
    """Parse a number that may end in a unit; ``text`` is what the user wrote, ``kind`` what it should be."""
    unit = next((unit for unit in units if number.lower().endswith(unit)), "")
    try:
        return positive_float(number[: len(number) - len(unit)]) * units.get(unit, 1)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no {kind}") from None


# argparse shows the function's name in its messages
count.__name__ = "int"
_milliseconds.__name__ = "number"
