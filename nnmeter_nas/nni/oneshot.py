"""Access to NNI's one-shot strategies and profilers for estimators; they differ between 2.10.1 and 3.0."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from ..errors import MissingPackageError, SearchError
from .line import NAS, nni_line
from .patches import need_patches
from .replaced import is_replaced, replace, wrap

logger = logging.getLogger(__name__)

#: Samples that a filter may reject in a row.
_PATIENCE = 1000


def nni3(module: str) -> Any:
    """Import a module that only NNI 3.0 has.

    Raises:
        MissingPackageError: NNI is not installed, or older.
    """
    if nni_line() != NAS:
        raise MissingPackageError(
            f"{module} is NNI 3.0's; install nni>=3.0, or use HardwareLatencyEstimator under NNI 2.10.1"
        )
    return importlib.import_module(module)


def patch_oneshot(user: Any) -> None:
    """Patch NNI 3.0's one-shot strategies so that the penalties and filters of ``user`` take effect.

    Each function called here says why. Does nothing where these strategies cannot run, or when called again.
    :func:`nnmeter_nas.nni.unpatch` undoes it.
    """
    need_patches(user)
    if find_spec("pytorch_lightning") is None:
        return
    _keep_penalty_gradient()
    _filter_exports()
    _feed_enas()
    _filter_enas()


def _keep_penalty_gradient() -> None:
    """Let the penalty of ``DARTS``, ``GumbelDARTS`` and ``Proxyless`` move the architecture.

    They pass it the probabilities of the choices as plain numbers, so it has no gradient and latency never
    counts. With this patch, they pass tensors that depend on the architecture parameters.
    """
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.differentiable").DartsLightningModule
    export_probs = module.export_probs

    def differentiable(training_step: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        self.export_probs = functools.partial(_differentiable, self, export_probs)
        try:
            return training_step(self, *args, **kwargs)
        finally:
            del self.export_probs

    gain = "penalties of differentiable strategies get probabilities with a gradient"
    wrap(module, "training_step", differentiable, gain)


def _filter_exports() -> None:
    """Let ``RandomOneShot`` export only architectures that its filter accepts, as it does in training."""
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.sampling").RandomSamplingLightningModule

    def valid(export: Any, self: Any) -> Any:
        return self._repeat_until_valid(functools.partial(export, self))

    wrap(module, "export", valid, "what RandomOneShot exports passes its filter")


def _feed_enas() -> None:
    """Let ``ENAS`` run with Lightning 2.1 and newer.

    ENAS trains on batches of two loaders in turn, and must know which loader a batch is from. Newer Lightning
    does not tell the training step, so each batch carries the loader's number.
    """
    dataloader: Any = importlib.import_module("nni.nas.oneshot.pytorch._dataloader")
    if not is_replaced(dataloader, "ConcatLoader"):
        replace(dataloader, "ConcatLoader", _LoadersInTurn)
        logger.info("NNI patched: batches of ENAS tell which loader they are from")


class _LoadersInTurn:
    """Batches of several loaders, one loader after the other, as ``(batch, 0, number of the loader)``."""

    def __init__(self, loaders: Mapping[str, Any]) -> None:
        self.loaders = list(loaders.values())

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        return ((batch, 0, number) for number, loader in enumerate(self.loaders) for batch in loader)


def _filter_enas() -> None:
    """Let ``ENAS`` take a filter like ``RandomOneShot``, and train and export only accepted architectures."""
    strategy: Any = importlib.import_module("nni.nas.oneshot.pytorch.strategy").ENAS
    module: Any = importlib.import_module("nni.nas.oneshot.pytorch.sampling").EnasLightningModule
    range_filter: Any = importlib.import_module("nni.nas.oneshot.pytorch.profiler").RangeProfilerFilter

    def created(create: Any, self: Any, *args: Any, filter: Any = None, **options: Any) -> None:
        create(self, *args, **options)
        self.filter = range_filter(**filter) if isinstance(filter, dict) else filter

    def configured(configure: Any, self: Any, training_module: Any) -> Any:
        made = configure(self, training_module)
        made.filter = self.filter
        return made

    wrap(strategy, "configure_oneshot_module", configured)
    for name in ("resample", "export"):
        wrap(module, name, _until_accepted)
    wrap(strategy, "__init__", created, "ENAS takes a filter")


def _until_accepted(draw: Callable[[Any], Any], self: Any) -> Any:
    """Draw samples from a one-shot module until the module's filter accepts one."""
    for _ in range(_PATIENCE):
        sample = draw(self)
        if self.filter is None or self.filter(sample):
            return sample
    raise SearchError(f"the filter rejected {_PATIENCE} samples of ENAS in a row; widen its range")


def _differentiable(module: Any, export_probs: Any) -> dict[str, Any]:
    """Compute the result of ``export_probs`` anew from the module's architecture parameters."""
    probabilities: dict[str, Any] = export_probs(module)
    for part in module.supernet_modules():
        for label, alpha in _architecture_parameters(part):
            if len(probabilities.get(label, ())) == len(alpha):
                values = part._softmax(alpha)
                probabilities[label] = dict(zip(probabilities[label], values, strict=True))
    return probabilities


def _architecture_parameters(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield label and logits of the choices that a module of a supernet makes."""
    alpha: Any = getattr(part, "_arch_alpha", None)
    if hasattr(alpha, "items"):
        yield from alpha.items()
    elif alpha is not None:
        yield part.label, alpha
