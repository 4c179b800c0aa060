"""The words of ``nn-meter`` that are its builder's: workspaces, backends, what users register.

Scripts search its lines, so their words are nn-Meter's, and so are its exit codes where it goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..compat import install, is_installed, uninstall
from ..errors import NnMeterNasError, SettingsError, UnknownBackendError, UnknownDeviceError
from .messages import fail, note, reader_has_ended, say_as_nn_meter, warn

#: What is listed: flag -> two words of the heading, label, and the function that lists it.
_LISTS = {
    "--list-backends": ("backends", "backends", "Backend", "backends.list_backends"),
    "--list-kernels": ("kernels", "kernels", "Kernel", "kernels.list_kernels"),
    "--list-operators": ("operators", "operators", "Operator", "testcases.list_operators"),
    "--list-testcases": ("testcases", "test cases", "TestCase", "testcases.list_testcases"),
}
#: Classes that can be registered: flag -> kind, and whether a name has several implementations.
_KINDS = {
    "backend": ("backends", False),
    "kernel": ("kernels", False),
    "operator": ("operators", True),
    "testcase": ("testcases", True),
}
#: Name of each command -> its line in the help.
_COMMANDS = {
    "create": "create a workspace of nn-Meter's builder",
    "connect": "find out whether a backend answers",
    "register": "make a class of yours known, or a predictor",
    "unregister": "forget a class of yours, or a predictor",
}
#: Words that may come before those that this module takes.
VERBOSE = ("-v", "--verbose")
#: What can be registered besides classes.
_PREDICTOR = "predictor"


def takes(word: str) -> bool:
    """Whether a command line that begins with this word is for this module; flags may be cut short."""
    is_list = word.startswith("--list-") and word != "--list-"
    return word in _COMMANDS or (is_list and any(flag.startswith(word) for flag in _LISTS))


def main(words: Sequence[str]) -> int:
    """Run the command line ``words`` and return its exit code."""
    parser = _parser()
    options = parser.parse_args(words)
    try:
        with _as_nn_meter():
            code: int = options.run(options)
            return code
    except (SettingsError, UnknownBackendError) as error:
        fail(str(error))
        return 2
    except BrokenPipeError:
        return reader_has_ended()
    except (NnMeterNasError, OSError) as error:
        return fail(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nn-meter", description="nn-Meter's builder, on this package.")
    parser.set_defaults(run=_list)
    parser.add_argument(*VERBOSE, action="store_true", help="changes nothing, as all is said")
    lists = parser.add_mutually_exclusive_group()
    for flag, (_, what, _, _) in _LISTS.items():
        lists.add_argument(flag, dest="listed", action="store_const", const=flag, help=f"list all {what}")
    commands = parser.add_subparsers(metavar="COMMAND")

    create, connect, register, unregister = (
        commands.add_parser(name, help=summary) for name, summary in _COMMANDS.items()
    )
    create.set_defaults(run=_create)
    platform = create.add_mutually_exclusive_group(required=True)
    for name in ("tflite", "openvino", "customized"):
        platform.add_argument(f"--{name}-workspace", metavar="PATH", help=f"of the platform {name}")
    create.add_argument("--backend", metavar="NAME", help="registered backend of a customized workspace")

    connect.set_defaults(run=_connect)
    connect.add_argument("--backend", required=True, metavar="NAME", help="backend")
    connect.add_argument("--workspace", required=True, metavar="PATH", help="workspace with its settings")

    register.set_defaults(run=_register)
    unregister.set_defaults(run=_unregister)
    unregister.add_argument("--predictor-version", type=float, metavar="V",
                            help="version of the predictor (default: all)")
    meta, named = (one.add_mutually_exclusive_group(required=True) for one in (register, unregister))
    meta.add_argument(f"--{_PREDICTOR}", metavar="META.yaml", help="its meta file: a predictor")
    named.add_argument(f"--{_PREDICTOR}", nargs=1, metavar="NAME", help="a predictor")
    for flag, (_, by_implement) in _KINDS.items():
        meta.add_argument(f"--{flag}", metavar="META.yaml", help=f"its meta file: a {flag}")
        if by_implement:
            named.add_argument(f"--{flag}", nargs=2, metavar=("NAME", "IMPLEMENT"), help=f"a {flag}")
        else:
            named.add_argument(f"--{flag}", nargs=1, metavar="NAME", help=f"a {flag}")
    return parser


def show_in_help(parser: argparse.ArgumentParser, commands: Any) -> None:
    """Add the words of this module to the help of all commands; they are run here."""
    for flag, (_, what, _, _) in _LISTS.items():
        parser.add_argument(flag, action="store_true", help=f"list all {what}")
    for name, summary in _COMMANDS.items():
        commands.add_parser(name, help=summary)


@contextmanager
def _as_nn_meter() -> Iterator[None]:
    """Let classes of users import ``nn_meter``, and say what they log in nn-Meter's form."""
    before = is_installed()
    if not before:
        install(children=False)
    try:
        import_module("nn_meter")
        logging.basicConfig(stream=sys.stdout, format="(nn-Meter) %(message)s", level=logging.INFO)
        yield
    finally:
        if not before:
            uninstall()


