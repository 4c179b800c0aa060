"""Where does a one-shot search land? ProxylessNAS on the space of the digits, once for each latency limit.

A one-shot search trains one super-network instead of many architectures. Its architectures are looked up
among the trained ones (:mod:`.digits`), so that they are judged like those of every other strategy. Needs
NNI 2.10.1 and torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from nnmeter_nas.costs.table import FactorTable, every_architecture
from nnmeter_nas.extras import load_extra
from nnmeter_nas.journal import Journal, read_journal

from .digits_space import TRAINING, digits_space

#: Limits of the searches, as quantiles of the latencies of all architectures.
QUANTILES = (0.25, 0.5, 0.75)
_FILE = "one_shot.jsonl"
#: Passes over the images; the first third trains the weights alone.
_EPOCHS = 30


class Landing(NamedTuple):
    """What the searches of one seed found together.

    Attributes:
        architectures: block names by position, one architecture a limit.
        trials: how many trainings of a single architecture take as long as these searches.
    """

    architectures: tuple[tuple[str, ...], ...]
    trials: float


class _Search(NamedTuple):
    device: str
    seed: int
    quantile: float
    epochs: int


def run_one_shot(
    device: str, seeds: Sequence[int], work: Path, console: Console, epochs: int = _EPOCHS
) -> Path:
    """Run the searches that ``work`` does not have yet, and return the file that keeps them.

    Args:
        device: applied hardware.
        seeds: of the searches; each searches once for every one of :data:`QUANTILES`.
        work: the folder of the comparison.
        console: where to tell what was found.
        epochs: of each search.

    Raises:
        MissingPackageError: NNI 2.10.1 is not installed.
        SearchError: a search fails.
    """
    load_extra("nni.retiarii.oneshot.pytorch.proxyless", "nni", "searching with ProxylessNAS (NNI 2.10.1)")
    work.mkdir(parents=True, exist_ok=True)
    with Journal(work / _FILE) as journal:
        known = [_Search(*(record[name] for name in _Search._fields)) for record in journal.records]
        for search in [_Search(device, seed, part, epochs) for seed in seeds for part in QUANTILES]:
            if search not in known:
                record = {**search._asdict(), **_run(search)}
                journal.append(record)
                console.print(
                    f"seed {search.seed}: {record['latency_ms']:.4g} ms of {record['limit_ms']:.4g} ms "
                    f"allowed, as long as {record['seconds'] / record['trial_seconds']:.0f} trials"
                )
    return work / _FILE


def landings(device: str, work: Path) -> dict[int, Landing]:
    """What the searches in the folder ``work`` found, by seed; empty if none were run there.

    Raises:
        SearchError: the file of the searches is damaged.
    """
    records = [record for record in read_journal(work / _FILE) if record["device"] == device]
    found: dict[int, Landing] = {}
    for seed in sorted({record["seed"] for record in records}):
        of_seed = [record for record in records if record["seed"] == seed]
        if len(of_seed) >= len(QUANTILES):
            found[seed] = Landing(
                tuple(tuple(record["blocks"]) for record in of_seed),
                sum(record["seconds"] / record["trial_seconds"] for record in of_seed),
            )
    return found


def _run(search: _Search) -> dict[str, Any]:
    """Search once; return what was found, and the seconds of CPU that it and a single trial took."""
    import torch

    from nnmeter_nas.estimators import HardwareLatencyEstimator
    from nnmeter_nas.estimators.datasets import load_dataset
    from nnmeter_nas.estimators.digits import train_on_digits
    from nnmeter_nas.estimators.proxyless_search import SearchSettings, chosen_network
    from nnmeter_nas.estimators.proxyless_search import search as one_shot
    from nnmeter_nas.estimators.proxyless_training import Workplace

    torch.set_num_threads(TRAINING["threads"])
    space = digits_space()
    # As the comparison does, it takes the estimate of what the pack has not measured.
    estimator = HardwareLatencyEstimator(search.device, space, space.input_shape, None, strict=False)
    limit = _quantile(estimator.table, search.quantile)
    settings = SearchSettings(
        epochs=search.epochs, warmup_epochs=search.epochs // 3, settle_epochs=0, seed=search.seed,
        train_batch_size=TRAINING["batch_size"], reference_latency=limit,
    )  # fmt: skip
    dataset = load_dataset("digits", None, space.input_shape, TRAINING["seed"])
    with TemporaryDirectory() as folder:
        start = time.process_time()
        found = one_shot(digits_space, dataset, estimator, settings, Workplace(Path(folder)))
        seconds = time.process_time() - start
    network = chosen_network(digits_space, found.architecture)
    start = time.process_time()
    train_on_digits(network, space.input_shape, **TRAINING)
    return {
        "limit_ms": limit,
        "latency_ms": found.table_latency_ms,
        "blocks": [found.architecture[label] for label in estimator.table.candidates],
        "seconds": seconds,
        "trial_seconds": time.process_time() - start,
    }


def _quantile(table: FactorTable, share: float) -> float:
    """Latency in ms that this share of all architectures does not exceed."""
    latencies = table.latencies(every_architecture([len(known) for known in table.candidates.values()]))
    return float(np.quantile(latencies, share))
