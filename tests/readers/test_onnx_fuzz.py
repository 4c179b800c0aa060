"""Damaged and hostile ONNX models give a clear error or a graph, with little memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nnmeter_nas.errors import GraphError, NnMeterNasError, ReaderError, ShapeError
from nnmeter_nas.readers.onnx.model import read_onnx
from onnx_models import FLOAT, IMAGE, ints, layer, model, node, weights

HUGE = 2**62
EXTREMES = [0, 1, -1, 2, 3, 7, -7, 2**31, -(2**31), HUGE, -HUGE, 2**63 - 1, -(2**63)]


def small_network() -> onnx.ModelProto:
    """A network with one operator of nearly every kind that the reader knows."""
    flag = [node("Constant", "", "one", value_int=1), node("Cast", "one", "flag", to=TensorProto.BOOL)]
    out = onnx.ValueInfoProto(name="t")
    branch = helper.make_graph([node("Relu", "big", "t")], "branch", [], [out])
    nodes = [
        node("Conv", "x w b", "c", name="conv", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c b b b b", "n"),
        node("Clip", "n zero six", "k"),
        node("Split", "k", "s0 s1", axis=1),
        node("Concat", "s1 s0", "j", axis=1),
        node("MaxPool", "j", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("ConvTranspose", "p up", "u", strides=[2, 2]),
        node("Add", "u six", "a"),
        node("Slice", "a one1 two1 one1", "l"),
        node("Pad", "l pads", "q"),
        node("Shape", "q", "shape", start=2),
        node("Mul", "shape two1", "twice"),
        node("Shape", "q", "lead", end=2),
        node("Concat", "lead twice", "sizes", axis=0),
        node("Resize", "q - - sizes", "big"),
        *flag,
        node("If", "flag", "taken", then_branch=branch, else_branch=branch),
        node("Transpose", "taken", "r", perm=[0, 2, 3, 1]),
        node("Range", "start stop step", "range"),
        node("Reshape", "r range", "m"),
        node("Unsqueeze", "m one1", "m1"),
        node("Squeeze", "m1 one1", "m2"),
        node("ConstantOfShape", "two1", "z", value=numpy_helper.from_array(np.float32([0]))),
        node("Tile", "z two1", "z2"),
        node("Expand", "z2 grown", "z3"),
        node("Gather", "m2 zero_index", "g"),
        node("ReduceMean", "taken", "d", axes=[2, 3], keepdims=0),
        node("Gemm", "d dense", "e"),
        node("Local", "e", "f", domain="local"),
        node("TopK", "f two1", "y i"),
    ]
    constants = {
        "w": weights(8, 3, 3, 3), "b": weights(8), "zero": np.float32(0), "six": np.float32(6),
        "up": weights(8, 4, 2, 2), "one1": ints(1), "two1": ints(2), "pads": ints(0, 0, 1, 1, 0, 0, 1, 1),
        "start": np.array(-1), "stop": np.array(0), "step": np.array(1), "zero_index": np.array(0),
        "dense": weights(1, 5), "grown": ints(3, 4),
    }  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Local", ["v"], ["o"], [node("Relu", "v", "o")], opsets)
    return model(nodes, constants, {"x": ("N", 3, 16, 16)}, ("y", "g", "z3"), functions=[function],
                 domains=opsets[1:])  # fmt: skip


NETWORK = small_network()
BYTES = NETWORK.SerializeToString()
#: The opset, which follows the graph in the file.
AFTER_THE_GRAPH = onnx.ModelProto(opset_import=NETWORK.opset_import[:1]).SerializeToString()


def read_or_reject(source: Any) -> None:
    """Read the model; any error except the package's own fails the test."""
    try:
        graph = read_onnx(source)
    except NnMeterNasError:
        return
    assert all(data["out_shapes"] for _, data in graph.nodes(data=True))


