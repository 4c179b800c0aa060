"""Fit one kernel network to measured latencies of whole models, as sums over kernels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..kernels.configuration import COLUMN, FORMULA_TYPES, Configurations, FloatArray
from ..packs.features import DESCRIPTORS, values
from ..packs.network import CORRECTION_BOUND, Arrays, KernelNetwork
from ..packs.vocabulary import Vocabulary, new_vocabulary
from .settings import Settings
from .table import KernelTable

_INITIAL_WEIGHT = -4.0
#: Terms with the same cost in every kind of kernel: a launch, a pass over a tensor.
_COMMON = ("launch", "elementwise", "fused_passes", "fused_launches")
_LAUNCHES = ("launch", "fused_launches")


class _Network(nn.Module):
    """The torch version of :func:`nnmeter_nas.packs.network.member_latency`, with the same parameters."""

    def __init__(self, names: Vocabulary, hidden: int) -> None:
        super().__init__()
        kinds, terms, descriptors = len(names.kinds), len(names.terms), len(names.descriptors)
        self._group_of_kind = torch.from_numpy(names.group_of_kind)
        self._is_common = torch.tensor([term in _COMMON for term in names.terms])
        self._is_launch = torch.tensor([term in _LAUNCHES for term in names.terms])
        self.common_weights = nn.Parameter(torch.full((terms,), _INITIAL_WEIGHT))
        self.group_weights = nn.Parameter(torch.full((len(names.groups), terms), _INITIAL_WEIGHT))
        self.kind_weights = nn.Parameter(torch.zeros(kinds, terms))
        self.input_weights = nn.Parameter(torch.randn(descriptors, hidden) / descriptors**0.5)
        self.kind_bias = nn.Parameter(torch.zeros(kinds, hidden))
        self.hidden_weights = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output_weights = nn.Parameter(torch.zeros(hidden))
        self.output_bias = nn.Parameter(torch.zeros(()))

    def shared_weights(self) -> Tensor:
        """Return base weights by group, ``[groups, terms]``; all groups share the weights of common terms."""
        return torch.where(self._is_common, self.common_weights, self.group_weights)

    def weights(self) -> Tensor:
        """Return the cost of each term by kind in ms, ``[kinds, terms]``."""
        return nn.functional.softplus(self.shared_weights()[self._group_of_kind] + self.kind_weights)

    def launch_ms(self) -> Tensor:
        """Return the mean cost of a launch over kinds."""
        return self.weights()[:, self._is_launch].mean()

    def forward(self, kinds: Tensor, terms: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latency in ms and the correction of each configuration, both ``[n]``."""
        base = (self.weights()[kinds] * terms).sum(1)
        hidden = nn.functional.silu(inputs @ self.input_weights + self.kind_bias[kinds])
        hidden = nn.functional.silu(hidden @ self.hidden_weights + self.hidden_bias)
        raw = hidden @ self.output_weights + self.output_bias
        correction = CORRECTION_BOUND * torch.tanh(raw / CORRECTION_BOUND)
        return base * torch.exp(correction), correction

    def arrays(self) -> Arrays:
        """Return the parameters in the form that :func:`nnmeter_nas.packs.network.member_latency` takes."""
        found = {
            name: p.detach().numpy().astype(np.float32)
            for name, p in self.named_parameters()
            if name != "common_weights"
        }
        return {**found, "group_weights": self.shared_weights().detach().numpy().astype(np.float32)}


@dataclass(frozen=True)
class _Inputs:
    """Features as tensors."""

    kinds: Tensor
    terms: Tensor
    descriptors: Tensor

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.kinds[index], self.terms[index], self.descriptors[index]


