"""``nnmeter-nas predictors``: list predictor packs, show their contents, and add others."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import list_latency_predictors
from ..packs import find_pack, pack_folders
from ..packs.intervals import Intervals
from ..packs.network import KernelNetwork
from ..packs.pack import read_card, verify_pack
from ..packs.registry import bundled_packs
from .commands import add_command, set_command
from .messages import console, note, say_as_nn_meter

_EPILOG = """\
examples:
  nnmeter-nas predictors list
  nnmeter-nas predictors info cortexA76cpu_tflite21 --verify
  nnmeter-nas predictors import cortexA76cpu_tflite21        nn-Meter's own forests, as version 1.0
  nnmeter-nas predictors import adreno640gpu_tflite21.zip --name adreno640gpu_tflite21
"""
_IMPORT_EPILOG = """\
SOURCE is one of: a device of nn-Meter, whose release is then downloaded; the release's zip, or its https
address; a folder of .pkl files with a fusion_rules.json. Pickles are decoded, never run. An imported version
1.0 does not displace a newer one: ask for it with --predictor-version 1.0.

examples:
  nnmeter-nas predictors import myriadvpu_openvino2019r2
  nnmeter-nas predictors import ~/downloads/cortexA76cpu_tflite21.zip --name cortexA76cpu_tflite21
"""
_REGISTER_EPILOG = """\
META.yaml is nn-Meter's: name, version, category, package_location and kernel_predictors.

example:
  nnmeter-nas predictors register my_phone/meta.yaml
"""
_UNREGISTER_EPILOG = """\
Packs that ship with nnmeter-nas stay.

example:
  nnmeter-nas predictors unregister cortexA76cpu_tflite21 --predictor-version 1.0
"""
_INFO_EPILOG = """\
example:
  nnmeter-nas predictors info adreno640gpu_tflite21 --predictor-version 2.0 --verify
"""
#: Kernel sizes to show the range of: heading -> column.
_SIZES = {
    "channels in": "cin",
    "channels out": "cout",
    "map": "hin",
    "window": "kh",
    "stride": "sh",
    "operands": "operands",
}
#: Accuracy figures of a card: heading -> (key, format).
_ACCURACY = {
    "±5 % (%)": ("within_5", ".1f"),
    "±10 % (%)": ("within_10", ".1f"),
    "MAPE (%)": ("mape", ".1f"),
    "Spearman": ("spearman", ".3f"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command and its actions."""
    set_command(parser, _list, _EPILOG)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    listed = add_command(actions, "list", "list the predictor packs with their accuracy")
    set_command(listed, _list, "")

    imported = add_command(actions, "import", "import predictors of nn-Meter 1.0")
    set_command(imported, _import, _IMPORT_EPILOG)
    imported.add_argument("source", metavar="SOURCE", help="device, zip, https address or folder")
    imported.add_argument("--name", metavar="DEVICE", help="device name, where the source does not tell it")
    imported.add_argument("--version", dest="pack_version", type=float, metavar="V",
                          help="version of the pack (default: what the source says, else 1.0)")
    imported.add_argument("--sha256", metavar="HEX", help="refuse a zip with another SHA-256")

    register = add_command(actions, "register", "register predictors trained with nn-Meter's builder")
    set_command(register, _register, _REGISTER_EPILOG)
    register.add_argument("meta", type=Path, metavar="META.yaml", help="nn-Meter's register file")

    for name, run, summary, epilog in (
        ("unregister", _unregister, "remove an imported or registered pack", _UNREGISTER_EPILOG),
        ("info", _info, "print what a pack was trained on, and how good it is", _INFO_EPILOG),
    ):
        command = add_command(actions, name, summary)
        set_command(command, run, epilog)
        command.add_argument("name", metavar="DEVICE", help="device name")
        command.add_argument("--predictor-version", type=float, metavar="V",
                             help=f"version of the pack (default: {'the newest' if run is _info else 'all'})")
    command.add_argument("--verify", action="store_true", help="check the pack's files against their SHA-256")


def print_names() -> int:
    """Print one line per pack, in nn-Meter's format, for ``--list-predictors``."""
    say_as_nn_meter("Supported latency predictors:")
    for card in list_latency_predictors():
        say_as_nn_meter(f"[Predictor] {card['name']}: version={card['version']}")
    return 0


def _list(options: argparse.Namespace) -> int:
    table = Table("name", "version", "category", "runtime", *_ACCURACY, "stored")
    for column in table.columns:
        column.no_wrap = column.header != "stored"
    folders = pack_folders()
    for card in list_latency_predictors():
        folder = folders[card["name"], float(card["version"])]
        figures = _figures(card.get("accuracy", {}).get("held_out_ids", {}).get("all", {}))
        entries = (str(card.get(key, "")) for key in ("name", "version", "category", "runtime"))
        bundled = folder.is_relative_to(bundled_packs())
        table.add_row(*entries, *figures, "in the package" if bundled else str(folder))
    console().print(table)
    return 0


