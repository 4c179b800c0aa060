"""Report a comparison of searches: tables and sentences in Markdown, and raw figures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nnmeter_nas.files import write_bytes
from nnmeter_nas.kernels.configuration import FloatArray

from ..pages import markdown_table, replace_sections
from .contestants import CONTESTANTS, JUDGED
from .judging import CHECKPOINTS, COMPARED, ENOUGH, Outcome, Run, compared
from .plot import ONE_SHOT, comparison_plot
from .statistics import Comparison
from .tasks import Group

_NAME = "search_comparison"


def write_reports(outcomes: Sequence[Outcome], output: Path, page: Path | None = None) -> list[str]:
    """Write ``search_comparison.md``, ``.json`` and ``.png`` into ``output``; return a sentence a rival.

    The Markdown also replaces the section ``search comparison`` of ``page``; the plot goes beside it.

    Raises:
        DatasetError: ``page`` has no such section.
        MissingPackageError: matplotlib or SciPy is not installed.
    """
    comparisons = compared(outcomes)
    lines, plot = markdown(outcomes, comparisons), comparison_plot(outcomes)
    write_bytes(output / f"{_NAME}.md", "\n".join([*lines, ""]).encode())
    write_bytes(output / f"{_NAME}.json", json.dumps(_raw_figures(outcomes, comparisons)).encode())
    write_bytes(output / f"{_NAME}.png", plot)
    if page is not None:
        replace_sections(page, {"search comparison": lines})
        write_bytes(page.parent / f"{_NAME}.png", plot)
    return [
        f"{group.title}: {sentence}"
        for group, of_group in _by_group(outcomes)
        for sentence in sentences(_of(of_group, comparisons))
    ]


def markdown(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]) -> list[str]:
    """Lines of Markdown: what ran, the plot, and for each group its tables and a sentence a rival."""
    lines = [
        f"{_what_ran(outcomes)} Shares are of the true hypervolume, in %; p is that of Wilcoxon's "
        "signed-rank test, two-sided, with Holm's correction over the rivals and the tasks of a group.",
        "",
        f"![Share of the true hypervolume over trials, by task]({_NAME}.png)",
    ]
    for group, of_group in _by_group(outcomes):
        lines += ["", f"### {group.title}", "", *_group(of_group, _of(of_group, comparisons))]
    return lines


def sentences(tests: Sequence[Comparison]) -> list[str]:
    """Say of each rival whether the judged strategy is ahead of it, from the comparisons of one group."""
    return [_sentence([test for test in tests if test.rival == rival]) for rival in _rivals(tests)]


def _sentence(tests: Sequence[Comparison]) -> str:
    ahead, behind = sum(test.ahead for test in tests), sum(test.behind for test in tests)
    pairs = f"{sum(test.wins for test in tests)} of {sum(test.seeds for test in tests)}"
    p = f"largest p {max(test.p_holm for test in tests):.2g}, {tests[0].level:g} allowed"
    details = f"more hypervolume in {pairs} pairs of searches; {p}"
    what = f"ahead of {_title(tests[0].rival)}"
    if len(tests) > 1:
        what += " in every task" if ahead == len(tests) else f" in every task: in {ahead} of {len(tests)}"
    if behind:
        details += f"; behind in {behind} of {len(tests)}"
    return f"{_title(JUDGED)} is {'' if ahead == len(tests) else 'not '}{what} ({details})."


def _rivals(tests: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(test.rival for test in tests))


def _title(name: str) -> str:
    return CONTESTANTS[name].title


def _by_group(outcomes: Sequence[Outcome]) -> Iterable[tuple[Group, list[Outcome]]]:
    for group in dict.fromkeys(outcome.task.group for outcome in outcomes):
        yield group, [outcome for outcome in outcomes if outcome.task.group == group]


def _of(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons in the tasks of some outcomes."""
    names = {outcome.task.name for outcome in outcomes}
    return [comparison for comparison in comparisons if comparison.task in names]


def _what_ran(outcomes: Sequence[Outcome]) -> str:
    runs = outcomes[0].runs
    most = max(len(found[0].share) for found in runs.values())
    fewer = [
        f"{_title(name)} with {len(found[0].share)}"
        for name, found in runs.items()
        if len(found[0].share) < most
    ]
    seeds = len(outcomes[0].truths)
    less = f" ({', '.join(fewer)}, since it takes long)" if fewer else ""
    return f"Each strategy searched each task with {seeds} seeds and {most} trials{less}."


