"""Pickled forests are read as plain data; payloads, damage and bombs are rejected without running code."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forests import fitted, release_pickle, rows
from layout import REPOSITORY
from nnmeter_nas.errors import PackError
from nnmeter_nas.packs.nnmeter1 import pickles
from nnmeter_nas.packs.nnmeter1.forest import Forest, read_pickled_forest
from nnmeter_nas.packs.nnmeter1.pickles import Record, decode_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
SMALL = release_pickle(fitted(count=20))


def decode(data: bytes) -> Any:
    return decode_pickle(io.BytesIO(data), len(data), "some.pkl")


def forest(data: bytes) -> Forest:
    return read_pickled_forest(io.BytesIO(data), len(data), "some.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_forest_becomes_plain_records_and_arrays(protocol: int) -> None:
    model = fitted()
    found = decode(pickle.dumps(model, protocol))
    assert isinstance(found, Record)
    assert found.name == "RandomForestRegressor"
    for estimator, original in zip(found.state["estimators_"], model.estimators_, strict=True):
        tree = estimator.state["tree_"]
        assert (estimator.name, tree.name) == ("DecisionTreeRegressor", "Tree")
        np.testing.assert_array_equal(tree.state["nodes"]["threshold"], original.tree_.threshold)
        np.testing.assert_array_equal(tree.state["values"], original.tree_.value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_strings_containers_and_arrays_are_decoded(protocol: int) -> None:
    value = {
        "numbers": [0, 1, 255, 65536, -1, 2**70, 0.5, True, False, None, "text", b"bytes", b"", ()],
        "scalars": (np.float64(2.5), np.int32(7), np.bool_(True)),
        "arrays": [
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6).reshape(2, 3)),
            np.arange(3, dtype=">i4"),
            np.zeros((0, 5)),
            np.float32([[1]]),
        ],
    }
    found = decode(pickle.dumps(value, protocol))
    assert found["numbers"] == value["numbers"]
    assert found["scalars"] == (2.5, 7, True)
    for array, original in zip(found["arrays"], value["arrays"], strict=True):
        assert array.dtype == original.dtype
        np.testing.assert_array_equal(array, original)


def test_uncompressed_joblib_dumps_are_read(tmp_path: Path) -> None:
    model = fitted()
    joblib.dump(model, tmp_path / "plain.pkl")
    data = (tmp_path / "plain.pkl").read_bytes()
    np.testing.assert_allclose(forest(data).predict(rows(9)), model.predict(rows(9)), rtol=1e-9)
    for compress in ("zlib", "gzip", "bz2", "xz", "lzma"):
        joblib.dump(model, tmp_path / "packed.pkl", compress=compress)
        with pytest.raises(PackError, match="compressed"):
            decode((tmp_path / "packed.pkl").read_bytes())


def test_feature_names_of_a_data_frame_are_read() -> None:
    model = fitted()
    model.feature_names_in_ = np.array(["h", "cin", "cout", "k"], dtype=object)
    for protocol in PROTOCOLS:
        assert decode(pickle.dumps(model, protocol)).state["feature_names_in_"] == ["h", "cin", "cout", "k"]


class Payload:
    """Runs the pickle's call when unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Stateful:
    """Would run ``__setstate__`` when unpickled."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("the payload ran")

    def __getstate__(self) -> Any:
        return {"any": 1}


def payloads() -> dict[str, tuple[Any, str]]:
    """Payloads, each with the name that the error must contain."""
    import os

    touch = "touch payload-ran"
    return {
        "os.system": (Payload(os.system, touch), r"system"),
        "eval": (Payload(eval, "open('payload-ran', 'w')"), r"eval"),
        "exec": (Payload(exec, "open('payload-ran', 'w')"), r"exec"),
        "getattr": (Payload(getattr, "text", "upper"), r"getattr"),
        "subprocess": (Payload(subprocess.Popen, touch), r"(subprocess|commands)\.Popen"),
        "numpy.load": (Payload(np.load, "payload.npy", None, True), r"numpy(\.lib\.\w+)?\.load"),
        "a class": (Stateful(), r"test_pickles\.Stateful"),
        "nested": (Payload(Payload, Payload(os.system, touch)), r"(test_pickles\.Payload|system)"),
        "another container": (OrderedDict(a=1), r"collections\.OrderedDict"),
        "a generator": (np.random.RandomState(0), r"numpy\.random"),
        "a set": ({1, 2}, r"(builtins|__builtin__)\.set|EMPTY_SET"),
        "complex": (1j, r"complex"),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("payload", payloads())
def test_error_names_a_payload_and_it_does_not_run(
    payload: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    value, named = payloads()[payload]
    hidden = fitted()
    hidden.estimators_[3].random_state = value
    for data in (pickle.dumps(value, protocol), pickle.dumps(hidden, protocol)):
        with pytest.raises(PackError, match=named) as caught:
            forest(data)
        assert "some.pkl" in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"(Vtouch payload-ran\nios\nsystem\n.", "INST 'os system'"),
        (b"(cos\nsystem\nVtouch payload-ran\no.", "os.system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"P7\n.", "PERSID '7'"),
        (b"\x80\x02K\x01Q.", "BINPERSID"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__add__\x93.", "numpy.ndarray.__add__"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"cnumpy\ndtype\n(S'O8'\ntR.", "STRING"),
        (b"cbuiltins\nobject\n)R.", "calls object"),
        (b"cnumpy\nndarray\n(K\x05tR.", "calls ndarray"),
        (b"cnumpy\nndarray\n.", "ends within an object"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nobject\n(K\x00tC\x01btR.", "unknown type"),
        (b"]K\x01K\x02u.", ""),
        (b"K\x01}b.", "a state to what has none"),
        (b"}]K\x01s.", "keys that are no strings"),
        (b".", ""),
        (b"", "cut short"),
        (b"h\x05.", "damaged"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", ""),
        (b"B\xff\xff\xff\x7fabc.", "cut short"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0fabc.", "cut short"),
        (b"I" + b"9" * 6000 + b"\n.", ""),
    ],
)
def test_unusual_programs_are_rejected(data: bytes, named: str) -> None:
    with pytest.raises(PackError) as caught:
        forest(data)
    assert named in str(caught.value)


def build_array(shape: bytes, data: bytes, dtype: bytes = b"f8", state: bytes = b"") -> bytes:
    """Opcodes that build an array; ``shape`` and ``data`` are opcodes that push these values."""
    order = state or b"(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    text = b"X" + struct.pack("<I", len(dtype)) + dtype
    return (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01"
        + shape
        + b"cnumpy\ndtype\n"
        + text
        + b"\x89\x88\x87R"
        + order
        + b"\x89"
        + data
        + b"tb."
    )


def test_arrays_must_fit_their_bytes() -> None:
    assert decode(build_array(b"K\x02\x85", b"C\x10" + bytes(16))).tolist() == [0, 0]
    huge = b"\x8a\x08" + b"\xff" * 7 + b"\x7f"
    for shape in (b"K\x03\x85", b"K\x01\x85", b"J\xff\xff\xff\xff\x85", huge + b"\x85"):
        with pytest.raises(PackError, match="array"):
            decode(build_array(shape, b"C\x10" + bytes(16)))
    with pytest.raises(PackError, match=r"some\.pkl"):
        decode(build_array(b"K\0" + huge + huge + b"\x87", b"C\0"))


@pytest.mark.parametrize(
    "dtype", [b"U8", b"M8", b"V8", b"O8", b"c16", b"f8,f8", b"f99", b"(9,9)f8", b"V" + b"9" * 30]
)
def test_non_numeric_arrays_are_rejected(dtype: bytes) -> None:
    with pytest.raises(PackError):
        decode(build_array(b"K\x02\x85", b"C\x10" + bytes(16), dtype))


@pytest.mark.parametrize("value", [np.array([{}, 1], object), np.array(["a", None], object)])
def test_object_arrays_are_rejected(value: Any) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(PackError, match="objects"):
            decode(pickle.dumps(value, protocol))


@pytest.mark.parametrize(
    "dtype", [[("left_child", "i8"), ("other", "i8")], [("left_child", "i8", (2,))], [("threshold", "U4")]]
)
def test_structures_other_than_nodes_are_rejected(dtype: Any) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(PackError, match=r"some\.pkl"):
            decode(pickle.dumps(np.zeros(3, dtype), protocol))


def test_truncated_pickle_is_rejected() -> None:
    for end in range(0, len(SMALL), 7):
        with pytest.raises(PackError, match=r"some\.pkl"):
            forest(SMALL[:end])


@pytest.mark.parametrize("tail", [b"\0", b".", SMALL])
def test_trailing_bytes_are_rejected(tail: bytes) -> None:
    with pytest.raises(PackError, match=f"{len(tail)} bytes follow"):
        forest(SMALL + tail)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_changed_bytes_give_a_forest_or_an_error(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    try:
        found = forest(bytes(data))
    except PackError:
        return
    assert found.predict(np.ones((2, found.n_features))).shape == (2,)


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_give_an_error(data: bytes) -> None:
    with pytest.raises(PackError):
        forest(data)


#: Random programs of opcodes that push, build, name and refer.
OPCODES = st.sampled_from(
    [
        *(bytes([code]) for code in b"()]}N012aeustldbR\x81\x85\x86\x87\x94"),
        *(b"h\0", b"q\0", b"K\x02", b"X\1\0\0\0<", b"X\2\0\0\0f8", b"\x8c\x06latin1", b"C\x08" + bytes(8)),
        *(b"c%b\n%b\n" % (module.encode(), name.encode()) for module, name in pickles._NAMES),
    ]
)


@settings(max_examples=1000)
@given(st.lists(OPCODES, max_size=40))
def test_any_program_of_known_opcodes_gives_a_value_or_an_error(program: list[bytes]) -> None:
    with contextlib.suppress(PackError):
        decode(b"\x80\x04" + b"".join(program) + b".")


def test_memory_use_is_bounded_by_the_file_size() -> None:
    encode = b"c_codecs\nencode\nq\x01" + b"(X\x40\0\0\0" + b"x" * 64 + b"q\x02X\x06\0\0\0latin1q\x03tRh\x01"
    with pytest.raises(PackError, match="encodes more text than it has"):
        decode(b"\x80\x02" + encode + b"(h\x02h\x03tR0h\x01" * 100 + b".")
    laughs = b"\x80\x02(X\x01\0\0\0atq\0" + b"0(h\0h\0h\0h\0tq\0" * 60 + b"."
    assert isinstance(decode(laughs), tuple)
    with pytest.raises(PackError, match="no strings"):
        decode(laughs[:-1] + b"}h\0K\x01s.")


#: Deeply nested tuples of four tuples in entry 0 of the memo; printing them would never end.
LAUGHS = b"\x80\x04(X\x01\0\0\0atq\0" + b"0(h\0h\0h\0h\0tq\0" * 60 + b"0"
RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\nX\2\0\0\0f8\x89\x88\x87R"
NODES = b"cnumpy\ndtype\nX\2\0\0\0V8\x89\x88\x87R(K\3X\1\0\0\0|N"
F8 = DTYPE + b"(K\3X\1\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
FEATURE = b"X\x07\0\0\0feature"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "program",
    {
        "callable": b"h\0)R",
        "arguments": RECONSTRUCT + b"h\0R",
        "type of array": RECONSTRUCT + b"h\0h\0h\0\x87R",
        "encoding": b"c_codecs\nencode\nX\1\0\0\0ah\0\x86R",
        "dtype": b"cnumpy\ndtype\nh\0\x89\x88\x87R",
        "state of dtype": DTYPE + b"h\0b",
        "byte order": DTYPE + b"(K\3h\0NNNK\0K\0K\0tb",
        "fields": NODES + b"h\0h\0h\0K\0K\0tb",
        "name of field": NODES + b"h\0\x85}h\0K\0K\0tb",
        "position of field": NODES + FEATURE + b"\x85}" + FEATURE + F8 + b"h\0\x86sK\x08K\0K\0tb",
        "size of nodes": NODES + FEATURE + b"\x85}" + FEATURE + F8 + b"K\0\x86sh\0K\0K\0tb",
        "shape": b"cnumpy._core.numeric\n_frombuffer\n(C\0" + F8 + b"h\0X\1\0\0\0CtR",
        "order": b"cnumpy._core.numeric\n_frombuffer\n(C\0" + F8 + b"K\0\x85h\0tR",
        "name": b"h\0h\0\x93",
        "class": b"h\0)\x81",
        "arguments of class": b"csklearn.tree._tree\nTree\nh\0\x81",
        "base class": b"ccopyreg\n_reconstructor\ncsklearn.tree._tree\nTree\nh\0N\x87R",
        "key": b"}h\0K\1s",
        "state": b"csklearn.tree._tree\nTree\n)\x81h\0b",
        "forest": b"h\0",
    }.items(),
    ids=lambda item: item[0],
)
def test_huge_values_are_never_printed_or_hashed(program: tuple[str, bytes]) -> None:
    with pytest.raises(PackError):
        forest(LAUGHS + program[1] + b".")


def test_state_is_set_only_once() -> None:
    record = b"\x80\x04csklearn.tree._tree\nTree\n)\x81q\0}X\1\0\0\0aK\1sb"
    assert decode(record + b".").state == {"a": 1}
    with pytest.raises(PackError, match="state"):
        decode(record + b"}X\1\0\0\0aK\1sb.")
    array = RECONSTRUCT + b"cnumpy\nndarray\nNN\x87R2(K\1K\0\x85" + F8 + b"\x89C\0tb"
    with pytest.raises(PackError, match="state twice"):
        decode(b"\x80\x04" + array + b"0(K\1K\0\x85" + F8 + b"\x89C\0tb.")


def test_repeated_tree_in_a_forest_is_rejected() -> None:
    model = fitted()
    model.estimators_ = model.estimators_[:1] * 100_000
    with pytest.raises(PackError, match="100000 trees"):
        forest(pickle.dumps(model, 2))


def test_endless_programs_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
    with pytest.raises(PackError, match="more than 1000 opcodes"):
        decode(b"\x80\x02" + b"}0" * 1000 + b"N.")


@pytest.mark.parametrize("value", [[], {}, 5, "text", np.zeros(3), fitted().estimators_, [fitted()]])
def test_pickle_of_another_object_is_not_a_forest(value: Any) -> None:
    with pytest.raises(PackError, match="holds no fitted forest"):
        forest(pickle.dumps(value))


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"sklearn", "joblib", "scipy", "torch"}:
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Refuse())
import pickle
def load(*arguments, **options):
    raise AssertionError("unpickled")
pickle.load = pickle.loads = pickle.Unpickler = pickle._Unpickler = load
from nnmeter_nas.packs import read_forest
print(read_forest(sys.argv[1]).n_features)
"""


def test_reading_imports_no_scikit_learn_and_unpickles_nothing(tmp_path: Path) -> None:
    (tmp_path / "fc.pkl").write_bytes(SMALL)
    command = [sys.executable, "-c", WITHOUT, str(tmp_path / "fc.pkl")]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert answer.stdout.split() == ["4"], answer.stderr
