"""Search spaces by name: bundled spaces, and the user's own as ``module:attribute``."""

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

#: Name of a space -> the function of :mod:`nnmeter_nas.search_spaces` that makes it, and its argument.
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
    """Load a space by its name in :data:`SPACES` or as ``module:attribute``.

    Args:
        name: name of the space, or ``module:attribute``. The module may be in the current folder. The
            attribute is an NNI space, a supernet, a :class:`Space`, or a callable that makes one of these
            without arguments.
        input_shape: NCHW. If None, the space's own, or else that of ImageNet.

    Raises:
        SpaceError: there is no such space, the attribute is not a space, or it has another shape.
        ReaderError: the space cannot be traced with this shape.
        MissingPackageError: torch or NNI is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns about things that are new in torch
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
    """Make the NNI search space that :func:`load_space` reads, for use in an experiment.

    Args:
        name: as :func:`load_space` takes it.

    Raises:
        SpaceError: there is no such space, or it is not a module.
        MissingPackageError: torch or NNI is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns about things that are new in torch
        made = _made(name)
    if not hasattr(made, "named_modules"):
        raise SpaceError(
            f"{name} is a {type(made).__name__}, and an experiment takes a module of NNI's classes"
        )
    return made


def _made(name: str) -> Any:
    """Return the module, supernet or :class:`Space` called ``name``."""
    if ":" in name:
        return _imported(name)
    if name not in SPACES:
        hint = nearest(name, SPACES)
        raise SpaceError(f"no search space is called {name!r}; {hint}, or module:attribute of your own")
    function, argument = SPACES[name]
    return getattr(load_extra("nnmeter_nas.search_spaces", "nni", "a search space"), function)(argument)


def _imported(name: str) -> Any:
    """Import ``module:attribute``, and call it if necessary."""
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