def test_undamaged_network_is_read_completely() -> None:
    assert read_onnx(NETWORK).graph["outputs"] == ["y", "g.squeeze"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.onnx"


edits = st.lists(
    st.tuples(
        st.integers(0, len(BYTES) - 1), st.sampled_from(["set", "drop", "insert"]), st.binary(max_size=6)
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300)
@given(edits=edits)
def test_changed_bytes_give_an_error_or_a_graph(file: Path, edits: list[tuple[int, str, bytes]]) -> None:
    damaged = bytearray(BYTES)
    for at, kind, content in edits:
        end = {"set": at + len(content), "drop": at + 4, "insert": at}[kind]
        damaged[at:end] = b"" if kind == "drop" else content
    file.write_bytes(damaged)
    read_or_reject(file)


@settings(max_examples=100)
@given(
    content=st.one_of(
        st.binary(max_size=200), st.integers(0, BYTES.index(AFTER_THE_GRAPH)).map(lambda n: BYTES[:n])
    )
)
def test_random_and_truncated_files_raise_an_error(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ReaderError):
        read_onnx(file)


def mutate_attribute(proto: onnx.ModelProto, draw: Callable[..., Any]) -> None:
    """Change the value or type of an operator's attribute, or remove it."""
    chosen = draw(st.sampled_from(list(proto.graph.node)))
    names = sorted({a.name for n in proto.graph.node for a in n.attribute})
    name = draw(st.sampled_from(names))
    kept = [a for a in chosen.attribute if a.name != name]
    del chosen.attribute[:]
    chosen.attribute.extend(kept)
    values = st.one_of(
        st.sampled_from(EXTREMES),
        st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=5),
        st.floats(width=32),
        st.sampled_from(["", "SAME_UPPER", "VALID", "linear", "not_larger"]),
        st.just(numpy_helper.from_array(np.float32([1]))),
    )
    if draw(st.booleans()):
        chosen.attribute.append(helper.make_attribute(name, draw(values)))


def mutate_names(proto: onnx.ModelProto, draw: Callable[..., Any]) -> None:
    """Rename an input or output of an operator."""
    chosen = draw(st.sampled_from(list(proto.graph.node)))
    names = [
        "",
        "x",
        "nothing",
        *(o for n in proto.graph.node for o in n.output),
        *(i.name for i in proto.graph.initializer),
    ]
    field = draw(st.sampled_from([chosen.input, chosen.output]))
    if field and draw(st.booleans()):
        field[draw(st.integers(0, len(field) - 1))] = draw(st.sampled_from(names))
    elif field and draw(st.booleans()):
        del field[-1]
    else:
        field.append(draw(st.sampled_from(names)))


def mutate_constant(proto: onnx.ModelProto, draw: Callable[..., Any]) -> None:
    """Change a constant's values, or give it the wrong sizes."""
    chosen = draw(st.sampled_from(list(proto.graph.initializer)))
    if draw(st.booleans()):
        values = draw(st.lists(st.sampled_from(EXTREMES), max_size=6))
        chosen.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), chosen.name))
    else:
        chosen.dims[:] = draw(st.lists(st.sampled_from(EXTREMES), max_size=5))


def mutate_operator(proto: onnx.ModelProto, draw: Callable[..., Any]) -> None:
    """Change an operator's type, or move it."""
    nodes = list(proto.graph.node)
    index = draw(st.integers(0, len(nodes) - 1))
    if draw(st.booleans()):
        nodes[index].op_type = draw(st.sampled_from(OPERATORS))
        return
    moved = nodes.pop(index)
    nodes.insert(draw(st.integers(0, len(nodes))), moved)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
MUTATIONS = [mutate_attribute, mutate_names, mutate_constant, mutate_operator]


@settings(max_examples=300)
@given(st.data())
def test_changed_graphs_give_an_error_or_a_graph(data: st.DataObject) -> None:
    proto = onnx.ModelProto.FromString(BYTES)
    for _ in range(data.draw(st.integers(1, 4))):
        data.draw(st.sampled_from(MUTATIONS))(proto, data.draw)
    read_or_reject(proto)


