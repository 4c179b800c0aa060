"""Reader of NNI search spaces: traces the module once, with every candidate of every choice.

During the trace, a layer choice runs all its candidates, an input choice takes all its inputs, and a
repetition stops at all its depths. Our own torch operator, recorded as ``choice``, stands for the chosen
result. A module that asks about a chosen result, and goes on by the answer, runs for each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..errors import SpaceError
from ..extras import load_extra
from ..graph.editing import Operand
from ..readers.inputs import InputShape
from ..readers.torch.module import trace_module
from ..readers.torch.operators import AtenCall, aten
from ..readers.torch.questions import Undecided
from ..readers.torch.trace import Recorder

if TYPE_CHECKING:
    import torch

#: Namespace and schema of the operator that stands for a choice.
_NAMESPACE, _SCHEMA = "nnmeter_nas", "choice(Tensor[] handed, str label, str[] candidates) -> Tensor"

#: A module runs for the answers to at most so many questions that depend on choices, one within the other.
_MOST_QUESTIONS = 6


def read_supernet(module: torch.nn.Module, input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read an NNI search space into a supernet (see :mod:`nnmeter_nas.supernet.choices`).

    A candidate of a layer choice is named as in the choice (``"0"``, ``"1"``, ... in a list), that of an
    input choice after the position of the input, and that of a repetition after its number of blocks. The
    module is not changed, and does not run on data.

    Args:
        module: a space of NNI 2.10.1 or 3.0 whose choices are ``LayerChoice``, ``InputChoice`` of one input,
            and the depth of ``Repeat``.
        input_shape: as :func:`nnmeter_nas.readers.torch.module.read_torch_module` takes it.

    Returns:
        The supernet: an unfinished model graph; :func:`.choices.select` finishes it.

    Raises:
        SpaceError: the space has no choice, has other kinds of choices, or its candidates return different
            numbers of tensors.
        ReaderError: ``module`` is not a module, or cannot be traced with this shape.
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

    def replaced(recorder: Recorder) -> AbstractContextManager[None]:
        asking = {part: _run_for_all_answers(part, recorder) for part in parts if _may_ask(part)}
        return _replaced({**asking, **forwards})

    return trace_module(module, input_shape, replaced)


def _check_choices(
    parts: Sequence[Any], layer_choices: Sequence[Any], input_choices: Sequence[Any], repeats: Sequence[Any]
) -> None:
    """Raise a SpaceError if the space has no choice, or a choice that a trace would fix to one value."""
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
    """Return whether NNI makes the module anew for its choices, besides choosing within its parts."""
    nas = load_extra("nni.nas.nn.pytorch", "nni", "reading a search space")
    if isinstance(module, nas.Cell):
        return module.merge_op != "all" or module.op_candidates_factory is not None
    if not hasattr(nas, "MutableModule") or not isinstance(module, nas.MutableModule):
        return False
    plain = (nas.MutableModule, nas.LayerChoice, nas.InputChoice, nas.Repeat, nas.ParametrizedModule)
    return type(module).freeze not in [kind.freeze for kind in plain] and bool(module.simplify())


def _labels(part: Any) -> Iterator[str]:
    """Yield labels of a module's own choices, in its arguments (2.10.1) or its mutables (3.0)."""
    arguments = getattr(part, "trace_kwargs", None) or {}
    for value in [part, *arguments.values()]:
        if hasattr(value, "inner_choices"):
            yield from (choice.label for choice in value.inner_choices())
    for mutable in getattr(part, "mutables", None) or []:
        yield from mutable.simplify()


