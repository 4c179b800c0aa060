"""Names of a pack's weights, and the package's knowledge of these names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import PackError
from ..kernels.configuration import ACTIVATIONS, COLUMNS, FORMULA_TYPES, Configurations
from .features import DATA_MOVERS, DESCRIPTORS, POOLS, TERMS, VARIANTS, kind_indices

#: Groups of kernel types that have a formula. The base weights of a type are those of its group, adjusted
#: where the data says so. A type without data has only the weights of its group.
GROUPS = {
    "matrix": ("conv", "fc", "se"),
    "depthwise": ("dwconv",),
    "data movers": DATA_MOVERS,
    "pools": POOLS,
}
#: Group of kernel types that are priced by their declared work.
DECLARED = "declared"


@dataclass(frozen=True)
class Vocabulary:
    """Names of the positions along the axes of a pack's arrays.

    Attributes:
        terms, descriptors: names of features, see :mod:`.features`.
        groups: sets of kinds that share base weights.
        kinds: kernel types and their variants that the pack has weights for.
        kind_types, kind_groups: the kernel type and the group of each of ``kinds``.
        declared: kernel types whose features come from the declared work of their operators, even if this
            package has a formula for them.
        measured: kernel types that were measured.
        columns: sizes whose measured range the pack knows.
    """

    terms: tuple[str, ...]
    descriptors: tuple[str, ...]
    groups: tuple[str, ...]
    kinds: tuple[str, ...]
    kind_types: tuple[str, ...]
    kind_groups: tuple[str, ...]
    declared: tuple[str, ...]
    measured: tuple[str, ...]
    columns: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that the names agree with each other, and that this package knows them.

        Raises:
            PackError: they do not; the message gives the name at fault.
        """
        for field in fields(self):
            names = getattr(self, field.name)
            if field.name not in ("kind_types", "kind_groups") and len(set(names)) < len(names):
                raise PackError(f"the pack's weights name one of the {field.name} twice: {', '.join(names)}")
        if not len(self.kinds) == len(self.kind_types) == len(self.kind_groups):
            raise PackError("the pack's weights do not name one type and one group for each kind")
        types = set(self.kind_types)
        _check("terms", self.terms, TERMS)
        _check("descriptors", self.descriptors, DESCRIPTORS)
        _check("columns", self.columns, COLUMNS)
        _check("kernel types", types - set(self.declared), FORMULA_TYPES)
        for entry, names, known in (
            ("type", types, self.kinds),
            ("declared type", self.declared, types),
            ("measured type", self.measured, types),
            ("group", self.kind_groups, self.groups),
        ):
            if missing := set(names) - set(known):
                raise PackError(f"the pack has no weights for the {entry} {', '.join(sorted(missing))}")
        for kind, kernel_type in zip(self.kinds, self.kind_types, strict=True):
            if kind != kernel_type and VARIANTS.get(kind, ("",))[0] != kernel_type:
                raise PackError(
                    f"the pack has weights for {kind!r}, a variant of {kernel_type!r} that this version does "
                    "not know; update nnmeter_nas"
                )

    @property
    def types(self) -> frozenset[str]:
        """Kernel types with weights in the pack, measured or not."""
        return frozenset(self.kind_types)

    @property
    def group_of_kind(self) -> npt.NDArray[np.int64]:
        """Index into ``groups`` of each kind."""
        return np.array([self.groups.index(group) for group in self.kind_groups], dtype=np.int64)

    def kinds_of(self, found: Configurations) -> npt.NDArray[np.int64]:
        """Index into ``kinds`` of each kernel, ``[n]``; -1 if the pack has no weights for its type."""
        return kind_indices(found, self.kinds)

    def to_arrays(self) -> dict[str, npt.NDArray[np.str_]]:
        """The names as arrays, for ``numpy.savez``."""
        return {field.name: np.array(getattr(self, field.name), dtype=np.str_) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Vocabulary:
        """Inverse of :meth:`to_arrays`.

        Raises:
            PackError: names are missing, not strings, or unknown to this package.
        """
        names: dict[str, tuple[str, ...]] = {}
        for field in fields(cls):
            array = arrays.get(field.name)
            if array is None or array.ndim != 1 or array.dtype.kind != "U":
                raise PackError(f"the pack's weights do not name their {field.name}")
            names[field.name] = tuple(array.tolist())
        return cls(**names)


def new_vocabulary(measured: Configurations) -> Vocabulary:
    """The vocabulary of a new pack, made from measurements of these kernels.

    It also has the types that share a group with one of theirs, and the variants of all types. Features of
    activations that no measured kernel runs are left out: such an activation is priced as before.
    """
    seen = set(measured.types.tolist())
    absent = [name for name in ACTIVATIONS if not measured.size(f"runs_{name}").any()]
    unused = {feature for name in absent for feature in (f"runs_{name}", f"{name}_values")}
    declared = sorted(seen - set(FORMULA_TYPES))
    groups = {name: types for name, types in GROUPS.items() if seen & set(types)}
    if declared:
        groups[DECLARED] = tuple(declared)
    group_of = {name: group for group, names in groups.items() for name in names}
    types = [name for name in (*FORMULA_TYPES, *declared) if name in group_of]
    variants = {kind: of_type for kind, (of_type, _) in VARIANTS.items() if of_type in group_of}
    kind_types = (*types, *variants.values())
    return Vocabulary(
        terms=tuple(name for name in TERMS if name not in unused),
        descriptors=tuple(name for name in DESCRIPTORS if name not in unused),
        groups=tuple(groups),
        kinds=(*types, *variants),
        kind_types=kind_types,
        kind_groups=tuple(group_of[name] for name in kind_types),
        declared=tuple(declared),
        measured=tuple(name for name in types if name in seen),
        columns=tuple(name for name in COLUMNS if name not in unused),
    )


def _check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise PackError(
            f"the pack's weights are for {what} that this version does not know: {', '.join(unknown)}; "
            "update nnmeter_nas"
        )
