"""``nnmeter-nas lut``: build and show lookup tables of search spaces, and rank architectures with them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from ..costs import FactorTable, build_table, build_tables, load_table, save_table
from ..costs.bundled import table_file
from ..costs.cache import check_table
from ..costs.files import SUFFIXES, is_table_file
from ..errors import LookupTableError, NnMeterNasError
from ..parallel.bulk import TravellingPredictor, spread
from ..predictor import LatencyPredictor
from ..supernet import Space
from ..supernet.named import SPACES, load_space
from . import lut_rank, lut_show
from .arguments import add_device_arguments, load_predictors, size
from .commands import add_command, set_command
from .messages import fail, note, pricing
from .runs import note_default_device
from .workers import add_worker_arguments, check_workers, spreads, using_workers

_EPILOG = """\
examples:
  nnmeter-nas lut build --space proxylessnas --predictor all -o tables
  nnmeter-nas lut show spos --predictor cortexA76cpu_tflite21 --plot heat.png
  nnmeter-nas lut rank spos --top 20 --max-latency 30
"""
_BUILD_EPILOG = f"""\
SPACE is one of {", ".join(SPACES)};
or module:attribute, where a module of the current folder or an installed one has an NNI search space, or
what makes one when it is called without arguments.

Tables go to DIR/SPACE_SHAPE/DEVICE_VERSION.npz; the table of one space on one device may go to a file of any
name. A file that ends in .yaml gets the layout of NNI's latency_table.yaml. A table that is there, whole, and
of the same space and predictor pack is kept, so a build that was interrupted goes on where it was.

examples:
  nnmeter-nas lut build --space spos proxylessnas --predictor all -o tables
  nnmeter-nas lut build --space my_space:net --predictor all --input-shape 1 3 96 96 -o tables
  nnmeter-nas lut build --space proxylessnas --predictor cortexA76cpu_tflite21 -o latency_table.yaml
  nnmeter-nas lut build --space spos --predictor all --backend dask --scheduler tcp://10.0.0.1:8786 -o tables
"""
#: Decimals that a table keeps of a latency in ms.
_DECIMALS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command and its actions."""
    set_command(parser, _build, _EPILOG)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    build = add_command(actions, "build", "build the lookup tables of search spaces")
    set_command(build, _build, _BUILD_EPILOG)
    build.add_argument("--space", nargs="+", action="extend", required=True, metavar="SPACE",
                       help="name of a search space, or module:attribute")
    add_device_arguments(build)
    build.add_argument("--input-shape", type=size, nargs="+", metavar="SIZE",
                       help="shape of the input, NCHW with batch 1, such as 1 3 224 224 "
                       "(default: the space's own)")
    build.add_argument("-o", "--output", type=Path, required=True, metavar="PATH",
                       help=f"folder for the tables, or the file of one table ({', '.join(SUFFIXES)})")
    build.add_argument("--force", action="store_true", help="build tables again that could be kept")
    add_worker_arguments(build)
    lut_show.add_parser(actions)
    lut_rank.add_parser(actions)


def _build(options: argparse.Namespace) -> int:
    """Build the tables of all spaces; go on when one fails."""
    check_workers(options)
    predictors, spaces = load_predictors(options), list(dict.fromkeys(options.space))
    if is_table_file(options.output) and len(predictors) * len(spaces) > 1:
        options.parser.error(
            f"argument -o/--output: {options.output} is the file of one table, and there are "
            f"{len(predictors) * len(spaces)}; name a folder"
        )
    code = 0
    for name in spaces:
        try:
            _build_space(name, options, predictors)
        except (NnMeterNasError, OSError) as error:
            code = fail(str(error) if name in str(error) else f"{name}: {error}")
    note_default_device(options)
    return code


def _build_space(name: str, options: argparse.Namespace, predictors: list[LatencyPredictor]) -> None:
    """Write the missing tables of a space; print their paths on standard output."""
    space, output = load_space(name, options.input_shape), options.output
    paths = {
        p.device: output if is_table_file(output) else output / table_file(name, space.input_shape, p)
        for p in predictors
    }
    due = [p for p in predictors if options.force or not _can_stay(paths[p.device], space, p)]
    for table in _made(name, space, options, due):
        save_table(table, paths[table.device])
    if kept := len(paths) - len(due):
        note(f"{name}: {kept} of {len(paths)} tables were there and are kept")
    print(*paths.values(), sep="\n", flush=True)


@dataclass(frozen=True)
class _Order:
    """A table for a worker to make. The worker loads the space itself."""

    name: str
    input_shape: tuple[int, ...] | None
    predictor: TravellingPredictor

    def __str__(self) -> str:
        return f"{self.name} on {self.predictor.device}"


def _made(
    name: str, space: Space, options: argparse.Namespace, due: Sequence[LatencyPredictor]
) -> Iterator[FactorTable]:
    """Make the tables of several devices: here, sharing model graphs, or in workers, one device each."""
    if not due:
        return
    if spreads(options):
        shape = None if options.input_shape is None else tuple(options.input_shape)
        orders = [_Order(name, shape, TravellingPredictor.of(predictor)) for predictor in due]
        with using_workers(options):
            yield from spread(_make_ordered, orders, name)
        return
    with pricing(name) as advance:
        yield from map(_rounded, build_tables(space, due, progress=advance))


def _make_ordered(order: _Order) -> FactorTable:
    """Make the table of one device in a worker."""
    space = _load_space_once(order.name, order.input_shape)
    return _rounded(build_table(space, order.predictor.load()))


@lru_cache(maxsize=1)
def _load_space_once(name: str, input_shape: tuple[int, ...] | None) -> Space:
    return load_space(name, input_shape)


def _rounded(table: FactorTable) -> FactorTable:
    """Round off the digits of ``table`` that differ between machines, whose matrix products differ."""
    return replace(
        table,
        constant=round(table.constant, _DECIMALS),
        factors={positions: array.round(_DECIMALS) for positions, array in table.factors.items()},
        header=replace(table.header, worst_error=round(table.header.worst_error, _DECIMALS)),
    )


def _can_stay(path: Path, space: Space, predictor: LatencyPredictor) -> bool:
    """Whether the table at ``path`` is intact and matches the current space and predictor."""
    if not path.exists():
        return False
    try:
        check_table(load_table(path), space, predictor)
    except LookupTableError as error:
        note(f"{path} is built anew: {error}")
        return False
    return True
