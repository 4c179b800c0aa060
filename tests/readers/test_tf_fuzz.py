"""Hostile TensorFlow graphs: reading any file gives a model graph or a clear error."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import graph_pb2

from nnmeter_nas.errors import GraphError, ReaderError
from nnmeter_nas.ops import NAMES
from nnmeter_nas.readers.tensorflow import graphdef as tf_graphdef
from nnmeter_nas.readers.tensorflow import nodes as tf_nodes
from nnmeter_nas.readers.tensorflow.constants import FOLDS
from nnmeter_nas.readers.tensorflow.graphdef import read_tf_graphdef
from nnmeter_nas.readers.tensorflow.operators import TRANSLATIONS
from tf_graphs import TfBuilder, set_attr

OPERATORS = sorted(
    {*TRANSLATIONS, *NAMES["tensorflow"], *FOLDS}
    | {"Switch", "Merge", "Shape", "Size", "Rank", "Const", "Placeholder"}
)


def varied_graph() -> graph_pb2.GraphDef:
    """A small graph with an operator of each family: windows, joins, slices, products, shape arithmetic."""
    b = TfBuilder((-1, 16, 16, 4))
    last = b.h_swish("h_swish", b.bias("bias", b.conv("conv", "input", (3, 3, 4, 8), 2), 8))
    last = b.batch_norm("bn", b.conv("depthwise", last, (3, 3, 8, 1), depthwise=True), 8)
    b.add("split", "Split", [b.const("axis", 3), last], num_split=2)
    last = b.add("concat", "ConcatV2", ["split:1", "split", "axis"])
    b.add("shape", "Shape", [last])
    bounds = [b.const(f"bound{i}", [v]) for i, v in enumerate((1, 4, 1))]
    b.with_const("count", "Prod", b.add("map", "StridedSlice", ["shape", *bounds]), [0])
    last = b.with_const("apart", "Reshape", last, [-1, 8, 8, 2, 4])
    last = b.with_const("swapped", "Transpose", last, [0, 1, 2, 4, 3])
    last = b.add("joined", "Reshape", [last, "shape"])
    last = b.with_const("pad", "Pad", last, [[0, 0], [1, 1], [1, 1], [0, 0]])
    b.add("switch", "Switch", [b.pool("pool", last), b.const("is_training", False)])
    last = b.add("merge", "Merge", ["switch", "switch:1"])
    operands = [b.const("size", [1, 10, 10, 3]), b.weights("up/weights", 2, 2, 3, 8), last]
    last = b.add("up", "Conv2DBackpropInput", operands, strides=[1, 2, 2, 1], padding="SAME")
    last = b.add("squeeze", "Squeeze", [b.mean("mean", last, keep_dims=True)], squeeze_dims=[1, 2])
    b.add("top", "TopKV2", [b.dense("fc", last, 3, 10), b.const("k", 3)])
    b.add("flat", "Reshape", ["joined", b.add("target", "Pack", [b.const("open", -1), "count"])])
    return b.graph_def


def read_or_reject(model: graph_pb2.GraphDef | Path) -> None:
    """Read ``model``; only errors about a malformed model are allowed."""
    with contextlib.suppress(ReaderError, GraphError):
        read_tf_graphdef(model)


@pytest.fixture(scope="module")
def content() -> bytes:
    return varied_graph().SerializeToString()


def test_undamaged_graph_is_valid() -> None:
    assert len(read_tf_graphdef(varied_graph())) > 15


@given(st.binary(max_size=200))
def test_random_bytes_are_rejected(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pb"
    path.write_bytes(data)
    with pytest.raises((ReaderError, GraphError)):
        read_tf_graphdef(path)


def test_truncated_file_is_read_or_rejected(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "truncated.pb"
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        read_or_reject(path)


@given(st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_flipped_bytes_are_read_or_rejected(
    content: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    damaged = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        damaged[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "flipped.pb"
    path.write_bytes(damaged)
    read_or_reject(path)


INTEGERS = st.integers(-4, 20) | st.sampled_from([2**31, -(2**31), 2**62, -(2**62), 10**9])
ATTRIBUTES: st.SearchStrategy[Any] = st.one_of(
    INTEGERS,
    st.lists(INTEGERS, max_size=9),
    st.booleans(),
    st.floats(),
    st.sampled_from(["SAME", "NCHW", "EXPLICIT", ""]),
)


@st.composite
def damaged_graphs(draw: st.DrawFn) -> graph_pb2.GraphDef:
    """:func:`varied_graph` with some operators, operands, attributes and constants replaced."""
    graph_def = varied_graph()
    names = [node.name for node in graph_def.node]
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(list(graph_def.node)))
        damage = draw(st.sampled_from(["op", "operand", "operands", "attr", "no attr", "constant", "shape"]))
        if damage == "op":
            node.op = draw(st.sampled_from(OPERATORS))
        elif damage == "operand" and node.input:
            slot = draw(st.sampled_from(["", ":1", ":9"]))
            node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names)) + slot
        elif damage == "operands":
            del node.input[:]
            node.input.extend(draw(st.lists(st.sampled_from(names), max_size=4)))
        elif damage == "attr" and node.attr:
            key = draw(st.sampled_from(sorted(node.attr)))
            node.attr[key].Clear()
            set_attr(node, key, draw(ATTRIBUTES))
        elif damage == "no attr" and node.attr:
            del node.attr[draw(st.sampled_from(sorted(node.attr)))]
        elif "value" in node.attr and node.attr["value"].HasField("tensor"):
            tensor = node.attr["value"].tensor
            if damage == "constant":
                tensor.ClearField("tensor_content")
                tensor.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)))
                tensor.dtype = draw(st.sampled_from([1, 3, 9, 10, 14, 19, 7, 99]))
            elif damage == "shape":
                del tensor.tensor_shape.dim[:]
                for size in draw(st.lists(INTEGERS, max_size=5)):
                    tensor.tensor_shape.dim.add(size=size)
    return graph_def


@given(damaged_graphs())
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_operators_are_read_or_rejected(graph_def: graph_pb2.GraphDef) -> None:
    read_or_reject(graph_def)


@st.composite
def single_operators(draw: st.DrawFn) -> graph_pb2.GraphDef:
    """Any operator on any operands, with random attributes."""
    b = TfBuilder(draw(st.sampled_from([(1, 8, 6, 4), (1, 4), (1, 5, 4), (1, 2, 3, 4, 5)])))
    operands = ["input"]
    for i in range(3):
        value = draw(st.integers(-3, 9) | st.lists(st.integers(-3, 9), max_size=5) | st.floats(width=32))
        operands.append(b.const(f"const{i}", value))
    operands += [b.weights("kernel", 3, 3, 4, 8), b.weights("matrix", 4, 5), b.weights("vector", 4)]
    attrs = draw(
        st.dictionaries(
            st.sampled_from(["strides", "ksize", "padding", "axis", "num_split", "squeeze_dims", "block_size",
                             "begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask",
                             "data_format", "equation", "k", "batch_dims", "dilations"]),
            st.integers(-3, 9) | st.lists(st.integers(-1, 3), max_size=5)
            | st.sampled_from(["SAME", "VALID", "NCHW", "abc,cd->abd", "ab->ba"]),
        )
    )  # fmt: skip
    op = draw(st.sampled_from(OPERATORS))
    b.add("op", op, draw(st.lists(st.sampled_from(operands), min_size=1, max_size=5)), **attrs)
    b.add("relu", "Relu", ["op"])
    return b.graph_def


@given(single_operators())
@settings(max_examples=200)
def test_any_operator_on_any_operands_is_read_or_rejected(graph_def: graph_pb2.GraphDef) -> None:
    read_or_reject(graph_def)


# Found by hand and by the tests above: each would cost memory or time out of proportion to its file.

MEGABYTE = 2**20
#: Memory limit for reading any of these files of a few kilobytes.
LIMIT = 30 * MEGABYTE


def weights_of_petabytes(b: TfBuilder) -> None:
    b.dense("fc", b.with_const("flat", "Reshape", "input", [-1, 1024]), 1024, 2**62)


def filter_without_end(b: TfBuilder) -> None:
    b.conv("conv", "input", (3, 3, 4, 2**57))


def fill_without_end(b: TfBuilder) -> None:
    b.add("fill", "Fill", [b.const("shape", [2**30, 2**30]), b.const("zero", 0)])
    b.add("sum", "Add", ["input", b.with_const("cut", "Slice", "fill", [0, 0])])


def tiles_of_tiles(b: TfBuilder) -> None:
    last = "input"
    for i in range(200):
        last = b.with_const(f"tile{i}", "Tile", last, [1, 2**30, 2**30, 2**30])


def negative_tile(b: TfBuilder) -> None:
    b.with_const("tile", "Tile", b.const("row", [1, 2]), [-(2**30)])
    b.with_const("shaped", "Reshape", "input", [2**31 - 1, -(2**31), 0])


def products_of_products(b: TfBuilder) -> None:
    column = b.const("column", [[i] for i in range(250)])
    b.with_const("picked", "Mul", b.with_const("product", "Mul", column, list(range(250))), [[[1]] * 250] * 1)
    b.with_const("shaped", "Reshape", "input", [-1, 1024])
    b.add("sum", "Add", ["shaped", "picked"])


def pieces_without_end(b: TfBuilder) -> None:
    b.add("split", "Split", [b.const("axis", 3), "input"], num_split=2**31)


def pieces_of_pieces(b: TfBuilder) -> None:
    flat = b.with_const("flat", "Reshape", "input", [-1, 1024])
    for i in range(250):
        b.add(f"split{i}", "Split", [b.const(f"axis{i}", 1), flat], num_split=1024)


def axis_of_too_many(b: TfBuilder) -> None:
    b.const("many", 1)
    for _ in range(1000):
        b.graph_def.node[-1].attr["value"].tensor.tensor_shape.dim.add(size=1)
    b.add("sum", "Add", ["input", "many"])


def functions_of_functions(b: TfBuilder) -> None:
    for depth in range(40):
        function = b.graph_def.library.function.add()
        function.signature.name = f"f{depth}"
        function.signature.input_arg.add(name="x")
        function.signature.output_arg.add(name="y")
        inner = TfBuilder(None)
        for side in ("left", "right"):
            inner.add(side, f"f{depth + 1}" if depth < 39 else "Relu", ["x"])
        function.node_def.extend(inner.graph_def.node)
        function.ret["y"] = "left:y:0"
    b.add("call", "f0", ["input"])


def call_within_call(b: TfBuilder) -> None:
    for depth in range(400):
        function = b.graph_def.library.function.add()
        function.signature.name = f"f{depth}"
        function.node_def.add(name="call", op=f"f{depth + 1}")
    b.add("call", "f0", [])


def names_without_end(b: TfBuilder) -> None:
    b.add("a" * MEGABYTE, "Relu", ["input"])


def slot_of_many_digits(b: TfBuilder) -> None:
    b.add("relu", "Relu", [f"input:{'9' * 5000}"])


#: Function that extends a graph -> expected error.
HOSTILE = {
    weights_of_petabytes: r"'fc/w'.*larger than any tensor",
    filter_without_end: r"'conv'.*larger than any tensor",
    fill_without_end: r"'cut'",
    tiles_of_tiles: r"'tile0'.*larger than any tensor",
    negative_tile: r"'tile'.*negative|'shaped'",
    products_of_products: r"'sum'|'picked'",
    pieces_without_end: r"'split'.*2147483648 pieces",
    pieces_of_pieces: r"'split\d+'.*more than \d+ tensors",
    axis_of_too_many: r"'many'.*1000 dimensions",
    functions_of_functions: r"more than \d+ nodes, at operator 'call/",
    call_within_call: r"'call/.*nests function calls more than \d+ deep",
    names_without_end: r"'aaaa.*its name has more than",
    slot_of_many_digits: r"'relu'.*does not exist",
}


def test_a_range_without_end_is_of_unknown_shape() -> None:
    b = TfBuilder((-1, 16, 16, 4))
    b.add("range", "Range", [b.const("zero", 0.0), b.const("limit", 1e30), b.const("step", 1.0)])
    b.add("sum", "Add", ["input", "range"])
    assert read_tf_graphdef(b.graph_def).nodes["sum"]["out_shapes"] == [()]


@pytest.mark.parametrize("build", HOSTILE)
def test_small_file_with_huge_sizes_is_rejected_in_little_memory(
    build: Callable[[TfBuilder], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Use a tenth of the real limits to keep the test fast; memory grows in proportion.
    monkeypatch.setattr(tf_nodes, "MAX_NODES", tf_nodes.MAX_NODES // 10)
    monkeypatch.setattr(tf_graphdef, "MAX_OUTPUTS", tf_graphdef.MAX_OUTPUTS // 10)
    b = TfBuilder((-1, 16, 16, 4))
    build(b)
    tracemalloc.start()
    try:
        with pytest.raises((ReaderError, GraphError), match=HOSTILE[build]):
            read_tf_graphdef(b.graph_def)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < LIMIT


def test_long_network_is_read() -> None:
    b = TfBuilder((-1, 16, 16, 4))
    last = "input"
    for i in range(3000):
        last = b.add(f"tanh{i}", "Tanh", [last])
    assert len(read_tf_graphdef(b.graph_def)) == 3001
