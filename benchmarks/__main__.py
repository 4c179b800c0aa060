"""Commands that make packs and measure predictions, tables and searches."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import platformdirs
from rich.console import Console

from nnmeter_nas.backends import BACKENDS
from nnmeter_nas.cli.arguments import positive_float, positive_int
from nnmeter_nas.cli.workers import add_worker_arguments, using_workers
from nnmeter_nas.compat.bench import bench_folder
from nnmeter_nas.errors import NnMeterNasError, nearest
from nnmeter_nas.packs.registry import bundled_packs, devices
from nnmeter_nas.parallel.bulk import workers
from nnmeter_nas.training.settings import Settings

from .packs.reports import evaluate_packs, write_readme
from .parity.comparison import FORMATS, run_parity
from .tuning.kernels import KERNELS

#: Tasks of the command ``search``.
SEARCH_TASKS = ("cifar10", "cifar100", "imagenet16-120", "spos", "digits")
#: Strategies of the command ``search``.
SEARCH_STRATEGIES = (
    "learned", "pareto", "random", "evolution", "nni-tpe", "optuna-nsga2", "optuna-tpe", "optuna-gp",
)  # fmt: skip
#: Topics that the command ``speed`` measures.
_SPEED_TOPICS = ("footprint", "searches", "candidates", "tables", "profilers", "spaces", "scaling")
#: What the command ``comparison`` measures, and the tools that it does so for.
RIVAL_PARTS = ("tried", "right", "needs")
RIVALS = ("nnmeter_nas", "nn-meter", "nni", "fvcore", "torchinfo")
_PROCEDURE = """\
Build a pack of this machine, go nn-Meter's way for as long, and judge both by the same networks.

nn-Meter's way is that of its builder: a test by time of which pairs of operators fuse, lone kernels of sizes
that nn-Meter 2.0 itself draws, its forests, two more rounds of sizes around what they predict badly, and a
network as the sum of its kernels. Both measure with the same code and get the same minutes. The networks that
judge are measured in the same run: before, between and after.

Measure on a quiet machine. An interrupted run goes on from where it stopped. After a finished run, the same
command fits and judges both again from what was measured; --fresh measures anew.
"""
_PROCEDURE_EXAMPLES = """\
examples:
  python -m nnmeter_nas.benchmarks procedure --backend onnxruntime --page docs/builder.md
  python -m nnmeter_nas.benchmarks procedure --backend openvino --minutes 3 --fresh --page docs/builder.md
"""
_DATASET = "folder of <family>s.jsonl files in the official schema, datasets.zip, or `official`: download it"


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of an argument that has one, unless its help text already does."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)


class _Formatted(_Help, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description."""


class _Several(argparse.Action):
    """Replaces the default when first used, and appends to the given values after that."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        given = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if given is self.default else given), *values])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``python -m nnmeter_nas.benchmarks`` and return its exit code."""
    options = argument_parser().parse_args(arguments)
    console = Console(stderr=True)
    try:
        if getattr(options, "bench", None):
            options.bench = bench_folder(options.bench)
        options.run(options, console)
    except NnMeterNasError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        return 130
    return 0


