"""Read ONNX models: visit the operators in topological order and fold shape arithmetic on the way.

Every tensor becomes a :class:`~nnmeter_nas.readers.onnx.values.Value`: computed (it has an operand in the
model graph), a weight (the reader uses only its shape), or a small constant. Shapes are inferred operator by
operator, so ``Shape`` of a computed tensor is a constant.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from ...errors import GraphError, ReaderError
from ...extras import load_extra
from ...graph.memory import VALUE_BYTES_OF
from ...graph.model_graph import add_input, finish, new_graph, set_outputs
from ...graph.shapes import Shape, infer_operator
from ...ops import OPERATORS
from ..inputs import InputShape, note_dropped_shapes, shapes_by_input, way_out
from . import contrib as contrib  # its entries join the others
from .control_flow import Bodies, attempt, read_control_flow
from .inference import function_body, inferred_types, static_shape
from .operators import CONTROL_FLOW, OnnxNode, OutputType, is_known, translate
from .scope import MAX_DEPTH, Scope, bind, error_context, lookup, valid_name
from .values import Value, attributes, function_attributes, sparse_weights, weights

if TYPE_CHECKING:
    from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, ValueInfoProto

#: The first opset whose operators broadcast as NumPy does.
_FIRST_OPSET = 7
#: Maximum number of operators, with local functions and branches inlined.
MAX_OPERATORS = 100_000
_OWN_DOMAINS = ("", "ai.onnx")
#: ONNX's numbers for floats of 16 bits: float16 and bfloat16.
_HALVES = frozenset({10, 16})


def read_onnx(model: ModelProto | str | PathLike[str], input_shape: InputShape | None = None) -> nx.DiGraph:
    """Read an ONNX model into a model graph.

    The reader loads neither the values of weights nor external data, and does not change ``model``.

    Args:
        model: path of an ONNX file, or an ``onnx.ModelProto``; opset 7 or newer.
        input_shape: shape that overrides the declared one. For several inputs, a list of shapes or a dict by
            input name. Without it a symbolic batch is 1; other symbolic sizes require it.

    Returns:
        The finished model graph. A node has its name in the model, or the name of its first output if the
        model gives it no unique name. Operators keep their ONNX name if they have no canonical form, or if
        their shapes depend on data (such as the boxes selected by a detection head).

    Raises:
        ReaderError: not an ONNX model, a damaged one, or an input of unknown size.
        GraphError: the operators do not connect the inputs to the outputs, or form a cycle.
        ShapeError: shapes contradict each other, or the batch is not 1.
        MissingPackageError: the package onnx is not installed.
    """
    load_extra("onnx", "onnx", "reading ONNX models")
    proto = _load(model)
    try:
        return _Reader(proto, input_shape).read()
    except RecursionError:
        raise ReaderError("the model nests its graphs or types too deeply") from None


def _load(model: Any) -> ModelProto:
    """Return ``model`` itself, or load it if it is a path."""
    from onnx import ModelProto

    decode_error = load_extra("google.protobuf.message", "onnx", "reading ONNX models").DecodeError
    if isinstance(model, ModelProto):
        proto, name = model, "the ModelProto"
    elif isinstance(model, str | PathLike):
        name = fspath(model)
        try:
            proto = ModelProto.FromString(Path(model).read_bytes())
        except (OSError, ValueError) as error:
            raise ReaderError(f"cannot read {name!r}: {getattr(error, 'strerror', None) or error}") from error
        except decode_error as error:
            raise ReaderError(f"{name!r} is not an ONNX model, or is truncated: {error}") from error
    else:
        kind = type(model).__name__
        raise ReaderError(f"expected the path of an ONNX file or an onnx.ModelProto, got {kind}")
    if not proto.graph.node:
        raise ReaderError(f"{name!r} is not an ONNX model, or is empty: it has no operators")
    if not proto.opset_import:
        raise ReaderError(f"{name!r} is truncated or incomplete: it does not declare its opset")
    return proto


class _Reader:
    """Reads one model."""

    def __init__(self, model: ModelProto, input_shape: InputShape | None) -> None:
        self._model = model
        self._input_shape = input_shape
        self._graph = new_graph(valid_name(model.graph.name))
        self._functions = {_function_key(f.domain, f.name, f.overload): f for f in model.functions}
        self._node_names = Counter(node.name for node in model.graph.node)
        self._declared: dict[str, ValueInfoProto] = {}
        self._symbols: dict[str, int] = {}
        self._as_declared = True  # whether the inputs have the shapes that the model declares for them
        self._batch = 1
        self._operators = 0

    def read(self) -> nx.DiGraph:
        """Return the finished model graph."""
        proto = self._model.graph
        scope = Scope({}, _opsets(self._model.opset_import))
        if scope.opsets.get("", _FIRST_OPSET) < _FIRST_OPSET:
            raise ReaderError(
                f"the model has opset {scope.opsets['']}; the oldest readable opset is {_FIRST_OPSET}; "
                "convert it with onnx.version_converter.convert_version"
            )
        self._add_initializers(proto, scope)
        self._add_inputs([info for info in proto.input if info.name not in scope.values], scope)
        self._add_operators(proto.node, [info.name for info in proto.output], scope)
        outputs = [lookup(scope, info.name, "the model's outputs") for info in proto.output]
        computed = [value.operand[0] for value in outputs if value.operand is not None]
        if outputs and not computed:
            raise GraphError("the graph is disconnected: no output depends on an input")
        set_outputs(self._graph, dict.fromkeys(computed))
        finished = finish(self._graph)
        if proto.value_info and not self._as_declared:
            note_dropped_shapes(finished)
        return finished

    def _add_initializers(self, proto: GraphProto, scope: Scope) -> None:
        """Bind the weights. Older models list them among the inputs too."""
        for tensor in proto.initializer:
            bind(scope, tensor.name, weights(tensor))
        for sparse in proto.sparse_initializer:
            bind(scope, sparse.values.name, sparse_weights(sparse))

    def _add_inputs(self, infos: Sequence[ValueInfoProto], scope: Scope) -> None:
        """Add the model inputs, and resolve the model's symbolic sizes."""
        given = shapes_by_input(self._input_shape, [info.name for info in infos])
        for info in infos:
            shape = given[info.name] if info.name in given else self._declared_shape(info, infos, given)
            sizes = list(info.type.tensor_type.shape.dim)
            if shape and len(sizes) == len(shape):
                for dim, size in zip(sizes, shape, strict=True):
                    if dim.dim_param:
                        self._symbols.setdefault(dim.dim_param, size)
                    self._as_declared &= dim.dim_value in (0, -1, size)
                if sizes[0].dim_value > shape[0] == 1:
                    self._batch = sizes[0].dim_value
            elif sizes:
                self._as_declared = False
            infer_operator(self._graph, add_input(self._graph, info.name, shape))
            elem_type = info.type.tensor_type.elem_type
            if elem_type in _HALVES:
                self._graph.graph[VALUE_BYTES_OF] = 2
            bind(scope, info.name, Value(shape, elem_type, (info.name, 0)))
        if self._as_declared:  # only then are the declared shapes of other tensors valid
            self._declared = {v.name: v for v in (*self._model.graph.output, *self._model.graph.value_info)}

    def _declared_shape(
        self, info: ValueInfoProto, infos: Sequence[ValueInfoProto], given: Mapping[str, Shape]
    ) -> Shape:
        """Return the declared shape of an input, one of ``infos``, of which some shapes are ``given``."""
        if not info.type.HasField("tensor_type"):
            raise ReaderError(f"input {info.name!r} is a {info.type.WhichOneof('value')}, not a tensor")
        sizes = self._declared_sizes(info, infos)
        if None not in sizes and info.type.tensor_type.HasField("shape"):
            return tuple(size for size in sizes if size is not None)
        example = way_out({i.name: given.get(i.name) or self._declared_sizes(i, infos) for i in infos})
        if None not in sizes:
            raise ReaderError(f"input {info.name!r} has no shape; {example}")
        axis = sizes.index(None)
        open_as = info.type.tensor_type.shape.dim[axis].dim_param or "without a size"
        raise ReaderError(f"input {info.name!r} leaves dimension {axis} open ({open_as}); {example}")

    def _declared_sizes(self, info: ValueInfoProto, infos: Sequence[ValueInfoProto]) -> list[int | None]:
        """Return the declared sizes of an input: a symbolic batch is 1, other symbols as in inputs before.

        The first dimension is the batch; that of a vector only if it is so in another input too.
        """
        dims = list(info.type.tensor_type.shape.dim)
        sizes = [dim.dim_value if dim.dim_value > 0 else self._symbols.get(dim.dim_param) for dim in dims]
        if sizes and sizes[0] is None:
            others = [list(other.type.tensor_type.shape.dim) for other in infos]
            batches = {other[0].dim_param for other in others if len(other) > 1}
            if len(sizes) > 1 or (dims[0].dim_param and dims[0].dim_param in batches):
                sizes[0] = 1
        return sizes

    def _add_operators(self, nodes: Sequence[NodeProto], outputs: Sequence[str], scope: Scope) -> None:
        """Read ``nodes``, producers before consumers."""
        scope.reads.update(name for node in nodes for name in node.input)
        scope.reads.update(outputs)
        for node in _ordered(nodes, scope):
            self._operators += 1
            if self._operators > MAX_OPERATORS:
                raise ReaderError(f"the model has more than {MAX_OPERATORS} operators")
            self._add_operator(node, scope)

    def _add_operator(self, node: NodeProto, scope: Scope) -> None:
        """Read one operator and bind its outputs."""
        name, key = self._name(node, scope), _function_key(node.domain, node.op_type, node.overload)
        inputs = [
            lookup(scope, given, f"operator {name!r}") if given and given not in scope.absent else None
            for given in node.input
        ]
        with error_context(name, key):
            attrs = attributes(node, scope.attributes)
        wrapped: OnnxNode | None = None
        if key in self._functions:
            values = self._inline_function(self._functions[key], key, name, inputs, attrs, scope)
        else:
            with error_context(name, key):
                wrapped = self._node(node, name, inputs, attrs, scope)
                if wrapped.op in CONTROL_FLOW:
                    values = read_control_flow(wrapped, self._bodies(name, scope))
                else:
                    values = self._parts(node, wrapped, scope) or translate(wrapped)
        self._declare(node, values, scope)
        if values and len(values) < len(node.output):
            values = [*values, *self._by_products(node, values[0], len(values), wrapped)]
        for output, value in zip(node.output, values, strict=False):
            if output:
                bind(scope, output, replace(value, read_once=scope.reads[output] == 1))

    def _name(self, node: NodeProto, scope: Scope) -> str:
        """Return a unique name: the operator's own, or that of its first output if its own is not unique."""
        own = node.name if scope.prefix or self._node_names[node.name] == 1 else ""
        name = base = scope.prefix + valid_name(own or next((o for o in node.output if o), node.op_type))
        while name in self._graph:
            self._node_names[base] += 1
            name = f"{base}_{self._node_names[base]}"
        return name

    def _node(
        self, node: NodeProto, name: str, inputs: list[Value | None], attrs: dict[str, Any], scope: Scope
    ) -> OnnxNode:
        """Wrap an operator for its translation."""
        own = node.domain in _OWN_DOMAINS
        op = node.op_type if own else f"{node.domain}.{node.op_type}"

        def types() -> list[OutputType]:
            opset = scope.opsets.get("", _FIRST_OPSET)
            inferred = inferred_types(node, attrs, inputs, opset) if own else {}
            known = [(output, *inferred.get(output, (None, 0))) for output in node.output]
            return [
                (self._declared_as(output, scope) if shape is None else shape, kind)
                for output, shape, kind in known
            ]

        return OnnxNode(self._graph, op, name, attrs, inputs, len(node.output), self._batch, types)

    def _declare(self, node: NodeProto, values: Sequence[Value], scope: Scope) -> None:
        """Store the shapes that the model declares for an operator; ``finish`` checks them."""
        makers = {value.operand[0] for value in values if value.operand is not None}
        shapes = [self._declared_as(output, scope) for output in node.output]
        if len(makers) == 1 and None not in shapes:
            data = self._graph.nodes[makers.pop()]
            if len(data["out_shapes"]) == len(shapes) and data["op"] in OPERATORS and data["op"] != "input":
                data["declared"] = shapes

    def _declared_as(self, output: str, scope: Scope) -> Shape | None:
        """Return the declared shape of a tensor, or None. Only the main graph declares shapes."""
        declared = None if scope.prefix else self._declared.get(output)
        return static_shape(declared.type, self._symbols) if declared is not None else None

    def _by_products(
        self, node: NodeProto, first: Value, made: int, wrapped: OnnxNode | None
    ) -> Iterator[Value]:
        """Further outputs, such as the indices of a max pool: they stand for the ``first`` one."""
        types = wrapped.types() if wrapped is not None else [(None, 0)] * len(node.output)
        for shape, elem_type in types[made:]:
            yield Value(shape if shape == first.shape else None, elem_type, first.operand)

    def _parts(self, node: NodeProto, wrapped: OnnxNode, scope: Scope) -> list[Value] | None:
        """Inline an operator that ONNX defines by others, unless we declare it; else return None."""
        inputs = wrapped.inputs
        unsized = any(value is not None and value.shape is None for value in inputs)
        if node.domain not in _OWN_DOMAINS or is_known(wrapped.op) or unsized or not wrapped.operands:
            return None
        found = function_body(node, inputs, scope.opsets.get("", _FIRST_OPSET))
        if found is None:
            return None
        body, defaults = found
        attrs = {**defaults, **wrapped.attrs}

        def inline() -> list[Value]:
            values = self._inline_function(body, wrapped.op, wrapped.name, inputs, attrs, scope)
            if any(value.shape is None for value in values):
                raise ReaderError("its parts have no known shape, while the whole may have one")
            return values

        return attempt(self._graph, inline)

    def _inline_function(
        self,
        function: FunctionProto,
        key: str,
        name: str,
        inputs: list[Value | None],
        attrs: Mapping[str, Any],
        scope: Scope,
    ) -> list[Value]:
        """Inline a function and return its outputs."""
        with error_context(name, key):
            if key in scope.calls or len(scope.calls) >= MAX_DEPTH:
                calls = " -> ".join([*scope.calls[-3:], key])
                raise ReaderError(
                    f"the local functions {calls} call each other recursively, or more than {MAX_DEPTH} deep"
                )
            opsets = _opsets(function.opset_import) or scope.opsets
            inner_attrs = function_attributes(function, attrs)
            given = [*inputs, *[None] * (len(function.input) - len(inputs))]
            pairs = list(zip(function.input, given, strict=True))
            absent = frozenset(parameter for parameter, value in pairs if value is None)
            inner = Scope({}, opsets, f"{name}/", inner_attrs, (*scope.calls, key), absent=absent)
            for parameter, value in pairs:
                if value is not None:
                    bind(inner, parameter, replace(value, read_once=False))
        self._add_operators(function.node, function.output, inner)
        return [lookup(inner, output, f"the function {key!r}") for output in function.output]

    def _bodies(self, name: str, scope: Scope) -> Bodies:
        """How to read the graphs inside the operator ``name``."""

        def read(body: GraphProto, part: str, inputs: Mapping[str, Value]) -> list[Value]:
            if len(scope.calls) >= MAX_DEPTH:
                raise ReaderError(f"branches are nested more than {MAX_DEPTH} deep")
            inner = replace(
                scope, values=ChainMap({}, scope.values), prefix=f"{name}/{part}", reads=Counter(),
                calls=(*scope.calls, name),
            )  # fmt: skip
            for parameter, value in inputs.items():
                bind(inner, parameter, replace(value, read_once=False))
            self._add_initializers(body, inner)
            outputs = [info.name for info in body.output]
            self._add_operators(body.node, outputs, inner)
            return [lookup(inner, output, f"a graph inside {name!r}") for output in outputs]

        def captured(body: GraphProto) -> list[Value]:
            names = dict.fromkeys(name for name in _tensors_read(body) if name in scope.values)
            return [value for name in names if not (value := scope.values[name]).is_constant]

        def types(body: GraphProto) -> list[OutputType]:
            # Sizes in a body are those of the input that the model declares.
            return [
                (static_shape(info.type, self._symbols) if self._as_declared else None,
                 info.type.tensor_type.elem_type)
                for info in body.output
            ]  # fmt: skip

        return Bodies(read, captured, types)


