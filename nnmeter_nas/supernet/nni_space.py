"""Read the space of an NNI module, of the installed NNI line."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..errors import ReaderError, SpaceError
from ..extras import load_extra
from ..readers.inputs import InputShape
from .choices import candidate_name, choices, plain_architecture
from .place import Place
from .space import Space

if TYPE_CHECKING:
    import torch

    from .nni2 import WrappedSpace
    from .nni3 import SampledSpace

__all__ = ["candidate_name", "space_of"]


def space_of(
    module: torch.nn.Module, input_shape: InputShape | None = None, name: str | None = None
) -> Space:
    """Read an NNI search space of 2.10.1 or 3.0; the module is not changed.

    One trace reads a space whose choices are ``LayerChoice``, ``InputChoice`` of one input, and the depth of
    ``Repeat``. In other spaces, such as those with value choices, networks are made one by one: under 3.0
    from the module's own parts, under 2.10.1 by its class with the arguments that ``model_wrapper`` recorded.

    Args:
        module: the space, made of NNI's classes.
        input_shape: NCHW. If None, the module's attribute ``input_shape``, or else that of ImageNet.
        name: name of the space; by default the name of its class.

    Raises:
        SpaceError: the space has no choice, has choices whose values cannot be listed, or takes several
            inputs.
        ReaderError: a network cannot be traced with this shape.
        MissingPackageError: torch or NNI is not installed.
    """
    from .tracing import read_supernet

    load_extra("nni.nas.nn.pytorch", "nni", "reading a search space")
    if not hasattr(module, "named_modules"):
        raise SpaceError(f"{type(module).__name__} is no search space: pass a module of NNI's classes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns about things that are new in torch
        networks = _networks(module)
        try:
            supernet = read_supernet(module, input_shape)
            if unread := networks.values.keys() - choices(supernet):
                raise SpaceError(f"the choice {min(unread)!r} is not met by a trace")
        except (ReaderError, SpaceError) as refused:
            return _one_by_one(networks, module, input_shape, name, refused)
        values = {label: tuple(map(_as_nni, known)) for label, known in networks.values.items()}
        return Space.of_supernet(supernet, name, values)


def _networks(module: torch.nn.Module) -> SampledSpace | WrappedSpace:
    """Return the reader for the installed NNI line; only 3.0 has a class for model spaces."""
    if hasattr(load_extra("nni.nas.nn.pytorch", "nni", "reading a search space"), "ModelSpace"):
        from .nni3 import SampledSpace

        return SampledSpace(module)
    from .nni2 import WrappedSpace

    return WrappedSpace(module)


def _one_by_one(
    networks: SampledSpace | WrappedSpace,
    module: torch.nn.Module,
    input_shape: InputShape | None,
    name: str | None,
    refused: Exception,
) -> Space:
    """Return a space that makes and traces its networks one at a time.

    Raises:
        SpaceError, ReaderError: no network can be made or traced; ``refused`` says why one trace of the space
            is not enough.
    """
    from ..readers.torch.module import read_torch_module

    shape, named = input_shape or getattr(module, "input_shape", None), NamedNetworks(networks)

    def model_graph(architecture: Mapping[str, Any]) -> nx.DiGraph:
        plain = plain_architecture(architecture, named.candidates)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read_torch_module(named.network(plain), shape)

    values = {label: tuple(map(_as_nni, known)) for label, known in networks.values.items()}
    try:
        return Space.of_function(name or type(module).__name__, values, model_graph, named.places)
    except SpaceError as error:
        raise SpaceError(f"{error} ({refused})") from error


class NamedNetworks:
    """Makes the networks of a space from names of candidates; NNI's values can be of any kind.

    Args:
        networks: makes the networks.

    Attributes:
        candidates: names by label, in the order of NNI's values.
        places: the place of each submodule, with names as values.
    """

    def __init__(self, networks: SampledSpace | WrappedSpace) -> None:
        self._networks = networks
        self.candidates, self._values = dict[str, tuple[str, ...]](), dict[str, dict[str, Any]]()
        for label, values in networks.values.items():
            self.candidates[label] = tuple(map(candidate_name, values))
            self._values[label] = dict(zip(self.candidates[label], values, strict=True))
        alike = {id(place): _by_name(place) for place in networks.places.values()}
        self.places = {path: alike[id(place)] for path, place in networks.places.items()}

    def network(self, architecture: Mapping[str, str]) -> torch.nn.Module:
        """Make the network of an architecture that names a candidate for each label."""
        return self._networks.network({label: of[architecture[label]] for label, of in self._values.items()})


def _as_nni(value: Any) -> Any:
    """Convert ``value`` for NNI: inputs chosen together become a list."""
    return sorted(value) if isinstance(value, frozenset) else value


def _by_name(place: Place) -> Place:
    """Return ``place`` with names of candidates as values."""
    return Place(
        {label: frozenset(map(candidate_name, allowed)) for label, allowed in place.conditions.items()},
        place.labels,
    )