def argument_parser() -> argparse.ArgumentParser:
    """Make the parser of the commands."""
    parser = argparse.ArgumentParser(prog="python -m nnmeter_nas.benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    cache = Path(platformdirs.user_cache_dir("nnmeter_nas"))

    def command(name: str, run: Callable[[argparse.Namespace, Console], None], summary: str) -> Any:
        added = commands.add_parser(name, formatter_class=_Help, help=summary)
        added.set_defaults(run=run, refuse=added.error)
        return added

    train = command("train", _train, "train the predictor packs from measured whole-model latencies")
    _add_dataset(train)
    _add_devices(train)
    train.add_argument("--output", type=Path, default=bundled_packs(), metavar="DIR", help="where packs go")
    _add_work(train, cache / "training", "finished steps")
    train.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    train.add_argument("--members", type=positive_int, default=3, help="networks averaged in a pack")
    train.add_argument("--epochs", type=positive_int, default=Settings.epochs,
                       help="passes over the data of each network")
    train.add_argument("--lofo-epochs", type=positive_int, default=20,
                       help="passes of networks that leave one family out")
    _add_processes(train)

    evaluate = command("evaluate", _evaluate, "accuracy of the installed packs on a dataset, by family")
    _add_dataset(evaluate)
    _add_devices(evaluate)
    add_worker_arguments(evaluate, journal=True)

    readme = command("readme", lambda o, console: write_readme(o.bench, o.predictor, o.output),
                     "write the README's tables: standard networks, and accuracy from the cards")
    _add_dataset(readme)
    _add_devices(readme)
    readme.add_argument("--output", type=Path, default=Path("README.md"), metavar="FILE",
                        help="file whose marked sections are replaced")

    networks = command("networks", _networks,
                       "write standard networks as ONNX files, for `nnmeter-nas build NAME --verify`")
    networks.add_argument("output", type=Path, metavar="DIR", help="folder of the files")

    memory = command("memory", _memory,
                     "peak memory and size of networks, beside what onnxruntime and LiteRT take")
    memory.add_argument("networks", type=Path, metavar="DIR",
                        help="folder of ONNX files, such as the command `networks` writes")
    _add_page(memory, "--page")

    page = command("accuracy", _accuracy, "write the tables and charts of the page on accuracy")
    _add_dataset(page)
    _add_devices(page)
    page.add_argument("--page", type=Path, default=Path("docs/accuracy.md"), metavar="FILE",
                      help="file whose marked sections are replaced; charts go beside it")
    add_worker_arguments(page)

    gnn = command("gnn", _gnn, "train nn-Meter's graph network, and compare it with the packs")
    _add_dataset(gnn)
    _add_devices(gnn)
    gnn.add_argument("--epochs", type=positive_int, default=20, help="passes over the data")
    gnn.add_argument("--batch", type=positive_int, default=1, help="models of a step")
    gnn.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    _add_page(gnn, "--page")

    parity = command("parity", _parity,
                     "compare kernels and totals with nn-Meter 2.0, with the same forests and rules")
    parity.add_argument("--nnmeter", type=Path, default=Path(".venv-nnmeter/bin/python"), metavar="PYTHON",
                        help="interpreter of an environment with nn-Meter 2.0; make parity sets one up")
    parity.add_argument("--bench", type=Path, metavar="BENCH_DIR",
                        help=f"{_DATASET}, to compare its standard networks too")
    parity.add_argument("--format", nargs="+", action=_Several, default=list(FORMATS), choices=FORMATS,
                        help="how to read")
    parity.add_argument("--network", nargs="+", action="extend", metavar="NAME", help="these networks alone")
    _add_page(parity, "--output")
    _add_devices(parity)

    additivity = command("additivity", _additivity,
                         "sums over lookup tables against full-graph predictions, of random architectures")
    additivity.add_argument("--architectures", type=positive_int, default=1000, help="how many of each space")
    additivity.add_argument("--seed", type=int, default=0, help="of the architectures")
    _add_devices(additivity)

    models = command("cost-models", _cost_models,
                     "which cost model finds quick schedules in fewest trials, in TVM's tuning")
    models.add_argument("--kernel", nargs="+", action=_Several, default=list(KERNELS), choices=list(KERNELS),
                        help="kernels to choose schedules of")
    models.add_argument("--pool", type=positive_int, default=128, metavar="N",
                        help="schedules of each kernel that are measured, to choose from; some seconds each")
    models.add_argument("--trials", type=positive_int, default=64, metavar="N",
                        help="schedules that are chosen")
    models.add_argument("--seeds", type=positive_int, default=10, help="searches of each model and kernel")
    _add_work(models, cache / "cost-models", "measured schedules")
    _add_page(models, "--page")

    reference = command("reference-latency", _reference_latency,
                        "ProxylessNAS searches that differ in the reference latency alone")
    _add_device(reference, "cortexA76cpu_tflite21")
    reference.add_argument("--seed", type=int, nargs="+", action=_Several, default=[0, 1, 2],
                           help="of the searches")
    _add_work(reference, Path("reference-latency-work"), "checkpoints of searches")
    _add_page(reference, "--output")
    reference.add_argument("--epochs", type=positive_int, help="of each search, instead of the command's own")
    _add_processes(reference)

    cells = command("nasbench201-accuracy", _cells,
                    "write the accuracies of all NAS-Bench-201 cells from a table")
    cells.add_argument("table", type=Path, metavar="CSV",
                       help="column `cell` as its authors write cells, and columns of accuracies in percent, "
                            "`cifar10-val` to `imagenet16-120-test`; may be packed with gzip")

    search = command("search", _search,
                     "strategies compared by the share of the true hypervolume that they find")
    search.add_argument("--task", nargs="+", action=_Several, default=list(SEARCH_TASKS),
                        choices=SEARCH_TASKS, help="what to search")
    _add_devices(search)
    search.add_argument("--strategy", nargs="+", action=_Several, default=list(SEARCH_STRATEGIES),
                        choices=SEARCH_STRATEGIES, help="what to search with")
    search.add_argument("--seeds", type=positive_int, default=20, help="searches of each strategy in a task")
    search.add_argument("--first-seed", type=int, default=0, help="seed of the first; the others follow it")
    search.add_argument("--trials", type=positive_int, default=200,
                        help="of each search; Optuna's GPSampler, which takes seconds for each, stops at 50")
    search.add_argument("--jobs", type=positive_int, default=1, help="searches at a time, each in a process")
    search.add_argument("--optuna", type=Path, default=Path(".venv-optuna"), metavar="DIR",
                        help="virtual environment of Optuna; make compare sets one up")
    _add_work(search, cache / "search-comparison", "finished searches and the trainings on the digits")
    search.add_argument("--fresh", action="store_true", default=None,
                        help="run the searches again, whatever is kept of them: after a change of a strategy")
    search.add_argument("--output", type=Path, default=Path("search-comparison"), metavar="DIR",
                        help="folder of the tables, the plot and the raw figures")
    _add_page(search, "--page")

    one_shot = command("one-shot", _one_shot,
                       "where ProxylessNAS lands on the digits, for the page of `search` (NNI 2.10.1)")
    _add_device(one_shot, "adreno640gpu_tflite21")
    one_shot.add_argument("--seeds", type=positive_int, default=5, help="searches for each limit")
    one_shot.add_argument("--epochs", type=positive_int, default=30, help="of each search")
    _add_work(one_shot, cache / "search-comparison", "finished searches")

    procedure = command("procedure", _procedure,
                        "nn-Meter's way to make a predictor of a device, beside `nnmeter-nas build`")
    procedure.description, procedure.epilog = _PROCEDURE, _PROCEDURE_EXAMPLES
    procedure.formatter_class = _Formatted
    procedure.add_argument("--backend", default="onnxruntime", metavar="BACKEND",
                           help=f"what runs the models: {', '.join(BACKENDS)}, or module:Class of your own")
    procedure.add_argument("--minutes", type=positive_float, default=5.0, metavar="M",
                           help="minutes of measuring of each, at most")
    procedure.add_argument("--network", nargs="+", action=_Several, default=None, metavar="NAME",
                           help="networks that judge, by their names in benchmarks/networks; `all` for all "
                                "(default: one or two of each family, and the unusual ones)")
    _add_work(procedure, cache / "procedure", "measurements")
    procedure.add_argument("--fresh", action="store_true", default=None,
                           help="throw away what earlier runs of this command measured")
    _add_environment(procedure)
    _add_output(procedure)
    _add_page(procedure, "--page")

    bulk = command("bulk", _bulk, "predictions of very many files: speed by workers, memory, and a kill")
    _add_device(bulk, "cortexA76cpu_tflite21")
    bulk.add_argument("--files", type=positive_int, default=100_000, metavar="N",
                      help="small ONNX files of the long run, which is killed half-way and repeated")
    bulk.add_argument("--workers", type=positive_int, default=2, metavar="N", help="of the long run")
    bulk.add_argument("--sample", type=positive_int, default=5000, metavar="N",
                      help="files of each run that tells the speed of a number of workers")
    bulk.add_argument("--jobs", type=positive_int, nargs="+", action=_Several, default=[1, 2, 4], metavar="N",
                      help="those numbers of workers")
    _add_work(bulk, cache / "bulk", "the files")
    _add_output(bulk)
    _add_page(bulk, "--page")

    rivals = command("comparison", _comparison,
                     "other tools beside this package: what they read, predict and need, how right, how fast")
    rivals.add_argument("--only", nargs="+", action=_Several, default=list(RIVAL_PARTS), choices=RIVAL_PARTS,
                        help="what to measure; cells of other runs stay, each with its date")
    rivals.add_argument("--tool", nargs="+", action=_Several, default=list(RIVALS), choices=RIVALS,
                        help="tools to measure")
    rivals.add_argument("--network", nargs="+", action=_Several, default=None, metavar="NAME",
                        help="networks that the tools are tried on (default: all that `networks` writes)")
    _add_device(rivals, "cortexA76cpu_tflite21")
    rivals.add_argument("--bench", type=Path, metavar="BENCH_DIR", help=f"{_DATASET}, to judge accuracy")
    rivals.add_argument("--models", type=positive_int, metavar="N",
                        help="models of each file of the dataset (default: all)")
    _add_environment(rivals)
    rivals.add_argument("--nni3", type=Path, default=Path(".venv-nni3"), metavar="DIR",
                        help="virtual environment of NNI 3.0")
    rivals.add_argument("--counters", type=Path, default=Path(".venv-flops"), metavar="DIR",
                        help="virtual environment of fvcore and torchinfo; make rivals sets one up")
    _add_output(rivals)
    _add_page(rivals, "--page")

    speed = command("speed", _speed,
                    "speed and size, each figure beside its rival's in the same run (NNI 2.10.1)")
    speed.add_argument("--topic", nargs="+", action=_Several, default=list(_SPEED_TOPICS),
                       choices=_SPEED_TOPICS, help="what to measure")
    _add_device(speed, "cortexA76cpu_tflite21")
    _add_environment(speed)
    _add_output(speed)
    speed.add_argument("--nni3", type=Path, default=Path(".venv-nni3"), metavar="DIR",
                       help="virtual environment of NNI 3.0")
    speed.add_argument("--bench", type=Path, metavar="BENCH_DIR",
                       help=f"{_DATASET}, to measure the memory that evaluating it takes")
    speed.add_argument("--readme", type=Path, metavar="FILE", help="file whose section becomes the table")
    speed.add_argument("--page", type=Path, metavar="FILE",
                       help="file whose section becomes the exponents, a plot beside it")
    return parser


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bench", type=Path, metavar="BENCH_DIR", help=_DATASET)


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--predictor", nargs="+", action=_Several, default=list(devices()), metavar="DEVICE",
                        help="devices to work on")


