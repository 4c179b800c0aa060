"""Decode scikit-learn forests from pickles without unpickling: nothing is imported or called.

A pickle is a program for a small stack machine, and ``pickle.load`` lets that program call any function by
name. The machine in this module knows only the few names that occur in pickles of scikit-learn's forests:
NumPy's arrays, which it builds itself from the raw bytes, and forests and trees, which become plain data
(:class:`Record`). A pickle with any other name is refused, with an error that gives the name. It reads
protocols 0 to 5, and the output of ``joblib.dump`` without compression.

The size of a pickle bounds the memory that it can ask for: raw bytes are viewed, not copied, and every object
that the machine makes costs opcodes in the file, at most :data:`MAX_OPCODES` of them.
"""

from __future__ import annotations

import math
import pickletools
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ...errors import PackError

#: Largest number of opcodes. A tree takes about 150, so this is far beyond any forest.
MAX_OPCODES = 5_000_000
#: Fields of a tree's nodes; releases before 1.3 lack the last one.
_NODE_FIELDS = (
    "left_child",
    "right_child",
    "feature",
    "threshold",
    "impurity",
    "n_node_samples",
    "weighted_n_node_samples",
    "missing_go_to_left",
)
#: A file that fails within this many bytes is no pickle at all.
_FIRST_OPCODES = 8

_FORESTS = ("RandomForestRegressor", "ExtraTreesRegressor")
_TREES = ("DecisionTreeRegressor", "ExtraTreeRegressor")
#: Classes that become a :class:`Record`, by their names before and since release 0.22.
_RECORDS = {
    **{(f"sklearn.ensemble.{module}", name): name for module in ("forest", "_forest") for name in _FORESTS},
    **{(f"sklearn.tree.{module}", name): name for module in ("tree", "_classes") for name in _TREES},
    ("sklearn.tree._tree", "Tree"): "Tree",
}
#: Every name that a pickle may use -> its meaning here.
_NAMES = {
    **_RECORDS,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): "_reconstruct" for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): "scalar" for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): "_frombuffer" for core in ("core", "_core")},
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    ("copyreg", "_reconstructor"): "_reconstructor",
    ("copy_reg", "_reconstructor"): "_reconstructor",
    ("builtins", "object"): "object",
    ("__builtin__", "object"): "object",
    ("builtins", "bytes"): "bytes",
    ("__builtin__", "bytes"): "bytes",
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): "NumpyArrayWrapper",
}


@dataclass(slots=True)
class Record:
    """An object of a pickle as plain data: class name, constructor arguments, and state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)


def decode_pickle(file: BinaryIO, size: int, name: str) -> Any:
    """Decode a pickle into numbers, strings, containers, arrays and :class:`Record`.

    Args:
        file: where the pickle starts.
        size: bytes of the pickle; it must end there.
        name: name of the pickle in messages.

    Raises:
        PackError: the pickle names something that no scikit-learn forest has, is damaged, cut short or
            compressed, or has bytes after its end.
    """
    source = _Source(file, size)
    try:
        value = _Machine(source).run()
        if source.left:
            raise ValueError(f"{source.left} bytes follow the end of the pickle")
        return value
    except ValueError as error:
        hint = "; if it is compressed, decompress it first" if size - source.left < _FIRST_OPCODES else ""
        raise PackError(f"{name} is not read: {error}{hint}") from error
    # Damaged opcodes pop an empty stack, or act on values of the wrong type.
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PackError(f"{name} is damaged: {type(error).__name__}: {error}") from error


class _Source:
    """A binary file that refuses reads beyond ``size`` before it allocates memory for them."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.left = file, size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self.left:
            raise ValueError("it is cut short")
        data = self._file.read(count)
        if len(data) != count:
            raise ValueError("it is cut short")
        self.left -= count
        return data

    def readline(self) -> bytes:
        line = self._file.readline(self.left)
        self.left -= len(line)
        return line


class _Name(str):
    """A global that the pickle named, under its name in :data:`_NAMES`."""


class _Objects:
    """Stands for the dtype of arrays of Python objects."""


@dataclass(slots=True)
class _Pending:
    """An array or dtype whose state comes later in the pickle, and the memo entries that refer to it."""

    kind: str
    start: str = ""
    memo_keys: list[int] = field(default_factory=list)
    finished: bool = False