def _list(options: argparse.Namespace) -> int:
    heading, what, label, _ = _LISTS[options.listed]
    say_as_nn_meter(f"Supported {heading}: ('*' indicates customized {what})")
    for found in _known(options.listed):
        say_as_nn_meter(f"[{label}] {found}")
    return 0


def _known(flag: str) -> list[str]:
    """What there is of a kind; the names of what users registered begin with a star."""
    *_, function = _LISTS[flag]
    module, _, name = function.partition(".")
    found: list[str] = getattr(import_module(f"..compat.builder.{module}", __package__), name)()
    return found


def _create(options: argparse.Namespace) -> int:
    from ..compat.builder.registry import registered
    from ..compat.builder.workspace import copy_to_workspace

    platform, path = next(
        (name, path)
        for name in ("tflite", "openvino", "customized")
        if (path := getattr(options, f"{name}_workspace"))
    )
    settings = None
    if platform == "customized":
        own = registered("backends")
        if options.backend is None:
            raise SettingsError("--customized-workspace needs the backend that it is for: --backend NAME")
        if options.backend not in own:
            raise SettingsError(
                f"no backend {options.backend!r} is registered; nn-meter register --backend META.yaml"
            )
        settings = own[options.backend].get("defaultConfigFile")
    copy_to_workspace(platform, path, settings)
    folder = os.path.abspath(path)
    say_as_nn_meter(
        f"Workspace {folder} for {platform} platform has been created. "
        f"Users could edit experiment config in {os.path.join(folder, 'configs/')}."
    )
    return 0


def _connect(options: argparse.Namespace) -> int:
    from ..compat.builder.backends import connect_backend
    from ..compat.builder.workspace import builder_config

    builder_config.init(options.workspace)
    connect_backend(options.backend).test_connection()
    return 0


def _register(options: argparse.Namespace) -> int:
    from ..compat.builder.registry import register

    flag, meta = _chosen(options)
    name = _register_predictor(meta) if flag == _PREDICTOR else register(_KINDS[flag][0], meta)
    say_as_nn_meter(f"Successfully register {flag}: {name}")
    if flag != _PREDICTOR and name in _known(f"--list-{flag}s"):
        warn(
            f"your {flag} {name} takes the place of the one that comes with this package, as in nn-Meter; "
            f"nn-meter unregister --{flag} brings that back"
        )
    return 0


def _register_predictor(meta: str) -> str:
    """Make a pack of the predictor of a meta file; return its name."""
    from ..packs.nnmeter1.importing import register_predictor
    from ..packs.pack import read_card

    return str(read_card(register_predictor(meta))["name"])


def _unregister(options: argparse.Namespace) -> int:
    from ..compat.builder.registry import unregister

    flag, (name, *implement) = _chosen(options)
    text = f"{name} ({implement[0]})" if implement else name
    if flag == _PREDICTOR:
        what, known = "predictor", _unregister_predictor(name, options.predictor_version)
    else:
        what, known = "module", unregister(_KINDS[flag][0], name, *implement)
    if known:
        say_as_nn_meter(f"Successfully unregister {text}.")
    else:
        say_as_nn_meter(f"Unregister failed: there is no {what} named {text}.")
    return 0  # in both cases, as in nn-Meter: scripts unregister what may not be there


def _unregister_predictor(name: str, version: float | None) -> bool:
    """Remove packs of a predictor; return whether there were any."""
    from ..packs.store import remove_predictor

    try:
        remove_predictor(name, version)
    except UnknownDeviceError as error:
        note(str(error))
        return False
    return True


def _chosen(options: argparse.Namespace) -> tuple[str, Any]:
    """The flag that is given, and its value."""
    return next((flag, value) for flag in (_PREDICTOR, *_KINDS) if (value := getattr(options, flag)))
