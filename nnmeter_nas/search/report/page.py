"""Write the report of a search as one HTML page that needs no other file and can be printed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ...pages import bar, cards, escaped, figure, number, section, table, web_page
from .growth import growth_section
from .learnt import learnt_section
from .outcome import SearchReport, limit_words, limits_text, ranked, seconds_words
from .svg import pareto_chart, star
from .trials import Trial, failures


def report_html(report: SearchReport) -> str:
    """Make the page. It escapes all outside text, and only our script can run."""
    parts = (_summary, _pareto, growth_section, learnt_section, _blocks, _trials, _rejected, _settings)
    body = "\n".join(text for part in parts if (text := part(report)))
    return web_page(f"Architecture search in {report.space}", _lead(report), body)


def _lead(report: SearchReport) -> str:
    """Introduce the search: what ran, its limits, and why it ended early if it did."""
    by = f" by {escaped(report.strategy)}" if report.strategy else ""
    where = f", trained with NNI {escaped(report.nni)}" if report.nni else ""
    lines = [f'<p class="quiet">Chosen{by}{where}. Limits: {escaped(limits_text(report))}.</p>']
    if report.note:
        lines.append(f'<p class="note" role="note">Ended early: {escaped(report.note)}</p>')
    return "\n".join(lines)


def _summary(report: SearchReport) -> str:
    """Make cards with the best trial's figures and the counts, and say how to get the network."""
    states = [trial.state for trial in report.trials]
    counts = [f"{states.count(state)} {state}" for state in ("running", "failed") if state in states]
    asked = f" of {report.asked}" if report.asked is not None else ""
    budget = "" if report.budget_minutes is None else f"of a budget of {figure(report.budget_minutes)}"
    shown = [
        (f"trials trained{asked}", str(states.count("trained")), ", ".join(counts)),
        ("minutes of trials", f"{report.minutes:.1f}", budget),
    ]
    front = report.front
    if front:
        best = front[0]
        shown.insert(0, (f"best {report.metric}", f"{best.metric:.4f}", f"trial {best.number}"))
        shown[1:1] = [_card(report, best, name) for name in best.values]
        shown.append(("on the Pareto front", str(len(front)), ""))
    how = (
        "<p>The best network as an ONNX file: <code>nnmeter-nas export best/1.json -o network.onnx</code></p>"
        if front
        else "<p>No trial has been trained to its end"
        f"{'; what failed is listed below' if 'failed' in states else ' yet'}.</p>"
    )
    return f'<section aria-label="Summary">\n{cards(shown)}\n{how}\n</section>'


def _card(report: SearchReport, best: Trial, name: str) -> tuple[str, str, str]:
    """Return title and value of the best trial's measure, and a comparison with its limits."""
    least, most = report.limits(name)
    remarks = [f"{best.values[name] / most:.0%} of the limit {figure(most)}"] if name in report.maxima else []
    remarks += [f"at least {figure(least)}"] if name in report.minima else []
    remarks += _remarks(report, name, best)
    return f"its {report.title(name)}", figure(best.values[name]), ", ".join(remarks)


def _remarks(report: SearchReport, name: str, trial: Trial) -> list[str]:
    """Say how sure a trial's latency is: its limits, and which shares of it were not measured."""
    found = report.intervals.get(name, {}).get(trial.number)
    shares = report.not_measured.get(name, {}).get(trial.number, {})
    return [
        *([f"{figure(found[0])} to {figure(found[1])}"] if found else []),
        *(_share_words(basis, share) for basis, share in shares.items()),
    ]


def _expected(trial: Trial) -> list[str]:
    """Say which metric was expected of a trial, and between which limits."""
    if trial.expected is None:
        return []
    metric, low, high = trial.expected
    return [f"expected {metric:.4f}", f"{low:.4f} to {high:.4f}"]


def _share_words(basis: str, share: float | None) -> str:
    """Describe a share; what is unpredicted is no share of the latency, as it is missing from it."""
    if basis != "unpredicted":
        return f"{share:.1%} {basis}"
    return f"unpredicted: {'unknown share' if share is None else f'{share:.1%}'} of the work"


def _pareto(report: SearchReport) -> str:
    """Make a chart for each measure, and a table of the front's architectures."""
    front = report.front
    if not front:
        return ""
    keys = [("best", "best"), ("front", "Pareto front"), ("", "other trained architectures")]
    legend = "".join(f"<span>{_key(kind)} {words}</span>" for kind, words in keys)
    figures = []
    for name in report.axes:
        limit = limit_words(report, name)
        dashed = f"<span>{_key('limit')} limit: {escaped(limit)}</span>" if limit else ""
        figures.append(
            f"<figure>{pareto_chart(report, name)}\n<figcaption>{legend}{dashed}</figcaption></figure>"
        )
    head = ("file", "trial", report.metric, *map(report.title, report.measures))
    rows = [
        [
            f"<td><code>best/{place}.json</code></td>",
            number(trial.number, "{:d}".format),
            number(trial.metric, "{:.4f}".format),
            *(
                number(trial.values.get(name), remarks=_remarks(report, name, trial))
                for name in report.measures
            ),
        ]
        for place, trial in enumerate(front, 1)
    ]
    objectives = " or ".join(map(report.plain_title, report.objectives))
    caption = f"Nothing tried has a better {report.metric} without being worse in {objectives}"
    hint = "<p>Point at a mark, or go to it with the Tab key, to see its architecture.</p>"
    if any(report.intervals.values()) or any(report.not_measured.values()):
        hint += (
            "<p>Beside a latency stand the limits that hold nine of ten measured latencies, and the shares "
            "of it that are extrapolated beyond the range measured or estimated for want of measurements.</p>"
        )
    of_trials = (shares for found in report.not_measured.values() for shares in found.values())
    if any("unpredicted" in shares for shares in of_trials):
        hint += "<p>What is unpredicted is missing from the latency.</p>"
    charts = f'<div class="charts">{"".join(figures)}</div>'
    return section("Pareto front", hint, charts, table(head, rows, caption, under=map(_choices, front)))


