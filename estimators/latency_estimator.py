"""HardwareLatencyEstimator: NNI's estimator for one-shot searches, from lookup tables, with a gradient.

    >>> import numpy as np, torch
    >>> from nnmeter_nas.search_spaces import proxylessnas
    >>> estimator = HardwareLatencyEstimator(
    ...     "cortexA76cpu_tflite21", proxylessnas("small"), (1, 3, 32, 32), dump_lat_table=None
    ... )
    >>> alpha = {label: torch.zeros(len(known), requires_grad=True)
    ...          for label, known in estimator.table.candidates.items()}
    >>> expected = estimator.cal_expected_latency({label: a.softmax(0) for label, a in alpha.items()})
    >>> expected.backward()  # a descent makes blocks more likely that take less than the mean
    >>> bool(alpha["layer_2"].grad[estimator.table.candidates["layer_2"].index("zero")] < 0)
    True

It has the names, arguments and table layout of ``nni.retiarii.oneshot.pytorch.proxyless`` (NNI 2.10.1).
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import torch
import yaml
from filelock import FileLock

from nnmeter_nas import LatencyPredictor, LatencyWarning, load_latency_predictor
from nnmeter_nas.costs import FactorTable, cached_table, load_table
from nnmeter_nas.costs.bundled import check_pack
from nnmeter_nas.costs.cache import check_table
from nnmeter_nas.costs.expectation import expected_latency
from nnmeter_nas.costs.files import is_table_file
from nnmeter_nas.costs.nni_yaml import block_latencies, to_yaml
from nnmeter_nas.errors import LookupTableError, nearest
from nnmeter_nas.files import write_bytes
from nnmeter_nas.graph.shapes import Shape
from nnmeter_nas.supernet import Space
from nnmeter_nas.supernet.tracing import read_supernet

#: A warning names at most this many operators.
_LISTED = 5


class HardwareLatencyEstimator:
    """Give the latency of an architecture, or the expected latency while the search is undecided.

    It prices every candidate, plain torch modules too. It keeps its tables in the user's cache.

    Args:
        applied_hardware: device name, or a lookup table or its path.
        model: the search space: a module with NNI's choices, a supernet or a
            :class:`~nnmeter_nas.supernet.Space`. If ``applied_hardware`` is a device name, it may also be a
            lookup table or its path. If ``applied_hardware`` is a table, it may be None, or must be the
            space of that table.
        dummy_input: shape of the input, NCHW.
        dump_lat_table: append the table to this YAML file, in NNI's layout, unless it is already there; None
            or "" for no file. A given table is not written.
        strict: raise, instead of warn, if a candidate has operators that were not measured on the device.

    Attributes:
        predictor_name: name of the device.
        table: the lookup table.

    Raises:
        UnknownDeviceError: there is no such device.
        LookupTableError: under ``strict``, a candidate cannot be priced; a table is damaged, stale or does
            not match; or ``dump_lat_table`` holds something other than tables (the file stays unchanged).
        SpaceError, ReaderError: ``model`` is not a search space, or cannot be traced with ``dummy_input``.

    Warns:
        LatencyWarning: operators are left out or estimated because they were not measured on the device.
    """

    def __init__(
        self,
        applied_hardware: str | Path | FactorTable,
        model: Any = None,
        dummy_input: Sequence[int] = (1, 3, 224, 224),
        dump_lat_table: str | Path | None = "data/latency_table.yaml",
        strict: bool = True,
    ) -> None:
        shape = tuple(int(size) for size in dummy_input)
        if _is_table(applied_hardware):
            self.table = _given_table(applied_hardware, shape)
            if model is not None:
                predictor = _predictor_of(self.table)
                check_table(self.table, _space(model, shape), predictor)
        elif _is_table(model):
            self.table = _given_table(model, shape)
            check_pack(self.table, load_latency_predictor(str(applied_hardware)))
        elif model is None:
            raise LookupTableError(
                f"model=None: latency on {applied_hardware} is that of a search space; give one, or a table"
            )
        else:
            predictor = load_latency_predictor(str(applied_hardware))
            self.table = _built_table(predictor, _space(model, shape), strict)
            if dump_lat_table:
                append_table(dump_lat_table, self.table)
        self._labels_by_name = _labels_by_name(model, self.table.labels)
        self.predictor_name = self.table.header.device

    @property
    def block_latency_table(self) -> dict[str, dict[str, float]]:
        """The table in NNI's layout, without the factors of pairs of choices.

        Label -> index of the candidate as text -> ms, and ``"stationary_block"`` -> ``"root"`` -> ms.

        Raises:
            LookupTableError: a factor depends on more than two choices; NNI's layout cannot hold it.
        """
        return block_latencies(self.table)

    def cal_expected_latency(self, current_architecture_prob: Mapping[str, Any]) -> torch.Tensor:
        """Return the expected latency in ms if choices are independent: a differentiable scalar tensor.

        Args:
            current_architecture_prob: label of each choice (or name of its module) -> probabilities of its
                candidates: a tensor ``[candidates]`` on any device, or a sequence of numbers.

        Raises:
            LookupTableError: a label is missing or unknown, or its probabilities have the wrong length, are
                negative or NaN, or do not sum to one.
        """
        given = self._by_label(current_architecture_prob)
        tensors = {label: _tensor(label, value) for label, value in given.items()}
        kinds = [t for t in tensors.values() if t.requires_grad] or list(tensors.values())
        if kinds:
            # Half precision has too few digits to sum over a network.
            dtype = torch.promote_types(kinds[0].dtype, torch.float32)
            tensors = {label: t.to(kinds[0].device, dtype) for label, t in tensors.items()}
        return expected_latency(self.table, tensors)

    def export_latency(self, current_architecture: Mapping[str, Any]) -> float:
        """Return the latency of an architecture in ms.

        Args:
            current_architecture: label of each choice (or name of its module) -> the candidate's index, as
                in NNI, or its name.

        Raises:
            LookupTableError: a label is unknown, or no candidate has that index.
            SpaceError: a choice is left open, or no candidate has that name.
        """
        given = self._by_label(current_architecture)
        return self.table.latency({label: self._candidate(label, value) for label, value in given.items()})

    def _by_label(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``given`` with labels as keys."""
        if not isinstance(given, Mapping):
            raise LookupTableError(f"expected a mapping by labels of choices, got {type(given).__name__}")
        found: dict[str, Any] = {}
        for key, value in given.items():
            label = key if key in self.table.candidates else self._labels_by_name.get(key)
            if label is None:
                raise LookupTableError(
                    f"the table has no choice {key!r}; {nearest(str(key), self.table.candidates)}"
                )
            if label in found:
                raise LookupTableError(f"the choice {label!r} is given twice, the second time as {key!r}")
            found[label] = value
        return found

    def _candidate(self, label: str, value: Any) -> Any:
        """Turn an index into the candidate's name; return names and lists of one unchanged."""
        known = self.table.candidates[label]
        try:
            index = operator.index(value)
        except TypeError:
            return value
        if not 0 <= index < len(known):
            raise LookupTableError(f"the choice {label!r} has {len(known)} candidates, and no index {index}")
        return known[index]


