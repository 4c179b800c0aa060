"""Reader of torch modules: runs ``forward`` on meta tensors, which have shapes and no data, and records it.

Under inference mode torch hands every call to a dispatch mode as the ATen operator the author wrote
(``linear``, ``batch_norm``, ``adaptive_avg_pool2d``), before decomposing it. So a light recorder sees
what ``torch.export`` would, functional calls and Python control flow included, in a fraction of its time.
Tensors that existed before the trace, the weights above all, are stood in for by meta tensors: they are
neither read nor written nor copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import networkx as nx

from ..errors import NnMeterNasError, ReaderError
from ..graph import add_input, add_op, finish, new_graph, set_outputs
from ..shapes import Shape
from .torch_operators import OPAQUE, TRANSLATIONS, Call, Operand, translate

if TYPE_CHECKING:
    import torch


def read_torch_module(
    module: torch.nn.Module, input_shape: Sequence[int] | Sequence[Sequence[int]]
) -> nx.DiGraph:
    """Read a ``torch.nn.Module`` into a model graph, as it behaves in eval mode.

    The module is neither run on data nor changed: its mode, buffers and attributes are as before afterwards.

    Args:
        module: any module whose control flow does not depend on tensor values.
        input_shape: shape of its input, NCHW with batch 1, or a list of shapes, one for each argument of
            ``forward``.

    Returns:
        The finished model graph. Nodes are named after the submodule that computed them.

    Raises:
        ReaderError: it is no module, has lazy parameters, or cannot be traced with these shapes.
        GraphError: the module computes nothing from its input.
        ShapeError: batch other than 1.

    >>> import torch
    >>> module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> graph = read_torch_module(module, (1, 3, 8, 8))
    >>> [(name, data["op"], data["out_shapes"]) for name, data in graph.nodes(data=True)]
    [('input', 'input', [(1, 3, 8, 8)]), ('0', 'conv', [(1, 8, 6, 6)]), ('1', 'relu', [(1, 8, 6, 6)])]
    """
    import torch

    if not isinstance(module, torch.nn.Module):
        raise ReaderError(f"expected a torch.nn.Module, got {type(module).__name__}")
    shapes = _shapes(module, input_shape)
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
        raise ReaderError(f"{type(module).__name__} has uninitialised lazy parameters; run it on data first")
    recorder = _Recorder(module)
    names = ["input"] if len(shapes) == 1 else [f"input_{i}" for i in range(len(shapes))]
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())
    inputs = [
        recorder.add_input(name, torch.empty(shape, dtype=dtype, device="meta"))
        for name, shape in zip(names, shapes, strict=True)
    ]
    try:
        with _unchanged(module), recorder.module_paths(), torch.inference_mode(), recorder.mode():
            result = module(*inputs)
    except NnMeterNasError:
        raise
    except Exception as error:
        raise ReaderError(
            f"cannot trace {type(module).__name__} with input_shape={shapes}: {recorder.where()} raised "
            f"{type(error).__name__}: {error}. Check that input_shape has one shape for each argument of its "
            "forward(), and that no Python branch in it depends on tensor values"
        ) from error
    outputs = [operand[0] for operand in map(recorder.operand, _tensors(result)) if operand]
    if not outputs:
        raise ReaderError(
            f"{type(module).__name__} returned {type(result).__name__} without a tensor computed from its "
            "input; let forward() return what the model computes"
        )
    set_outputs(recorder.graph, dict.fromkeys(outputs))
    return finish(recorder.graph)


def _shapes(module: torch.nn.Module, input_shape: Any) -> list[Shape]:
    """``input_shape`` as a list of shapes, or a ReaderError."""
    nested = isinstance(input_shape, list | tuple) and all(isinstance(s, list | tuple) for s in input_shape)
    shapes = input_shape if nested and input_shape else [input_shape]
    for shape in shapes:
        sizes = shape if isinstance(shape, list | tuple) else ()
        if not sizes or any(type(d) is not int or d < 1 for d in sizes):
            raise ReaderError(
                f"input_shape={input_shape!r} is no shape for {type(module).__name__}: pass a tuple such as "
                "(1, 3, 224, 224), or a list of them, one for each argument of forward()"
            )
    return [tuple(shape) for shape in shapes]


@contextmanager
def _unchanged(module: torch.nn.Module) -> Iterator[None]:
    """Put ``module`` into eval mode, and all its submodules' attributes back as they were afterwards.

    Attributes too, for a ``forward`` that keeps what it computes would keep tensors without data.
    """
    saved = []
    for m in module.modules():
        containers = [(v, v.copy()) for v in vars(m).values() if isinstance(v, dict | list)]
        saved.append((m, m.training, dict(vars(m)), containers))
    try:
        for submodule, *_ in saved:
            submodule.training = False
        yield
    finally:
        for submodule, training, attributes, containers in saved:
            for name in set(vars(submodule)) - set(attributes):
                del vars(submodule)[name]
            vars(submodule).update(attributes)
            submodule.training = training  # a ScriptModule keeps it elsewhere
            for container, content in containers:
                container.clear()
                container.update(content) if isinstance(container, dict) else container.extend(content)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested sequences, mappings and the attributes of a dataclass."""
    import torch

    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "__dataclass_fields__"):
        yield from _tensors(list(vars(value).values()))


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """``function`` of a value, or of each item of a list: ATen nests no deeper."""
    return [function(v) for v in value] if isinstance(value, list | tuple) else function(value)


