"""Reader of model spaces of NNI 3.0: makes the network of a sample from parts shared with the space.

NNI's own ``freeze`` copies or rebuilds the whole space, which takes longer than tracing the result.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from ..errors import SpaceError
from ..extras import load_extra
from .place import Place
from .tracing import makes_itself_anew

if TYPE_CHECKING:
    import torch

#: Label -> NNI's value.
Choices = dict[str, Any]
#: Maximum number of values of a label; an input choice of many inputs has more.
MOST_VALUES = 256
#: Maximum number of modules made by NNI to keep.
MOST_KEPT = 10_000


class SampledSpace:
    """A model space that makes the network of a sample directly.

    Submodules of a network keep their names in the space, so those of a candidate include the candidate's.

    Args:
        space: ``nni.nas.nn.pytorch.ModelSpace``; not changed.

    Attributes:
        mutables: label -> NNI's mutable.
        values: label -> all its values. Inputs chosen together are one value, a frozenset.
        places: the place of each submodule, by its path.

    Raises:
        SpaceError: ``space`` is not a model space, or the values of a label cannot all be listed; the message
            names the label.
    """

    def __init__(self, space: torch.nn.Module) -> None:
        if not isinstance(space, _nas().ModelSpace):
            raise SpaceError(f"space is a {type(space).__name__}; pass a ModelSpace of nni.nas.nn.pytorch")
        self.mutables: dict[str, Any] = space.simplify()
        self.values = {label: _values(label, mutable) for label, mutable in self.mutables.items()}
        self.places: dict[str, Place] = {}
        self._space = space
        self._makers: dict[str, Callable[[Choices], torch.nn.Module]] = {}
        self._frozen: dict[tuple[Any, ...], torch.nn.Module] = {}
        self._evaluated: dict[tuple[Any, ...], Any] = {}  # by id of the expression, and values of its labels
        self._expressions: dict[int, tuple[Any, list[str]]] = {}  # by id: it, and its labels
        self._enter("", space, Place({}))

    def network(self, sample: Mapping[str, Hashable]) -> torch.nn.Module:
        """Make the network of ``sample``, with values as in :attr:`values`."""
        chosen = {
            label: [one for one in self.mutables[label].values if one in value]
            if isinstance(value, frozenset) else value
            for label, value in sample.items()
        }
        return self._part("", self._space, chosen)

    def _enter(self, path: str, module: Any, place: Place) -> bool:
        """Record the choices in ``module``, which stands at ``place``; return whether there are any."""
        nas = _nas()
        self.places[path] = place
        if _is_for_nni(module):
            labels = tuple(module.simplify())
            self.places[path] = Place(place.conditions, place.labels | set(labels))
            self._makers[path] = lambda chosen: self._freeze(path, module, labels, chosen)
        elif isinstance(module, nas.LayerChoice):
            for name in module.names:
                self._enter(_join(path, name), module[name], _if(place, module.label, {name}))
            self._makers[path] = lambda chosen: self._candidate(path, module, chosen)
        elif isinstance(module, nas.Repeat):
            for index, block in enumerate(module.blocks):
                self._enter(_join(path, f"blocks.{index}"), block, _if_deeper(place, module, index))
            self._makers[path] = lambda chosen: self._blocks(path, module, chosen)
        else:
            children = dict(module.named_children())
            if any([self._enter(_join(path, name), child, place) for name, child in children.items()]):
                self._makers[path] = lambda chosen: _with(module, self._parts(path, children, chosen))
        return path in self._makers

    def _part(self, path: str, module: torch.nn.Module, chosen: Choices) -> torch.nn.Module:
        """Return the module that runs in the place of ``module``."""
        return self._makers[path](chosen) if path in self._makers else module

    def _parts(
        self, path: str, children: Mapping[str, torch.nn.Module], chosen: Choices
    ) -> dict[str, torch.nn.Module]:
        """Return the modules that run in the places of the ``children`` of the module at ``path``."""
        return {name: self._part(_join(path, name), child, chosen) for name, child in children.items()}

    def _candidate(self, path: str, choice: Any, chosen: Choices) -> torch.nn.Module:
        name = choice.choice.freeze(chosen)
        part = self._part(_join(path, name), choice[name], chosen)
        return _with(choice, {str(name): part}, part)

    def _blocks(self, path: str, repeat: Any, chosen: Choices) -> torch.nn.Module:
        from torch.nn import Sequential

        depth = repeat.depth_choice
        count = depth.freeze(chosen) if isinstance(depth, _mutable().Mutable) else depth
        parts = [
            self._part(_join(path, f"blocks.{index}"), block, chosen)
            for index, block in enumerate(repeat.blocks[:count])
        ]
        blocks = Sequential(*parts)
        return _with(repeat, {"blocks": blocks}, blocks.forward)

    def _freeze(self, path: str, module: Any, labels: tuple[str, ...], chosen: Choices) -> torch.nn.Module:
        """Let NNI freeze a module that ``labels`` decide; keep the result for the next same values."""
        import torch

        key = (path, *(str(chosen[label]) for label in labels))
        if key not in self._frozen:
            if len(self._frozen) >= MOST_KEPT:
                for kept in (self._frozen, self._evaluated, self._expressions):
                    kept.clear()
            evaluate = patch.object(_mutable().MutableExpression, "freeze", self._value())
            with torch.device("meta"), evaluate:
                self._frozen[key] = module.freeze(chosen)
        return self._frozen[key]

    def _value(self) -> Callable[[Any, Choices], Any]:
        """Return a method of NNI's expressions that evaluates each of them once for the same values.

        The expression of a width has thousands of terms, and many modules have it.
        """
        freeze = _mutable().MutableExpression.freeze

        def value(expression: Any, chosen: Choices) -> Any:
            if id(expression) not in self._expressions:
                labels = {symbol.label: None for symbol in expression.leaf_symbols()}
                self._expressions[id(expression)] = expression, list(labels)
            key = id(expression), *(str(chosen[label]) for label in self._expressions[id(expression)][1])
            if key not in self._evaluated:
                self._evaluated[key] = freeze(expression, chosen)
            return self._evaluated[key]

        return value


def _nas() -> Any:
    return load_extra("nni.nas.nn.pytorch", "nni", "reading a model space")


def _mutable() -> Any:
    return load_extra("nni.mutable", "nni", "reading a model space")


def _is_for_nni(module: Any) -> bool:
    """Return whether NNI must make the module for the place of ``module``; else its parts are swapped."""
    nas = _nas()
    has_parts = isinstance(module, nas.LayerChoice | nas.Repeat)
    chooses = isinstance(module, nas.MutableModule) and bool(module.mutables)
    return makes_itself_anew(module) or (chooses and not has_parts)


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _if(place: Place, label: str, allowed: set[Hashable]) -> Place:
    """Return ``place`` with the extra condition that ``label`` has one of the values ``allowed``."""
    both = frozenset(allowed) & place.conditions.get(label, frozenset(allowed))
    return Place({**place.conditions, label: both}, place.labels)


def _if_deeper(place: Place, repeat: Any, index: int) -> Place:
    """Return ``place`` with the extra condition that ``repeat`` has a block at ``index``."""
    depth = repeat.depth_choice
    if not isinstance(depth, _mutable().Mutable) or index < repeat.min_depth:
        return place
    if isinstance(depth, _mutable().Categorical):
        return _if(place, depth.label, {value for value in depth.values if value > index})
    return Place(place.conditions, place.labels | set(depth.simplify()))


def _with(
    module: torch.nn.Module, children: dict[str, torch.nn.Module], forward: Callable[..., Any] | None = None
) -> torch.nn.Module:
    """Return a copy of ``module`` with other children and optionally another forward; it shares all else."""
    copy: torch.nn.Module = object.__new__(type(module))
    vars(copy).update(vars(module), _modules=children)
    if forward is not None:
        vars(copy)["forward"] = forward
    return copy


def _values(label: str, mutable: Any) -> list[Hashable]:
    """List all values of the choice ``label``."""
    if isinstance(mutable, _mutable().Categorical):
        return list(mutable.values)
    if not isinstance(mutable, _mutable().CategoricalMultiple):
        raise SpaceError(
            f"{label!r} is a {type(mutable).__name__}, whose values cannot all be listed; use nni.choice"
        )
    sizes = range(1, len(mutable.values) + 1) if mutable.n_chosen is None else [mutable.n_chosen]
    if sum(math.comb(len(mutable.values), size) for size in sizes) > MOST_VALUES:
        raise SpaceError(
            f"{label!r} chooses among more than {MOST_VALUES} combinations of {len(mutable.values)} inputs; "
            "give it fewer to choose from"
        )
    return [frozenset(chosen) for size in sizes for chosen in itertools.combinations(mutable.values, size)]