def _run_all(choice: Any) -> Callable[..., Any]:
    """Return a forward that runs all candidates of a LayerChoice, each on its own copy of the tensors."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        results = {}
        for name in choice.names:
            own_args, own_kwargs = _copies((args, kwargs))
            results[str(name)] = choice[name](*own_args, **own_kwargs)
        return _choose(choice.label, results)

    return forward


def _may_ask(part: Any) -> bool:
    """Whether the module's own code may ask about values; torch's layers do not."""
    import torch

    is_plain = type(part).__module__.startswith("torch.") or isinstance(part, torch.jit.ScriptModule)
    return not is_plain and hasattr(part, "forward")


def _run_for_all_answers(part: Any, recorder: Recorder) -> Callable[..., Any]:
    """Return a forward that runs once for each answer to a question that depends on a choice.

    A block may ask whether the chosen candidate is a zero layer, and go on otherwise if it is. The results of
    the runs are handed to a choice with the label of the one that decides.
    """
    forward, questions = part.forward, recorder.questions

    @wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        before = recorder.state()
        try:
            return forward(*args, **kwargs)
        except Undecided as undecided:
            asked = undecided
        if len(questions.assumed) >= _MOST_QUESTIONS:
            raise SpaceError(
                f"{asked.line} depends on more than {_MOST_QUESTIONS} choices, and what is computed differs; "
                "ask in the forward() of a module of its own for each choice"
            )
        recorder.back_to(before)
        results = {}
        for group in asked.groups:
            with questions.assuming(asked.label, group):
                own_args, own_kwargs = _copies((args, kwargs))
                results.update(dict.fromkeys(group, run(*own_args, **own_kwargs)))
        # A candidate that an outer run rules out gets any result.
        other = results[asked.groups[0][0]]
        return _choose(asked.label, {name: results.get(name, other) for name in asked.candidates})

    return run


def _take_all(choice: Any) -> Callable[..., Any]:
    """Return a forward that takes all inputs of an InputChoice."""

    def forward(candidate_inputs: Sequence[Any]) -> Any:
        chosen = _choose(choice.label, {str(i): value for i, value in enumerate(candidate_inputs)})
        return [chosen] if choice.reduction == "none" else chosen

    return forward


def _run_to_all_depths(repeat: Any) -> Callable[..., Any]:
    """Return a forward that gives the results of all depths of a Repeat to one choice."""
    choice = repeat.depth_choice
    depths = choice.candidates if hasattr(choice, "candidates") else choice.values

    def forward(x: Any) -> Any:
        results = [x]
        for block in repeat.blocks:
            results.append(block(_copies(results[-1])))
        return _choose(repeat.label, {str(depth): results[depth] for depth in depths})

    return forward


def _copies(value: Any) -> Any:
    """Copy the tensors in ``value``, so that in-place changes do not affect other users."""
    from torch import Tensor
    from torch.utils._pytree import tree_map_only

    return tree_map_only(Tensor, lambda tensor: tensor.clone(), value)


def _choose(label: str, results: Mapping[str, Any]) -> Any:
    """Return the stand-in for the chosen candidate's result: each of its tensors is a choice."""
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
    """Define the torch operator ``choice``: it returns the first candidate's tensor."""
    import torch

    library = torch.library.Library(_NAMESPACE, "DEF")
    library.define(_SCHEMA)
    library.impl("choice", lambda handed, label, candidates: handed[0].clone(), "CompositeExplicitAutograd")
    return library  # torch removes the operator when this object is freed


@aten(f"{_NAMESPACE}::choice")
def _choice(call: AtenCall) -> list[Operand]:
    """Emit a choice with one operand per candidate; a tensor independent of the input becomes a constant."""
    operands = [call.operand(tensor) or call.constant(tensor) for tensor in call.args["handed"]]
    attrs = {"label": call.args["label"], "candidates": tuple(call.args["candidates"])}
    return [call.emit("choice", operands, attrs, call.out_shapes[0])]


@contextmanager
def _replaced(forwards: Mapping[Any, Callable[..., Any]]) -> Iterator[None]:
    """While entered, give each module another ``forward``."""
    own = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    for module, forward in forwards.items():
        vars(module)["forward"] = forward
    try:
        yield
    finally:
        for module in forwards:
            del vars(module)["forward"]
            if module in own:
                vars(module)["forward"] = own[module]
