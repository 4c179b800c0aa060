"""``nnmeter-nas lut``: lookup tables of search spaces: build, show, rank the architectures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from ..costs import LatencyTable, build_tables, load_table
from ..costs.bundled import table_file
from ..costs.cache import check_table, find_terms
from ..costs.measures import latency_path, list_latencies
from ..costs.pricing import LatencyMeter
from ..errors import LookupTableError, NnMeterNasError
from ..files import write_bytes
from ..parallel.bulk import TravellingPredictor, spread
from ..predictor import LatencyPredictor
from ..supernet import Space
from ..supernet.named import SPACES, load_space
from . import lut_rank, lut_show
from .arguments import add_device_arguments, load_predictors, size
from .commands import add_command, set_command
from .messages import fail, note
from .runs import note_default_device
from .workers import add_worker_arguments, spreads, using_workers

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

Tables go to DIR/SPACE_SHAPE/DEVICE_VERSION.yaml, in the layout of NNI's latency_table.yaml with more beside
it. One that is there, whole, and of the same space and predictor pack is kept, so a build that was
interrupted goes on where it was. Where latency is no sum over blocks, but what few choices decide together
or a list of at most 20,000 architectures, that is kept in DIR/SPACE/*.npz, as searches take it.

examples:
  nnmeter-nas lut build --space spos proxylessnas --predictor all -o tables
  nnmeter-nas lut build --space my_space:net --predictor all --input-shape 1 3 96 96 -o tables
  nnmeter-nas lut build --space spos --predictor all --backend dask --scheduler tcp://10.0.0.1:8786 -o tables
"""
#: Decimals of a latency in ms that a table keeps.
_DECIMALS = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command with its actions."""
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
    build.add_argument("-o", "--output", type=Path, required=True, metavar="DIR",
                       help="folder for the tables")
    build.add_argument("--force", action="store_true", help="build tables again that could be kept")
    add_worker_arguments(build)
    lut_show.add_parser(actions)
    lut_rank.add_parser(actions)


def _build(options: argparse.Namespace) -> int:
    """Build the tables of all spaces; one that fails does not keep the others."""
    predictors = load_predictors(options)
    code = 0
    for name in dict.fromkeys(options.space):
        try:
            _build_space(name, options, predictors)
        except (NnMeterNasError, OSError) as error:
            code = fail(str(error) if name in str(error) else f"{name}: {error}")
    note_default_device(options)
    return code


def _build_space(name: str, options: argparse.Namespace, predictors: list[LatencyPredictor]) -> None:
    """Write the tables of a space that are not there yet; their paths go to standard output."""
    space = load_space(name, options.input_shape)
    paths = {p: options.output / table_file(name, space.input_shape, p) for p in predictors}
    listed = {p: latency_path(space, p, options.output) for p in predictors}
    due = [p for p in predictors if options.force or not _can_stay(paths[p], listed[p], space, p)]
    for made in _made(name, space, options, due):
        if made.remark:
            note(made.remark)
        for file, content in made.files.items():
            write_bytes(options.output / file, content)
    if kept := len(paths) - len(due):
        note(f"{name}: {kept} of {len(paths)} tables were there and are kept")
    print(*(listed[p] if listed[p].exists() else paths[p] for p in predictors), sep="\n", flush=True)


@dataclass(frozen=True)
class _Order:
    """Tables that a worker has to make of a space, which it loads by itself."""

    name: str
    input_shape: tuple[int, ...] | None
    predictor: TravellingPredictor

    def __str__(self) -> str:
        return f"{self.name} on {self.predictor.device}"


@dataclass(frozen=True)
class _Made:
    """Contents of the files of tables, by their path in the folder of tables, and what to say about them."""

    files: dict[str, bytes]
    remark: str | None


def _made(
    name: str, space: Space, options: argparse.Namespace, due: Sequence[LatencyPredictor]
) -> Iterator[_Made]:
    """The tables of several devices: here, where they share the model graphs, or a device a worker."""
    if not due:
        return
    if spreads(options):
        shape = None if options.input_shape is None else tuple(options.input_shape)
        orders = [_Order(name, shape, TravellingPredictor.of(predictor)) for predictor in due]
        with using_workers(options):
            yield from spread(_make_ordered, orders, name)
        return
    with _bar(name, space) as advance:
        yield _make(name, space, due, advance)


def _make_ordered(order: _Order) -> _Made:
    """Make the table of one device, in a worker."""
    space = _load_space_once(order.name, order.input_shape)
    return _make(order.name, space, [order.predictor.load()], lambda done: None)


@lru_cache(maxsize=1)
def _load_space_once(name: str, input_shape: tuple[int, ...] | None) -> Space:
    return load_space(name, input_shape)


def _make(
    name: str, space: Space, predictors: Sequence[LatencyPredictor], advance: Callable[[int], None]
) -> _Made:
    """Make the tables of a space, or where none holds, the list of its latencies."""
    remark = None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            tables = build_tables(space, predictors, progress=advance)
            for predictor, table in zip(predictors, tables, strict=True):
                _rounded(table).save(folder / table_file(name, space.input_shape, predictor))
        except LookupTableError as error:
            remark = f"{error}; all of its architectures are priced instead"
            list_latencies(space, predictors, folder, advance)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return _Made({str(path.relative_to(folder)): path.read_bytes() for path in files}, remark)


def _rounded(table: LatencyTable) -> LatencyTable:
    """``table`` without the digits in which matrix products of one machine differ from those of another."""
    return replace(
        table,
        stationary_ms=round(table.stationary_ms, _DECIMALS),
        block_ms={label: ms.round(_DECIMALS) for label, ms in table.block_ms.items()},
        pair_ms={pair: ms.round(_DECIMALS) for pair, ms in table.pair_ms.items()},
        worst_error=round(table.worst_error, _DECIMALS),
    )


def _can_stay(path: Path, listed: Path, space: Space, predictor: LatencyPredictor) -> bool:
    """Whether the table at ``path`` is whole, and that of the space and predictor as they are now.

    So it is if the latencies at ``listed`` are.
    """
    if find_terms(listed, space, LatencyMeter([predictor])):
        return True
    if not path.exists():
        return False
    try:
        check_table(load_table(path), space, predictor)
    except LookupTableError as error:
        note(f"{path} is built anew: {error}")
        return False
    return True


@contextmanager
def _bar(name: str, space: Space) -> Iterator[Callable[[int], None]]:
    """A function to call with how many architectures are priced; on a terminal a bar shows it."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    priced = TextColumn("{task.completed} architectures priced")
    columns = (TextColumn("{task.description}"), BarColumn(), priced, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        # Each candidate and some random architectures; more where choices turn out to interact.
        least = sum(len(known) for known in space.candidates.values())
        task = bar.add_task(name, total=least)
        yield lambda done: bar.update(task, completed=done, total=max(done, least))