def fit_member(
    table: KernelTable,
    device: str,
    models: npt.NDArray[np.int64],
    settings: Settings,
    seed: int,
) -> KernelNetwork:
    """Fit a network of one member to the ``models`` (indices) of ``table``, measured on ``device``.

    The result is deterministic for a seed on one thread.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    seen = table.configurations[table.kernels_of(models)]
    blank = blank_network(seen)
    inputs = _inputs(blank, table.configurations)
    smaller, larger = (_inputs(blank, found) for found in growth_pairs(seen, rng))
    log_latency = torch.from_numpy(np.log(table.measured(device))).float()
    index = torch.from_numpy(table.index.astype(np.int64))
    kernel_ms = float(np.median(table.measured(device)[models] / np.diff(table.start)[models]))

    network = _Network(blank.names, settings.hidden)
    base = [network.common_weights, network.group_weights, network.kind_weights]
    rest = [p for name, p in network.named_parameters() if all(p is not b for b in base)]
    optimizer = torch.optim.AdamW(
        [
            {"params": base, "lr": 5 * settings.learning_rate, "weight_decay": 0.0},
            {"params": rest, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
        ]
    )
    steps = settings.epochs * -(-len(models) // settings.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [5 * settings.learning_rate, settings.learning_rate], total_steps=steps, pct_start=0.15
    )
    for _ in range(settings.epochs):
        order = rng.permutation(models)
        for first in range(0, len(order), settings.batch):
            batch = order[first : first + settings.batch]
            kernels, owner = _kernels_of(table, batch, index)
            distinct, position = torch.unique(kernels, return_inverse=True)
            latency, correction = network(*inputs[distinct])
            total = torch.zeros(len(batch)).index_add_(0, owner, latency[position])
            error = torch.log(total) - log_latency[batch]
            pairs = torch.from_numpy(rng.integers(0, len(smaller.kinds), settings.growth_pairs))
            shrinkage = torch.relu(torch.log(network(*smaller[pairs])[0] / network(*larger[pairs])[0]))
            loss = (
                0.1 * torch.log1p((error / settings.loss_scale).square()).mean()
                + settings.correction_penalty * correction.square().mean()
                + settings.kind_penalty * network.kind_weights.square().mean()
                + settings.launch_penalty * network.launch_ms() / kernel_ms
                + settings.monotony_penalty * shrinkage.mean()
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return dataclasses.replace(blank, members=[network.arrays()])


def rescaled(network: KernelNetwork, factor: float) -> KernelNetwork:
    """Multiply all latencies that ``network`` predicts by ``factor``."""
    groups = network.names.group_of_kind

    def times(member: Arrays) -> Arrays:
        group = _softplus_inverse(factor * np.logaddexp(0.0, member["group_weights"].astype(np.float64)))
        both = (member["group_weights"][groups] + member["kind_weights"]).astype(np.float64)
        kind = _softplus_inverse(factor * np.logaddexp(0.0, both)) - group[groups]
        return {**member, "group_weights": group.astype(np.float32), "kind_weights": kind.astype(np.float32)}

    return dataclasses.replace(network, members=[times(member) for member in network.members])


def _softplus_inverse(y: FloatArray) -> FloatArray:
    return np.asarray(y + np.log(-np.expm1(-y)))


def _kernels_of(table: KernelTable, models: npt.NDArray[np.int64], index: Tensor) -> tuple[Tensor, Tensor]:
    """Return the configurations of all kernels of ``models``, and each kernel's position in ``models``."""
    counts = table.start[models + 1] - table.start[models]
    owner = np.repeat(np.arange(len(models)), counts)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    kernels = index[torch.from_numpy(np.repeat(table.start[models], counts) + offset)]
    return kernels, torch.from_numpy(owner)


def blank_network(seen: Configurations) -> KernelNetwork:
    """Make a network without members, for the kernel types in ``seen`` and their range."""
    names = new_vocabulary(seen)
    priced = seen.by_declared_work(names.declared)
    descriptors = values(priced, DESCRIPTORS, names.descriptors)
    center, scale = descriptors.mean(0), descriptors.std(0) + 1e-6
    standard = (descriptors - center) / scale
    sizes = seen.sizes[:, [COLUMN[name] for name in names.columns]]
    by_type = [sizes[seen.is_type(name)] for name in names.measured]
    shared = {
        "center": center,
        "scale": scale,
        "low": standard.min(0),
        "high": standard.max(0),
        "range_low": np.stack([sizes.min(0) for sizes in by_type]),
        "range_high": np.stack([sizes.max(0) for sizes in by_type]),
    }
    return KernelNetwork(names, **{n: a.astype(np.float32) for n, a in shared.items()}, members=[])