class _Machine:
    """Runs the opcodes of one pickle. Bad programs raise ValueError, or the error of a wrong operand."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.encodable = source.left

    def run(self) -> Any:
        """Run the pickle and return its final value."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], self.source))):
            if count >= MAX_OPCODES:
                raise ValueError(f"it has more than {MAX_OPCODES} opcodes")
            step = _STEPS.get(opcode.name)
            if step is None:
                detail = "" if argument is None else f" {str(argument)[:100]!r}"
                raise ValueError(f"it uses {opcode.name}{detail}, which no scikit-learn forest does")
            step(self, argument)
        if self.marks or len(self.stack) != 1 or isinstance(self.stack[0], _Name | _Pending | _Objects):
            raise ValueError("it ends within an object")
        return self.stack[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def drop_to_mark(self) -> None:
        self.pop_to_mark()

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        """Drop the top value, or the mark if it is on top."""
        if self.stack:
            self.stack.pop()
        else:
            self.drop_to_mark()

    def tuple_of(self, count: int) -> None:
        items = [self.stack.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("it appends to what is no list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError("it sets items of what is no dictionary")
        target.update(_pairs(items))

    def put(self, key: int) -> None:
        value = self.memo[key] = self.stack[-1]
        if isinstance(value, _Pending):
            value.memo_keys.append(key)

    def name(self, module: str, name: str) -> None:
        if (module, name) not in _NAMES:
            raise ValueError(f"it names {module[:100]}.{name[:100]}, which no scikit-learn forest has")
        self.push(_Name(_NAMES[module, name]))

    def stack_name(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(module) is not str or type(name) is not str:
            raise ValueError("it names something by what is no string")
        self.name(module, name)

    def new_object(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if arguments != () or not isinstance(name, _Name):
            raise ValueError("it makes an object with arguments that no forest has")
        if name == "NumpyArrayWrapper":
            self.push(_Pending("joblib array"))
        else:
            self.push(_record(name))

    def reduce(self) -> None:
        """Replace a name and arguments by the result that a call would have."""
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls what is no name")
        if name == "encode":
            self.push(self.encode(*arguments))
        elif name in _CALLS:
            self.push(_CALLS[name](*arguments))
        else:
            raise ValueError(f"it calls {name}, which no forest does")

    def encode(self, text: str, encoding: str) -> bytes:
        """Bytes as written by protocols up to 2; each character costs one byte of the file."""
        if type(text) is not str or encoding != "latin1":
            raise ValueError("it encodes what is no text, or to other than latin1")
        self.encodable -= len(text)
        if self.encodable < 0:
            raise ValueError("it encodes more text than it has")
        return text.encode("latin-1")

    def build(self) -> None:
        """Set the state of the object on top."""
        state, target = self.stack.pop(), self.stack.pop()
        if isinstance(target, Record):
            if target.state or not isinstance(state, dict):
                raise ValueError(f"a {target.name} has no usable state")
            target.state = state
            self.push(target)
        elif isinstance(target, _Pending):
            if target.finished:
                raise ValueError("it gives an array its state twice")
            target.finished = True
            value = self.finished(target, state)
            self.memo.update(dict.fromkeys(target.memo_keys, value))
            self.push(value)
        else:
            raise ValueError("it gives a state to what has none")

    def finished(self, pending: _Pending, state: Any) -> Any:
        if pending.kind == "dtype":
            return _finished_dtype(pending.start, state)
        if pending.kind == "array":
            _, shape, dtype, fortran, data = state
            return _array(data, dtype, shape, "F" if fortran else "C")
        return self.joblib_array(**state)

    def joblib_array(
        self, shape: Any, order: Any, dtype: Any, numpy_array_alignment_bytes: Any = None, **_: Any
    ) -> npt.NDArray[Any]:
        """An array whose bytes follow in the file, after padding if joblib is 1.2 or newer."""
        if not isinstance(dtype, np.dtype):
            raise ValueError("it holds an array of objects")
        if numpy_array_alignment_bytes is not None:
            self.source.read(self.source.read(1)[0])
        return _array(self.source.read(_count(shape) * dtype.itemsize), dtype, shape, order)


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda machine, _: None),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "UNICODE",
         "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
         "BYTEARRAY8"),
        _Machine.push,
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "LIST": lambda machine, _: machine.push(machine.pop_to_mark()),
    "DICT": lambda machine, _: machine.push(dict(_pairs(machine.pop_to_mark()))),
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.drop_to_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    **dict.fromkeys(
        ("GET", "BINGET", "LONG_BINGET"), lambda machine, key: machine.push(machine.memo[key])
    ),
    "GLOBAL": lambda machine, names: machine.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.stack_name(),
    "NEWOBJ": lambda machine, _: machine.new_object(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}


def _pairs(items: list[Any]) -> list[tuple[str, Any]]:
    """Alternating keys and values as pairs; keys must be strings, so that hashing them is cheap."""
    keys, values = items[::2], items[1::2]
    if not all(type(key) is str for key in keys):
        raise ValueError("it has a dictionary with keys that are no strings")
    return list(zip(keys, values, strict=True))


def _record(name: str) -> Record:
    if name not in _RECORDS.values():
        raise ValueError(f"it makes an object of {name}, which no forest does")
    return Record(str(name))


def _is_one_of(value: Any, *choices: str) -> bool:
    """Whether ``value`` is one of some strings. Checks the type first: comparing tuples may take forever."""
    return type(value) is str and value in choices


def _count(shape: Any) -> int:
    """Number of elements of an array."""
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("it has an array of no usable shape")
    return math.prod(shape)


def _array(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Any:
    """The array of ``shape`` in ``data``; an array of string objects becomes a list."""
    count = _count(shape)
    if not _is_one_of(order, "C", "F"):
        raise ValueError("it has an array in an unknown order")
    if isinstance(dtype, _Objects):
        if type(data) is not list or len(data) != count or not all(type(item) is str for item in data):
            raise ValueError("it holds an array of objects other than strings")
        return data
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise ValueError("it has an array without dtype or data")
    if count * dtype.itemsize != len(data):
        raise ValueError(f"it has {len(data)} bytes for an array of {count} items of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    """A NumPy number as a Python number."""
    return _array(data, dtype, ()).item()


def _new_array(subtype: Any, _shape: Any, _typecode: Any) -> _Pending:
    if not isinstance(subtype, _Name) or subtype != "ndarray":
        raise ValueError("it has an array of an unknown type")
    return _Pending("array")


def _new_dtype(code: Any, _align: Any = False, _copy: Any = True) -> _Pending:
    if type(code) is not str or not re.fullmatch(r"[biuf]\d{1,2}|V\d{1,4}|O\d?", code, re.ASCII):
        raise ValueError(f"it has an array of dtype {reprlib.repr(code)}, not of numbers")
    return _Pending("dtype", code)


def _finished_dtype(code: str, state: Any) -> np.dtype[Any] | _Objects:
    """The dtype with ``code`` and its pickled state, which adds byte order and fields."""
    _, byte_order, subarray, names, fields, size, *_ = state
    if code.startswith("O"):
        return _Objects()
    if subarray is not None or not _is_one_of(byte_order, "<", ">", "|", "="):
        raise ValueError(f"it has a dtype {code} with a byte order or shape that no forest has")
    if not code.startswith("V"):
        return np.dtype(code).newbyteorder(byte_order)
    if not isinstance(names, tuple) or not all(_is_one_of(name, *_NODE_FIELDS) for name in names):
        raise ValueError("it has a structured array with other fields than a tree's nodes have")
    formats, offsets = zip(*(fields[name][:2] for name in names), strict=True)
    if not all(isinstance(format_, np.dtype) and format_.kind in "biuf" for format_ in formats):
        raise ValueError("it has nodes with fields that are no numbers")
    if not all(type(number) is int for number in (*offsets, size)):
        raise ValueError("it has nodes with fields at no position")
    dtype = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    if dtype.itemsize != int(code[1:]):
        raise ValueError(f"it has nodes of {dtype.itemsize} bytes that are said to be {code}")
    return dtype


def _plain_object(name: Any, base: Any, start: Any) -> Record:
    """A new object as written by protocols 0 and 1."""
    if not isinstance(name, _Name) or base != "object" or start is not None:
        raise ValueError("it makes an object in a way that no forest does")
    return _record(name)


def _no_bytes() -> bytes:
    """Empty bytes, as written by protocols up to 2."""
    return b""


#: Name -> function that replaces calling it.
_CALLS: dict[str, Callable[..., Any]] = {
    "_reconstruct": _new_array,
    "_frombuffer": _array,
    "scalar": _scalar,
    "dtype": _new_dtype,
    "bytes": _no_bytes,
    "_reconstructor": _plain_object,
    "Tree": lambda *arguments: Record("Tree", arguments),
}
