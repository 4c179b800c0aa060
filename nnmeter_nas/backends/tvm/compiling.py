"""Compile ONNX files with TVM for one thread of this machine."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import NnMeterNasError, ReaderError
from ...readers.inputs import InputShape, shapes_by_input, way_out
from ..quiet import no_messages
from .imports import load_tvm
from .names import Kernel, converted, kernels
from .records import gains


class Fused(NamedTuple):
    """A model whose operators are fused to kernels, which are not compiled yet.

    Attributes:
        whole: TVM's module with one function for each operator.
        grouped: the module that calls these functions kernel by kernel.
        module: the module with one function for each kernel.
        nodes: names of the nodes of the file; of one without a name, its type and position, counted from 1.
        shapes: those of its inputs, in order.
    """

    whole: Any
    grouped: Any
    module: Any
    nodes: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


class Compiled(NamedTuple):
    """A compiled model.

    Attributes:
        program: what TVM's virtual machine runs.
        kernels: its kernels in order of execution; None if TVM does not tell what they run.
    """

    program: Any
    kernels: list[Kernel] | None


def this_machine() -> Any:
    """TVM's target: one core of this machine, with all that its processor can do."""
    tvm = load_tvm()
    processor = tvm.target.codegen.llvm_get_system_cpu()
    return tvm.target.Target({"kind": "llvm", "mcpu": processor, "num-cores": 1})


def fuse(content: bytes, target: Any) -> Fused:
    """Read an ONNX model and fuse its operators, as TVM does by default. A batch that it leaves open is 1.

    Raises:
        ReaderError: it is no ONNX model, has an input of other values than floats, leaves another size open,
            or is not what TVM compiles, for example as TVM lacks an operator.
    """
    onnx = load_tvm("onnx")
    tvm = load_tvm()
    transform = load_tvm("tvm.relax.transform")
    pipeline = load_tvm("tvm.relax.backend.cpu_generic.pipeline")
    model = _read(content)
    for one in _inputs(model):
        if one.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ReaderError(f"input {one.name!r} is no tensor of floats; TVM is given none but these here")
    shapes = _shapes(_inputs(model))
    nodes = tuple(node.name or f"{node.op_type} {i}" for i, node in enumerate(model.graph.node, 1))
    with no_messages(), contextlib.redirect_stdout(io.StringIO()), _refusals():  # TVM prints what it raises
        imported = converted(model, shapes)
    passes = pipeline.legalize_passes(target)
    fusing = next(i for i, one in enumerate(passes) if one.info.name == "FuseOps")
    before = [
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        *pipeline.library_dispatch_passes(target),
        *passes[:fusing],
    ]
    with _refusals(), target:
        whole = tvm.transform.Sequential(before)(imported)
        grouped = passes[fusing](whole)
        module = tvm.transform.Sequential(passes[fusing + 1 :])(grouped)
    return Fused(whole, grouped, module, nodes, tuple(shapes.values()))


def compiled(fused: Fused, target: Any, records: Any = None) -> Compiled:
    """Compile a model: each kernel by the best of the tuning ``records``; as it comes, if none is quicker.

    Raises:
        ReaderError: TVM cannot compile it.
    """
    tvm = load_tvm()
    relax = load_tvm("tvm.relax")
    pipeline = load_tvm("tvm.relax.backend.cpu_generic.pipeline")
    module = fused.module
    with _refusals(), target:
        if records is not None:
            with gains(records), tvm.transform.PassContext(opt_level=3):
                module = relax.transform.MetaScheduleApplyDatabase()(module)
        module = tvm.transform.Sequential(pipeline.dataflow_lower_passes(target))(module)
        calls = _calls(module)
        module = tvm.transform.Sequential(pipeline.finalize_passes(target))(module)
        program = relax.build(module, target, relax_pipeline=None)
    told = kernels(fused.whole, fused.grouped, calls, len(fused.nodes))
    return Compiled(program, told)


def _calls(module: Any) -> list[str]:
    """The kernels that a module calls, in order."""
    names = {name.name_hint for name in module.functions}
    values = (binding.value for block in module["main"].body.blocks for binding in block.bindings)
    called = (getattr(getattr(value, "op", None), "name_hint", "") for value in values)
    return [name for name in called if name in names]


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turn what TVM raises into a ReaderError with the last line of its message."""
    try:
        yield
    except NnMeterNasError:
        raise
    except Exception as error:  # TVM raises errors of many kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ReaderError(f"TVM cannot compile this model: {lines[-1].strip()}") from error


def with_input_shape(content: bytes, input_shape: InputShape) -> bytes:
    """Return an ONNX model that takes inputs of other sizes than it declares.

    Raises:
        ReaderError: it is no ONNX model, or does not take inputs of so many dimensions, or so many inputs.
    """
    model = _read(content)
    inputs = _inputs(model)
    given = shapes_by_input(input_shape, [one.name for one in inputs])
    for one in inputs:
        declared = one.type.tensor_type.shape.dim
        shape = given.get(one.name, ())
        if one.type.tensor_type.HasField("shape") and len(declared) != len(shape):
            sizes = len(declared)
            raise ReaderError(f"input {one.name!r} has {sizes} dimensions, not those of {input_shape=}")
        del declared[:]
        for size in shape:
            declared.add().dim_value = size
    del model.graph.value_info[:]  # they are for inputs of the sizes that were declared
    return bytes(model.SerializeToString())


def _read(content: bytes) -> Any:
    onnx = load_tvm("onnx")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose classes differ between its releases
        raise ReaderError(f"TVM compiles ONNX models, and this is none: {error}") from error
    if not any(one.domain in ("", "ai.onnx") for one in model.opset_import):
        raise ReaderError("TVM compiles ONNX models, and this one does not declare its opset")
    return model


def _inputs(model: Any) -> list[Any]:
    """The inputs of a model; older files have its weights among them."""
    weights = {one.name for one in model.graph.initializer}
    return [one for one in model.graph.input if one.name not in weights]


def _shapes(inputs: Sequence[Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs, where a batch that is left open is 1."""
    sizes = {one.name: _sizes(one) for one in inputs}
    for one in inputs:
        if not one.type.tensor_type.HasField("shape"):
            raise ReaderError(f"input {one.name!r} has no shape; {way_out(sizes)}")
        if None in sizes[one.name]:
            axis = sizes[one.name].index(None)
            raise ReaderError(f"input {one.name!r} leaves dimension {axis} open; {way_out(sizes)}")
    return {name: tuple(size or 1 for size in found) for name, found in sizes.items()}


def _sizes(declared: Any) -> list[int | None]:
    """The sizes of an input, None for each that is open; the first of several is the batch."""
    sizes = [size.dim_value if size.dim_value > 0 else None for size in declared.type.tensor_type.shape.dim]
    return [sizes[0] or 1, *sizes[1:]] if len(sizes) > 1 else sizes
