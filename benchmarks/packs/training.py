"""Fit one kernel network on measured whole-model latencies, through the sum over kernels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nnmeter_nas.kernels.configuration import COLUMN, KERNEL_TYPES
from nnmeter_nas.packs.features import GROUP_OF_KIND, GROUPS, KINDS, TERMS, Features, features
from nnmeter_nas.packs.network import CORRECTION_BOUND, Arrays, KernelNetwork

from .kernel_table import KernelTable, Rows
from .training_settings import Settings

_INITIAL_WEIGHT = -4.0
#: Terms that cost the same whatever kind of kernel does them: a launch, a pass over a tensor.
_COMMON = torch.tensor([t in ("launch", "elementwise", "fused_passes", "fused_launches") for t in TERMS])


class _Network(nn.Module):
    """Torch twin of :func:`nnmeter_nas.packs.network.member_latency`, with the same parameters."""

    def __init__(self, descriptors: int, hidden: int) -> None:
        super().__init__()
        self.common_weights = nn.Parameter(torch.full((len(TERMS),), _INITIAL_WEIGHT))
        self.group_weights = nn.Parameter(torch.full((len(GROUPS), len(TERMS)), _INITIAL_WEIGHT))
        self.kind_weights = nn.Parameter(torch.zeros(len(KINDS), len(TERMS)))
        self.input_weights = nn.Parameter(torch.randn(descriptors, hidden) / descriptors**0.5)
        self.kind_bias = nn.Parameter(torch.zeros(len(KINDS), hidden))
        self.hidden_weights = nn.Parameter(torch.randn(hidden, hidden) / hidden**0.5)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))
        self.output_weights = nn.Parameter(torch.zeros(hidden))
        self.output_bias = nn.Parameter(torch.zeros(()))

    def shared_weights(self) -> Tensor:
        """Base weights by group, ``[GROUPS, TERMS]``; those of common terms are the same in all groups."""
        return torch.where(_COMMON, self.common_weights, self.group_weights)

    def forward(self, kinds: Tensor, terms: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Latency in ms and correction of each configuration, ``[n]`` both."""
        weights = nn.functional.softplus(self.shared_weights()[_GROUP_OF_KIND] + self.kind_weights)
        base = (weights[kinds] * terms).sum(1)
        hidden = nn.functional.silu(inputs @ self.input_weights + self.kind_bias[kinds])
        hidden = nn.functional.silu(hidden @ self.hidden_weights + self.hidden_bias)
        raw = hidden @ self.output_weights + self.output_bias
        correction = CORRECTION_BOUND * torch.tanh(raw / CORRECTION_BOUND)
        return base * torch.exp(correction), correction

    def arrays(self) -> Arrays:
        """Parameters as :func:`nnmeter_nas.packs.network.member_latency` takes them."""
        found = {
            name: p.detach().numpy().astype(np.float32)
            for name, p in self.named_parameters()
            if name != "common_weights"
        }
        return {**found, "group_weights": self.shared_weights().detach().numpy().astype(np.float32)}


_GROUP_OF_KIND = torch.from_numpy(GROUP_OF_KIND)


@dataclass(frozen=True)
class _Inputs:
    """Features as tensors."""

    kinds: Tensor
    terms: Tensor
    descriptors: Tensor

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.kinds[index], self.terms[index], self.descriptors[index]