def append_table(path: str | Path, table: FactorTable) -> None:
    """Append ``table`` to a YAML list of tables in NNI's layout: whole or not at all, and never twice.

    Raises:
        LookupTableError: the file holds something else; it stays unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        present = path.read_bytes() if path.exists() else b""
        _check_list(path, present)
        entry = to_yaml(table)
        if entry not in present:
            write_bytes(path, present if not present or present.endswith(b"\n") else present + b"\n", entry)


def _check_list(path: Path, content: bytes) -> None:
    try:
        entries = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError) as error:
        raise LookupTableError(
            f"dump_lat_table={str(path)!r} is damaged, and left as it is; name another file: {error}"
        ) from error
    if content.strip() and not (
        isinstance(entries, list) and all(isinstance(e, dict) and "latency_table" in e for e in entries)
    ):
        raise LookupTableError(
            f"dump_lat_table={str(path)!r} holds no list of tables, and is left as it is; name another file"
        )


def _is_table(value: Any) -> bool:
    by_name = isinstance(value, Path) or (isinstance(value, str) and is_table_file(value))
    return by_name or isinstance(value, FactorTable)


def _given_table(value: Any, shape: Shape) -> FactorTable:
    """Return the given table, or read it from its path; check its input shape and its pack's version."""
    table: FactorTable = value if isinstance(value, FactorTable) else load_table(value)
    if table.header.input_shape != shape:
        raise LookupTableError(
            f"the lookup table of {table.header.space!r} is for the input shape {table.header.input_shape}, "
            f"and dummy_input is {shape}; give its own, or build a table for this one"
        )
    check_pack(table, _predictor_of(table))
    _warn_of_left_out(table)
    return table


def _built_table(predictor: LatencyPredictor, space: Space, strict: bool) -> FactorTable:
    """Build or load the table of a space; under ``strict``, every candidate must have a price."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatencyWarning)  # warned of below, for cached tables too
        table = cached_table(space, predictor)
    for name, kind in table.header.left_out.items():
        if strict and name in space.blocks:
            label, candidate = space.blocks[name]
            raise LookupTableError(
                f"the candidate {candidate!r} of the choice {label!r} has no measured price on "
                f"{table.device}: its operator {name!r} ({kind}) is of a type that was never measured; "
                "strict=False leaves it out, or takes the estimate"
            )
    _warn_of_left_out(table)
    return table


def _warn_of_left_out(table: FactorTable) -> None:
    if table.header.left_out:
        listed = ", ".join(f"{name} ({kind})" for name, kind in list(table.header.left_out.items())[:_LISTED])
        more = len(table.header.left_out) - _LISTED
        message = f"the lookup table of {table.header.space!r} leaves out or estimates {listed}"
        warnings.warn(message + (f" and {more} more" if more > 0 else ""), LatencyWarning, stacklevel=4)


def _predictor_of(table: FactorTable) -> LatencyPredictor:
    """Load the predictor that the table names."""
    return load_latency_predictor(table.header.device, table.header.pack_version)


def _space(model: Any, shape: Shape) -> Space:
    if isinstance(model, Space | nx.DiGraph):
        space = model if isinstance(model, Space) else Space.of_supernet(model)
    else:
        space = Space.of_supernet(read_supernet(model, shape))
    if space.input_shape != shape:
        raise LookupTableError(f"{space.name!r} takes {space.input_shape}, and dummy_input is {shape}")
    return space


def _labels_by_name(model: Any, labels: Sequence[str]) -> dict[str, str]:
    """Map the name of each choosing submodule to the label of its choice."""
    if not isinstance(model, torch.nn.Module):
        return {}
    named = {name: str(getattr(part, "label", "")) for name, part in model.named_modules()}
    return {name: label for name, label in named.items() if label in labels}


def _tensor(label: str, value: Any) -> torch.Tensor:
    """Turn probabilities into a tensor, keeping their gradient."""
    if isinstance(value, torch.Tensor):
        return value
    try:
        if any(isinstance(p, torch.Tensor) for p in value):
            return torch.stack([torch.as_tensor(p) for p in value])
        return torch.as_tensor(value, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LookupTableError(f"probabilities of {label!r} must be numbers from 0 to 1: {error}") from error
