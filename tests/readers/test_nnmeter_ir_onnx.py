"""nn-Meter IR made from ONNX can be read, although it has no input, no weight types, and NCHW axes."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from damaged_ir import GPU_RULES, assert_read_or_rejected, damage
from nnmeter_nas.errors import ReaderError
from nnmeter_nas.kernels.fusion import fuse
from nnmeter_nas.readers import read_model


class OnnxIr:
    """Builds nodes like nn-Meter's ONNX converter; shapes of feature maps are NHWC."""

    def __init__(self) -> None:
        self.nodes: dict[str, Any] = {}
        self.shapes: dict[str, list[int]] = {}

    def add(
        self,
        name: str,
        kind: str,
        inbounds: Sequence[str],
        shape: Sequence[int],
        attrs: dict[str, Any] | None = None,
        before: Sequence[int] = (),
    ) -> str:
        """Add an operator. For one that reads the model's input, give only ``before``."""
        self.shapes[name] = list(shape)
        shapes = [list(before)] if before else [self.shapes[i] for i in inbounds]
        body = {"type": kind, "attr": attrs or {}, "input_shape": shapes, "output_shape": [list(shape)]}
        self.nodes[name] = {"attr": body, "inbounds": list(inbounds), "outbounds": []}
        for inbound in inbounds:
            self.nodes[inbound]["outbounds"].append(name)
        return name

    def constant(self, name: str) -> str:
        """Add a weight or scalar; the converter keeps only its name."""
        self.nodes[name] = {"attr": {}, "inbounds": [], "outbounds": []}
        self.shapes[name] = []
        return name

    def conv(
        self, name: str, source: str, width: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        """Add a convolution; an empty ``source`` is the model's input, 1x16x16x3."""
        before = self.shapes[source] if source else [1, 16, 16, 3]
        attrs = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4,
                 "dilations": [1, 1], "group": group}
        shape = [1, before[1] // stride, before[2] // stride, width]
        return self.add(name, "Conv", [source] if source else [], shape, attrs, before)


def network() -> dict[str, Any]:
    """Every operator that the converter writes in its own way."""
    ir = OnnxIr()
    stem = ir.conv("stem", "", 8, kernel=3, stride=2)
    shift = ir.add("add", "Add", [stem, ir.constant("three")], [1, 8, 8, 8])
    clip = ir.add("clip", "Clip", [shift, ir.constant("zero"), ir.constant("six")], [1, 8, 8, 8])
    gate = ir.add("div", "Div", [clip, ir.constant("divisor")], [1, 8, 8, 8])
    hswish = ir.add("hswish", "Mul", [stem, gate], [1, 8, 8, 8])
    depthwise = ir.conv("dw", hswish, 8, kernel=3, group=8)
    relu6 = ir.add("relu6", "Clip", [depthwise, "zero", "six"], [1, 8, 8, 8])
    other = ir.conv("other", "", 8, kernel=3, stride=2)
    joined = ir.add("concat", "Concat", [relu6, other], [1, 8, 8, 16], {"axis": 1})
    apart = ir.add("reshape1", "Reshape", [joined], [1, 2, 8, 8, 8])
    swapped = ir.add("transpose", "Transpose", [apart], [1, 8, 2, 8, 8], {"perm": [0, 2, 1, 3, 4]})
    shuffled = ir.add("reshape2", "Reshape", [swapped], [1, 8, 8, 16])
    pooled = ir.add("mean", "ReduceMean", [shuffled], [1, 1, 1, 16], {"axes": [2, 3], "keepdims": 1})
    flat = ir.add("flatten", "Flatten", [pooled], [1, 16], {"axis": 1})
    ir.add("fc", "Gemm", [flat, ir.constant("weight")], [1, 10], {"transB": 1})
    return ir.nodes


def test_every_operator_gets_its_shape_and_kernel() -> None:
    graph = read_model(network())
    assert graph.graph["shape_mismatches"] == []
    assert graph.nodes["input"]["out_shapes"] == [(1, 3, 16, 16)]
    assert graph.nodes["concat"]["out_shapes"] == [(1, 16, 8, 8)]
    assert graph.nodes["fc"]["out_shapes"] == [(1, 10)]
    kernels = Counter(kernel.op for _, kernel in fuse(graph, GPU_RULES).nodes(data="kernel"))
    assert kernels == {"conv": 2, "dwconv": 1, "concat": 1, "channelshuffle": 1, "globalavgpool": 1, "fc": 1}


def test_file_written_by_get_ir_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "net_onnx_ir.json"
    path.write_text(json.dumps(network()), encoding="utf-8")
    assert read_model(path).nodes["dw"]["op"] == "dwconv"


def test_reading_does_not_change_the_dict() -> None:
    ir = network()
    before = copy.deepcopy(ir)
    read_model(ir)
    assert ir == before


def test_sibling_slices_are_a_split() -> None:
    ir = OnnxIr()
    stem = ir.conv("stem", "", 8)
    ir.add("slice", "Slice", [stem], [1, 16, 16, 3])
    ir.nodes["slice"]["attr"]["output_shape"].append([1, 16, 16, 5])
    ir.add("relu", "Relu", ["slice"], [1, 16, 16, 3])
    graph = read_model(ir.nodes)
    assert graph.nodes["slice"]["op"] == "split"
    assert graph.nodes["slice"]["out_shapes"] == [(1, 3, 16, 16), (1, 5, 16, 16)]


def test_single_slice_stays_an_operator_and_is_reported() -> None:
    ir = OnnxIr()
    ir.add("slice", "Slice", [ir.conv("stem", "", 8)], [1, 16, 16, 3])
    assert read_model(ir.nodes).nodes["slice"]["op"] == "stridedslice"


def test_error_for_damage_names_the_way_out() -> None:
    ir = network()
    del ir["stem"]["attr"]["attr"]["kernel_shape"]
    with pytest.raises(ReaderError, match=r"made from ONNX, but damaged.*kernel_shape.*ONNX file"):
        read_model(ir)


NETWORK = json.dumps(network())


@given(st.data())
def test_damaged_model_is_read_or_raises_an_error_of_the_package(data: st.DataObject) -> None:
    ir = json.loads(NETWORK)
    damage(ir, data)
    assert_read_or_rejected(ir)
