"""Search spaces by name: the bundled ones, and the user's own as ``module:attribute``."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import networkx as nx

from ..errors import SpaceError, nearest
from ..extras import load_extra
from .nni_space import space_of
from .space import Space

#: Name of a space -> function of :mod:`nnmeter_nas.search_spaces` that makes it, and its argument.
SPACES = {
    "spos": ("spos", "imagenet"),
    "spos-small": ("spos", "small"),
    "proxylessnas": ("proxylessnas", "imagenet"),
    "proxylessnas-small": ("proxylessnas", "small"),
    "nasbench201": ("nasbench201", "full"),
    "nasbench201-small": ("nasbench201", "small"),
    "hub-proxylessnas": ("hub", "ProxylessNAS"),
    "hub-mobilenetv3": ("hub", "MobileNetV3Space"),
    "hub-shufflenet": ("hub", "ShuffleNetSpace"),
}


def load_space(name: str, input_shape: Sequence[int] | None = None) -> Space:
    """The space of a name in :data:`SPACES`, or what ``module:attribute`` names.

    Args:
        name: of the space; or a module, which may lie in the current folder, and in it an NNI space, a
            supernet, a :class:`Space`, or what makes one when it is called without arguments.
        input_shape: NCHW; the space's own if None, or that of ImageNet.

    Raises:
        SpaceError: there is no such space, or what is there is none, or takes another shape.
        ReaderError: it cannot be traced with this shape.
        MissingPackageError: torch or NNI is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns of what is new in torch
        made = _made(name)
        if isinstance(made, Space):
            space = made
        elif isinstance(made, nx.DiGraph):
            space = Space.of_supernet(made)
        else:
            space = space_of(made, None if input_shape is None else tuple(input_shape))
    if input_shape is not None and space.input_shape != tuple(input_shape):
        raise SpaceError(f"{name} takes the input shape {space.input_shape}, not {tuple(input_shape)}")
    return space


def make_space(name: str) -> Any:
    """The NNI search space that :func:`load_space` reads, as experiments take it.

    Args:
        name: as :func:`load_space` takes it.

    Raises:
        SpaceError: there is no such space, or what is there is no module.
        MissingPackageError: torch or NNI is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns of what is new in torch
        made = _made(name)
    if not hasattr(made, "named_modules"):
        raise SpaceError(
            f"{name} is a {type(made).__name__}, and an experiment takes a module of NNI's classes"
        )
    return made


def _made(name: str) -> Any:
    """What is called ``name``: a module, a supernet or a :class:`Space`."""
    if ":" in name:
        return _imported(name)
    if name not in SPACES:
        hint = nearest(name, SPACES)
        raise SpaceError(f"no search space is called {name!r}; {hint}, or module:attribute of your own")
    function, argument = SPACES[name]
    return getattr(load_extra("nnmeter_nas.search_spaces", "nni", "a search space"), function)(argument)


def _imported(name: str) -> Any:
    """What ``module:attribute`` names, made if it has to be."""
    module, _, attribute = name.partition(":")
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        is_space = isinstance(found, Space | nx.DiGraph) or hasattr(found, "named_modules")
        return found() if isinstance(found, type) or not is_space else found
    except Exception as error:
        raise SpaceError(f"cannot load the search space {name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove("")
