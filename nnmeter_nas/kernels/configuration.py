"""Configurations: the kernel type, sizes and work that a kernel predictor sees of a kernel.

Predictors see nothing else, so kernels with equal configurations take the same time and are priced once. A
kernel type is a name. Formulas in this module give the work of some types from their sizes; the work of every
other type comes from :func:`~nnmeter_nas.kernels.work.work_of`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..ops import kernel_of
from .fusion import Kernel
from .work import work_of

#: Kernel types whose work has a formula.
FORMULA_TYPES = (
    "conv",
    "dwconv",
    "fc",
    "bn",
    "relu",
    "hswish",
    "se",
    "add",
    "concat",
    "split",
    "channelshuffle",
    "maxpool",
    "avgpool",
    "globalavgpool",
)
#: Name of a global average pool in nn-Meter's rules.
_GAP = "gap"
#: Activations that cost more than a relu on some runtimes, even fused.
ACTIVATIONS = ("relu6", "leakyrelu", "hswish", "swish", "gelu", "sigmoid")
#: Sizes of a kernel, in elements; a missing spatial dimension counts as 1. ``operands`` is the number of
#: tensors read, ``joined_*`` the number of operators fused after the head, ``squeezed`` the inner width of a
#: squeeze-excite, ``runs_*`` the number of operators of this name, the head among them.
COLUMNS = (
    "cin",
    "hin",
    "win",
    "cout",
    "hout",
    "wout",
    "kh",
    "kw",
    "sh",
    "sw",
    "dilation",
    "groups",
    "operands",
    "joined_relu",
    "joined_add",
    "joined_other",
    "squeezed",
    *(f"runs_{name}" for name in ACTIVATIONS),
)
COLUMN = {name: i for i, name in enumerate(COLUMNS)}

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


class Configuration(NamedTuple):
    """One kernel as predictors see it.

    Attributes:
        type: kernel type.
        sizes: in the order of :data:`COLUMNS`.
        work: multiply-adds, values read, values written and weights, as the kernel's operator declares them.
    """

    type: str
    sizes: tuple[float, ...]
    work: tuple[float, float, float, float]


def kernel_type(kernel: Kernel) -> str:
    """Name of the kernel type that prices ``kernel``."""
    return "globalavgpool" if kernel.op == _GAP else kernel_of(kernel.op) or kernel.op


def configuration(kernel: Kernel) -> Configuration:
    """The configuration of ``kernel``."""
    name = kernel_type(kernel)
    first_in, first_out = _first(kernel.in_shapes), _first(kernel.out_shapes)
    cin, hin, win = _channels_and_map(first_in)
    cout, hout, wout = _channels_and_map(first_out)
    if name == "concat":
        cin = sum(_channels_and_map(shape)[0] for shape in kernel.in_shapes)
    if name == "split":
        cout = cin
    if name == "fc":
        cin, hin, win = _features_and_map(first_in)
        cout, hout, wout = _features_and_map(first_out)
    kh, kw = _pair(kernel.attrs.get("kernel"))
    sh, sw = _pair(kernel.attrs.get("stride"))
    if name == "globalavgpool":
        kh, kw, sh, sw = hin, win, 1, 1
    joined = [kernel_of(j) for j in kernel.joined]
    relu, add = joined.count("relu"), joined.count("add")
    folded = joined.count("bn") if name in ("conv", "dwconv", "fc") else 0
    sizes = (
        cin,
        hin,
        win,
        cout,
        hout,
        wout,
        kh,
        kw,
        sh,
        sw,
        math.prod(_pair(kernel.attrs.get("dilation"))),
        kernel.attrs.get("groups", 1) if name == "conv" else 1,
        len(kernel.in_shapes),
        relu,
        add,
        len(joined) - relu - add - folded,
        kernel.attrs.get("squeezed", 0),
        *((kernel.op, *kernel.joined).count(activation) for activation in ACTIVATIONS),
    )
    return Configuration(name, sizes, work_of(kernel))


def _first(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    return shapes[0] if shapes else ()


def _channels_and_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of an NCHW tensor; missing dimensions count as 1."""
    channels = shape[1] if len(shape) > 1 else 1
    height, width = (shape[2] if len(shape) > 2 else 1), math.prod(shape[3:])
    return channels, height, width