@settings(max_examples=200)
@given(st.data())
def test_any_operator_on_any_input_gives_an_error_or_a_graph(data: st.DataObject) -> None:
    shapes = st.lists(st.integers(1, 4), max_size=5)
    constant = st.one_of(
        st.lists(st.sampled_from(EXTREMES), max_size=4).map(lambda values: np.array(values, np.int64)),
        shapes.map(lambda shape: np.ones(shape, np.float32)),
    )
    constants = {f"c{i}": value for i, value in enumerate(data.draw(st.lists(constant, max_size=4)))}
    names = ["x", *constants]
    attrs = data.draw(
        st.dictionaries(
            st.sampled_from(["axis", "axes", "kernel_shape", "strides", "pads", "group", "keepdims", "perm",
                             "to", "output_shape", "auto_pad", "split", "num_outputs", "value", "mode"]),
            st.one_of(st.sampled_from(EXTREMES), st.lists(st.sampled_from(EXTREMES), min_size=1, max_size=4)),
            max_size=3,
        )
    )  # fmt: skip
    op = node(data.draw(st.sampled_from(OPERATORS)), "", "y z", **attrs)
    op.input.extend(data.draw(st.lists(st.sampled_from(["", *names]), max_size=5)))
    opset = data.draw(st.sampled_from([9, 11, 13, 18, 22]))
    read_or_reject(model([node("Relu", "x", "r"), op], constants, outputs=("r", "y", "z"), opset=opset))


# Cases that fuzzing found, and cases it is unlikely to find


def filled(shape: list[int]) -> list[onnx.NodeProto]:
    """Zeros of ``shape``, added to the input."""
    return [
        node("Constant", "", "s", value_ints=shape),
        node("ConstantOfShape", "s", "z"),
        node("Add", "x z", "y"),
    ]


ABSURD = {
    "ConstantOfShape": filled([HUGE, HUGE]),
    "Range": [
        node("Constant", "", "from", value_int=0), node("Constant", "", "to", value_int=HUGE),
        node("Constant", "", "step", value_int=1), node("Range", "from to step", "r"),
        node("Add", "x r", "y"),
    ],
    "Expand": [node("Constant", "", "s", value_ints=[HUGE, 1]), node("Constant", "", "v", value_ints=[1]),
               node("Expand", "v s", "e"), node("Add", "x e", "y")],
    "Tile": [node("Constant", "", "s", value_ints=[HUGE]), node("Constant", "", "v", value_ints=[1]),
             node("Tile", "v s", "e"), node("Add", "x e", "y")],
    "Tile-computed": [node("Constant", "", "s", value_ints=[HUGE] * 4), node("Tile", "x s", "y")],
    "outer-product": [
        node("Constant", "", "v", value_ints=[1] * 1000),
        *[node("Constant", "", f"s{i}", value_ints=[1000, *[1] * i]) for i in range(3)],
        *[node("Reshape", f"v s{i}", f"v{i}") for i in range(3)],
        node("Sum", "v0 v1 v2", "p"), node("Where", "v0 v1 v2", "q"), node("Add", "x p", "y"),
    ],
    "Reshape": [node("Constant", "", "s", value_ints=[HUGE, -1]), node("Reshape", "x s", "y")],
    "Split": [node("Split", "x", "y", axis=1, num_outputs=HUGE)],
    "Split-computed": [node("Cast", "x", "s", to=TensorProto.INT64),
                       node("Split", "x s", "y", num_outputs=HUGE)],
    "Upsample": [node("Upsample", "x", "y", scales=[1.0, 1.0, 3e38, 3e38])],
    "AveragePool": [node("AveragePool", "x", "y", kernel_shape=[HUGE, 1], pads=[HUGE, 0, HUGE, 0])],
    "LRN": [node("LRN", "x", "y", size=HUGE)],
    "OneHot": [node("Constant", "", "d", value_int=HUGE), node("Constant", "", "v", value_floats=[0.0, 1.0]),
               node("Cast", "x", "i", to=TensorProto.INT64), node("OneHot", "i d v", "y")],
    "NonZero-doubling": [
        node("Constant", "", "n0", value_ints=[1] * 1000),
        *[node("NonZero", f"n{i}", f"n{i + 1}") for i in range(30)],
        node("Gather", "x n30", "y"),
    ],
    "Unsqueeze": [node("Constant", "", "a", value_ints=list(range(1000))), node("Unsqueeze", "x a", "y")],
}  # fmt: skip


