"""What strategies need of a candidate and of NNI, the same for 2.10.1 and 3.0."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from typing import Any

logger = logging.getLogger(__name__)

#: Bytes that one pickled mutator may take in a checkpoint; those of 20 choices at ImageNet size take 0.5 MB.
MUTATOR_SIZE_LIMIT = 64 * 1024 * 1024


def carries_operators(candidate: Any) -> bool:
    """Whether ``candidate`` is a graph IR with operators, as under the graph engine."""
    root = getattr(candidate, "root_graph", None)
    return root is not None and bool(root.edges)


def sample_of(candidate: Any) -> dict[str, Any]:
    """The choice made under each label, as one writes it in a fixed architecture.

    The graph engine calls candidate blocks ``layerchoice_<label>_<name>``; here they are ``<name>``.
    """
    sample = getattr(candidate, "sample", None)
    if sample is None:
        sample = {
            step.mutator.label: step.samples[0] if len(step.samples) == 1 else step.samples
            for step in getattr(candidate, "history", [])
        }
    return plain_sample(sample)


def plain_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """``sample`` without the prefixes that the graph engine gives to names of blocks."""
    return {
        label: value.removeprefix(f"layerchoice_{label}_") if isinstance(value, str) else value
        for label, value in sample.items()
    }


def build_module(candidate: Any) -> Any:
    """The torch module of a candidate that carries no operators.

    Raises:
        TypeError: ``candidate`` knows neither how to build itself nor the class it comes from.
    """
    if hasattr(candidate, "executable_model"):
        return candidate.executable_model()
    if getattr(candidate, "python_class", None) is None:
        raise TypeError(f"{type(candidate).__name__} is not a candidate of an NNI search space")
    fixed_arch = importlib.import_module("nni.retiarii").fixed_arch
    with fixed_arch(sample_of(candidate), verbose=False):
        return candidate.python_class(**(candidate.python_init_params or {}))


def mend_nni() -> None:
    """Mend the two faults of NNI 2.10.1's experiments that end a filtered search; see each function.

    Does nothing without NNI 2.10's experiments, or when called again.
    """
    if importlib.util.find_spec("nni") is None or importlib.util.find_spec("nni.nas.mutable") is None:
        return
    lift_checkpoint_limit()
    run_callbacks_one_at_a_time()


def run_callbacks_one_at_a_time() -> None:
    """Give NNI's queue of trial events a lock.

    Two threads work it off without one, so that an event can be handled twice; the second removal then
    fails, and NNI's dispatcher ends with the experiment.
    """
    advisor: Any = importlib.import_module("nni.nas.execution.common.integration").RetiariiAdvisor
    original = advisor.process_queued_callbacks
    if getattr(original, "holds_lock", False):
        return
    lock = threading.RLock()

    def process_queued_callbacks(self: Any) -> None:
        with lock:
            original(self)

    process_queued_callbacks.holds_lock = True  # type: ignore[attr-defined]
    advisor.process_queued_callbacks = process_queued_callbacks


def lift_checkpoint_limit() -> None:
    """Let NNI 2.10.1's graph engine write its checkpoint for spaces with choices.

    Before an experiment starts, it saves its mutators, each of at most 4 KB. Under the graph engine a
    mutator holds the whole base model and is larger, so that every experiment with a choice ends
    there (``PayloadTooLarge``, NNI issue 5237). After this, mutators are saved whatever their size up
    to :data:`MUTATOR_SIZE_LIMIT`; the limit stays for all else.
    """
    experiment: Any = importlib.import_module("nni.nas.experiment.pytorch")
    mutator_class: Any = importlib.import_module("nni.nas.mutable").Mutator
    too_large: Any = importlib.import_module("nni.common.serializer").PayloadTooLarge
    original = experiment.dump
    if getattr(original, "lifts_mutator_limit", False):
        return

    def dump(payload: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(payload, *args, **options)
        except too_large:
            if not isinstance(payload, list) or not all(isinstance(m, mutator_class) for m in payload):
                raise
            logger.info("checkpoint: %d mutators are saved beyond NNI's limit of 4 KB each", len(payload))
            return original(payload, *args, **{**options, "pickle_size_limit": MUTATOR_SIZE_LIMIT})

    dump.lifts_mutator_limit = True  # type: ignore[attr-defined]
    experiment.dump = dump
