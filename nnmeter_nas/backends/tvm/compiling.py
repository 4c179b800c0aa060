"""Compile ONNX files with TVM for one thread of this machine."""

from __future__ import annotations

import contextlib
import io
from typing import Any, NamedTuple

from ...errors import ReaderError
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
    """Read an ONNX model and fuse its operators, as TVM does by default. Sizes that it leaves open are 1.

    Raises:
        ReaderError: it is no ONNX model, or has an input of other values than floats.
    """
    onnx = load_tvm("onnx")
    tvm = load_tvm()
    transform = load_tvm("tvm.relax.transform")
    pipeline = load_tvm("tvm.relax.backend.cpu_generic.pipeline")
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose classes differ between its releases
        raise ReaderError(f"TVM compiles ONNX models, and this is none: {error}") from error
    weights = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    for one in inputs:
        if one.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ReaderError(f"input {one.name!r} is no tensor of floats; TVM is given none but these here")
    shapes = {one.name: _shape(one) for one in inputs}
    nodes = tuple(node.name or f"{node.op_type} {i}" for i, node in enumerate(model.graph.node, 1))
    with contextlib.redirect_stdout(io.StringIO()):  # the frontend prints what it is about to raise
        imported = converted(model, shapes)
    passes = pipeline.legalize_passes(target)
    fusing = next(i for i, one in enumerate(passes) if one.info.name == "FuseOps")
    before = [
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        *pipeline.library_dispatch_passes(target),
        *passes[:fusing],
    ]
    with target:
        whole = tvm.transform.Sequential(before)(imported)
        grouped = passes[fusing](whole)
        module = tvm.transform.Sequential(passes[fusing + 1 :])(grouped)
    return Fused(whole, grouped, module, nodes, tuple(shapes.values()))


def compiled(fused: Fused, target: Any, records: Any = None) -> Compiled:
    """Compile a model: each kernel by the best of the tuning ``records``; as it comes, if none is quicker."""
    tvm = load_tvm()
    relax = load_tvm("tvm.relax")
    pipeline = load_tvm("tvm.relax.backend.cpu_generic.pipeline")
    module = fused.module
    with target:
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


def _shape(declared: Any) -> tuple[int, ...]:
    return tuple(size.dim_value or 1 for size in declared.type.tensor_type.shape.dim)
