"""Reader of NNI search spaces: traces the module once, every candidate of every choice included.

While the space is traced, a layer choice runs all of its candidates, an input choice takes all of its inputs,
and a repetition stops at all of its depths; a torch operator of ours, which the trace records as ``choice``,
then stands for what is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..errors import SpaceError
from ..extras import load_extra
from ..graph.editing import Operand
from ..readers.inputs import InputShape
from ..readers.torch.module import trace_module
from ..readers.torch.operators import AtenCall, aten

if TYPE_CHECKING:
    import torch

#: Namespace and schema of the operator that stands for a choice.
_NAMESPACE, _SCHEMA = "nnmeter_nas", "choice(Tensor[] handed, str label, str[] candidates) -> Tensor"


def read_supernet(module: torch.nn.Module, input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read an NNI search space into a supernet (see :mod:`nnmeter_nas.supernet.choices`).

    Candidates of a layer choice go by its names for them (``"0"``, ``"1"``, ... in a list), those of an input
    choice by the position of the input, and those of a repetition by the number of its blocks. The module is
    neither run on data nor changed.

    Args:
        module: a space of NNI 2.10.1 or 3.0 that chooses by ``LayerChoice``, ``InputChoice`` of one input and
            the depth of ``Repeat``.
        input_shape: as :func:`nnmeter_nas.readers.torch.module.read_torch_module` takes it.

    Returns:
        The supernet: a model graph that is not finished, as :func:`.choices.select` does that.

    Raises:
        SpaceError: the space has no choice, chooses otherwise too, or its candidates hand on different
            numbers of tensors.
        ReaderError: it is no module, or cannot be traced with this shape.
        MissingPackageError: NNI is not installed.
    """
    nas = load_extra("nni.nas.nn.pytorch", "nni", "reading a search space")
    parts = list(module.modules()) if hasattr(module, "modules") else []
    layer_choices = [part for part in parts if isinstance(part, nas.LayerChoice)]
    input_choices = [part for part in parts if isinstance(part, nas.InputChoice)]
    repeats = [part for part in parts if isinstance(part, nas.Repeat) and part.label is not None]
    _check_choices(parts, layer_choices, input_choices, repeats)
    forwards: dict[Any, Callable[..., Any]] = {choice: _run_all(choice) for choice in layer_choices}
    forwards |= {choice: _take_all(choice) for choice in input_choices}
    forwards |= {repeat: _run_to_all_depths(repeat) for repeat in repeats}
    _register_operator()
    with _replaced(forwards):
        return trace_module(module, input_shape)


def _check_choices(
    parts: Sequence[Any], layer_choices: Sequence[Any], input_choices: Sequence[Any], repeats: Sequence[Any]
) -> None:
    """Raise a SpaceError if the space has no choice, or one that a trace would take for settled."""
    if rebuilt := [part for part in parts if makes_itself_anew(part)]:
        raise SpaceError(
            f"what a {type(rebuilt[0]).__name__} consists of depends on its choices, so the space cannot be "
            "read in one trace; give a function that makes the model graph of an architecture"
        )
    readable = [*layer_choices, *input_choices, *repeats]
    read = {id(part) for part in [*readable, *(repeat.depth_choice for repeat in repeats)]}
    other = sorted({label for part in parts if id(part) not in read for label in _labels(part)})
    if other:
        listed = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        raise SpaceError(
            f"the space chooses {listed} by other than a LayerChoice, an InputChoice or a Repeat, so it "
            "cannot be read in one trace; give a function that makes the model graph of an architecture"
        )
    if not readable:
        kind = type(parts[0]).__name__ if parts else "it"
        raise SpaceError(f"{kind} is no search space: it has no LayerChoice, InputChoice or Repeat")
    for choice in input_choices:
        if choice.n_chosen != 1:
            raise SpaceError(
                f"the InputChoice {choice.label!r} has n_chosen={choice.n_chosen}; only 1 can be read"
            )