class _Recorder:
    """Turns a stream of ATen calls into a model graph.

    Every tensor of the trace is one of: *computed* from a model input (it has an operand), a *constant*
    made during the trace from nothing but numbers (its values are known), or *foreign*, a weight or whatever
    else existed before or follows from such (only its shape is known).
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.graph = new_graph(type(module).__name__)
        self._root = type(module).__name__
        self._modules = {id(m): (name, not any(m.children())) for name, m in module.named_modules()}
        self._stack: list[tuple[str, bool]] = []
        self._repeats: dict[str, int] = {}
        self._func: Any = None
        self._operands: dict[int, Operand] = {}
        self._constants: dict[int, torch.Tensor] = {}
        self._images: dict[int, torch.Tensor] = {}
        # By storage, the tensors seen: views of it to write through to, and references that keep ids valid.
        self._seen: dict[int, dict[int, torch.Tensor]] = {}

    def add_input(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Make ``tensor`` a model input of that name."""
        add_input(self.graph, name, tensor.shape)
        self._bind(tensor, (name, 0))
        return tensor

    def operand(self, value: Any) -> Operand | None:
        """The operand that stands for ``value``, if it is a computed tensor."""
        return self._operands.get(id(value))

    def where(self) -> str:
        """The submodule and the ATen operator that the trace has come to."""
        path = self._stack[-1][0] if self._stack else ""
        module = f"submodule {path!r}" if path else self._root
        return f"{module} at {self._func}" if self._func is not None else module

    def mode(self) -> Any:
        """A context manager under which this recorder gets every ATen call."""
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Recording(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                return recorder.call(func, args, kwargs or {}, self)

        return Recording()

    @contextmanager
    def module_paths(self) -> Iterator[None]:
        """Keep track of the submodule that is running, without a hook on any module."""
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

        def enter(module: torch.nn.Module, args: Any) -> None:
            if id(module) in self._modules:
                self._stack.append(self._modules[id(module)])

        def leave(module: torch.nn.Module, args: Any, output: Any) -> None:
            if id(module) in self._modules:
                self._stack.pop()

        hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def call(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], mode: Any) -> Any:
        """Record one ATen call and return what it returns, on meta tensors unless all is constant."""
        self._func = func
        schema = func._schema
        op = schema.name.split("::")[1]
        tensors = list(_tensors([*args, *kwargs.values()]))
        if op in ("lift_fresh", "lift_fresh_copy") or all(id(t) in self._constants for t in tensors):
            return self._make_constant(func, args, kwargs)
        computed = any(id(t) in self._operands for t in tensors)
        if schema.is_mutable:
            op = op.removesuffix("_")
        elif computed and op not in TRANSLATIONS and op not in OPAQUE:
            with mode:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = self._run(func, args, kwargs)
        if schema.is_mutable:
            originals = {id(self._image(t)): t for t in tensors}
            result = _each(lambda r: originals.get(id(r), r), result)
        outputs = list(_tensors(result))
        if computed and outputs:
            self._record(op, schema, args, kwargs, outputs)
        if schema.is_mutable:
            for output in outputs:
                self._write_through(output)
        return result

    def _make_constant(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a call on constants for real; a factory that follows the device of a meta tensor too."""
        import torch

        if str(kwargs.get("device")) == "meta":
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*args, **kwargs)
        for tensor in _tensors(result):
            self._constants[id(tensor)] = tensor
            self._see(tensor)
        return result

    def _run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What ``func`` returns for the shapes of its arguments."""
        kwargs = {key: _each(self._image, value) for key, value in kwargs.items()}
        if kwargs.get("device") is not None:
            kwargs["device"] = "meta"
        return func(*(_each(self._image, arg) for arg in args), **kwargs)

    def _image(self, value: Any) -> Any:
        """The meta tensor that stands in for a tensor; anything else as it is."""
        import torch

        if not isinstance(value, torch.Tensor) or value.device.type == "meta":
            return value
        if id(value) not in self._images:
            # torch refuses views that mix tensors made in inference mode with others.
            with torch.inference_mode(value.is_inference()):
                self._images[id(value)] = torch.empty_strided(
                    value.shape, value.stride(), dtype=value.dtype, device="meta"
                )
            self._see(value)
        return self._images[id(value)]

    def _record(self, op: str, schema: Any, args: Sequence[Any], kwargs: dict[str, Any],
                outputs: list[torch.Tensor]) -> None:
        """Add the operators of one call to the model graph."""
        named = {a.name: kwargs.get(a.name, a.default_value) for a in schema.arguments}
        named.update(zip(named, args, strict=False))
        inputs = [o for o in map(self.operand, _tensors(list(named.values()))) if o is not None]
        call = Call(self.graph, op, named, inputs, [tuple(t.shape) for t in outputs], self.operand,
                    lambda value: self._constants.get(id(value)), self._add)
        # Outputs beyond the operands are by-products, such as the indices of a max pool.
        for tensor, operand in zip(outputs, translate(call), strict=False):
            self._bind(tensor, operand)

    def _add(self, op: str, inputs: Sequence[Operand], attrs: Any, shapes: list[Shape]) -> str:
        """Add an operator named after the running submodule, or after itself within one that has parts."""
        path, is_leaf = self._stack[-1] if self._stack else ("", False)
        base = name = path if is_leaf and path and path not in self.graph else f"{path}.{op}".lstrip(".")
        while name in self.graph:
            self._repeats[base] = self._repeats.get(base, 1) + 1
            name = f"{base}_{self._repeats[base]}"
        return add_op(self.graph, name, op, inputs, attrs, shapes)

    def _bind(self, tensor: torch.Tensor, operand: Operand) -> None:
        """Let ``tensor`` stand for ``operand`` from here on."""
        self._constants.pop(id(tensor), None)
        self._operands[id(tensor)] = operand
        self._see(tensor)

    def _see(self, tensor: torch.Tensor) -> None:
        self._seen.setdefault(tensor.untyped_storage()._cdata, {})[id(tensor)] = tensor

    def _write_through(self, written: torch.Tensor) -> None:
        """After an in-place operator: all other views of the same memory have changed as well."""
        source = self.operand(written)
        for view in list(self._seen.get(written.untyped_storage()._cdata, {}).values()):
            if view is written:
                continue
            if source is None:  # weights were written, so its values are no longer known
                self._constants.pop(id(view), None)
            elif view.shape == written.shape and view.stride() == written.stride():
                self._bind(view, source)
            else:
                before = self.operand(view)
                inputs = [source] if before is None else [before, source]
                self._bind(view, (self._add("scatter", inputs, {}, [tuple(view.shape)]), 0))
