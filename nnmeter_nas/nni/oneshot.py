"""What estimators need of NNI's one-shot strategies and profilers, which differ between 2.10.1 and 3.0."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..errors import MissingPackageError, SearchError

logger = logging.getLogger(__name__)

#: Samples that a filter may reject in a row.
PATIENCE = 1000
#: Marks a function of NNI that is mended.
_MENDED = "mended_by_nnmeter_nas"


def nni3(module: str) -> Any:
    """Import a module that only NNI 3.0 has.

    Raises:
        MissingPackageError: NNI is not installed, or older.
    """
    if importlib.util.find_spec("nni") is None or importlib.util.find_spec("nni.mutable") is None:
        raise MissingPackageError(
            f"{module} is NNI 3.0's; install nni>=3.0, or use HardwareLatencyEstimator under NNI 2.10.1"
        )
    return importlib.import_module(module)


def mend_strategies() -> None:
    """Mend what keeps penalties and filters of NNI 3.0's one-shot strategies from their effect.

    See each function. Does nothing where these strategies cannot run, or when called again.
    """
    if importlib.util.find_spec("pytorch_lightning") is None:
        return
    keep_penalty_gradient()
    filter_exports()
    feed_enas()
    filter_enas()


def keep_penalty_gradient() -> None:
    """Let the penalty of ``DARTS``, ``GumbelDARTS`` and ``Proxyless`` move the architecture.

    They hand it the probabilities of the choices as plain numbers, so that its gradient is nothing and
    latency never mattered. After this, they hand it tensors that depend on the architecture parameters.
    """
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.differentiable").DartsLightningModule
    training_step, export_probs = module.training_step, module.export_probs
    if getattr(training_step, _MENDED, False):
        return

    @functools.wraps(training_step)
    def mended(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.export_probs = functools.partial(_differentiable, self, export_probs)
        try:
            return training_step(self, *args, **kwargs)
        finally:
            del self.export_probs

    setattr(mended, _MENDED, True)
    module.training_step = mended
    logger.info("differentiable strategies: the penalty gets probabilities that have a gradient")


def filter_exports() -> None:
    """Let ``RandomOneShot`` export only architectures that its filter accepts, as it trains only such."""
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.sampling").RandomSamplingLightningModule
    export = module.export
    if getattr(export, _MENDED, False):
        return

    @functools.wraps(export)
    def mended(self: Any) -> Any:
        return self._repeat_until_valid(functools.partial(export, self))

    setattr(mended, _MENDED, True)
    module.export = mended
    logger.info("RandomOneShot: what it exports passes its filter")


def feed_enas() -> None:
    """Let ``ENAS`` run with Lightning 2.1 and newer.

    It trains on batches of two loaders in turn, and has to know which one a batch is from. Newer Lightning
    does not tell the training step, so the batches carry it themselves.
    """
    dataloader: Any = importlib.import_module("nni.nas.oneshot.pytorch._dataloader")
    if dataloader.ConcatLoader is not LoadersInTurn:
        dataloader.ConcatLoader = LoadersInTurn
        logger.info("ENAS: batches tell which loader they are from")


class LoadersInTurn:
    """Batches of several loaders, one loader after the other, as ``(batch, 0, number of the loader)``."""

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        self.loaders = list(loaders.values())

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        return ((batch, 0, number) for number, loader in enumerate(self.loaders) for batch in loader)


def filter_enas() -> None:
    """Let ``ENAS`` take a filter as ``RandomOneShot`` does; what that rejects is not trained or exported."""
    strategy: Any = importlib.import_module("nni.nas.oneshot.pytorch.strategy").ENAS
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.sampling").EnasLightningModule
    range_filter: Any = importlib.import_module("nni.nas.oneshot.pytorch.profiler").RangeProfilerFilter
    create, configure = strategy.__init__, strategy.configure_oneshot_module
    if getattr(create, _MENDED, False):
        return

    @functools.wraps(create)
    def mended_create(self: Any, *args: Any, filter: Any = None, **options: Any) -> None:
        create(self, *args, **options)
        self.filter = range_filter(**filter) if isinstance(filter, dict) else filter

    @functools.wraps(configure)
    def mended_configure(self: Any, training_module: Any) -> Any:
        configured = configure(self, training_module)
        configured.filter = self.filter
        return configured

    setattr(mended_create, _MENDED, True)
    strategy.__init__, strategy.configure_oneshot_module = mended_create, mended_configure
    module.resample, module.export = _until_accepted(module.resample), _until_accepted(module.export)
    logger.info("ENAS: takes a filter")


def _until_accepted(draw: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``draw`` a sample from a one-shot module, again and again until the module's filter accepts it."""

    @functools.wraps(draw)
    def repeated(self: Any) -> Any:
        for _ in range(PATIENCE):
            sample = draw(self)
            if self.filter is None or self.filter(sample):
                return sample
        raise SearchError(f"the filter rejected {PATIENCE} samples of ENAS in a row; widen its range")

    return repeated


def _differentiable(module: Any, export_probs: Any) -> dict[str, Any]:
    """What ``export_probs`` says of a one-shot module, computed anew from its architecture parameters."""
    probabilities: dict[str, Any] = export_probs(module)
    for part in module.supernet_modules():
        for label, alpha in _architecture_parameters(part):
            if len(probabilities.get(label, ())) == len(alpha):
                values = part._softmax(alpha)
                probabilities[label] = dict(zip(probabilities[label], values, strict=True))
    return probabilities


def _architecture_parameters(part: Any) -> Iterator[tuple[str, Any]]:
    """Label and logits of the choices that a module of a supernet makes."""
    alpha: Any = getattr(part, "_arch_alpha", None)
    if hasattr(alpha, "items"):
        yield from alpha.items()
    elif alpha is not None:
        yield part.label, alpha
