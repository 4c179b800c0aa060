"""A predictor pack: a folder with a card, kernel predictors and checksums of both; no code, no pickle.

A pack of kind ``network`` holds the weights of a network, by names of kernel types and features; its card
holds the fusion rules. A pack of kind ``forests`` holds nn-Meter's forests and ``fusion_rules.json``.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt
import yaml

from ..errors import PackError
from ..files import sha256, write_bytes, write_npz
from ..kernels.configuration import kernel_type
from ..kernels.fusion import FusionRules, Kernel, fuse, parse_rules
from .calibration import Calibration
from .doubt import Doubt, Prototypes, doubt_of
from .estimates import Rates, fit_rates, rates_from_card, with_estimates
from .format1 import with_names
from .intervals import Intervals
from .latency import KernelLatency, KernelPredictors
from .network import Arrays, KernelNetwork
from .nnmeter1.forest import SUFFIX, Forest, read_forest
from .nnmeter1.predictors import ForestPredictors
from .nnmeter1.rules import NnMeterRules, parse_nnmeter_rules
from .warmth import COLD, Warmth

CARD, WEIGHTS, CHECKSUMS = "pack.yaml", "weights.npz", "SHA256SUMS"
#: Files in packs of forests.
RULE_FILE, FORESTS = "fusion_rules.json", "forests"
#: Format of packs written now: weights have names. In format 1 they go by position.
FORMAT = 2
_READ_FORMATS = (1, FORMAT)
#: Required entries of a card, by kind of the pack; a card without a kind is of the first kind.
_REQUIRED = {
    "network": ("format", "name", "version", "category", "fusion_rules", "kernel_types"),
    "forests": ("format", "name", "version", "category", "forests", "kernel_types"),
}
#: Entries that a card may have.
_OPTIONAL = {"calibration", "intervals", "rates", "warmth"}
_KERNEL_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
#: Parses the same as SafeLoader but many times faster, where PyYAML has it.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Pack:
    """A loaded pack.

    Attributes:
        card: content of ``pack.yaml``.
        rules: fusion rules.
        predictors: kernel predictors.
        weights: arrays as stored, which tell one content from another; empty for forests.
    """

    card: dict[str, Any]
    rules: FusionRules
    predictors: KernelPredictors
    weights: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Device name."""
        return str(self.card["name"])

    @property
    def version(self) -> float:
        """Pack version."""
        return float(self.card["version"])

    @cached_property
    def calibration(self) -> Calibration | None:
        """What adapts its latencies to another device, or None."""
        entry = self.card.get("calibration")
        return None if entry is None else Calibration.from_card(entry)

    @property
    def offset_ms(self) -> float:
        """Latency in ms that each run of a model takes besides its kernels."""
        return self.calibration.offset_ms if self.calibration else 0.0

    @cached_property
    def warmth(self) -> Warmth:
        """How much less a small network takes than its kernels."""
        entry = self.card.get("warmth")
        return COLD if entry is None else Warmth.from_card(entry)

    @cached_property
    def rates(self) -> Rates:
        """Costs of work on the device, which estimates rest on; those on the card count."""
        entry = self.card.get("rates")
        return fit_rates(self.predictors) if entry is None else rates_from_card(entry)

    @cached_property
    def intervals(self) -> Intervals | None:
        """What tells how far its latencies may be off; None for packs before 2.1 and nn-Meter's."""
        entry = self.card.get("intervals")
        return None if entry is None else Intervals.from_card(entry)

    @cached_property
    def prototypes(self) -> Prototypes | None:
        """Kernels that stand for all that were measured; None if the pack has none."""
        return Prototypes.from_arrays(self.weights)

    def doubt(self, kernels: Sequence[Kernel], latencies: Sequence[KernelLatency]) -> Doubt | None:
        """Doubt about a model of these kernels, each of batch 1; None if the pack has no prototypes."""
        if self.prototypes is None or not isinstance(self.predictors, KernelNetwork):
            return None
        return doubt_of(kernels, latencies, self.predictors, self.prototypes)

    def latencies(self, kernels: Sequence[Kernel]) -> list[KernelLatency]:
        """Latency of each kernel in a network that is not small, see :attr:`warmth`.

        It is an estimate where the pack has no predictor for its type.
        """
        found = self.predictors.latencies(kernels)
        if any(latency.basis in ("estimated", "unpredicted") for latency in found):
            found = with_estimates(kernels, found, self.rates, self.predictors)
        if self.calibration is None:
            return found
        return [
            latency if latency.ms is None else latency._replace(
                ms=self.calibration.kernel_ms(kernel_type(kernel), latency.ms)
            )
            for kernel, latency in zip(kernels, found, strict=True)
        ]

    def kernel_graph(self, graph: nx.DiGraph) -> nx.DiGraph:
        """Kernel graph of a finished model graph under the device's fusion rules."""
        return fuse(graph, self.rules)