def _tensors_read(graph: GraphProto) -> Iterator[str]:
    """Yield the names of tensors that the operators of a graph read, graphs inside them included."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _tensors_read(attribute.g)
    yield from (info.name for info in graph.output)


def _function_key(domain: str, name: str, overload: str) -> str:
    """Return the key of a local function, by which operators refer to it."""
    return "::".join(valid_name(part) for part in (domain, name, overload) if part)


def _opsets(imports: Any) -> dict[str, int]:
    """Return the opset version of each domain; ONNX's own domain is the empty string."""
    return {"" if i.domain in _OWN_DOMAINS else i.domain: i.version for i in imports}


def _ordered(nodes: Sequence[NodeProto], scope: Scope) -> Iterator[NodeProto]:
    """Return ``nodes`` with producers before consumers; sort them if they are not, as ONNX requires.

    Raises:
        GraphError: the nodes form a cycle.
    """
    makers = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    sources = [[makers[i] for i in node.input if i in makers and i not in scope.values] for node in nodes]
    if all(source < index for index, before in enumerate(sources) for source in before):
        return iter(nodes)
    try:
        order = list(TopologicalSorter(dict(enumerate(sources))).static_order())
    except CycleError as error:
        names = [str(nodes[index].name or nodes[index].op_type) for index in error.args[1]]
        raise GraphError(f"the graph is cyclic: {' -> '.join(reversed(names))}", names[0]) from None
    return (nodes[index] for index in order)
