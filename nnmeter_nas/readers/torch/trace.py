"""Record the ATen calls of a torch module's ``forward`` as operators of a model graph.

In inference mode, torch passes each call to a dispatch mode as the ATen operator the author wrote
(``linear``, ``batch_norm``, ``adaptive_avg_pool2d``), before decomposing it. So this recorder sees what
``torch.export`` sees, including functional calls and Python control flow, in a fraction of the time. Meta
tensors replace the tensors that existed before the trace, mostly weights, so these are never written or
copied, and read only where ``forward`` asks for their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...errors import ReaderError
from ...graph.editing import Operand
from ...graph.model_graph import add_input, add_note, add_op, new_graph
from ...graph.shapes import Shape
from ...graph.unknown import GIVEN, mark_unknown
from ...ops import NAMES, OPERATORS
from .operators import AtenCall, is_known, translate
from .quantised import float_form, is_quantised
from .questions import ASKING, Questions
from .quick import quick_result

if TYPE_CHECKING:
    import torch

#: Arguments of ATen operators that must be integers, and arguments that must be booleans.
_INTEGER_ARGUMENTS = frozenset({"indices", "index", "offsets"})
_BOOLEAN_ARGUMENTS = frozenset({"mask", "condition"})
#: ATen operators that move a tensor to another device.
_MOVES = frozenset({"to", "_to_copy"})
#: Most memory of a tensor that a module keeps as a setting.
_MOST_BYTES = 512


def tensors_in(value: Any) -> list[torch.Tensor]:
    """Return all tensors in nested lists, tuples, dicts and dataclasses."""
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        found = []
        for item in value:
            if not (item is None or isinstance(item, int | float)):  # most are numbers
                found += tensors_in(item)
        return found
    if isinstance(value, dict):
        return tensors_in(list(value.values()))
    if hasattr(value, "__dataclass_fields__"):
        return tensors_in(list(vars(value).values()))
    return []


def _each(function: Callable[[Any], Any], value: Any) -> Any:
    """Apply ``function`` to a value, or to each item of a list. ATen nests no deeper."""
    return [function(v) for v in value] if isinstance(value, list | tuple) else function(value)


@dataclass(frozen=True)
class _Schema:
    """What matters of an ATen operator's schema, which torch makes anew at each look.

    Attributes:
        op: name without overload; with its namespace if that is not ATen's.
        defaults: default of each argument by name, in order.
        typed: position, name and type of the arguments that must be integers or booleans.
        returns: whether it returns anything.
        asks: whether it returns only numbers and booleans.
        by_values: whether the values of its arguments decide the shape of its result.
        is_random: whether each call returns another result.
        is_mutable: whether it writes to an argument.
        is_view: whether it only returns an argument or a view of one.
    """

    op: str
    defaults: Mapping[str, Any]
    typed: Sequence[tuple[int, str, torch.dtype]]
    returns: bool
    asks: bool
    by_values: bool
    is_random: bool
    is_mutable: bool
    is_view: bool


@cache
def _schema(func: Any) -> _Schema:
    """Return what matters of the schema of ``func``."""
    import torch

    schema = func._schema
    namespace, op = schema.name.split("::")
    typed = []
    for position, argument in enumerate(schema.arguments):
        if argument.name in _INTEGER_ARGUMENTS:
            typed.append((position, argument.name, torch.int64))
        elif argument.name in _BOOLEAN_ARGUMENTS:
            typed.append((position, argument.name, torch.bool))
    return _Schema(
        op=op if namespace == "aten" else f"{namespace}::{op}",
        defaults={argument.name: argument.default_value for argument in schema.arguments},
        typed=typed,
        returns=bool(schema.returns),
        asks=all(str(result.type) in ("bool", "number") for result in schema.returns),
        by_values=torch.Tag.dynamic_output_shape in func.tags,
        is_random=torch.Tag.nondeterministic_seeded in func.tags,
        is_mutable=schema.is_mutable,
        is_view=not schema.is_mutable and any(result.alias_info for result in schema.returns),
    )


def _named(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by name, in the order of the schema, defaults included."""
    named = {**_schema(func).defaults, **kwargs}
    named.update(zip(named, args, strict=False))
    return named