def _add_device(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument("--predictor", default=default, metavar="DEVICE", help="applied hardware")


def _add_work(parser: argparse.ArgumentParser, default: Path, kept: str) -> None:
    parser.add_argument("--work", type=Path, default=default, metavar="DIR",
                        help=f"where {kept} are kept, to resume")


def _add_page(parser: argparse.ArgumentParser, flag: str) -> None:
    parser.add_argument(flag, type=Path, metavar="FILE",
                        help="Markdown file whose section is replaced by the table")


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--environment", type=Path, default=Path(".venv-nnmeter"), metavar="DIR",
                        help="virtual environment of nn-Meter 2.0")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"), metavar="DIR",
                        help="folder of the results")


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=positive_int, default=2, help="processes")


def _train(options: argparse.Namespace, console: Console) -> None:
    from .packs.pack_training import Plan, train_packs  # late: it loads torch, a third of a gigabyte

    plan = Plan(tuple(options.predictor), options.members, options.seed, options.epochs, options.lofo_epochs)
    with workers(options.workers):
        folders = train_packs(options.bench, options.output, options.work, plan)
    for folder in folders:
        console.print(f"wrote {folder}")


def _evaluate(options: argparse.Namespace, console: Console) -> None:
    with using_workers(options):
        evaluate_packs(options.bench, options.predictor, Console(), options.journal)


