"""The main job end to end: a real NNI search that only trains networks within a latency limit.

Candidates come from the small SPOS space, their latency from a predictor pack, their accuracy from training
on scikit-learn's digits, each in an NNI trial of its own.
"""

from __future__ import annotations

import functools
import statistics
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .errors import SearchError
from .report import SearchReport, empty_folder, trials_table, write_report

if TYPE_CHECKING:
    from .predictor import LatencyPredictor

SPACE: Final = "small"
#: Random candidates whose median latency is the limit if none is given.
SAMPLED = 40

_REBUILD = f"""\
import json
from nni.retiarii import fixed_arch
from nnmeter_nas.search_spaces import spos
with fixed_arch(json.load(open("best.json"))["choices"]):
    network = spos({SPACE!r})
"""


def run_demo(
    predictor: LatencyPredictor,
    output: Path,
    threshold: float | None = None,
    trials: int = 12,
    epochs: int = 3,
    concurrency: int = 2,
    engine: Literal["py", "graph"] = "py",
    port: int | None = None,
    seed: int = 0,
    patience: int = 300,
    console: Console | None = None,
) -> SearchReport:
    """Search the small SPOS space, print what was found and save it.

    Args:
        predictor: of the device that the limit holds on.
        output: folder for ``trials.csv``, ``best.json``, ``pareto.png`` and, in ``nni-logs``, NNI's own logs.
        threshold: latency limit in ms; None takes the median of random candidates.
        trials: candidates to train.
        epochs: passes over the training images in each trial.
        concurrency: trials that run at once, on one core each.
        engine: NNI's execution engine: "py" or "graph".
        port: for NNI's web page, on 127.0.0.1; another is taken if it is in use. None takes any.
        seed: of candidates, data split and weights.
        patience: candidates over the limit in a row after which it counts as out of reach.
        console: where to print; default standard output.

    Raises:
        SearchError: no candidate meets the limit, every trial failed, or NNI fails.
    """
    # NNI 2.10.1 warns about parts of torch that came after it.
    warnings.filterwarnings("ignore", module=r"nni\b")
    import nni
    from nni.retiarii.evaluator import FunctionalEvaluator
    from nni.retiarii.strategy import Random

    from .estimators.digits import train_on_digits
    from .search_spaces import spos
    from .strategies import LatencyFilter
    from .strategies.search import build_network, run_search, sample_latencies

    # Paths and messages of errors may hold brackets, which are no markup.
    console = console or Console(markup=False)
    output = output.absolute()
    logs = output / "nni-logs"
    empty_folder(output)
    build = functools.partial(spos, SPACE)
    input_shape = build().input_shape

    def predict(choices: dict[str, str]) -> float:
        return predictor.predict(build_network(build, choices), model_type="torch", input_shape=input_shape)

    if threshold is None:
        sampled = sample_latencies(build, predict, SAMPLED, seed)
        threshold = statistics.median(sampled)
        console.print(f"Latency limit {threshold:.4g} ms on {predictor.device}: the median of {SAMPLED} "
                      f"random candidates, {min(sampled):.3f} to {max(sampled):.3f} ms")
    else:
        console.print(f"Latency limit {threshold:.4g} ms on {predictor.device}")
    within_limit = LatencyFilter(threshold, predictor, patience=patience)
    training = {"input_shape": input_shape, "epochs": epochs, "seed": seed}
    bar = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   console=console)
    with bar:
        task = bar.add_task(f"NNI trials, {concurrency} at once", total=trials)

        def started(port: int) -> None:
            bar.console.print(f"NNI's web page while it runs: http://127.0.0.1:{port}")

        def progress(ended: int, failed: int) -> None:
            bar.update(task, completed=ended, description=f"NNI trials, {failed} failed" if failed else None)

        outcome, note = run_search(
            build,
            Random(model_filter=within_limit),
            FunctionalEvaluator(train_on_digits, **training),
            within_limit.latency_of,
            logs=logs,
            trials=trials,
            concurrency=concurrency,
            engine=engine,
            input_shape=input_shape,
            trial_limit_s=600 + 60 * epochs,
            port=port,
            seed=seed,
            started=started,
            progress=progress,
        )
    if not outcome:
        raise SearchError(f"none of {within_limit.seen} candidates is within {threshold:.4g} ms; the fastest "
                          f"takes {within_limit.fastest_ms or 0:.4g} ms")
    settings: dict[str, Any] = {
        "space": f"spos({SPACE!r})", "dataset": "digits", "nni": nni.__version__, "engine": engine, **training
    }
    report = SearchReport(predictor.device, predictor.version, threshold, outcome, _REBUILD, settings)
    console.print(trials_table(report))
    console.print(f"{within_limit.seen} candidates looked at, {within_limit.rejected} rejected")
    if note:
        console.print(f"Ended after {len(outcome)} of {trials} trials: {note}", style="yellow")
    files = write_report(report, output)
    if any(trial.failure for trial in outcome):
        console.print(f"Logs of the failed trials: {logs}", style="yellow", soft_wrap=True)
    best = report.best
    console.print(f"Best: {100 * (best.accuracy or 0):.2f} % at {best.latency_ms:.3f} ms, "
                  f"{' '.join(best.choices.values())}")
    for file in files:
        console.print(f"Saved {file}", soft_wrap=True)
    return report
