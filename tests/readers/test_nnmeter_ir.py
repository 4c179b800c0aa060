"""nn-Meter IR: official files are read with all their quirks, and damaged files raise clear errors."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from damaged_ir import assert_read_or_rejected, damage
from ir import IrBuilder, small_cnn
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.errors import GraphError, ReaderError, ShapeError
from nnmeter_nas.readers import read_model
from nnmeter_nas.readers.nnmeter_ir.reader import read_nnmeter_ir
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir


def operators(ir: dict[str, Any]) -> Counter[str]:
    """Count each canonical operator of the model graph."""
    return Counter(op for _, op in read_nnmeter_ir(ir).nodes(data="op") if op != "input")


def test_real_file_with_wrong_shapes_is_read_with_correct_ones(shared_dir: Path) -> None:
    graph = read_model(shared_dir / "data" / "samples" / "mobilenetv3small_0.json")
    shapes = {name: data["out_shapes"][0] for name, data in graph.nodes(data=True)}
    assert shapes["input_im_0"] == (1, 3, 224, 224)
    assert shapes["conv1.conv/Conv2D"] == (1, 16, 112, 112)
    [output] = graph.graph["outputs"]
    assert shapes[output] == (1, 1000)
    assert graph.graph["shape_mismatches"], "wrong shapes in the file are not reported"
    kinds = Counter(op for _, op in graph.nodes(data="op"))
    assert (kinds["conv"], kinds["dwconv"], kinds["fc"]) == (42, 11, 1)
    assert "constant" not in kinds


def test_dict_and_file_give_the_same_model(tmp_path: Path) -> None:
    ir = small_cnn()
    path = tmp_path / "model.json"
    path.write_text(json.dumps(ir), encoding="utf-8")
    from_dict = read_model(ir)
    for source in (path, str(path)):
        from_file = read_model(source, model_type="nnmeter-ir")
        assert dict(from_file.nodes(data=True)) == dict(from_dict.nodes(data=True))


def test_reading_does_not_change_the_dict() -> None:
    ir = small_cnn()
    before = copy.deepcopy(ir)
    read_model(ir)
    assert ir == before


def test_weights_and_biases_are_not_operators() -> None:
    expected = {"conv": 5, "dwconv": 2, "relu": 1, "relu6": 2, "bn": 2, "add": 2, "maxpool": 1}
    assert operators(small_cnn()) == {**expected, "globalavgpool": 1, "fc": 1}


def test_input_shape_overrides_the_one_in_the_file() -> None:
    graph = read_model(small_cnn(), input_shape=(1, 3, 64, 48))
    assert graph.nodes["stem"]["out_shapes"] == [(1, 8, 32, 24)]
    assert graph.nodes["fc"]["out_shapes"] == [(1, 10)]


def test_unknown_batch_is_1() -> None:
    ir = small_cnn()
    ir["input"]["attr"]["output_shape"] = [[-1, 32, 32, 3]]
    assert read_model(ir).nodes["input"]["out_shapes"] == [(1, 3, 32, 32)]


def test_error_for_another_batch_names_the_input() -> None:
    ir = small_cnn()
    ir["input"]["attr"]["output_shape"] = [[2, 32, 32, 3]]
    with pytest.raises(ShapeError, match=r"operator 'input'.*batch is 2"):
        read_model(ir)


def test_bias_written_as_sum_with_a_vector_applies_to_channels() -> None:
    b = IrBuilder()
    last = b.conv("conv", "input", 8, stride=2)
    b.const("bias", [8])
    b.classifier(b.unary("sum", "Add", last, "bias"))
    graph = read_model(b.nodes)
    assert "sum" not in graph
    assert graph.nodes["conv"]["attrs"]["bias"]
    assert not graph.graph["shape_mismatches"]


def test_shape_computed_from_constants_is_not_an_operator() -> None:
    b = IrBuilder()
    for i in range(3):
        b.const(f"size{i}", [], [i + 1])
    b.add("shape", "Pack", ["size0", "size1", "size2"], [3], {})
    b.add("flat", "Reshape", [b.unary("relu", "Relu", "input"), "shape"], [1, 3072], {"shape": [1, 3072]})
    assert operators(b.nodes) == {"relu": 1, "reshape": 1}


def test_slot_numbers_select_the_outputs_of_a_split() -> None:
    b = IrBuilder((1, 8, 8, 4))
    b.add("split", "Split", ["input"], [1, 8, 8, 2], {"num_split": 2, "axis": 3})
    b.shapes["split:1"] = [1, 8, 8, 2]
    left, right = b.conv("left", "split", 4), b.conv("right", "split:1", 4)
    b.classifier(b.add("concat", "ConcatV2", [left, right], [1, 8, 8, 8], {"axis": 3}))
    graph = read_model(b.nodes)
    assert graph.nodes["right"]["inputs"] == [("split", 1)]
    assert graph.nodes["concat"]["out_shapes"] == [(1, 8, 8, 8)]


@pytest.mark.parametrize("axis", [3, -1])
def test_channels_are_last_in_the_file_and_second_in_the_graph(axis: int) -> None:
    b = IrBuilder((1, 8, 6, 4))
    b.add("concat", "ConcatV2", ["input", b.unary("relu", "Relu", "input")], [1, 8, 6, 8], {"axis": axis})
    assert read_model(b.nodes).nodes["concat"]["out_shapes"] == [(1, 8, 8, 6)]


def test_channel_shuffle_survives_the_change_of_layout() -> None:
    b = IrBuilder((1, 8, 8, 4))
    b.add("split", "Reshape", [b.unary("relu", "Relu", "input")], [1, 8, 8, 2, 2], {"shape": [1, 8, 8, 2, 2]})
    b.add("swap", "Transpose", ["split"], [1, 8, 8, 2, 2], {"perm": [0, 1, 2, 4, 3]})
    b.add("join", "Reshape", ["swap"], [1, 8, 8, 4], {"shape": [1, 8, 8, 4]})
    graph = read_model(b.nodes)
    assert graph.nodes["join"]["op"] == "channelshuffle"
    assert graph.nodes["join"]["attrs"] == {"groups": 2}
    assert graph.nodes["join"]["out_shapes"] == [(1, 4, 8, 8)]


@pytest.mark.parametrize("attrs", [{"block_size": 2}, {}])
def test_pixel_shuffles_survive_the_change_of_layout(attrs: dict[str, int]) -> None:
    b = IrBuilder((1, 8, 6, 4))
    b.add("up", "DepthToSpace", ["input"], [1, 16, 12, 1], attrs)
    b.add("down", "SpaceToDepth", ["up"], [1, 8, 6, 4], attrs)
    graph = read_model(b.nodes)
    assert [graph.nodes[name]["op"] for name in ("up", "down")] == ["pixelshuffle", "pixelunshuffle"]
    assert graph.nodes["up"]["out_shapes"] == [(1, 1, 16, 12)]
    assert read_model(to_nnmeter_ir(graph)).nodes["down"]["attrs"] == {"factor": 2}


def cell(zeroed: set[str]) -> dict[str, Any]:
    """A NAS-Bench-201-like cell of four states; the edges in ``zeroed`` are multiplied by zero."""
    b = IrBuilder((1, 16, 16, 8))
    states = [b.unary("stem", "Tanh", "input")]
    for target in range(1, 4):
        arriving = []
        for source in range(target):
            edge = b.unary(f"{source}{target}/relu", "Relu", states[source])
            edge = b.conv(f"{source}{target}/conv", edge, 8)
            if f"{source}{target}" in zeroed:
                zero = b.const(f"{source}{target}/zero", [], [0.0])
                edge = b.unary(f"{source}{target}/none", "Mul", edge, zero)
            arriving.append(edge)
        for i, edge in enumerate(arriving[1:]):
            arriving[0] = b.unary(f"sum{target}{i}", "AddV2", arriving[0], edge)
        states.append(arriving[0])
    b.classifier(states[-1])
    return b.nodes


def with_custom(*, told: bool) -> dict[str, Any]:
    """A custom operator between convolutions; the file tells the shape of its output, or only later ones."""
    b = IrBuilder((1, 16, 16, 3))
    last = b.unary("own", "MyOperator", b.conv("first", "input", 8))
    b.unary("relu", "Relu", last)
    b.conv("last", "relu", 4)
    if not told:
        del b.nodes["own"]["attr"]["output_shape"]
    return b.nodes


def test_what_follows_an_operator_without_a_shape_is_predicted_from_the_next_shape_in_the_file() -> None:
    cpu = load_latency_predictor("cortexA76cpu_tflite21")
    assert not cpu.explain(with_custom(told=True)).unpredicted
    found = cpu.explain(with_custom(told=False))
    assert found.unpredicted == {"own": "myoperator", "relu": "relu of unknown size"}
    assert math.isnan(found.unpredicted_share)
    assert found.kernel_graph.nodes["last"]["latency_ms"] > 0


def test_shapes_in_the_file_do_not_count_at_another_input_shape() -> None:
    cpu = load_latency_predictor("cortexA76cpu_tflite21")
    found = cpu.explain(with_custom(told=True), input_shape=(1, 3, 32, 32))
    assert list(found.unpredicted) == ["own", "relu", "last"]
    assert "pass the shape it was exported with" in found.notes[0]


def test_candidate_multiplied_by_zero_is_pruned_from_a_cell() -> None:
    assert operators(cell(set())) == {"tanh": 1, "relu": 6, "conv": 6, "add": 3, "globalavgpool": 1, "fc": 1}
    # Without edges 12 and 23, state 2 and everything that feeds only state 2 is dead.
    assert operators(cell({"23", "13"})) == {"tanh": 1, "relu": 1, "conv": 1, "globalavgpool": 1, "fc": 1}
    assert operators(cell({"12"})) == {"tanh": 1, "relu": 5, "conv": 5, "add": 2, "globalavgpool": 1, "fc": 1}


def test_error_names_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps(small_cnn())[:-100], encoding="utf-8")
    with pytest.raises(ReaderError, match=r"cut\.json is not valid JSON"):
        read_model(path)


def test_error_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"absent\.json.*No such file"):
        read_model(tmp_path / "absent.json")


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', '{"id": 1}', '{"nodes": []}', '{"a": {}}'])
def test_other_json_is_rejected(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReaderError, match="nn-Meter IR"):
        read_model(path)


def test_binary_file_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(ReaderError, match=r"model\.json is not valid JSON"):
        read_model(path)


def test_error_names_a_node_without_type() -> None:
    ir = small_cnn()
    del ir["b0/relu6"]["attr"]["type"]
    with pytest.raises(ReaderError, match="'b0/relu6' has no type"):
        read_model(ir)


@pytest.mark.parametrize("attribute", ["weight_shape", "strides", "padding"])
def test_error_names_a_convolution_without_an_attribute(attribute: str) -> None:
    ir = small_cnn()
    del ir["b0/expand"]["attr"]["attr"][attribute]
    ir["b0/expand"]["attr"]["attr"].pop("pads")
    with pytest.raises(ReaderError, match=f"'b0/expand'.*{attribute if attribute != 'padding' else 'pads'}"):
        read_model(ir)


def test_error_names_an_operator_disconnected_from_the_input() -> None:
    ir = small_cnn()
    ir["b0/expand"]["inbounds"] = ["gone", "b0/expand/weights"]
    with pytest.raises(GraphError, match=r"'b0/expand'.*gone"):
        read_model(ir)


def test_error_names_a_cycle() -> None:
    ir = small_cnn()
    ir["b0/expand"]["inbounds"] = ["b0/project"]
    with pytest.raises(GraphError, match=r"cyclic.*b0/project"):
        read_model(ir)


def test_empty_model_is_rejected() -> None:
    with pytest.raises(GraphError, match="empty"):
        read_model({})


def test_error_names_weights_that_contradict_the_feature_map() -> None:
    ir = small_cnn()
    ir["b1/project"]["attr"]["attr"]["weight_shape"] = [1, 1, 5, 8]
    with pytest.raises(ShapeError, match=r"'b1/project'.*5 channels.*16"):
        read_model(ir)












MODEL = json.dumps(small_cnn(blocks=1))


@settings(max_examples=400)
@given(st.data())
def test_damaged_model_is_read_or_raises_an_error_of_the_package(data: st.DataObject) -> None:
    ir = json.loads(MODEL)
    damage(ir, data)
    assert_read_or_rejected(ir)
