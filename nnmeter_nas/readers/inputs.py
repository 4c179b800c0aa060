"""Parse the readers' argument ``input_shape``: one shape, a list of shapes, or a dict by input name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import networkx as nx

from ..errors import ReaderError, nearest
from ..graph.model_graph import add_note
from ..graph.shapes import Shape
from ..graph.unknown import UNKNOWN_WORK

#: Number of dimensions -> the usual input that has so many; none given stands for an image.
_USUAL = {0: (1, 3, 224, 224), 4: (1, 3, 224, 224), 5: (1, 3, 16, 112, 112)}
#: A length or a number of features for an example.
_LENGTH = 128

InputShape = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]


def shapes_by_input(input_shape: InputShape | None, names: Sequence[str]) -> dict[str, Shape]:
    """Return the shapes in ``input_shape`` by input name; an empty dict if it is None.

    Args:
        input_shape: as passed to a reader.
        names: names of the model's inputs, in order.

    Raises:
        ReaderError: it is not a shape, has the wrong number of shapes, or names an unknown input.

    >>> shapes_by_input([1, 3, 8, 8], ["image"])
    {'image': (1, 3, 8, 8)}
    >>> shapes_by_input({"scale": [1, 4]}, ["image", "scale"])
    {'scale': (1, 4)}
    """
    if input_shape is None:
        return {}
    if isinstance(input_shape, Mapping):
        for name in input_shape:
            if name not in names:
                raise ReaderError(f"input_shape names the input {name!r}; {nearest(str(name), names)}")
        return {name: _shape(shape, input_shape) for name, shape in input_shape.items()}
    if not _is_list(input_shape):
        raise _not_a_shape(input_shape)
    shapes: Sequence[Any] = input_shape if is_list_of_shapes(input_shape) else [input_shape]
    if len(shapes) != len(names):
        raise ReaderError(
            f"input_shape={input_shape!r} gives {len(shapes)} shape(s), but the model takes {len(names)} "
            f"input(s): {', '.join(names)}"
        )
    return {name: _shape(shape, input_shape) for name, shape in zip(names, shapes, strict=True)}


def way_out(inputs: Mapping[str, Sequence[int | None]]) -> str:
    """Tell how to give the shapes of ``inputs``, NCHW; None is a size that the model leaves open.

    >>> way_out({"image": (1, 3, None, None), "scale": (1, None)})
    "pass input_shape, for example input_shape={'image': (1, 3, 224, 224), 'scale': (1, 128)}"
    """
    example = {name: _example(sizes) for name, sizes in inputs.items()}
    return f"pass input_shape, for example input_shape={example}"


def _example(sizes: Sequence[int | None]) -> Shape:
    usual = _USUAL.get(len(sizes), (1, *[_LENGTH] * (len(sizes) - 1)) if len(sizes) > 1 else (_LENGTH,))
    return tuple(size or other for size, other in zip(sizes, usual, strict=True)) if sizes else usual


def is_list_of_shapes(input_shape: Any) -> bool:
    """Whether ``input_shape`` is a list of shapes rather than one shape."""
    first = input_shape[0] if isinstance(input_shape, list | tuple) and input_shape else None
    return isinstance(first, list | tuple)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shape(shape: Any, given: Any) -> Shape:
    if not _is_list(shape) or (not shape and shape is given):  # an input among several may be a number
        raise _not_a_shape(given)
    if any(isinstance(size, bool) or not isinstance(size, Integral) or size < 1 for size in shape):
        raise _not_a_shape(given)
    return tuple(int(size) for size in shape)


def _not_a_shape(given: Any) -> ReaderError:
    return ReaderError(
        f"input_shape={given!r} is not a shape: pass a tuple such as (1, 3, 224, 224); for several inputs, a "
        "list of tuples or a dict by input name"
    )


def note_dropped_shapes(graph: nx.DiGraph) -> None:
    """Note why shapes in ``graph`` are unknown, if any are: those of the file are for other inputs."""
    if any(UNKNOWN_WORK in attrs for _, attrs in graph.nodes(data="attrs")):
        add_note(
            graph,
            "the shapes that the model declares hold for the input that it was exported with, not for this "
            "input_shape; pass the shape it was exported with, or export it anew",
        )