def _group(outcomes: Sequence[Outcome], tests: Sequence[Comparison]) -> list[str]:
    lines = []
    if len(outcomes) > 1:
        lines += [f"Mean over the {len(outcomes)} tasks and all seeds:", "", *_means(outcomes), ""]
    if tests:
        lines += [
            f"After {COMPARED} trials, on {_title(JUDGED)} and its rivals:",
            "",
            *(f"- {sentence}" for sentence in sentences(tests)),
            "",
        ]
        if (least := 2 * len(tests) / 2 ** len(outcomes[0].truths)) >= tests[0].level:
            seeds = len(outcomes[0].truths)
            lines += [
                f"{seeds} seeds cannot show that anything is ahead: with {len(tests)} tests, the smallest p "
                f"that there can be is {min(1.0, least):.2g}.",
                "",
            ]
        if len(outcomes) > 1:
            lines += [
                f"Share of {_title(JUDGED)} minus that of the rival after {COMPARED} trials, in points, "
                "median over the seeds, and p:",
                "",
                *_tests(outcomes, tests),
                "",
            ]
    for outcome in outcomes:
        title = [f"#### {outcome.task.title}", ""] if len(outcomes) > 1 else []
        lines += [*title, _facts(outcome), "", *_table(outcome, tests), ""]
        if outcome.landed:
            lines += [_one_shot(outcome), ""]
    return lines[:-1]


def _checkpoints(runs: Iterable[Sequence[Run]]) -> list[int]:
    most = max(len(found[0].share) for found in runs)
    return [trials for trials in CHECKPOINTS if trials <= most]


def _means(outcomes: Sequence[Outcome]) -> list[str]:
    """The table of a group: a row for each strategy."""
    trials = _checkpoints(outcomes[0].runs.values())
    header = [
        "strategy", *(f"after {n}" for n in trials), f"trials until {ENOUGH:.0%}",
        "below the best within the limit, points", "s a trial",
    ]  # fmt: skip
    rows = []
    for name in outcomes[0].runs:
        runs = [run for outcome in outcomes for run in outcome.runs[name]]
        rows.append([
            _title(name),
            *(_cell([run.share for run in runs], n, _mean) for n in trials),
            _median_trials(runs),
            _cell([run.missed for run in runs], _compared(runs), _mean_missed),
            f"{np.median([run.tried.seconds for run in runs]):.2g}",
        ])  # fmt: skip
    return markdown_table(header, range(1, len(header)), rows)


def _table(outcome: Outcome, tests: Sequence[Comparison]) -> list[str]:
    """The table of a task: a row for each strategy."""
    trials = _checkpoints(outcome.runs.values())
    by_rival = {test.rival: test for test in tests if test.task == outcome.task.name}
    has_test = any(run.tested is not None for runs in outcome.runs.values() for run in runs)
    header = [
        "strategy", *(f"after {n}" for n in trials), f"trials until {ENOUGH:.0%}", "best within the limit, %",
        *(["its test accuracy, %"] if has_test else []), f"p of {_title(JUDGED)}",
    ]  # fmt: skip
    rows = []
    for name, runs in outcome.runs.items():
        at = _compared(runs)
        best = [outcome.truths[run.tried.seed].best - run.missed for run in runs]
        tested = [run.tested for run in runs if run.tested is not None]
        rows.append([
            _title(name),
            *(_cell([run.share for run in runs], n, _spread) for n in trials),
            _median_trials(runs),
            _cell(best, at, lambda found: f"{100 * np.median(found):.2f}"),
            *([_cell(tested, at, lambda found: f"{100 * np.median(found):.2f}")] if has_test else []),
            _p(by_rival.get(name)),
        ])  # fmt: skip
    return markdown_table(header, range(1, len(header)), rows)


def _tests(outcomes: Sequence[Outcome], tests: Sequence[Comparison]) -> list[str]:
    """The table of the paired tests: a row for each task, a column for each rival."""
    rivals = _rivals(tests)
    found = {(test.task, test.rival): test for test in tests}
    rows = [
        [
            outcome.task.title,
            *(
                f"{100 * test.difference:+.2f} ({_p(test)})"
                for test in (found[outcome.task.name, rival] for rival in rivals)
            ),
        ]
        for outcome in outcomes
    ]
    return markdown_table(["task", *map(_title, rivals)], range(1, len(rivals) + 1), rows)