def read_card(folder: Path) -> dict[str, Any]:
    """Read the card of the pack in ``folder``, and check its checksum.

    Raises:
        PackError: the card is missing, damaged or of an unknown format.
    """
    card = read_yaml(_verified(folder, CARD), str(folder / CARD))
    kind = card.get("kind", "network")
    if not isinstance(kind, str) or kind not in _REQUIRED:
        raise PackError(f"{folder / CARD} is of the unknown kind {reprlib.repr(kind)}; update nnmeter_nas")
    if any(key not in card for key in _REQUIRED[kind]):
        raise PackError(f"{folder / CARD} lacks one of {', '.join(_REQUIRED[kind])}")
    if card["format"] not in _READ_FORMATS:
        raise PackError(
            f"{folder} has pack format {card['format']}, this version reads "
            f"{' and '.join(map(str, _READ_FORMATS))}; update nnmeter_nas"
        )
    parsers: dict[str, Callable[[Any], Any]] = {
        "version": float,
        "fusion_rules": parse_rules,
        "kernel_types": _names,
        "forests": _forest_sizes,
        "calibration": Calibration.from_card,
        "intervals": Intervals.from_card,
        "rates": rates_from_card,
        "warmth": Warmth.from_card,
    }
    for entry, parse in parsers.items():
        try:
            if entry in _REQUIRED[kind] or entry in _OPTIONAL & set(card):
                parse(card[entry])
        # People write cards: an entry may hold anything that YAML can.
        except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
            text = reprlib.repr(card[entry])
            raise PackError(f"{folder / CARD} has no usable {entry}: {text} ({error})") from error
    return card


def load_pack(folder: str | Path) -> Pack:
    """Load the pack in ``folder``. Forests are only opened; predictions read them as needed.

    Checks the size of forests, and the hash of everything else; :func:`verify_pack` checks all hashes.

    Raises:
        PackError: a file is missing or damaged, or the format is unknown.
    """
    folder = Path(folder)
    card = read_card(folder)
    if card.get("kind") == "forests":
        rules = parse_rule_file(_verified(folder, RULE_FILE), str(folder / RULE_FILE))
        forests = _forest_predictors(folder, card)
        return Pack(card, _for_predictors(rules, forests), forests)
    weights = _weights(folder)
    network = _network(weights, _names(card["kernel_types"]), card["format"])
    return Pack(card, _for_predictors(parse_rules(card["fusion_rules"]), network), network, weights)


def check_pack(folder: Path) -> tuple[tuple[str, str], ...]:
    """Check the hashes of all files except forests, which may take gigabytes; return all names and hashes.

    Raises:
        PackError: a file is missing or damaged.
    """
    sums = read_checksums(folder)
    for name in sums:
        if not name.startswith(f"{FORESTS}/"):
            _verified(folder, name)
    return tuple(sums.items())


def verify_pack(folder: str | Path) -> None:
    """Check the hashes of all files of the pack in ``folder``.

    Raises:
        PackError: a file is missing or damaged, or the format is unknown; the message names the file.
    """
    folder = Path(folder)
    card = read_card(folder)
    sums = read_checksums(folder)
    forests = {forest_file(kernel) for kernel in card.get("forests", {})}
    expected = {CARD, RULE_FILE, *forests} if forests else {CARD, WEIGHTS}
    if missing := expected - set(sums):
        raise PackError(f"{folder / CHECKSUMS} is damaged: it lacks {', '.join(sorted(missing))}")
    for name, digest in sums.items():
        try:
            if sha256(folder / name) != digest:
                raise _damaged(folder, name)
        except OSError as error:
            raise _incomplete(folder, error) from error


def forest_file(kernel: str) -> str:
    """Path of a kernel's forest inside a pack.

    Raises:
        ValueError: the name of the kernel cannot be a file name.
    """
    if not _KERNEL_NAME.fullmatch(kernel):
        raise ValueError(f"{kernel[:100]!r} is no name of a kernel")
    return f"{FORESTS}/{kernel}{SUFFIX}"


