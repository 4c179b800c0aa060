"""Read torch modules: run ``forward`` on meta tensors, which have shapes but no data, and record it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

import networkx as nx

from ...errors import NnMeterNasError, ReaderError
from ...graph.memory import VALUE_BYTES_OF
from ...graph.model_graph import finish, set_outputs
from ...graph.shapes import Shape
from ..inputs import InputShape, is_list_of_shapes, shapes_by_input
from .questions import SAMPLES, depends_on_data, user_line
from .trace import Recorder, tensors_in

if TYPE_CHECKING:
    import torch

#: Returns what to enter around a trace; it gets the recorder of that trace.
Replaced = Callable[[Recorder], AbstractContextManager[Any]]


def read_torch_module(
    module: torch.nn.Module | torch.export.ExportedProgram, input_shape: InputShape | None = None
) -> nx.DiGraph:
    """Read a ``torch.nn.Module`` in eval mode into a model graph.

    The module does not run on data and does not change: its mode, buffers and attributes are restored.
    Inputs are floats, but count as integers or booleans where the module uses them as indices or masks.

    Args:
        module: a module whose control flow does not depend on the data. It may ask what follows from zeros,
            constants and weights, such as whether a branch is a zero layer. It may be compiled, scripted,
            traced or exported.
        input_shape: NCHW shape with batch 1; or a list of shapes, one per argument of ``forward``; or a dict
            of shapes by argument name. The default is the shapes of an exported program's example inputs,
            then the module's attribute ``input_shape``, then ``(1, 3, 224, 224)``.

    Returns:
        The finished model graph. Nodes are named after the submodule that computes them.

    Raises:
        ReaderError: not a module, a module with lazy parameters, or one that cannot be traced with these
            shapes; if it branches on the data, the message names the line.
        GraphError: the module computes nothing from its input.
        ShapeError: the batch is not 1.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> graph = read_torch_module(module, (1, 3, 8, 8))
    >>> [(name, data["op"], data["out_shapes"]) for name, data in graph.nodes(data=True)]
    [('input', 'input', [(1, 3, 8, 8)]), ('0', 'conv', [(1, 8, 6, 6)]), ('1', 'relu', [(1, 8, 6, 6)])]
    """
    return finish(trace_module(module, input_shape))


def trace_module(
    module: torch.nn.Module | torch.export.ExportedProgram,
    input_shape: InputShape | None = None,
    replaced: Replaced = nullcontext,
) -> nx.DiGraph:
    """Return the unfinished model graph.

    A trace with questions about values whose answers are other numbers for other data is repeated with such
    numbers, and must compute the same; see :mod:`.questions`.

    Args:
        module, input_shape: as :func:`read_torch_module` takes them.
        replaced: entered around each trace, with its recorder; may replace parts of the module meanwhile.

    Raises:
        ReaderError: as :func:`read_torch_module`.
    """
    model, module = module, _plain_module(module)
    if input_shape is None:
        input_shape = _own_input_shape(model, module)
    traced = _trace(model, module, input_shape, replaced, 0)
    for sample in range(1, SAMPLES if traced.questions.asked else 1):
        _check_same(traced, _trace(model, module, input_shape, replaced, sample))
    return traced.graph


def _trace(model: Any, module: torch.nn.Module, input_shape: InputShape, replaced: Replaced, sample: int
           ) -> Recorder:  # fmt: skip
    """Trace ``module``, the plain form of ``model``, with the numbers of a sample; return its recorder."""
    import torch

    shapes = _input_shapes(module, input_shape)
    recorder = Recorder(module, sample)
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    inputs = {
        name: recorder.add_input(name, torch.empty(shape, dtype=dtype, device="meta"))
        for name, shape in shapes.items()
    }
    recorder.graph.graph[VALUE_BYTES_OF] = dtype.itemsize
    by_name = isinstance(input_shape, Mapping)
    try:
        args, kwargs = _arguments(model, module, inputs) if by_name else (inputs.values(), {})
        around = _eval_mode(module), replaced(recorder), recorder.module_paths(), torch.inference_mode()
        with ExitStack() as entered:
            for context in (*around, recorder.mode()):
                entered.enter_context(context)
            result = module(*args, **kwargs)
    except NnMeterNasError:
        raise
    except Exception as error:  # the user's forward() runs in here
        line, asked = user_line(error.__traceback__), recorder.questions.asked
        before = f". Before, {asked[-1].line} asked for a value that depends on the data" if asked else ""
        raise ReaderError(
            f"cannot trace {type(module).__name__} with input_shape={list(shapes.values())}: "
            f"{recorder.where()} raised {type(error).__name__}: {error}{f', at {line}' if line else ''}"
            f"{before}. Check that input_shape has one shape for each argument of its forward(), and that no "
            "branch and no shape in it depends on tensor values"
        ) from error
    outputs = [operand[0] for operand in map(recorder.operand, tensors_in(result)) if operand]
    if not outputs:
        raise ReaderError(
            f"{type(module).__name__} returned {type(result).__name__} without a tensor computed from its "
            "input; let forward() return what the model computes"
        )
    set_outputs(recorder.graph, dict.fromkeys(outputs))
    return recorder


def _check_same(traced: Recorder, other: Recorder) -> None:
    """Raise a ReaderError if a trace with the numbers of another sample computes something else."""
    graph, again = traced.graph, other.graph
    if _outline(graph) == _outline(again) and graph.graph["outputs"] == again.graph["outputs"]:
        return
    pairs = zip(_outline(graph), _outline(again), strict=False)
    same = next((number for number, (one, two) in enumerate(pairs) if one != two), len(graph))
    asked = [one for one in traced.questions.asked if one.operators <= same] or traced.questions.asked
    raise ReaderError(depends_on_data(graph, asked[-1].line))


def _outline(graph: nx.DiGraph) -> list[str]:
    """Describe each operator of a graph."""
    return [
        repr((name, data["op"], data["attrs"], data["inputs"], data["declared"]))
        for name, data in graph.nodes(data=True)
    ]


def _is_exported(model: Any) -> bool:
    import torch

    return isinstance(model, torch.export.ExportedProgram)


def _plain_module(model: Any) -> torch.nn.Module:
    """Return the module to run: unwrap a compiled module or an exported program.

    Raises:
        ReaderError: ``model`` is neither a module nor an exported program, or has lazy parameters.
    """
    import torch

    if _is_exported(model):
        return model.module()
    if not isinstance(model, torch.nn.Module):
        raise ReaderError(
            f"expected a torch.nn.Module or torch.export.ExportedProgram, got {type(model).__name__}"
        )
    module: torch.nn.Module = getattr(model, "_orig_mod", model)
    if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        raise ReaderError(f"{type(module).__name__} has uninitialised lazy parameters; run it on data first")
    return module


def _own_input_shape(model: Any, module: torch.nn.Module) -> InputShape:
    """Return the input shape stored in ``model``, by default ImageNet's."""
    if _is_exported(model) and model.example_inputs:
        names, shapes = _argument_names(module), [tuple(t.shape) for t in tensors_in(model.example_inputs)]
        return dict(zip(names, shapes, strict=True)) if len(names) == len(shapes) else shapes
    return getattr(model, "input_shape", None) or (1, 3, 224, 224)


