"""The command ``nnmeter-nas``.

Its subcommands predict and explain latencies, convert to nn-Meter IR, build lookup tables, manage packs, and
run searches and a demo.

Exit codes: 0 success, 1 the command or some models failed, 2 wrong usage (such as an unknown device),
128 + n on signal n.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Iterable, Sequence

from ..errors import (
    NnMeterNasError,
    SettingsError,
    UnknownBackendError,
    UnknownDeviceError,
    closest,
)
from .commands import add_commands
from .messages import fail, in_flags, reader_has_ended, warn

_EPILOG = """\
examples:
  nnmeter-nas predict model.onnx --predictor cortexA76cpu_tflite21
  nnmeter-nas predict models/ --predictor all --csv -o latencies.csv
  nnmeter-nas explain model.onnx --top 10 --plot kernels.png
  nnmeter-nas get_ir --onnx model.onnx
  nnmeter-nas lut rank spos --top 10 --max-latency 30
  nnmeter-nas search --space spos-small --max-latency 1.2 -o run
  nnmeter-nas predictors list

exit codes: 0 all went well, 1 something failed (the rest is still reported), 2 wrong usage
"""
#: Attributes of the parsed options that are no flags.
_NO_FLAGS = {"command", "action", "run", "parser", "like_nn_meter"}


def main(arguments: Sequence[str] | None = None, prog: str = "nnmeter-nas") -> int:
    """Run the command and return its exit code.

    Args:
        arguments: the words of the command line; by default those of this process.
        prog: name of the command. Under "nn-meter", its output has nn-Meter's form.
    """
    # Set this before NumPy is loaded. Predictions multiply small matrices; on a busy machine, threads would
    # wait for each other ten times as long as they work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file name may not be valid text
    words = sys.argv[1:] if arguments is None else arguments
    parser = argument_parser(words, prog)
    options = parser.parse_args(words)
    options.like_nn_meter = prog == "nn-meter" or options.command == "lat_pred"
    if options.version:
        return _print_version()
    if options.list_predictors:
        from .predictors import print_names

        return print_names()
    if options.command is None:
        parser.error("the following arguments are required: COMMAND")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: warn(str(message))
            code: int = options.run(options)
            sys.stdout.flush()
            return code
    except (UnknownBackendError, UnknownDeviceError, SettingsError) as error:
        command: argparse.ArgumentParser = options.parser
        command.error(in_flags(str(error), _with_flags(options)))
    except BrokenPipeError:
        return reader_has_ended()
    except (NnMeterNasError, OSError) as error:
        return fail(in_flags(str(error), _with_flags(options)))
    except KeyboardInterrupt:
        return 130


def _with_flags(options: argparse.Namespace) -> set[str]:
    """Return the names of the options that the user gives by a flag."""
    return vars(options).keys() - _NO_FLAGS


def _print_version() -> int:
    from importlib.metadata import version

    print(f"nnmeter-nas {version('nnmeter_nas')}")
    return 0


def argument_parser(words: Sequence[str], prog: str = "nnmeter-nas") -> argparse.ArgumentParser:
    """Make the parser for a command line of these words, with the arguments of the commands among them.

    The parsed namespace has a function ``run``, which takes the namespace and returns the exit code.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Latency of CNNs on edge devices, and searches that keep within it.",
        epilog=_EPILOG.replace("nnmeter-nas", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more about each model, on stderr")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--list-predictors", action="store_true", help="print predictors and their versions")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    add_commands(commands, words)
    if prog == "nn-meter":
        from .nn_meter_builder import show_in_help

        show_in_help(parser, commands)
    _check_command(parser, words, commands.choices)
    return parser


def _check_command(parser: argparse.ArgumentParser, words: Sequence[str], known: Iterable[str]) -> None:
    """Refuse an unknown command with the nearest one alone, as all of them are a long line."""
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in known:
        close = closest(name, known)
        hint = f"did you mean {close!r}?" if close else f"{parser.prog} --help lists them"
        parser.error(f"no command {name!r}; {hint}")