def _facts(outcome: Outcome) -> str:
    truths = list(outcome.truths.values())
    best = _range([truth.best for truth in truths])
    tested = truths[0].best_test
    test = "" if tested is None else f" (test {tested:.2%})"
    known = "" if outcome.task.problem.listed() is not None else " known"
    return (
        f"Reference point: {outcome.task.slowest:.4g} ms and {_range([truth.floor for truth in truths])}. "
        f"The best architecture{known} within the limit of {outcome.task.limit:.4g} ms has {best}{test}; the "
        f"accuracies of the table are those after {min(_compared(runs) for runs in outcome.runs.values())} "
        "trials."
    )


def _one_shot(outcome: Outcome) -> str:
    """Say where the one-shot searches landed, and when the strategy that is judged is as far."""
    shares, times = np.array(outcome.landed).T
    share, trials = np.median(shares), np.median(times)
    said = (
        f"{ONE_SHOT}: {_spread(shares)} % of the hypervolume "
        f"in the time of {trials:.0f} trials (seeds: {len(outcome.landed)})"
    )
    if JUDGED not in outcome.runs:
        return f"{said}."
    curve = np.median([run.share for run in outcome.runs[JUDGED]], axis=0)
    reached = np.flatnonzero(curve >= share)
    when = f"after {reached[0] + 1} trials" if len(reached) else f"not within {len(curve)} trials"
    return f"{said}. {_title(JUDGED)} has as much {when}."


def _range(shares: Sequence[float]) -> str:
    low, high = f"{min(shares):.2%}", f"{max(shares):.2%}"
    return low if low == high else f"{low} to {high}"


def _compared(runs: Sequence[Run]) -> int:
    """The number of trials after which accuracies within the limit are told."""
    return min(COMPARED, *(len(run.share) for run in runs))


def _cell(curves: Sequence[FloatArray], trials: int, text: Callable[[FloatArray], str]) -> str:
    """What ``text`` says of the values after so many trials; a dash if there are not as many."""
    if any(len(curve) < trials for curve in curves):
        return "–"
    return text(np.array([curve[trials - 1] for curve in curves]))


def _spread(shares: FloatArray) -> str:
    low, middle, high = 100 * np.quantile(shares, [0.25, 0.5, 0.75])
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def _mean(shares: FloatArray) -> str:
    return f"{100 * shares.mean():.2f}"


def _mean_missed(missed: FloatArray) -> str:
    return _mean(missed) if np.isfinite(missed).all() else "–"


def _median_trials(runs: Sequence[Run]) -> str:
    """Trials until all but everything is found; a dash if most searches never get there."""
    middle = float(np.median([run.enough for run in runs]))
    return f"{middle:.0f}" if np.isfinite(middle) else "–"


def _p(test: Comparison | None) -> str:
    if test is None:
        return "–"
    return f"{test.p_holm:.2g}{', ahead' if test.ahead else ', behind' if test.behind else ''}"


def _raw_figures(outcomes: Sequence[Outcome], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Every trial of every search and every comparison, ready for JSON."""
    return {
        "tasks": [_raw_task(outcome) for outcome in outcomes],
        "comparisons": [
            {"task": c.task, "rival": c.rival, "median_difference": c.difference, "wins": c.wins,
             "seeds": c.seeds, "p": c.p, "p_holm": c.p_holm, "ahead": c.ahead}
            for c in comparisons
        ],
    }  # fmt: skip


def _raw_task(outcome: Outcome) -> dict[str, Any]:
    task = outcome.task
    return {
        "name": task.name,
        "title": task.title,
        "candidates": {label: list(known) for label, known in task.space.candidates.items()},
        "slowest_ms": task.slowest,
        "limit_ms": task.limit,
        "truths": {str(seed): asdict(truth) for seed, truth in outcome.truths.items()},
        "runs": [
            {
                "strategy": _title(name),
                "seed": run.tried.seed,
                "seconds_a_trial": run.tried.seconds,
                "architectures": run.tried.rows.tolist(),
                "share": [float(f"{share:.6g}") for share in run.share.tolist()],
            }
            for name, runs in outcome.runs.items()
            for run in runs
        ],
    }