def _inputs(network: KernelNetwork, found: Configurations) -> _Inputs:
    features = network.features(found)
    return _Inputs(
        torch.from_numpy(features.kinds),
        torch.from_numpy(features.terms).float(),
        torch.from_numpy(network.standardise(features.descriptors)).float(),
    )


#: Sizes that grow together when a kernel grows.
_GROWING: tuple[tuple[str, ...], ...] = (("cin",), ("cout",), ("hin", "win", "hout", "wout"))
_WINDOWED = ("conv", "dwconv", "maxpool", "avgpool")


def growth_pairs(
    found: Configurations, rng: np.random.Generator, count: int = 40_000
) -> tuple[Configurations, Configurations]:
    """Draw ``count`` configurations inside and outside the range of ``found``, and grow each of them.

    The second of a pair has more input or output channels, a larger map or a larger window. Half of the pairs
    are spread evenly over kernel types, so that rare ones are among them.
    """
    by_type = [np.flatnonzero(found.is_type(name)) for name in np.unique(found.types)]
    even = [rng.choice(mine, count // (2 * len(by_type))) for mine in by_type]
    rest = rng.integers(0, len(found), count - sum(map(len, even)))
    chosen = found[np.concatenate([*even, rest])]
    sizes = chosen.sizes.copy()
    for columns in _GROWING:
        _scale(sizes, columns, np.where(rng.random(count) < 0.5, 2.0 ** rng.uniform(-3, 2, count), 1.0))
    smaller = _resized(chosen, sizes)
    sizes = smaller.sizes.copy()
    what = rng.integers(0, 4, count)
    factor = 2.0 ** rng.uniform(0.2, 2, count)
    for choice, columns in enumerate(_GROWING):
        _scale(sizes, columns, np.where(what == choice, factor, 1.0))
    wider = 2 * ((what == 3) & smaller.is_type(*_WINDOWED))
    sizes[:, COLUMN["kh"]] += wider
    sizes[:, COLUMN["kw"]] += wider
    return smaller, _resized(smaller, sizes)


def _scale(sizes: npt.NDArray[np.float64], columns: tuple[str, ...], factor: npt.NDArray[np.float64]) -> None:
    for name in columns:
        column = sizes[:, COLUMN[name]]
        sizes[:, COLUMN[name]] = np.where(column > 1, np.maximum(1, np.rint(column * factor)), column)


def _resized(found: Configurations, sizes: npt.NDArray[np.float64]) -> Configurations:
    """Give kernels other ``sizes``, made consistent, and scale their declared work.

    Kernels that keep their number of channels get equal input and output channels. A global pool gets a
    window as large as its map. Declared work grows with the values read and written, and weights grow with
    the channels.
    """
    keeps = found.is_type(*FORMULA_TYPES) & ~found.is_type("conv", "fc")
    sizes[keeps, COLUMN["cin"]] = sizes[keeps, COLUMN["cout"]] = np.maximum(
        sizes[keeps, COLUMN["cin"]], sizes[keeps, COLUMN["cout"]]
    )
    pools = found.is_type("globalavgpool")
    for window, size in (("kh", "hin"), ("kw", "win")):
        sizes[pools, COLUMN[window]] = sizes[pools, COLUMN[size]]
    resized = Configurations(found.types, sizes, found.declared)
    work = _values_moved(resized) / _values_moved(found)
    weights = _channels(resized) / _channels(found)
    return Configurations(found.types, sizes, found.declared * np.stack([work, work, work, weights], axis=1))


def _values_moved(found: Configurations) -> npt.NDArray[np.float64]:
    """Count the values of one operand and of the result."""
    read = found.size("cin") * found.size("hin") * found.size("win")
    return read + found.size("cout") * found.size("hout") * found.size("wout")


def _channels(found: Configurations) -> npt.NDArray[np.float64]:
    return found.size("cin") + found.size("cout")