def _floats_as(value: Any, dtype: torch.dtype) -> Any:
    """Convert the float tensors in ``value``, a tensor or a list of tensors, to ``dtype``."""
    import torch

    def convert(item: Any) -> Any:
        return item.to(dtype) if isinstance(item, torch.Tensor) and item.is_floating_point() else item

    return _each(convert, value)


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two views of the same storage share an element."""
    return np.shares_memory(_layout(one), _layout(other))


def _on_device(device: str, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of a call with every device replaced by ``device``."""
    import torch

    def move(value: Any) -> Any:
        return torch.device(device) if isinstance(value, torch.device) else value

    return [move(value) for value in args], {key: move(value) for key, value in kwargs.items()}


def _tensor(values: Callable[[], Any], position: int) -> torch.Tensor:
    return tensors_in(values())[position]


def _is_cpu(value: Any) -> bool:
    import torch

    return isinstance(value, torch.device) and value.type == "cpu"


def _layout(view: torch.Tensor) -> npt.NDArray[Any]:
    """Return an array with the memory layout of ``view`` at a made-up address. It must never be read."""
    size = view.element_size()
    return np.asarray(SimpleNamespace(__array_interface__={
        "version": 3, "typestr": f"|V{size}", "shape": tuple(view.shape),
        "strides": tuple(stride * size for stride in view.stride()),
        "data": (4096 + view.storage_offset() * size, True),
    }))  # fmt: skip