def fit_member(
    table: KernelTable, device: str, models: npt.NDArray[np.int64], settings: Settings, seed: int
) -> KernelNetwork:
    """A network of one member, fitted on the ``models`` (indices) of ``table`` measured on ``device``.

    Deterministic for a seed on one thread.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    seen = np.unique(np.concatenate([table.index[table.start[m] : table.start[m + 1]] for m in models]))
    blank = _blank_network(table.configurations[seen])
    inputs = _inputs(blank, features(table.configurations))
    smaller, larger = (
        _inputs(blank, features(rows)) for rows in growth_pairs(table.configurations[seen], rng)
    )
    log_latency = torch.from_numpy(np.log(table.measured(device))).float()
    index = torch.from_numpy(table.index.astype(np.int64))

    network = _Network(inputs.descriptors.shape[1], settings.hidden)
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
                + settings.monotony_penalty * shrinkage.mean()
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return dataclasses.replace(blank, members=[network.arrays()])


def _kernels_of(table: KernelTable, models: npt.NDArray[np.int64], index: Tensor) -> tuple[Tensor, Tensor]:
    """Configurations of all kernels of ``models``, and the position in ``models`` that each belongs to."""
    counts = table.start[models + 1] - table.start[models]
    owner = np.repeat(np.arange(len(models)), counts)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    kernels = index[torch.from_numpy(np.repeat(table.start[models], counts) + offset)]
    return kernels, torch.from_numpy(owner)


def _blank_network(rows: Rows) -> KernelNetwork:
    """A network without members that standardises as ``rows`` (those seen in training) ask for."""
    descriptors = features(rows).descriptors
    center, scale = descriptors.mean(0), descriptors.std(0) + 1e-6
    standard = (descriptors - center) / scale
    kinds = rows[:, COLUMN["type"]].astype(int)
    low = np.full((len(KERNEL_TYPES), rows.shape[1]), np.inf)
    high = -low
    np.minimum.at(low, kinds, rows)
    np.maximum.at(high, kinds, rows)
    shared = {
        "center": center,
        "scale": scale,
        "low": standard.min(0),
        "high": standard.max(0),
        "range_low": low,
        "range_high": high,
    }
    return KernelNetwork(**{name: a.astype(np.float32) for name, a in shared.items()}, members=[])


def _inputs(network: KernelNetwork, found: Features) -> _Inputs:
    return _Inputs(
        torch.from_numpy(found.kinds),
        torch.from_numpy(found.terms).float(),
        torch.from_numpy(network.standardise(found.descriptors)).float(),
    )


#: Sizes that grow together when a kernel grows.
_GROWING: tuple[tuple[str, ...], ...] = (("cin",), ("cout",), ("hin", "win", "hout", "wout"))


def growth_pairs(rows: Rows, rng: np.random.Generator, count: int = 40_000) -> tuple[Rows, Rows]:
    """Configurations and grown versions of them, inside and outside the range of ``rows``.

    Both are ``[count, COLUMNS]``. Of each pair the second has more input or output channels, a larger map
    or a larger kernel.
    """
    smaller = rows[rng.integers(0, len(rows), count)].copy()
    for sizes in _GROWING:
        _scale(smaller, sizes, np.where(rng.random(count) < 0.5, 2.0 ** rng.uniform(-3, 2, count), 1.0))
    _tie_channels(smaller)
    larger = smaller.copy()
    what = rng.integers(0, 4, count)
    factor = 2.0 ** rng.uniform(0.2, 2, count)
    for choice, sizes in enumerate(_GROWING):
        _scale(larger, sizes, np.where(what == choice, factor, 1.0))
    windowed = np.isin(
        larger[:, 0], [KERNEL_TYPES.index(t) for t in ("conv", "dwconv", "maxpool", "avgpool")]
    )
    larger[:, COLUMN["kh"]] += 2 * ((what == 3) & windowed)
    larger[:, COLUMN["kw"]] += 2 * ((what == 3) & windowed)
    _tie_channels(larger)
    return smaller, larger


def _scale(rows: Rows, columns: tuple[str, ...], factor: npt.NDArray[np.float64]) -> None:
    for name in columns:
        column = rows[:, COLUMN[name]]
        rows[:, COLUMN[name]] = np.where(column > 1, np.maximum(1, np.rint(column * factor)), column)


def _tie_channels(rows: Rows) -> None:
    """Kernels that keep their channels get equal ones, and a global pool a window of its whole map."""
    keeps = ~np.isin(rows[:, 0], [KERNEL_TYPES.index(t) for t in ("conv", "fc")])
    rows[keeps, COLUMN["cin"]] = rows[keeps, COLUMN["cout"]] = np.maximum(
        rows[keeps, COLUMN["cin"]], rows[keeps, COLUMN["cout"]]
    )
    pools = rows[:, 0] == KERNEL_TYPES.index("globalavgpool")
    for window, size in (("kh", "hin"), ("kw", "win")):
        rows[pools, COLUMN[window]] = rows[pools, COLUMN[size]]
