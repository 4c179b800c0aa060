"""The command ``nnmeter-nas``: predict latencies, explain them, and run the demo search.

Exit codes: 0 success, 1 failure, 2 wrong usage (an unknown device among it), 128 + n on signal n.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from . import list_latency_predictors, load_latency_predictor
from .errors import NnMeterNasError, UnknownDeviceError

DEFAULT_DEVICE = "cortexA76cpu_tflite21"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            options.run(options)
    except UnknownDeviceError as error:
        parser.error(str(error))
    except NnMeterNasError as error:
        return _failed(str(error))
    except ModuleNotFoundError as error:
        return _failed(f"{error}; `{options.command}` needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'")
    except OSError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return 130
    return 0


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """Warnings as a user of the command reads them, without the line of code they come from."""
    print(f"nnmeter-nas: warning: {message}", file=sys.stderr)


def _failed(message: str) -> int:
    print(f"nnmeter-nas: error: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnmeter-nas", description="Latency of CNNs on edge devices, and searches that keep within it."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    device = argparse.ArgumentParser(add_help=False)
    device.add_argument("--predictor", default=DEFAULT_DEVICE, metavar="DEVICE",
                        help="applied hardware, see `predictors list` (default: %(default)s)")

    demo = commands.add_parser(
        "demo", parents=[device], formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        help="search SPOS networks that meet a latency limit, and train them with NNI",
    )
    demo.add_argument("--threshold", type=_positive_float, metavar="MS",
                      help="latency limit in ms; without it the median of random candidates")
    demo.add_argument("--trials", type=_positive_int, default=12, metavar="N", help="candidates to train")
    demo.add_argument("--epochs", type=_positive_int, default=3, metavar="N", help="epochs a candidate")
    demo.add_argument("--concurrency", type=_positive_int, default=2, metavar="N", help="trials at once")
    demo.add_argument("--engine", choices=["py", "graph"], default="py", help="NNI's execution engine")
    demo.add_argument("--port", type=_port, metavar="P",
                      help="port of NNI's web page on 127.0.0.1; another is taken if it is in use")
    demo.add_argument("--seed", type=int, default=0, metavar="S", help="of candidates, split and weights")
    demo.add_argument("--patience", type=_positive_int, default=300, metavar="N",
                      help="candidates over the limit in a row after which it counts as out of reach")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR", help="for results")
    demo.set_defaults(run=_demo)

    for name, run, text in (("predict", _predict, "latency of a model in ms"),
                            ("explain", _explain, "latency of each kernel of a model")):
        command = commands.add_parser(name, parents=[device], help=text)
        command.add_argument("model", type=Path, metavar="MODEL", help="an nn-Meter IR file (JSON)")
        command.set_defaults(run=run)

    predictors = commands.add_parser("predictors", help="predictor packs")
    actions = predictors.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list the predictor packs").set_defaults(run=_list_predictors)
    return parser


def _positive_int(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _port(text: str) -> int:
    if not 0 < (value := int(text)) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is not a port, 1 to 65535")
    return value


# argparse names the function in its messages
_positive_int.__name__ = _port.__name__ = "int"
_positive_float.__name__ = "float"


def _demo(options: argparse.Namespace) -> None:
    predictor = load_latency_predictor(options.predictor)
    from .demo import run_demo  # late: a wrong device shall not cost the start of torch and NNI

    run_demo(predictor, options.output, options.threshold, options.trials, options.epochs,
             options.concurrency, options.engine, options.port, options.seed, options.patience)


def _predict(options: argparse.Namespace) -> None:
    print(load_latency_predictor(options.predictor).predict(options.model))


def _explain(options: argparse.Namespace) -> None:
    Console().print(load_latency_predictor(options.predictor).explain(options.model))


def _list_predictors(options: argparse.Namespace) -> None:
    columns = ("name", "version", "category", "runtime")
    table = Table(*columns)
    for card in list_latency_predictors():
        table.add_row(*(str(card.get(column, "")) for column in columns))
    Console().print(table)