def _features_and_map(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Features of a dense layer's tensor (its last dimension), and the positions that the layer works on."""
    return shape[-1], math.prod(shape[1:-1]), 1


def _pair(value: Any) -> tuple[int, int]:
    """Height and width of a window or stride; the product of all further sizes counts as width.

    Operators that the package does not know may use such a name for anything; other values count as 1.
    """
    if value is None:
        return 1, 1
    sizes = value if isinstance(value, tuple | list) else (value,)
    if not sizes or not all(isinstance(size, int | np.integer) for size in sizes):
        return 1, 1
    return sizes[0], math.prod(sizes[1:])


@dataclass(frozen=True)
class KernelWork:
    """Work of ``n`` kernels, each ``[n]``: multiply-adds, values read, values written, weights.

    Pools count one operation per window element. Element-wise kernels and data movement count one per value
    written. ``read`` counts one operand.
    """

    macs: FloatArray
    read: FloatArray
    written: FloatArray
    weights: FloatArray


@dataclass(frozen=True, eq=False)
class Configurations:
    """Configurations of ``n`` kernels, as arrays.

    Attributes:
        types: kernel types, ``[n]``.
        sizes: ``[n, COLUMNS]``.
        declared: the ``work`` of each :class:`Configuration`, ``[n, 4]``.
    """

    types: npt.NDArray[np.str_]
    sizes: FloatArray
    declared: FloatArray

    @classmethod
    def of(cls, found: Iterable[Configuration]) -> Configurations:
        """The configurations ``found``, in order."""
        rows = list(found)
        return cls(
            np.array([row.type for row in rows], dtype=np.str_),
            np.array([row.sizes for row in rows], dtype=float).reshape(-1, len(COLUMNS)),
            np.array([row.work for row in rows], dtype=float).reshape(-1, 4),
        )

    def __len__(self) -> int:
        return len(self.types)

    def __getitem__(self, index: npt.NDArray[np.integer] | BoolArray) -> Configurations:
        """The configurations that ``index`` selects."""
        return Configurations(self.types[index], self.sizes[index], self.declared[index])

    def size(self, column: str) -> FloatArray:
        """One of :data:`COLUMNS`, ``[n]``."""
        return self.sizes[:, COLUMN[column]]

    def is_type(self, *names: str) -> BoolArray:
        """Which configurations have one of the kernel types ``names``, ``[n]``."""
        found = np.zeros(len(self), dtype=bool)
        for name in names:
            if name in self._of_type:
                found |= self._of_type[name]
        return found

    @cached_property
    def _of_type(self) -> dict[str, BoolArray]:
        """For each kernel type that occurs, which configurations have it."""
        return {name: self.types == name for name in set(self.types.tolist())}

    def by_declared_work(self, types: Iterable[str]) -> Configurations:
        """The same kernels, but ``types`` lose their type, so that no formula is used for them."""
        hidden = self.is_type(*types)
        if not hidden.any():
            return self
        return Configurations(np.where(hidden, "", self.types), self.sizes, self.declared)

    @cached_property
    def work(self) -> KernelWork:
        """Work by the formula of each kernel's type, or the declared work if there is none."""
        size = self.size
        window, inner = size("kh") * size("kw"), size("cin") / size("groups")
        read = size("cin") * size("hin") * size("win")
        written = size("cout") * size("hout") * size("wout")
        squeeze = 2 * size("cin") * size("squeezed")
        per_value, weights = np.ones(len(self)), np.zeros(len(self))
        for name, operations, parameters in (
            ("conv", window * inner, window * inner * size("cout")),
            ("dwconv", window, window * size("cout")),
            ("fc", size("cin"), size("cin") * size("cout")),
            ("se", 1.0, squeeze),
            ("maxpool", window, 0.0),
            ("avgpool", window, 0.0),
            ("globalavgpool", window, 0.0),
        ):
            of_type = self.is_type(name)
            per_value = np.where(of_type, operations, per_value)
            weights = np.where(of_type, parameters, weights)
        macs = written * per_value + np.where(self.is_type("se"), squeeze, 0.0)
        by_formula = np.stack([macs, read, written, weights])
        return KernelWork(*np.where(self.is_type(*FORMULA_TYPES), by_formula, self.declared.T))