def _input_shapes(module: torch.nn.Module, input_shape: InputShape) -> dict[str, Shape]:
    """Return the shape of each input. Keys of a dict are argument names of ``forward``."""
    if isinstance(input_shape, Mapping):
        return shapes_by_input(input_shape, _argument_names(module, input_shape))
    names = [f"input_{i}" for i in range(len(input_shape))] if is_list_of_shapes(input_shape) else ["input"]
    return shapes_by_input(input_shape, names)


def _arguments(
    model: Any, module: torch.nn.Module, inputs: dict[str, torch.Tensor]
) -> tuple[Iterable[Any], dict[str, Any]]:
    """Return the positional and keyword arguments that pass ``inputs`` to ``forward`` by name."""
    if hasattr(module.forward, "schema"):
        return (), inputs
    if _is_exported(model):  # takes only the keywords it was exported with
        examples = model.example_inputs[1] if model.example_inputs else {}
        keywords = {name: tensor for name, tensor in inputs.items() if name in examples}
        positional = [name for name in _argument_names(module) if name in inputs and name not in keywords]
        return [inputs[name] for name in positional], keywords
    bound = signature(module.forward).bind(**inputs)
    return bound.args, bound.kwargs


def _argument_names(module: torch.nn.Module, given: Iterable[str] = ()) -> list[str]:
    """Return the argument names of ``forward``. If it takes ``**kwargs``, the ``given`` names count too."""
    if hasattr(module.forward, "schema"):  # TorchScript has no Python signature
        return [argument.name for argument in module.forward.schema.arguments[1:]]
    parameters = signature(module.forward).parameters.values()
    nameable = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    names = [p.name for p in parameters if p.kind in nameable]
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in parameters)
    return [*names, *(name for name in given if takes_any and name not in names)]


@contextmanager
def _eval_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put ``module`` into eval mode, and restore the mode and attributes of all submodules afterwards.

    Attributes are restored because a ``forward`` that stores a result would store a tensor without data.
    The state of torch's random generator is restored too.
    """
    import torch

    saved = []
    for m in module.modules():
        containers = [(v, v.copy() if v else v) for v in vars(m).values() if isinstance(v, dict | list)]
        saved.append((m, getattr(m, "training", None), dict(vars(m)), containers))
    try:
        for submodule, training, *_ in saved:
            if training:  # a frozen ScriptModule has no mode
                submodule.training = False
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.clear_autocast_cache()  # it may hold cast weights without data
        for submodule, training, attributes, containers in saved:
            for name in vars(submodule).keys() - attributes.keys():
                del vars(submodule)[name]
            vars(submodule).update(attributes)
            if training is not None and submodule.training is not training:
                submodule.training = training  # a ScriptModule does not store it in vars()
            for container, content in containers:
                container.clear()
                container.update(content) if isinstance(container, dict) else container.extend(content)