def _key(kind: str) -> str:
    """Draw a legend mark for a kind of points, or for limits."""
    if kind == "limit":
        mark = '<path class="limit" d="M-8 0H8"/>'
    else:
        shape = f'<path d="{star(8)}"/>' if kind == "best" else '<circle r="6"/>'
        mark = f'<g class="point {kind}">{shape}</g>'
    return f'<svg class="key" viewBox="-8 -8 16 16" aria-hidden="true">{mark}</svg>'


def _blocks(report: SearchReport) -> str:
    """Show where the best architecture's latency goes, on each device."""
    found = report.latency_by_block
    if not found or not report.front:
        return ""
    best = report.best
    labels = list(dict.fromkeys(label for parts in found.values() for label in parts))
    head = ["block", "candidate", *map(report.title, found)]
    rows = []
    for label in labels:
        # One kernel may depend on several choices; its label then joins their labels.
        chosen = [best.choices[part] for part in (label, *label.split("+")) if part in best.choices]
        cells = [
            f'<th scope="row">{escaped(label)}</th>',
            f"<td>{escaped(' '.join(dict.fromkeys(chosen)))}</td>",
        ]
        for parts in found.values():
            cells.append(_share(parts.get(label, 0.0), sum(parts.values()), max(parts.values())))
        rows.append(cells)
    sums = "".join(number(sum(parts.values())) for parts in found.values())
    foot = f'<tr><th scope="row">sum</th><td></td>{sums}</tr>'
    intro = (
        f"<p>Predicted latency of the best architecture (trial {best.number}), part by part: "
        "what each choice causes, and in the stationary block what no choice changes.</p>"
    )
    return section("Latency by block", intro, table(head, rows, kind="parts", foot=foot))


def _share(ms: float, total: float, most: float) -> str:
    """Make a cell: a part's latency in ms, its share of the total, and a bar relative to the longest part."""
    width = max(ms, 0.0) / most if most > 0 else 0.0
    return number(ms, remarks=[f"{ms / total if total else 0.0:.1%}"], more=bar(width))


def _trials(report: SearchReport) -> str:
    """Make a table of all trials that sorts by any column."""
    if not report.trials:
        return section("Trials", "<p>None has been submitted.</p>")
    several = len(report.maxima) > 1
    head = (
        "trial",
        "state",
        report.metric,
        *map(report.title, report.measures),
        *(["largest share of a limit"] if several else []),
        "time (s)",
    )
    front = {trial.number for trial in report.front}
    rows, under, attributes = [], [], []
    for trial in ranked(report):
        state = "front" if trial.number in front else trial.state
        cells = [
            number(trial.number, "{:d}".format),
            f'<td class="state" data-value="{state}">{"on the front" if state == "front" else state}</td>',
            number(trial.metric, "{:.4f}".format, _expected(trial)),
            *(
                number(trial.values.get(name), remarks=_remarks(report, name, trial))
                for name in report.measures
            ),
            *([number(report.worst_ratio(trial), "{:.0%}".format)] if several else []),
            number(trial.seconds, seconds_words),
        ]
        rows.append(cells)
        failure = f'<div class="failure">{escaped(trial.failure)}</div>' if trial.failure else ""
        under.append(_choices(trial) + failure)
        attributes.append(f' id="trial-{trial.number}" class="{state}"')
    caption = f"All {len(rows)} trials; choose a heading to sort by it"
    return section("Trials", table(head, rows, caption, "sortable", under, attributes))


def _rejected(report: SearchReport) -> str:
    """Count the rejected architectures and the failed trials by reason."""
    parts = []
    if report.rejected:
        parts.append(_counts("Not submitted", report.rejected.items()))
    if failed := failures(report.trials):
        parts.append(_counts("Failed in training", failed.items()))
    if not parts:
        return ""
    return section("What was rejected, and why", *parts)


def _counts(caption: str, counts: Iterable[tuple[str, int]]) -> str:
    rows = [
        [f'<th scope="row">{escaped(reason)}</th>', number(count, "{:,}".format)] for reason, count in counts
    ]
    return table(("reason", "architectures"), rows, caption)


def _settings(report: SearchReport) -> str:
    """List the settings that repeat the search."""
    packs = {
        f"predictor pack of {name}": f"{pack.device} {pack.pack_version} {pack.pack_fingerprint}"
        for name, pack in report.hardware.items()
    }
    values = {
        **report.settings,
        "space": report.space,
        "input_shape": list(report.input_shape),
        "strategy": report.strategy,
        "NNI": report.nni,
        **packs,
    }
    rows = [
        [f'<th scope="row">{escaped(name)}</th>', f"<td><code>{escaped(_as_text(value))}</code></td>"]
        for name, value in values.items()
        if value not in (None, "", [], {}, ())
    ]
    return section("Settings", table(("setting", "value"), rows, kind="settings"))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _choices(trial: Trial) -> str:
    """Write the choices of a trial in their order: label and chosen candidate."""
    pairs = " ".join(
        f"<span><i>{escaped(label)}:</i> {escaped(name)}</span>" for label, name in trial.choices.items()
    )
    return f'<div class="blocks">{pairs}</div>'