def _import(options: argparse.Namespace) -> int:
    from ..packs.nnmeter1.importing import import_predictor  # late: only this action needs it

    return _stored(import_predictor(options.source, options.name, options.pack_version, options.sha256))


def _register(options: argparse.Namespace) -> int:
    from ..packs.nnmeter1.importing import register_predictor

    return _stored(register_predictor(options.meta))


def _stored(folder: Path) -> int:
    """Say how to use the pack just stored in ``folder``."""
    card = read_card(folder)
    print(f"{card['name']} {float(card['version'])} is stored in {folder}")
    note(f"use it with: nnmeter-nas predict MODEL --predictor {card['name']} "
         f"--predictor-version {float(card['version'])}")
    return 0


def _unregister(options: argparse.Namespace) -> int:
    from ..packs.store import remove_predictor

    for version in remove_predictor(options.name, options.predictor_version):
        print(f"removed {options.name} {version}")
    return 0


def _info(options: argparse.Namespace) -> int:
    pack = find_pack(options.name, options.predictor_version)
    folder, card = pack_folders()[pack.name, pack.version], pack.card
    if options.verify:
        verify_pack(folder)
    out = console()
    facts = Table(show_header=False, box=None)
    accuracy = card.get("accuracy", {})
    for key, value in card.items():
        if key not in ("accuracy", "intervals", "rates"):
            facts.add_row(key.replace("_", " "), _text(value))
    if repeats := accuracy.get("repeats"):
        shares = (f"{repeats[f'within_{limit}']:.1f} % within ±{limit} %" for limit in (5, 10))
        facts.add_row("repeats itself", ", ".join(shares))
    facts.add_row("stored in", str(folder))
    if options.verify:
        facts.add_row("files", "all match their SHA-256")
    out.print(facts)
    if isinstance(pack.predictors, KernelNetwork):
        out.print(_range_table(pack.predictors))
    for kind, heading in (("held_out_ids", "models held out of training"),
                          ("held_out_networks", "the same models by network"),
                          ("leave_one_family_out", "families held out of training")):
        if kind in accuracy:
            out.print(_accuracy_table(heading, accuracy[kind].get("families", accuracy[kind])))
    if pack.intervals is not None and (coverage := card["intervals"].get("coverage")):
        out.print(_interval_table(pack.intervals, coverage))
    return 0


def _range_table(network: KernelNetwork) -> Table:
    """Make a table: a row per measured kernel type with the range of its sizes, then the estimated types."""
    table = Table("kernel type", *_SIZES, title="Kernel types measured", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, ranges in network.ranges().items():
        table.add_row(name, *(_span(*ranges[size]) if size in ranges else "" for size in _SIZES.values()))
    if estimated := sorted(network.names.types - set(network.names.measured)):
        table.caption = f"never measured, and estimated: {', '.join(estimated)}"
        table.caption_justify = "left"
    return table


def _span(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g}-{high:g}"


def _accuracy_table(heading: str, families: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make a table with a row per family of models."""
    table = Table("family", "models", *_ACCURACY, title=f"Accuracy on {heading}", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for family, figures in families.items():
        total = family in ("all", "mean")
        table.add_row(family, str(figures.get("models", "")), *_figures(figures), end_section=total)
    return table


def _interval_table(intervals: Intervals, coverage: Mapping[str, Mapping[str, float]]) -> Table:
    """Make a table of how often 90 % intervals held, with what widens them as its caption."""
    columns = ("models", "inside (%)", "median half-width (%)")
    table = Table(*columns, title="90 % intervals", title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, found in coverage.items():
        row = (f"{found['coverage']:.1f}", f"{found['half_width']:.1f}")
        table.add_row(name.replace("_", " "), *row, end_section=name == "held_out_ids")
    slopes = ", ".join(f"{name} {slope:.3g}" for name, slope in intervals.slopes.items())
    table.caption = f"half-width = least half-width x (1 + sum of each doubt x its slope); slopes: {slopes}"
    table.caption_justify = "left"
    return table


def _figures(figures: Mapping[str, Any]) -> list[str]:
    """Format accuracy figures for a table; a figure that the card lacks is empty."""
    return [format(figures[key], form) if key in figures else "" for key, form in _ACCURACY.values()]


def _text(value: Any) -> str:
    """Format a card's value on as few lines as are still readable."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return "\n".join(f"{key.replace('_', ' ')}: {_text(entry)}" for key, entry in value.items())
    return str(value)
