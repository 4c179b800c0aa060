"""Each operator is declared once, under names that its formats have and their readers know."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import pytest
import torch

from nnmeter_nas.errors import NnMeterNasError, OperatorError
from nnmeter_nas.ops import NAMES, OPERATORS, RULE_NAMES, VIEW_OPS, Operator, operator
from nnmeter_nas.readers.nni.operators import is_known as is_known_in_nni
from nnmeter_nas.readers.nnmeter_ir.reader import is_known as is_known_in_nnmeter_ir
from nnmeter_nas.readers.onnx.operators import TRANSLATIONS as ONNX
from nnmeter_nas.readers.tensorflow.operators import TRANSLATIONS as TENSORFLOW
from nnmeter_nas.readers.torch.operators import TRANSLATIONS as TORCH

#: What nn-Meter IR names without the attributes that its shape follows from; inputs are no operators there.
UNTOLD_IN_IR = {
    "Conv2DBackpropInput", "StridedSlice", "PadV2", "Pad", "ResizeBilinear", "Placeholder", "Input"
}  # fmt: skip


def names_of(form: str) -> Iterator[tuple[str, Operator]]:
    """Declared names that are the format's own, not those of somebody's library."""
    return ((name, op) for name, op in NAMES[form].items() if "::" not in name and "." not in name)


def test_an_operator_is_declared_once() -> None:
    relu, count = OPERATORS["relu"], len(OPERATORS)
    with pytest.raises(OperatorError, match="'relu' is declared twice"):
        operator("relu", onnx="ThirdRelu")(lambda shapes, attrs: shapes)
    assert issubclass(OperatorError, NnMeterNasError)
    assert (OPERATORS["relu"], len(OPERATORS)) == (relu, count)
    assert "ThirdRelu" not in NAMES["onnx"]


def test_a_name_in_a_format_is_one_operator() -> None:
    with pytest.raises(OperatorError, match=r"'second' claims 'Relu' in onnx, which is 'relu' already"):
        operator("second", torch="second", onnx="Relu")(lambda shapes, attrs: shapes)
    assert "second" not in OPERATORS
    assert "second" not in NAMES["torch"]


@pytest.mark.parametrize("name", [name for name, _ in names_of("torch")])
def test_torch_has_the_name(name: str) -> None:
    assert hasattr(torch.ops.aten, name) or hasattr(torch.nn.functional, name)


@pytest.mark.parametrize("name", [name for name, _ in names_of("modules")])
def test_torch_has_the_module_and_the_reader_of_nni_ir_knows_it(name: str) -> None:
    assert issubclass(getattr(torch.nn, name), torch.nn.Module)
    assert is_known_in_nni(name)


@pytest.mark.parametrize("name", [name for name, _ in names_of("onnx")])
def test_onnx_has_the_operator(name: str) -> None:
    try:
        assert onnx.defs.get_schema(name).name == name
    except onnx.defs.SchemaError:
        assert name == "Upsample", "only what newer opsets dropped"


@pytest.mark.parametrize(
    ("form", "entries"),
    [("torch", TORCH), ("onnx", ONNX), ("tensorflow", TENSORFLOW)],
    ids=["torch", "onnx", "tensorflow"],
)
def test_a_reader_has_an_entry_where_arguments_need_it(form: str, entries: dict[str, object]) -> None:
    missing = {name for name, op in NAMES[form].items() if op.attrs is None and name not in entries}
    assert missing == set()


def test_the_reader_of_nn_meter_ir_knows_what_the_ir_tells() -> None:
    assert {name for name in NAMES["nnmeter"] if not is_known_in_nnmeter_ir(name)} == UNTOLD_IN_IR


def test_fusion_rules_and_views_follow_from_the_declarations() -> None:
    assert {op.name: op.rule for op in OPERATORS.values() if op.rule != op.name} == RULE_NAMES
    assert {op.name for op in OPERATORS.values() if op.kernel is None} == VIEW_OPS
    assert {"reshape", "flatten", "squeeze", "unsqueeze"} <= VIEW_OPS
