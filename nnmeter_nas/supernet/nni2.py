"""Reader of search spaces of NNI 2.10.1: makes the network of a sample like NNI, with the constructor.

Under ``nni.retiarii.fixed_arch`` a constructor makes the chosen network directly. The reader needs the
constructor and its arguments; the decorator ``nni.retiarii.model_wrapper`` records them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ..errors import SpaceError
from ..extras import load_extra
from .place import Place

if TYPE_CHECKING:
    import torch

#: Functions of torch.nn.init, and methods of tensors, that fill weights with random numbers.
_RANDOM = ("uniform_", "normal_", "trunc_normal_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
           "kaiming_normal_", "orthogonal_", "sparse_")  # fmt: skip
#: Maximum number of values of a label; an input choice of many inputs has more.
MOST_VALUES = 256


class WrappedSpace:
    """A search space, with the means to make its networks.

    Args:
        space: a module whose choices are classes of ``nni.retiarii.nn.pytorch``; not changed.

    Attributes:
        values: label -> all its values, as in NNI. Inputs chosen together are one value, a list in ascending
            order; NNI may draw an input twice.
        places: the place of each submodule of the networks, by its path.

    Raises:
        SpaceError: the values of a label cannot all be listed, or differ between places; the message names
            the label.
    """

    def __init__(self, space: torch.nn.Module) -> None:
        self.values: dict[str, tuple[Any, ...]] = {}
        self.places: dict[str, Place] = {}
        self._space = space
        namespace = getattr(space, "_model_namespace", None)
        everywhere = set()
        for spec in getattr(namespace, "parameter_specs", ()):
            self._note(spec.name, spec.values)
            everywhere.add(spec.name)
        self._enter("", space, Place({}, frozenset(everywhere)))

    def check(self) -> None:
        """Raise a SpaceError if the networks of the space cannot be made; the message says what to do."""
        kind = type(self._space)
        wrapped = getattr(kind, "_nni_model_wrapper", False)
        if not wrapped and len(inspect.signature(kind.__init__).parameters) > 1:
            raise SpaceError(
                f"the arguments that {kind.__name__} was made with are not known, so its networks cannot be "
                "made; decorate the class with nni.retiarii.model_wrapper"
            )

    def network(self, sample: Mapping[str, Any]) -> torch.nn.Module:
        """Make the network of ``sample``, with values as in :attr:`values`.

        Raises:
            SpaceError: the space cannot be made anew, or cannot be made with these values.
        """
        import torch

        self.check()
        kind, given = type(self._space), getattr(self._space, "trace_args", None) or []
        keywords = getattr(self._space, "trace_kwargs", None) or {}
        fixed_arch = load_extra("nni.retiarii", "nni", "making the networks of a search space").fixed_arch
        try:
            with torch.random.fork_rng(devices=[]), _made_quickly(), fixed_arch(dict(sample), verbose=False):
                return kind(*given, **keywords)
        except Exception as error:
            raise SpaceError(
                f"{kind.__name__} cannot be made with {dict(sample)}: {type(error).__name__}: {error}"
            ) from error

    def _enter(self, path: str, module: Any, place: Place) -> None:
        """Record the choices in ``module``, which becomes the part at ``path`` of the networks."""
        nas = load_extra("nni.retiarii.nn.pytorch", "nni", "reading a search space")
        if isinstance(module, nas.NasBench101Cell):
            raise SpaceError(f"{module.label!r} is a NasBench101Cell, whose values cannot be listed by label")
        if isinstance(module, nas.LayerChoice):
            self._note(module.label, module.names)
            for name in module.names:
                met = {**place.conditions, module.label: frozenset([name])}
                self._enter(path, module[name], Place(met, place.labels | {module.label}))
            return
        if isinstance(module, nas.Repeat):
            self._repeat(path, module, place)
            return
        if isinstance(module, nas.InputChoice):
            self._note(module.label, _chosen_inputs(module))
            place = Place(place.conditions, place.labels | {module.label})
        for choice in _value_choices(module):
            self._note(choice.label, choice.candidates)
            place = Place(place.conditions, place.labels | {choice.label})
        self.places[path] = self._either(self.places.get(path, place), place)
        for name, child in module.named_children():
            self._enter(f"{path}.{name}" if path else name, child, place)

    def _either(self, one: Place, other: Place) -> Place:
        """Return the place of a path at which one of two modules runs."""
        met = {
            label: one.conditions[label] | other.conditions[label]
            for label in one.conditions
            if label in other.conditions
        }
        met = {label: allowed for label, allowed in met.items() if len(allowed) < len(self.values[label])}
        return Place(met, one.labels | other.labels)

    def _repeat(self, path: str, repeat: Any, place: Place) -> None:
        """Record the depth of a repetition and the choices in its blocks."""
        depth = repeat.depth_choice
        labels = set()
        for choice in depth.inner_choices() if hasattr(depth, "inner_choices") else ():
            self._note(choice.label, choice.candidates)
            labels.add(choice.label)
        self.places.setdefault(path, place)
        for index, block in enumerate(repeat.blocks):
            here = place
            if index >= repeat.min_depth and repeat.label is None:
                here = Place(place.conditions, place.labels | labels)
            elif index >= repeat.min_depth:
                deeper = frozenset(value for value in depth.candidates if value > index)
                here = Place({**place.conditions, repeat.label: deeper}, place.labels)
            self._enter(f"{path}.{index}" if path else str(index), block, here)

    def _note(self, label: str, values: Any) -> None:
        known = tuple(values)
        if self.values.setdefault(label, known) != known:
            raise SpaceError(
                f"the choices labelled {label!r} differ: {self.values[label]} and {known}; give each a "
                "label of its own"
            )


@contextmanager
def _made_quickly() -> Iterator[None]:
    """Skip what takes most of the time to make a network.

    Nobody reads the random weights, and NNI's classes look up the signature of a constructor at each call.
    """
    import torch
    from torch.nn import init

    with ExitStack() as patches:
        for owner, name in itertools.product((init, torch.Tensor), _RANDOM):
            if hasattr(owner, name):
                patches.enter_context(patch.object(owner, name, _as_it_is))
        patches.enter_context(patch.object(inspect, "signature", _remembered(inspect.signature)))
        yield


def _remembered(signature: Callable[..., inspect.Signature]) -> Callable[..., inspect.Signature]:
    """``signature`` with a memory of what it returned."""
    known = functools.cache(signature)

    def look_up(function: Any, **options: Any) -> inspect.Signature:
        try:
            return known(function, **options)
        except TypeError:  # it cannot be hashed, or has no signature
            return signature(function, **options)

    return look_up


def _as_it_is(tensor: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    """Return ``tensor`` without filling it."""
    return tensor


def _value_choices(module: Any) -> Iterator[Any]:
    """Yield the value choices in a module's arguments, or the module itself if it is one."""
    arguments = getattr(module, "trace_kwargs", None) or {}
    for value in [module, *arguments.values()]:
        if hasattr(value, "inner_choices"):
            yield from value.inner_choices()


def _chosen_inputs(choice: Any) -> list[Any]:
    """List all values of an input choice: numbers, or lists of numbers if it may choose several inputs."""
    inputs = range(choice.n_candidates)
    if choice.n_chosen == 1:
        return list(inputs)
    combinations: Iterable[tuple[int, ...]]
    if choice.n_chosen is None:
        sets = (itertools.combinations(inputs, size) for size in range(1, len(inputs) + 1))
        combinations = itertools.chain.from_iterable(sets)
    else:
        combinations = itertools.combinations_with_replacement(inputs, choice.n_chosen)
    listed = list(map(list, itertools.islice(combinations, MOST_VALUES + 1)))
    if len(listed) > MOST_VALUES:
        raise SpaceError(
            f"{choice.label!r} chooses among more than {MOST_VALUES} combinations of "
            f"{choice.n_candidates} inputs; give it fewer to choose from"
        )
    return listed