def makes_itself_anew(module: Any) -> bool:
    """Whether a module of NNI's is made anew when its choices are, beyond choosing within its parts."""
    nas = load_extra("nni.nas.nn.pytorch", "nni", "reading a search space")
    if isinstance(module, nas.Cell):
        return module.merge_op != "all" or module.op_candidates_factory is not None
    if not hasattr(nas, "MutableModule") or not isinstance(module, nas.MutableModule):
        return False
    plain = (nas.MutableModule, nas.LayerChoice, nas.InputChoice, nas.Repeat, nas.ParametrizedModule)
    return type(module).freeze not in [kind.freeze for kind in plain] and bool(module.simplify())


def _labels(part: Any) -> Iterator[str]:
    """Labels of the choices that a module makes itself, in its arguments (2.10.1) or its mutables (3.0)."""
    arguments = getattr(part, "trace_kwargs", None) or {}
    for value in [part, *arguments.values()]:
        if hasattr(value, "inner_choices"):
            yield from (choice.label for choice in value.inner_choices())
    for mutable in getattr(part, "mutables", None) or []:
        yield from mutable.simplify()


def _run_all(choice: Any) -> Callable[..., Any]:
    """A forward that runs all candidates of a LayerChoice, each on tensors of its own."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        results = {}
        for name in choice.names:
            own_args, own_kwargs = _copies((args, kwargs))
            results[str(name)] = choice[name](*own_args, **own_kwargs)
        return _choose(choice.label, results)

    return forward


def _take_all(choice: Any) -> Callable[..., Any]:
    """A forward that takes all inputs of an InputChoice."""

    def forward(candidate_inputs: Sequence[Any]) -> Any:
        chosen = _choose(choice.label, {str(i): value for i, value in enumerate(candidate_inputs)})
        return [chosen] if choice.reduction == "none" else chosen

    return forward


def _run_to_all_depths(repeat: Any) -> Callable[..., Any]:
    """A forward that hands on the results of all depths of a Repeat."""
    choice = repeat.depth_choice
    depths = choice.candidates if hasattr(choice, "candidates") else choice.values

    def forward(x: Any) -> Any:
        results = [x]
        for block in repeat.blocks:
            results.append(block(_copies(results[-1])))
        return _choose(repeat.label, {str(depth): results[depth] for depth in depths})

    return forward


def _copies(value: Any) -> Any:
    """``value`` with its tensors copied: what works on them in place does not change what others see."""
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, lambda tensor: tensor.clone(), value)


def _choose(label: str, results: Mapping[str, Any]) -> Any:
    """What stands for the result of one of the candidates: each of its tensors is a choice."""
    import torch
    from torch.utils._pytree import tree_flatten, tree_unflatten

    flat = {name: tree_flatten(result) for name, result in results.items()}
    first, (leaves, structure) = next(iter(flat.items()))
    for name, (_, other) in flat.items():
        if other != structure:
            raise SpaceError(
                f"the candidates {first!r} and {name!r} of the choice {label!r} hand on different things"
            )
    choose = getattr(torch.ops, _NAMESPACE).choice
    chosen = [choose([flat[name][0][i] for name in flat], label, list(flat)) for i in range(len(leaves))]
    return tree_unflatten(chosen, structure)


@lru_cache(maxsize=1)
def _register_operator() -> Any:
    """Define the operator ``choice`` to torch: it returns what the first candidate hands on."""
    import torch

    library = torch.library.Library(_NAMESPACE, "DEF")
    library.define(_SCHEMA)
    library.impl("choice", lambda handed, label, candidates: handed[0].clone(), "CompositeExplicitAutograd")
    return library  # which would be undone if it were forgotten


@aten(f"{_NAMESPACE}::choice")
def _choice(call: AtenCall) -> list[Operand]:
    """One operand for each candidate; what does not depend on the input is a constant."""
    operands = [call.operand(tensor) or call.constant(tensor) for tensor in call.args["handed"]]
    attrs = {"label": call.args["label"], "candidates": tuple(call.args["candidates"])}
    return [call.emit("choice", operands, attrs, call.out_shapes[0])]


@contextmanager
def _replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """Give each module another ``forward`` for a while."""
    for module, forward in forwards.items():
        vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module in forwards:
            del vars(module)["forward"]
