"""The report of a build as one page that needs no other file: how good the predictor is, and why."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from ..kernels.configuration import FloatArray
from ..pages import (
    Frame,
    Scale,
    axes,
    bar,
    captioned,
    cards,
    chart,
    escaped,
    figure,
    number,
    numbered,
    scale,
    section,
    table,
    web_page,
)
from .findings import Findings, NetworkFound
from .workspace import Round

_FRAME = Frame()
_SQUARE = Frame(width=560, height=480, left=76, top=12, right=548, bottom=430)
#: Shares of the chart of errors end at so many %.
_MOST_OFF = 30.0
#: Networks whose visits agree least that are listed.
_NOISIEST = 8


def report_html(found: Findings) -> str:
    """Make the page. It escapes all outside text."""
    parts = (_summary, _predicted, _over_time, _noise, _kinds, _rules, _left_out, _device)
    body = "\n".join(text for part in parts if (text := part(found)))
    state = "The predictor is made" if found.finished else "The build goes on"
    name, runtime, machine = (escaped(found.device[key]) for key in ("name", "runtime", "machine"))
    rounds = len(found.rounds)
    lead = f'<p class="quiet">{runtime} on {machine}. {state}, after {_counted(rounds, "round")}.</p>'
    if found.finished:
        lead += f"\n<p>Use it: <code>nnmeter-nas predict model.onnx --predictor {name}</code></p>"
    return web_page(f"Predictor of {found.device['name']}", lead, body)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _summary(found: Findings) -> str:
    off = [_off(one) for one in found.networks if one.unseen]
    last = found.rounds[-1]
    shown = [
        (f"networks within ±{limit} %", f"{_within(off, limit):.1f} %",
         f"of {len(off)} not trained on; the device repeats {repeats:.1f} %")
        for limit, repeats in ((10, last.repeats_10), (5, last.repeats_5))
    ]  # fmt: skip
    left_out = f"{_counted(len(found.left_out), 'network')} left out" if found.left_out else ""
    return "\n".join(
        [
            '<section aria-label="Summary">',
            cards(
                [
                    *shown,
                    ("median error", f"{np.median(off):.1f} %", "of networks not trained on"),
                    ("networks measured", str(len(found.networks)), left_out),
                    ("minutes of measuring", f"{last.minutes:.2f}", ""),
                    ("fusion rules", str(len(found.rules)), ""),
                ]
            ),
            "<p>No predictor can be better than the device repeats itself: that is the share of networks for "
            "which two halves of the visits agree so well.</p>",
            "</section>",
        ]
    )


def _off(one: NetworkFound) -> float:
    """How far a prediction is off, in %."""
    return 100 * abs(one.predicted / one.measured - 1)


def _within(shares: Sequence[float], limit: float) -> float:
    """Share of ``shares`` up to ``limit``, in %."""
    return 100 * float(np.mean(np.asarray(shares) <= limit + 1e-9))


def _predicted(found: Findings) -> str:
    words = {"point front": "not trained on", "point": "trained on", "band": "within ±10 %"}
    note = ""
    if found.finished:
        del words["point"]
        note = (
            "<p>Each network is predicted by a fit that was not trained on it, and the predictor itself is "
            "trained on all of them.</p>"
        )
    if found.warmth.exponent:
        note += (
            f"<p>Networks below {found.warmth.below_ms:.3g} ms stay in the processor's caches. They take "
            "less than their kernels do in large networks: the smallest measured takes "
            f"{float(found.warmth.share(found.warmth.least_ms)):.0%}.</p>"
        )
    drawn = captioned(_scatter(found.networks), words.items())
    off = sorted((one for one in found.networks if one.unseen), key=_off, reverse=True)
    rows = [
        [
            f'<th scope="row">{escaped(one.name)}</th>',
            number(one.measured),
            number(one.predicted),
            number(100 * (one.predicted / one.measured - 1), "{:+.1f} %".format),
            number(100 * (one.repeats - 1), "{:.1f} %".format),
        ]
        for one in off[:_NOISIEST]
    ]
    worst = table(
        ("network", "measured (ms)", "predicted (ms)", "off", "its halves differ by"),
        rows,
        "Networks not trained on that are predicted worst",
    )
    return section("Predicted and measured", note, f'<div class="charts">{drawn}\n{worst}</div>')


def _scatter(networks: Sequence[NetworkFound]) -> str:
    """Draw predicted over measured latency, both on a log scale, with a band of ±10 %."""
    both = [ms for one in networks for ms in (one.measured, one.predicted)]
    low, high = math.log10(min(both)) - 0.1, math.log10(max(both)) + 0.1
    x = scale(low, high, _SQUARE.left, _SQUARE.right)
    y = scale(low, high, _SQUARE.bottom, _SQUARE.top)
    steps = [(math.log10(value), figure(value)) for value in _powers(low, high)]
    up, down = math.log10(1.1), math.log10(0.9)
    corners = (
        (low, low), (low, low + up), (high - up, high), (high, high), (high, high + down), (low - down, low),
    )  # fmt: skip
    band = "L".join(f"{x(across):.1f} {y(value):.1f}" for across, value in corners)
    points = [
        f'<g class="point{" front" if one.unseen else ""}" '
        f'transform="translate({x(math.log10(one.measured)):.1f} {y(math.log10(one.predicted)):.1f})">'
        f"<title>{escaped(_described(one))}</title><circle r=\"{5 if one.unseen else 4}\"/></g>"
        for one in sorted(networks, key=lambda one: one.unseen)
    ]
    return chart(
        _SQUARE,
        f"predicted over measured latency of {_counted(len(networks), 'network')}",
        [
            *axes(_SQUARE, [(x(at), words) for at, words in steps], [(y(at), words) for at, words in steps],
                  "measured (ms)", "predicted (ms)"),
            f'<path class="band" d="M{band}Z"/>',
            f'<path class="diagonal" d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}"/>',
            *points,
        ],
    )  # fmt: skip


def _powers(low: float, high: float) -> list[float]:
    """Round numbers on a log scale between two logarithms: 1, 2 and 5, or powers of ten alone if many.

    >>> _powers(-1.2, 0.4)
    [0.1, 0.2, 0.5, 1.0, 2.0]
    """
    factors = (1, 2, 5) if high - low < 3 else (1,)
    exponents = range(math.floor(low), math.ceil(high) + 1)
    every = [float(f"{factor}e{exponent}") for exponent in exponents for factor in factors]
    return [value for value in every if low <= math.log10(value) <= high]


def _described(one: NetworkFound) -> str:
    use = "not trained on" if one.unseen else "trained on"
    return (
        f"{one.name}, {use}\nmeasured: {figure(one.measured)} ms\npredicted: {figure(one.predicted)} ms "
        f"({100 * (one.predicted / one.measured - 1):+.1f} %)"
    )


def _over_time(found: Findings) -> str:
    lines = [
        ("line ten", "within ±10 %", [one.within_10 for one in found.rounds]),
        ("line five", "within ±5 %", [one.within_5 for one in found.rounds]),
        ("line ten repeat", "device repeats ±10 %", [one.repeats_10 for one in found.rounds]),
        ("line five repeat", "±5 %", [one.repeats_5 for one in found.rounds]),
    ]
    most = max(0.01, 1.05 * max(one.minutes for one in found.rounds))
    x, y = scale(0.0, most, _FRAME.left, _FRAME.right), _shares_scale()
    parts = [*_grid(x, most, "minutes of measuring", "networks (%)")]
    for kind, words, values in lines:
        at = [(x(one.minutes), y(value)) for one, value in zip(found.rounds, values, strict=True)]
        parts.append(f'<path class="{kind}" d="M{"L".join(f"{a:.1f} {b:.1f}" for a, b in at)}"/>')
        parts += [
            f'<g class="{kind}"><title>{escaped(words)}: {value:.1f} %</title>'
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4"/></g>'
            for (a, b), value in zip(at, values, strict=True)
        ]
    keys = [(kind, words) for kind, words, _ in lines]
    drawn = captioned(chart(_FRAME, "accuracy over time", parts), keys)
    rows = [_round_cells(i, one) for i, one in enumerate(found.rounds, 1)]
    head = ("round", "minutes", "networks", "left out", "±5 %", "±10 %", "repeats ±5 %", "±10 %")
    return section(
        "Accuracy over time",
        "<p>Shares of networks that the fit after each round was not trained on, and of networks for which "
        "the halves of the visits agree so well.</p>",
        f'<div class="charts">{drawn}\n{table(head, rows, "Rounds")}</div>',
    )


def _round_cells(place: int, one: Round) -> list[str]:
    shares = (one.within_5, one.within_10, one.repeats_5, one.repeats_10)
    return [
        f'<th scope="row">{place}</th>',
        number(one.minutes, "{:.2f}".format),
        number(one.networks, "{:d}".format),
        number(one.left_out, "{:d}".format),
        *(number(share, "{:.1f}".format) for share in shares),
    ]


def _shares_scale() -> Scale:
    """Scale of shares in %."""
    return scale(0.0, 100.0, _FRAME.bottom, _FRAME.top)


def _grid(x: Scale, most: float, x_title: str, y_title: str) -> list[str]:
    """Axes of a chart of shares over something from 0 to ``most``."""
    y = _shares_scale()
    return axes(
        _FRAME,
        [(x(value), words) for value, words in numbered(0.0, most)],
        [(y(value), words) for value, words in numbered(0.0, 100.0)],
        x_title,
        y_title,
    )


def _noise(found: Findings) -> str:
    judges = [one for one in found.networks if one.judges]
    repeats = [100 * (one.repeats - 1) for one in judges]
    off = [_off(one) for one in found.networks if one.unseen]
    lines = [
        ("line ten", "prediction, networks not trained on", off),
        ("line five repeat", "halves of the visits, networks that judge", repeats),
    ]
    x, y = scale(0.0, _MOST_OFF, _FRAME.left, _FRAME.right), _shares_scale()
    parts = [
        *_grid(x, _MOST_OFF, "differ by at most (%)", "networks (%)"),
        *(f'<path class="limit" d="M{x(limit):.1f} {_FRAME.top}V{_FRAME.bottom}"/>' for limit in (5, 10)),
        *(f'<path class="{kind}" d="{_steps(values, x, y)}"/>' for kind, _, values in lines),
    ]
    keys = [*((kind, words) for kind, words, _ in lines), ("limit", "±5 and ±10 %")]
    label = "networks by how far predictions and repeats are apart"
    drawn = captioned(chart(_FRAME, label, parts), keys)
    rows = [
        [
            f'<th scope="row">{escaped(one.name)}</th>',
            *(number(half) for half in one.halves),
            number(100 * (one.repeats - 1), "{:.1f} %".format),
        ]
        for one in sorted(judges, key=lambda one: -one.repeats)[:_NOISIEST]
    ]
    head = ("network", "every other visit (ms)", "the rest (ms)", "differ by")
    noisiest = table(head, rows, "Networks that repeat worst")
    return section(
        "Noise",
        "<p>Networks that judge between rounds tell how well the device repeats itself: the two halves of "
        f"their visits differ by {np.median(repeats):.1f} % in the median, and by {max(repeats):.1f} % at "
        "most. The further that line lies above the one of predictions, the more can be gained by measuring "
        "more networks; where they meet, only a quieter device helps.</p>",
        f'<div class="charts">{drawn}\n{noisiest}</div>',
    )


def _steps(values: Sequence[float], x: Scale, y: Scale) -> str:
    """Path of the share of ``values`` up to each point of the chart."""
    path = f"M{x(0):.1f} {y(0):.1f}"
    ordered: FloatArray = np.sort(np.minimum(values, _MOST_OFF))
    for i, value in enumerate(ordered.tolist(), 1):
        share = 100 * (i / len(ordered)) if value < _MOST_OFF else _within(values, _MOST_OFF - 1e-6)
        path += f"H{x(value):.1f}V{y(share):.1f}"
    return path + f"H{x(_MOST_OFF):.1f}"


def _kinds(found: Findings) -> str:
    if not found.kinds:
        return section("Error by kernel type", "<p>The runtime does not tell what its kernels take.</p>")
    widest = max(kind.share for kind in found.kinds)
    rows = [
        [
            f'<th scope="row">{escaped(kind.name)}</th>',
            number(kind.share, "{:.1f} %".format, more=bar(kind.share / widest)),
            number(kind.seen + kind.unseen, "{:d}".format),
            number(kind.unseen, "{:d}".format),
            number(kind.bias, "{:+.1f} %".format),
            number(kind.error, "{:.1f} %".format),
            number(kind.within_10, "{:.0f} %".format),
        ]
        for kind in found.kinds
    ]
    head = (
        "kernel type", "share of the time", "kernels", "not trained on", "bias", "mean error",
        "within ±10 %",
    )  # fmt: skip
    return section(
        "Error by kernel type",
        "<p>Predicted against measured time of single kernels within networks not trained on. Bias "
        "is that of all kernels of the type together; in the mean error a kernel counts by its time. Errors "
        "of single kernels partly cancel in a network.</p>",
        table(head, rows, "Kernel types; choose a heading to sort by it", "sortable parts"),
    )


def _rules(found: Findings) -> str:
    if not found.votes:
        return section("Fusion rules", "<p>The runtime does not tell what it fuses, so there are none.</p>")
    rules = set(found.rules)
    rows, never, uncertain = [], [], []
    for vote in sorted(found.votes, key=lambda vote: (-vote.share, -vote.seen)):
        name = "->".join(vote.names)
        # Longer chains matter only where they are rules.
        if len(vote.names) > 2 and name not in rules:
            continue
        if vote.uncertain:
            taken = ", taken for a rule" if name in rules else ""
            uncertain.append(f"<span>{escaped(name)} <i>{vote.fused} of {vote.seen}{taken}</i></span>")
            continue
        if not vote.fused:
            never.append(f"<span>{escaped(name)} <i>{vote.seen}</i></span>")
            continue
        rows.append(
            [
                f'<th scope="row">{escaped(name)}</th>',
                number(vote.fused, "{:d}".format),
                number(vote.seen, "{:d}".format),
                number(100 * vote.share, "{:.0f} %".format, more=bar(vote.share)),
                f"<td>{'yes' if name in rules else 'no'}</td>",
            ]
        )
    return section(
        "Fusion rules",
        f"<p>{_counted(len(found.rules), 'rule')}: the operator behind the last arrow runs in the kernel of "
        "those before it. rules.yaml has the longer chains that are no rules.</p>",
        table(("operators", "fused", "seen", "share", "rule"), rows, "What was fused", "sortable parts"),
        '<p class="quiet">Never fused, with how often it was seen:</p>',
        f'<div class="blocks">{" ".join(never)}</div>',
        *_uncertain(uncertain),
    )


def _uncertain(pairs: Sequence[str]) -> list[str]:
    if not pairs:
        return []
    return [
        '<p class="quiet">Uncertain, as sizes disagree or are lost in noise, with how many of those that '
        "told were fused; what all known runtimes fuse is taken for a rule:</p>",
        f'<div class="blocks">{" ".join(pairs)}</div>',
    ]


def _left_out(found: Findings) -> str:
    if not found.left_out:
        return ""
    rows = [
        [
            f'<th scope="row">{escaped(one.name)}</th>',
            number(one.seed, "{:d}".format),
            f"<td>{escaped(one.reason)}</td>",
        ]
        for one in found.left_out
    ]
    return section("Networks left out", table(("network", "seed", "reason"), rows))


def _device(found: Findings) -> str:
    values = {**found.device, **found.device.get("plan", {})}
    values.pop("plan", None)
    rows = [
        [
            f'<th scope="row">{escaped(name)}</th>',
            f"<td><code>{escaped(value if isinstance(value, str) else json.dumps(value))}</code></td>",
        ]
        for name, value in values.items()
    ]
    return section("Device and plan", table(("setting", "value"), rows, kind="settings"))