@pytest.mark.parametrize("case", ABSURD)
def test_huge_sizes_are_never_allocated(case: str) -> None:
    proto = model(ABSURD[case], opset=18)
    tracemalloc.start()
    try:
        read_or_reject(proto)
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_huge_inputs_and_weights_need_no_memory() -> None:
    read_or_reject(model([node("Relu", "x", "y")], inputs={"x": (1, HUGE, HUGE)}))
    proto = model([node("Conv", "x w", "y")], {"w": weights(1, 8, 1, 1)})
    proto.graph.initializer[0].dims[:] = [HUGE, 8, 1, 1]
    proto.graph.initializer[0].raw_data = b""
    assert read_onnx(proto).nodes["y"]["out_shapes"] == [(1, HUGE, 12, 10)]


INCOMPLETE = {
    "no-kernel": layer("MaxPool"),
    "no-axis": model([node("Concat", "x x", "y")]),
    "no-type": layer("Cast"),
    "no-weights": layer("Conv"),
    "no-sizes": layer("Resize"),
    "no-shape": layer("Reshape"),
    "no-value": model([node("Constant", "", "c"), node("Add", "x c", "y")]),
    "no-inputs": model([node("Relu", "", "y")], outputs=("y",)),
    "wrong-type": layer("Conv", {"w": weights(8, 8, 1, 1)}, strides=[1.5, 1.5]),
    "text": layer("MaxPool", kernel_shape="3x3"),
    "zero-stride": layer("MaxPool", kernel_shape=[1, 1], strides=[0, 0]),
    "zero-step": layer("Slice", {"s": ints(0), "e": ints(5), "a": ints(1), "t": ints(0)}),
    "other-axis": layer("Split", axis=7),
    "too-many-pads": layer("Pad", {"p": ints(1, 1, 1)}),
    "negative-pads": layer("Pad", {"p": ints(*[-9] * 8)}),
    "negative-constant": model(filled([-1, 4])),
    "empty-cut": layer("Slice", {"s": ints(5), "e": ints(5), "a": ints(2)}),
    "other-kernel": layer("Conv", {"w": weights(8, 8, 1, 1)}, kernel_shape=[3, 3]),
    "uneven-split": layer("Split", {"s": ints(1, 1)}, outputs="y z"),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_error_names_the_operator_with_missing_or_invalid_arguments(case: str) -> None:
    with pytest.raises(NnMeterNasError, match=r"operator '[yz]|constant|disconnected|operator 'c'"):
        read_onnx(INCOMPLETE[case])


def test_error_names_a_cycle() -> None:
    nodes = [node("Add", "x b", "a", name="one"), node("Relu", "a", "b", name="two"), node("Relu", "b", "y")]
    with pytest.raises(GraphError, match=r"cyclic: (one -> two -> one|two -> one -> two)"):
        read_onnx(model(nodes))


def test_error_names_a_tensor_that_nothing_makes() -> None:
    with pytest.raises(GraphError, match=r"operator 'y' .*'nothing', which nothing in the model makes"):
        read_onnx(model([node("Add", "x nothing", "y")]))
    with pytest.raises(GraphError, match=r"outputs.*'nothing'"):
        read_onnx(model([node("Relu", "x", "y")], outputs=("nothing",)))


def test_error_names_a_tensor_that_is_made_twice() -> None:
    with pytest.raises(GraphError, match="'y' is made twice"):
        read_onnx(model([node("Relu", "x", "y"), node("Sigmoid", "x", "y")]))
    with pytest.raises(GraphError, match="'x' is made twice"):
        read_onnx(model([node("Relu", "x", "x")], outputs=("x",)))


def test_error_names_weights_with_negative_or_too_many_sizes() -> None:
    proto = model([node("Conv", "x w", "y")], {"w": weights(1, 8, 1, 1)})
    proto.graph.initializer[0].dims[:] = [-1, 8, 1, 1]
    with pytest.raises(ReaderError, match=r"tensor 'w'.*negative"):
        read_onnx(proto)
    proto.graph.initializer[0].dims[:] = [HUGE] * 1000
    with pytest.raises(ReaderError, match=r"tensor 'w' has 1000 dimensions"):
        read_onnx(proto)


def test_error_names_a_constant_whose_content_contradicts_its_shape() -> None:
    proto = model([node("Reshape", "x s", "y")], {"s": ints(1, -1)})
    proto.graph.initializer[0].raw_data = b"123"
    with pytest.raises(ReaderError, match=r"operator 'y' .*tensor 's' is malformed"):
        read_onnx(proto)


def test_names_that_are_not_text_are_rejected(file: Path) -> None:
    """Protobuf returns them as bytes."""
    proto = model([node("Relu", "x", "tensor_y", name="operator_a")], outputs=("tensor_y",))
    for name in (b"tensor_y", b"operator_a", b"Relu"):
        file.write_bytes(proto.SerializeToString().replace(name, b"\xff" + name[1:]))
        with pytest.raises(ReaderError, match="is not text"):
            read_onnx(file)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n", b"\x08\x07", BYTES[:-1]]
)
def test_files_of_other_formats_are_rejected(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(ReaderError, match="not an ONNX model"):
        read_onnx(file)


def test_error_names_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"cannot read .*missing\.onnx.*No such file"):
        read_onnx(tmp_path / "missing.onnx")
    with pytest.raises(ReaderError, match=r"cannot read.*directory"):
        read_onnx(tmp_path)
    with pytest.raises(ReaderError, match="cannot read"):
        read_onnx("nul\0byte.onnx")
    with pytest.raises(ReaderError, match="got int"):
        read_onnx(5)  # type: ignore[arg-type]