class Recorder:
    """Turns a stream of ATen calls into a model graph.

    Args:
        module: the module to trace.
        sample: see :class:`.questions.Questions`.

    Every tensor of the trace is one of three kinds: *computed* from a model input (it has an operand);
    *constant*, made during the trace only from numbers and from small buffers of the module (its values
    are known); or *foreign*, a weight or another tensor from before the trace, or computed from these (its
    shape is known, and its values are worked out if they are asked for).
    """

    def __init__(self, module: torch.nn.Module, sample: int = 0) -> None:
        self.graph = new_graph(type(module).__name__)
        self.questions = Questions(self.graph, self._asked_for, sample)
        self._added: list[str] = []  # by the call that is being recorded
        self._root = type(module).__name__
        # Name of each submodule, and whether it is a leaf.
        self._modules = {
            id(m): (path, next(m.children(), None) is None) for path, m in module.named_modules()
        }
        self._stack: list[tuple[str, bool]] = []
        self._repeats: dict[str, int] = {}
        self._func: Any = None
        self._operands: dict[int, Operand] = {}
        self._constants: dict[int, torch.Tensor] = {}
        self._images: dict[int, torch.Tensor] = {}
        self._storages: dict[int, torch.UntypedStorage] = {}
        self._copies: dict[int, torch.UntypedStorage] = {}
        self._written: set[int] = set()  # ids of the dicts in _seen
        self._recipes: dict[int, Callable[[], torch.Tensor]] = {}  # make the values of foreign meta tensors
        # Tensors seen, by storage and id: in-place writes update these views; holding them keeps ids valid.
        self._seen: dict[int, dict[int, torch.Tensor]] = {}

    def add_input(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """Make ``tensor`` a model input called ``name``."""
        add_input(self.graph, name, tensor.shape)
        self._bind(tensor, (name, 0))
        return tensor

    def operand(self, value: Any) -> Operand | None:
        """Return the operand of ``value`` if it is a computed tensor, else None."""
        return self._operands.get(id(value))

    def state(self) -> tuple[Any, ...]:
        """Return what :meth:`back_to` needs to undo everything that is recorded from now on."""
        kept = self._operands, self._constants, self._repeats, self._written
        return (len(self.graph), len(self._stack), *(known.copy() for known in kept))

    def back_to(self, state: tuple[Any, ...]) -> None:
        """Undo everything that was recorded since ``state``."""
        operators, running, self._operands, self._constants, self._repeats, self._written = state
        undone = list(self.graph)[operators:]
        self.graph.remove_nodes_from(undone)
        self.questions.removed(undone)
        del self._stack[running:]

    def where(self) -> str:
        """Name the submodule and the ATen operator at which the trace is, for error messages."""
        path = self._stack[-1][0] if self._stack else ""
        module = f"submodule {path!r}" if path else self._root
        return f"{module} at {self._func}" if self._func is not None else module

    def mode(self) -> Any:
        """Return a context manager that sends every ATen call to this recorder."""
        from torch.utils._python_dispatch import TorchDispatchMode

        recorder = self

        class Recording(TorchDispatchMode):
            supports_higher_order_operators = True

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                if not hasattr(func, "_schema"):
                    if str(func) in ("cond", "while_loop"):
                        act: Any = recorder.choose if str(func) == "cond" else recorder.repeat
                        return act(*args, self)
                    raise ReaderError(
                        f"{recorder.where()} uses torch's control flow operator {func}, so its latency "
                        "depends on tensor values; read a module that takes one of the branches"
                    )
                return recorder.call(func, args, kwargs or {}, self)

        return Recording()

    def choose(self, flag: Any, taken: Any, other: Any, operands: Sequence[Any], mode: Any) -> Any:
        """Record ``torch.cond`` as the branch that multiplies more, after its condition; note which."""
        results, macs = [], []
        for branch in (taken, other):
            before = len(self.graph)
            with mode:
                results.append(branch(*operands))
            macs.append(sum(map(self._macs, list(self.graph)[before:])))
        costlier = int(macs[1] > macs[0])
        self._func = "torch.cond"
        add_note(
            self.graph,
            f"{self.where()} runs one of two branches, as tensor values decide; the costlier, for "
            f"{('True', 'False')[costlier]}, is counted",
        )
        outputs = [tensor for tensor in tensors_in(results[costlier]) if tensor.numel()]
        # The branch that is not counted leads nowhere.
        self._pass_on(GIVEN, [flag, *outputs], outputs, {"shapes": [tuple(t.shape) for t in outputs]})
        return results[costlier]

    def repeat(
        self, condition: Any, body: Any, carried: Sequence[Any], others: Sequence[Any], mode: Any
    ) -> Any:
        """Record ``while_loop`` as one operator of unknown work. It keeps the shapes that it carries."""
        import torch

        self._func = "while_loop"
        add_note(
            self.graph,
            f"{self.where()} runs as often as tensor values decide, so its work is unknown; to be sure, read "
            "a module without it",
        )
        results = tuple(torch.empty_like(self._image(tensor), device="meta") for tensor in carried)
        attrs: dict[str, Any] = {}
        mark_unknown(attrs, "shape")
        self._pass_on("while_loop", [*carried, *others], list(results), attrs)
        return results

    def _pass_on(self, op: str, inputs: Sequence[Any], outputs: Sequence[Any], attrs: dict[str, Any]) -> None:
        """Add an operator from the tensors ``inputs`` to the tensors ``outputs``."""
        operands = [operand for operand in map(self.operand, inputs) if operand is not None]
        if not operands or not outputs:
            return
        name = self._add(op, operands, attrs, [tuple(tensor.shape) for tensor in outputs])
        for slot, tensor in enumerate(outputs):
            self._bind(tensor, (name, slot))

    def _macs(self, name: str) -> int:
        """Multiply-adds of a recorded operator, whose shapes are those that torch gave it."""
        data = self.graph.nodes[name]
        if data["op"] not in OPERATORS:
            return 0
        sources = [(self.graph.nodes[producer], slot) for producer, slot in data["inputs"]]
        shapes = [
            source["attrs"]["shape"] if source["declared"] is None else source["declared"][slot]
            for source, slot in sources
        ]
        return OPERATORS[data["op"]].macs({**data, "in_shapes": shapes, "out_shapes": data["declared"]})

    @contextmanager
    def module_paths(self) -> Iterator[None]:
        """Track the running submodule with global hooks, so no hook is added to a module."""
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
        """Record one ATen call and return its result. Runs on meta tensors unless all are constant."""
        self._func = func
        schema = _schema(func)
        op = schema.op
        tensors = tensors_in([*args, *kwargs.values()])
        if op.startswith("lift_fresh"):
            return self._lift(args[0])
        if all(id(t) in self._constants or self._is_setting(t, schema) for t in tensors):
            return self._make_constant(func, args, kwargs)
        computed = any(id(t) in self._operands for t in tensors)
        if computed and op in ASKING:
            return self.questions.answer(func, args, kwargs, self._described)
        if not schema.returns:
            if computed and schema.is_mutable:
                raise NotImplementedError("it changes tensors in place and returns none")
            return None  # an assertion, for example about the device
        if not (computed or schema.is_mutable or schema.is_random) and all(map(self._is_known, tensors)):
            return self._from_weights(func, args, kwargs, tensors)
        if computed and op == "_has_compatible_shallow_copy_type":  # torch asks before x.data = y
            self._take_data(*args)
        if computed and is_quantised(op):
            return self._in_float(op, func, args, kwargs, mode)
        if schema.is_mutable:
            return self._write(func, op.removesuffix("_"), args, kwargs, tensors)
        if computed and (not is_known(op) or func._overloadname == "other"):
            with mode:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = self._run(func, args, kwargs, tensors)
        if computed:
            self._record(op, func, args, kwargs, tensors_in(result))
        return result

    def _in_float(
        self, op: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any], mode: Any
    ) -> Any:
        """Record a call of a quantised network as the float call, followed by what tells of quantisation."""
        import torch

        if op in NAMES["torch"]:
            result = args[0]
        elif (form := float_form(op, _named(func, args, kwargs))) is not None:
            with mode:
                result = form()
        else:
            raise ReaderError(
                f"{self.where()} computes with integers, and its float form is not known; pass the float "
                "module"
            )
        result = _each(self._quantised, result)
        more = len(func._schema.returns) - 1  # such as a mask
        return (result, *[torch.empty_like(result) for _ in range(more)]) if more else result

    def _quantised(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return ``tensor`` after an operator that tells of quantisation, if it is computed."""
        import torch

        if (operand := self.operand(tensor)) is None:
            return tensor
        result = torch.empty_like(self._image(tensor))
        self._bind(result, (self._add("quantize", [operand], {}, [tuple(tensor.shape)]), 0))
        return result

    def _write(
        self, func: Any, op: str, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> Any:
        """Record an in-place call and return its result, with the caller's own tensors in it."""
        computed = any(id(t) in self._operands for t in tensors)
        before = self._before(func, args)
        originals = {id(self._image(t)): t for t in tensors}
        result = _each(lambda r: originals.get(id(r), r), self._run(func, args, kwargs, tensors))
        outputs = tensors_in(result)
        if computed:
            self._record(op, func, before, kwargs, outputs)
        if before is args:
            for output in outputs:
                self._write_through(output)
        return result

    def _before(self, func: Any, args: Sequence[Any]) -> Sequence[Any]:
        """Return ``args``; for operators such as ``squeeze_``, with a view of the old shape first."""
        import torch

        operand = self.operand(args[0]) if torch.Tag.inplace_view in func.tags else None
        if operand is None:
            return args
        before = self._image(args[0]).view_as(args[0])
        self._bind(before, operand)
        return (before, *args[1:])

    def _make_constant(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run a call on constants and settings for real, on the CPU even if the module asks for another."""
        args, kwargs = _on_device("cpu", args, kwargs)
        args = [_each(self._copy, value) for value in args]
        result = func(*args, **{key: _each(self._copy, value) for key, value in kwargs.items()})
        for tensor in tensors_in(result):
            self._constants[id(tensor)] = tensor
            self._see(tensor)
        return result

    def _copy(self, value: Any) -> Any:
        """Return a copy of a setting, so that no call changes the module; return any other value unchanged.

        Settings that share memory have copies that share memory too.
        """
        import torch

        if not isinstance(value, torch.Tensor) or id(value) in self._constants:
            return value
        storage = value.untyped_storage()
        if storage._cdata not in self._copies:
            copy = storage.cpu().clone()
            self._copies[storage._cdata] = copy
            self._seen[copy._cdata] = self._seen.setdefault(storage._cdata, {})
        with torch.inference_mode(mode=False):  # torch refuses views that mix both kinds of tensors
            copied = torch.empty(0, dtype=value.dtype)
            copied.set_(self._copies[storage._cdata], value.storage_offset(), value.shape, value.stride())
        self._see(value)
        self._constants[id(copied)] = copied
        self._see(copied)
        return copied

    def _lift(self, tensor: torch.Tensor) -> torch.Tensor:
        """Register the result of ``torch.tensor`` as a constant, unless it is on the meta device."""
        if tensor.device.type == "meta":
            return tensor
        tensor = tensor.cpu()
        self._constants[id(tensor)] = tensor
        self._see(tensor)
        return tensor

    def _is_setting(self, tensor: torch.Tensor, schema: _Schema) -> bool:
        """Whether a call may use the values of ``tensor``: it has few, and none is trained.

        Such are strides, sizes and flags that a module keeps, and the sizes that TorchScript makes.
        """
        import torch

        return (
            max(tensor.nbytes, tensor.untyped_storage().nbytes()) <= _MOST_BYTES
            and not isinstance(tensor, torch.nn.Parameter)
            and not schema.is_mutable
            and self._has_values(tensor)
        )

    def _from_weights(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> Any:
        """Run a call on unchanged weights: on their values only if these are asked for, now or later."""
        schema = _schema(func)
        if schema.is_view and not any(t.is_meta for t in tensors):
            return func(*args, **kwargs)
        # A constant may be written to before the values are asked for.
        args = [_each(self._kept, value) for value in args]
        kwargs = {key: _each(self._kept, value) for key, value in kwargs.items()}

        @cache
        def values() -> Any:
            return func(*(_each(self._values, v) for v in args),
                        **{key: _each(self._values, v) for key, v in kwargs.items()})  # fmt: skip

        if schema.asks:
            return values()
        if schema.by_values or (schema.op in _MOVES and any(map(_is_cpu, (*args, *kwargs.values())))):
            return _each(self._as_constant, values())
        result = self._run(func, args, kwargs, tensors)
        for position, tensor in enumerate(tensors_in(result)):
            if id(tensor) not in self._recipes:  # else the call returned its argument
                self._recipes[id(tensor)] = partial(_tensor, values, position)
                self._see(tensor)
        return result

    def _kept(self, value: Any) -> Any:
        """Return a copy of a constant, and any other value itself."""
        return value.clone() if id(value) in self._constants else value

    def _values(self, value: Any) -> Any:
        """Return a foreign tensor with its values, and any other value itself."""
        recipe = self._recipes.get(id(value))
        return value if recipe is None else recipe()

    def _described(self, value: Any) -> Any:
        """Describe a computed tensor; return a copy of a constant, and any other value itself."""
        operand = self.operand(value)
        return self._kept(value) if operand is None else self.questions.described(value, operand)

    def _asked_for(self, value: Any) -> Any:
        """Return a foreign tensor or a constant with its values, and any other value itself."""
        import torch

        if isinstance(value, torch.Tensor) and not self._is_known(value):
            raise NotImplementedError("it asks for values that the module does not keep")
        return self._values(value)

    def _as_constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a copy of a tensor with values as a constant."""
        return self._lift(tensor.clone())

    def _is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the values of a foreign tensor can be found out."""
        if id(tensor) in self._recipes:
            return id(self._sharing(tensor)) not in self._written
        return self._has_values(tensor)

    def _has_values(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor's values are known: it is a constant, or unchanged since before the trace."""
        return tensor.device.type != "meta" and id(self._sharing(tensor)) not in self._written

    def _run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], tensors: list[Any]) -> Any:
        """Run ``func`` on meta tensors. ``tensors`` are all tensors in its arguments.

        The types of model inputs are unknown, so they are floats. They are converted where an operator needs
        integers or booleans. Weights are converted to the type of the computed operands, because the input's
        type is a guess and autocast ignores meta tensors.
        """
        if args and id(args[0]) in self._operands and (result := quick_result(func, args)) is not None:
            return result
        args, kwargs = _on_device("meta", args, kwargs)
        args = [_each(self._image, value) for value in args]
        kwargs = {key: _each(self._image, value) for key, value in kwargs.items()}
        for position, name, dtype in _schema(func).typed:
            if position < len(args):
                args[position] = _floats_as(args[position], dtype)
            elif name in kwargs:
                kwargs[name] = _floats_as(kwargs[name], dtype)
        if len({t.dtype for t in tensors}) > 1 and not _schema(func).is_mutable:
            computed = {t.dtype for t in tensors if id(t) in self._operands and t.is_floating_point()}
            if len(computed) == 1:
                args = [_floats_as(value, *computed) for value in args]
        return func(*args, **kwargs)

    def _image(self, value: Any) -> Any:
        """Return the meta tensor that replaces a tensor; return any other value unchanged.

        Meta tensors of tensors that share memory share memory too.
        """
        import torch

        if not isinstance(value, torch.Tensor) or value.device.type == "meta":
            return value
        if id(value) not in self._images:
            if value.is_quantized:  # meta tensors hold no integers with a scale
                self._images[id(value)] = torch.empty(value.shape, device="meta")
                self._see(value)
                return self._images[id(value)]
            storage = value.untyped_storage()
            # torch refuses views that mix tensors made in inference mode with others.
            with torch.inference_mode(value.is_inference()):
                image = torch.empty(0, dtype=value.dtype, device="meta")
                image.set_(self._storage_image(storage), value.storage_offset(), value.shape, value.stride())
            self._images[id(value)] = image
            self._see(value)
        return self._images[id(value)]

    def _storage_image(self, storage: torch.UntypedStorage) -> torch.UntypedStorage:
        """Return the meta storage that replaces ``storage``. Both share one entry in ``_seen``."""
        import torch

        if storage._cdata not in self._storages:
            image = torch.UntypedStorage(storage.nbytes(), device="meta")
            self._storages[storage._cdata] = image
            self._seen[image._cdata] = self._seen.setdefault(storage._cdata, {})
        return self._storages[storage._cdata]

    def _record(self, op: str, func: Any, args: Sequence[Any], kwargs: dict[str, Any],
                outputs: list[torch.Tensor]) -> None:
        """Add the operators of one call to the model graph, unless it returned no value."""
        outputs = [tensor for tensor in outputs if tensor.numel()]
        if not outputs:
            return
        named = _named(func, args, kwargs)
        inputs = [o for o in map(self.operand, tensors_in(list(named.values()))) if o is not None]
        call = AtenCall(self.graph, op, named, inputs, [tuple(t.shape) for t in outputs], self.operand,
                    lambda value: self._constants.get(id(value)), self._add)
        self._added = []
        operands = translate(call)
        new = [operand for operand in operands if operand[0] in self._added]
        if len(new) == len(operands):  # else the call returned what it was given
            self.questions.note(op, func, args, kwargs, operands, self._described)
        # Further outputs are by-products, such as the indices of a max pool.
        for tensor, operand in zip(outputs, operands, strict=False):
            self._bind(tensor, operand)

    def _add(self, op: str, inputs: Sequence[Operand], attrs: Any, shapes: list[Shape]) -> str:
        """Add an operator named after the running submodule, plus its own name unless that is a leaf."""
        path, is_leaf = self._stack[-1] if self._stack else ("", False)
        base = name = path if is_leaf and path and path not in self.graph else f"{path}.{op}".lstrip(".")
        while name in self.graph:
            self._repeats[base] = self._repeats.get(base, 1) + 1
            name = f"{base}_{self._repeats[base]}"
        add_op(self.graph, name, op, inputs, attrs, shapes)
        self._added.append(name)
        self.questions.added(name)
        return name

    def _bind(self, tensor: torch.Tensor, operand: Operand) -> None:
        """Map ``tensor`` to ``operand`` from now on."""
        self._constants.pop(id(tensor), None)
        self._operands[id(tensor)] = operand
        self._see(tensor)

    def _take_data(self, tensor: torch.Tensor, source: torch.Tensor) -> None:
        """Map ``tensor`` to the operand of ``source``, if it has one."""
        self._operands.pop(id(tensor), None)
        operand = self.operand(source)
        if operand is not None:
            self._bind(tensor, operand)

    def _see(self, tensor: torch.Tensor) -> None:
        self._sharing(tensor)[id(tensor)] = tensor

    def _sharing(self, tensor: torch.Tensor) -> dict[int, torch.Tensor]:
        """Return the seen tensors that share memory with ``tensor``, or with the tensor it replaces."""
        return self._seen.setdefault(tensor.untyped_storage()._cdata, {})

    def _write_through(self, written: torch.Tensor) -> None:
        """After an in-place operator, update all other views of the memory it wrote."""
        source = self.operand(written)
        sharing = self._sharing(written)
        self._written.add(id(sharing))
        for view in list(sharing.values()):
            if view is written or not _overlap(view, written):
                continue
            if source is None:  # written from weights, so its values are no longer known
                self._constants.pop(id(view), None)
            elif view.shape == written.shape and view.stride() == written.stride():
                self._bind(view, source)
            elif view.numel() == written.numel() and view.is_contiguous() and written.is_contiguous():
                shape = tuple(view.shape)
                self._bind(view, (self._add("reshape", [source], {"shape": shape}, [shape]), 0))
            else:
                before = self.operand(view)
                inputs = [source] if before is None else [before, source]
                self._bind(view, (self._add("scatter", inputs, {}, [tuple(view.shape)]), 0))