def _memory(options: argparse.Namespace, console: Console) -> None:
    from .memory import compare_memory  # late: it needs the runtimes

    compare_memory(options.networks, console, options.page)


def _gnn(options: argparse.Namespace, console: Console) -> None:
    from .gnn import compare_gnn  # late: it imports torch

    compare_gnn(
        options.bench, options.predictor, options.epochs, options.batch, Console(), options.seed, options.page
    )


def _networks(options: argparse.Namespace, console: Console) -> None:
    from .networks.files import write_networks  # late: it imports torch

    for path in write_networks(options.output):
        console.print(f"written {path}", markup=False)


def _accuracy(options: argparse.Namespace, console: Console) -> None:
    from .packs.accuracy_page import write_accuracy_page  # late: it loads torch

    with using_workers(options):
        write_accuracy_page(options.bench, options.predictor, options.page)


def _parity(options: argparse.Namespace, console: Console) -> None:
    run_parity(
        options.nnmeter, options.bench, options.format, options.network, options.predictor, options.output,
        console,
    )  # fmt: skip


def _additivity(options: argparse.Namespace, console: Console) -> None:
    from .search.additivity import report_additivity  # late: it needs NNI, unlike the other commands

    report_additivity(options.predictor, options.architectures, options.seed, Console())


def _cost_models(options: argparse.Namespace, console: Console) -> None:
    from .tuning.comparison import run_comparison  # late: it needs TVM
    from .tuning.report import statements, write_page

    outcome = run_comparison(
        options.kernel, options.pool, options.seeds, options.trials, options.work, console
    )
    for sentence in statements(outcome):
        print(sentence)
    if options.page:
        write_page(outcome, options.page)