def test_error_for_old_opsets_says_how_to_convert() -> None:
    with pytest.raises(ReaderError, match=r"opset 6.*version_converter"):
        read_onnx(model([node("Relu", "x", "y")], opset=6))


def test_error_names_an_input_that_is_not_a_tensor() -> None:
    proto = model([node("SequenceAt", "x zero", "y")], {"zero": np.array(0)})
    proto.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, IMAGE))
    )
    with pytest.raises(ReaderError, match="'x' is a sequence_type, not a tensor"):
        read_onnx(proto)


def test_deeply_nested_branches_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """For files, protobuf itself limits the depth."""
    monkeypatch.setattr("nnmeter_nas.readers.onnx.model.MAX_DEPTH", 5)
    nodes = [node("Relu", "x", "y")]
    other = helper.make_graph([node("Relu", "x", "z")], "other", [], [onnx.ValueInfoProto(name="z")])
    for _ in range(6):
        out = onnx.ValueInfoProto(name=nodes[0].output[0])
        branch = helper.make_graph(nodes, "branch", [], [out])
        nodes = [node("If", "flag", f"{out.name}i", then_branch=branch, else_branch=other)]
    proto = model(nodes, {"flag": np.array(True)}, outputs=(nodes[0].output[0],))
    with pytest.raises(ReaderError, match="nested more than 5 deep"):
        read_onnx(proto)


def test_a_model_whose_outputs_ignore_its_input_is_rejected() -> None:
    with pytest.raises(GraphError, match="no output depends on an input"):
        read_onnx(model([node("Relu", "c", "y")], {"c": weights(3)}))


def test_error_for_contradictory_shapes_names_the_operator() -> None:
    pool = node("MaxPool", "x", "p", kernel_shape=[2, 2])
    for join in (node("Concat", "x p", "y", axis=1), node("Add", "x p", "y")):
        with pytest.raises(ShapeError, match="operator 'y'"):
            read_onnx(model([pool, join]))