def parse_rule_file(content: bytes, name: str) -> NnMeterRules:
    """Parse fusion rules in nn-Meter's JSON; messages call the file ``name``.

    Raises:
        PackError: the content is not JSON, or not an object of rules with ``obey``.
    """
    try:
        return parse_nnmeter_rules(json.loads(content))
    except (ValueError, RecursionError) as error:
        raise PackError(f"{name} is not valid JSON: {error}") from error
    except PackError as error:
        raise PackError(f"{name} holds no fusion rules: {error}") from error


def read_yaml(content: bytes, name: str) -> dict[str, Any]:
    """Read a mapping in YAML; messages call the file ``name``.

    Raises:
        PackError: the content is not a mapping.
    """
    try:
        found = yaml.load(content.decode("utf-8", errors="replace"), Loader=_YAML_LOADER)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise PackError(f"{name} is not valid YAML: {error}") from error
    if not isinstance(found, dict):
        raise PackError(f"{name} is no mapping of names to values")
    return found


def _for_predictors(rules: FusionRules, predictors: KernelPredictors) -> FusionRules:
    """``rules`` without the whole patterns that ``predictors`` do not know: their operators are priced."""
    known = {name for name in rules.units if predictors.covers(Kernel(name, [], {}, [], []))}
    return replace(rules, units=frozenset(known))


def _weights(folder: Path) -> Arrays:
    try:
        with np.load(io.BytesIO(_verified(folder, WEIGHTS)), allow_pickle=False) as stored:
            return dict(stored)
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise PackError(f"{folder / WEIGHTS} holds no arrays: {error}") from error


def _network(weights: Arrays, measured: list[str], pack_format: int) -> KernelNetwork:
    """The network of ``weights``; checks that the card lists the same ``measured`` kernel types."""
    network = KernelNetwork.from_arrays(with_names(weights, measured) if pack_format == 1 else weights)
    if set(network.names.measured) != set(measured):
        raise PackError(
            "the card and the weights disagree on the kernel types that were measured: "
            f"{', '.join(measured)} and {', '.join(network.names.measured)}"
        )
    return network


def _names(names: Any) -> list[str]:
    """Check a list of names on a card."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("not a list of names")
    return names


def _forest_predictors(folder: Path, card: dict[str, Any]) -> ForestPredictors:
    forests: dict[str, Forest] = {}
    for kernel, size in _forest_sizes(card["forests"]).items():
        path = folder / forest_file(kernel)
        try:
            if path.stat().st_size != size:
                raise PackError(f"{path} is damaged: it takes other than {size} bytes; import it again")
        except OSError as error:
            raise _incomplete(folder, error) from error
        forests[kernel] = read_forest(path)
    return ForestPredictors(forests)


def _forest_sizes(forests: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Size in bytes of each kernel's forest, as on the card."""
    for kernel in forests:
        forest_file(kernel)
    return {kernel: int(facts["bytes"]) for kernel, facts in forests.items()}


def save_pack(
    folder: str | Path, card: dict[str, Any], network: KernelNetwork, prototypes: Prototypes | None = None
) -> None:
    """Write a pack into ``folder``. Checksums are written last, so a partial pack does not load."""
    folder = Path(folder)
    more = {} if prototypes is None else prototypes.to_arrays()
    write_npz(folder / WEIGHTS, {**network.to_arrays(), **more})
    write_card(folder, card)
    write_checksums(folder, [CARD, WEIGHTS])


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Write the card of a pack into ``folder``."""
    card = {"format": FORMAT, **{key: value for key, value in card.items() if key != "format"}}
    text = yaml.safe_dump(card, sort_keys=False, allow_unicode=True, width=110)
    write_bytes(folder / CARD, text.encode())


def write_checksums(folder: Path, names: Iterable[str]) -> None:
    """Write the hashes of the files ``names``; this completes the pack in ``folder``."""
    sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    write_bytes(folder / CHECKSUMS, sums.encode())


def read_checksums(folder: Path) -> dict[str, str]:
    """Hash of every file of a pack, by its path inside the folder.

    Raises:
        PackError: the hashes are missing.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError as error:
        raise _incomplete(folder, error) from error
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _verified(folder: Path, name: str) -> bytes:
    """Content of a pack's file; raises if it does not match the checksum."""
    digest = read_checksums(folder).get(name)
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise _incomplete(folder, error) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(folder, name)
    return content


def _incomplete(folder: Path, error: OSError) -> PackError:
    return PackError(f"predictor pack {folder} is incomplete: {error.filename} is missing")


def _damaged(folder: Path, name: str) -> PackError:
    return PackError(
        f"{folder / name} is damaged: its SHA-256 is not the one in {CHECKSUMS}; reinstall it"
    )