def _reference_latency(options: argparse.Namespace, console: Console) -> None:
    from .search.reference_latency import run_reference_latency  # late: it needs NNI and torch

    run_reference_latency(
        options.predictor, options.seed, options.work, options.output, console, options.epochs,
        options.workers,
    )  # fmt: skip


def _bulk(options: argparse.Namespace, console: Console) -> None:
    from .bulk.measuring import Plan, run_bulk
    from .bulk.page import write_bulk

    plan = Plan(options.predictor, options.files, options.workers, options.sample, options.jobs)
    results = options.output / "bulk.json"
    run_bulk(plan, options.work, results, console)
    if options.page:
        write_bulk(results, options.page)


def _comparison(options: argparse.Namespace, console: Console) -> None:
    from .rivals.comparison import Environments, load_results, run_comparison
    from .rivals.models import ALL  # late: it loads torch
    from .rivals.page import write_page

    environments = Environments(Path(sys.prefix), options.nni3, options.environment, options.counters)
    results = options.output / "comparison.json"
    run_comparison(
        environments, options.only, options.tool, options.network or ALL, options.predictor, list(devices()),
        options.bench, options.models, results, console,
    )  # fmt: skip
    if options.page:
        write_page(load_results(results), options.output, options.page)


def _speed(options: argparse.Namespace, console: Console) -> None:
    from .speed.report import run_speed, write_speed

    run_speed(
        options.environment, options.output, options.predictor, options.topic, console, options.bench,
        options.nni3,
    )  # fmt: skip
    if options.readme:
        write_speed(options.output, options.readme, options.page)


def _procedure(options: argparse.Namespace, console: Console) -> None:
    from nnmeter_nas.builder.plan import Plan

    from .procedure.comparison import ALL, JUDGES, run_procedure
    from .procedure.page import write_procedure

    networks = ALL if options.network == ["all"] else options.network or JUDGES
    if unknown := sorted(set(networks) - set(ALL)):
        options.refuse(f"--network: no network is called {unknown[0]!r}; {nearest(unknown[0], ALL)}")
    place = re.sub(r"[^\w.-]+", "-", f"{options.backend}-{options.minutes:g}-minutes")
    work = options.work / place
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    results = run_procedure(
        options.backend, Plan(minutes=options.minutes), networks, work, options.environment, options.output,
        console,
    )  # fmt: skip
    console.print(f"wrote {results}; the measurements are in {work}", markup=False)
    if options.page:
        write_procedure(results, options.page)


def _cells(options: argparse.Namespace, console: Console) -> None:
    from .search import nasbench201_accuracy as accuracy

    accuracy.write_accuracies(options.table, accuracy.FILE)
    console.print(f"wrote {accuracy.FILE}", markup=False)


def _search(options: argparse.Namespace, console: Console) -> None:
    from .search.comparison import Plan, run_comparison  # late: it needs NNI 3.0
    from .search.report import write_reports

    seeds = range(options.first_seed, options.first_seed + options.seeds)
    plan = Plan(options.task, options.predictor, options.strategy, seeds, options.trials)
    if not plan.tasks():
        options.refuse(f"--predictor: no task of {options.task} runs on {options.predictor}")
    python = options.optuna / "bin" / "python"
    outcomes = run_comparison(plan, options.work, python, options.jobs, console, bool(options.fresh))
    for sentence in write_reports(outcomes, options.output, options.page):
        print(sentence)


def _one_shot(options: argparse.Namespace, console: Console) -> None:
    from .search.one_shot import run_one_shot  # late: it needs NNI 2.10.1 and torch

    kept = run_one_shot(options.predictor, range(options.seeds), options.work, console, options.epochs)
    console.print(f"wrote {kept}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
