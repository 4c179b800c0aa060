"""What is mended in NNI so that searches run to their end; each mend is narrow, and says what it is for."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import logging
import threading
from pathlib import Path
from typing import Any

from ..files import write_bytes

logger = logging.getLogger(__name__)

#: Bytes that one pickled part of a checkpoint may take; mutators of 20 choices at ImageNet size take 0.5 MB.
CHECKPOINT_LIMIT = 64 * 1024 * 1024


#: Marks a function of NNI that is mended.
_MENDED = "mended_by_nnmeter_nas"


def mend_nni() -> None:
    """Mend the faults of NNI's experiments that end a search, or keep it from being resumed.

    Does nothing without NNI, or when called again.
    """
    if importlib.util.find_spec("nni") is None:
        return
    if importlib.util.find_spec("nni.mutable") is not None:
        hear_of_resumed_trials()
        load_checkpoints_of_strategies()
        save_state_of_filters()
    elif importlib.util.find_spec("nni.nas.mutable") is not None:
        lift_checkpoint_limit()
        run_callbacks_one_at_a_time()


def hear_of_resumed_trials() -> None:
    """Let NNI 3.0's engine go on listening when an experiment is resumed.

    The manager begins with what has been tried before, in commands that are for tuners. The engine of
    architecture searches does not know them: the thread that would hear of new trials dies, and the
    experiment waits for ever.
    """
    channel: Any = importlib.import_module("nni.runtime.tuner_command_channel.channel")
    commands, original = channel.CommandType, channel.TunerCommandChannel._receive
    if getattr(original, _MENDED, False):
        return

    @functools.wraps(original)
    def mended(self: Any) -> Any:
        while (received := original(self))[0] in (commands.ImportData, commands.AddCustomizedTrialJob):
            logger.debug("left out what tuners are told of an experiment that is resumed")
        return received

    setattr(mended, _MENDED, True)
    channel.TunerCommandChannel._receive = mended
    logger.info("experiments: resumed ones hear of their trials")


def load_checkpoints_of_strategies() -> None:
    """Let NNI 3.0 resume an experiment with today's torch, and leave no half-written checkpoint behind.

    The state of its own strategies holds NumPy arrays and objects of NNI, which ``torch.load`` refuses since
    2.6 unless it is told to trust the file; it is one that the experiment wrote itself. A process that is
    killed while it writes leaves the checkpoint of before.
    """
    module: Any = importlib.import_module("nni.nas.utils.serializer")
    torch: Any = importlib.import_module("torch")
    serializer = module.TorchSerializer
    if getattr(serializer.load, _MENDED, False):
        return

    def save(self: Any, checkpoint: Any, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(f"{path}{self.suffix}", buffer.getvalue())

    def load(self: Any, path: Path) -> Any:
        found = module._find_path_with_prefix(path, self.suffix)
        return torch.load(found, map_location=self._map_location, weights_only=False)

    setattr(load, _MENDED, True)
    serializer.save, serializer.load = save, load
    logger.info("experiments: checkpoints of strategies can be loaded")


def save_state_of_filters() -> None:
    """Let NNI 3.0's ``Filter`` keep the state of the function it filters by, where that has any."""
    middleware: Any = importlib.import_module("nni.nas.strategy.middleware").Filter
    state_dict, load_state_dict = middleware.state_dict, middleware.load_state_dict
    if getattr(state_dict, _MENDED, False):
        return

    @functools.wraps(state_dict)
    def mended(self: Any) -> dict[str, Any]:
        state: dict[str, Any] = state_dict(self)
        if hasattr(self.filter_fn, "state_dict"):
            state["filter_fn"] = self.filter_fn.state_dict()
        return state

    @functools.wraps(load_state_dict)
    def mended_load(self: Any, state: dict[str, Any]) -> None:
        load_state_dict(self, state)
        if "filter_fn" in state:
            self.filter_fn.load_state_dict(state["filter_fn"])

    setattr(mended, _MENDED, True)
    middleware.state_dict, middleware.load_state_dict = mended, mended_load
    logger.info("Filter: keeps the state of its function")


def run_callbacks_one_at_a_time() -> None:
    """Give NNI's queue of trial events a lock.

    Two threads work it off without one, so that an event can be handled twice; the second removal then
    fails, and NNI's dispatcher ends with the experiment.
    """
    advisor: Any = importlib.import_module("nni.nas.execution.common.integration").RetiariiAdvisor
    original = advisor.process_queued_callbacks
    if getattr(original, _MENDED, False):
        return
    lock = threading.RLock()

    def process_queued_callbacks(self: Any) -> None:
        with lock:
            original(self)

    setattr(process_queued_callbacks, _MENDED, True)
    advisor.process_queued_callbacks = process_queued_callbacks


def lift_checkpoint_limit() -> None:
    """Let NNI 2.10.1 write its checkpoint of spaces with choices, and of strategies that were given a space.

    Before an experiment starts, it saves its mutators and its strategy, each of at most 4 KB. Under the graph
    engine a mutator holds the whole base model and is larger, so that every experiment with a choice ends
    there (``PayloadTooLarge``, NNI issue 5237). After this, mutators and what has an attribute
    ``LARGE_CHECKPOINT`` (strategies of this package) are saved whatever their size up to
    :data:`CHECKPOINT_LIMIT`; the limit stays for all else.
    """
    experiment: Any = importlib.import_module("nni.nas.experiment.pytorch")
    mutator_class: Any = importlib.import_module("nni.nas.mutable").Mutator
    too_large: Any = importlib.import_module("nni.common.serializer").PayloadTooLarge
    original = experiment.dump
    if getattr(original, _MENDED, False):
        return

    def dump(payload: Any, *args: Any, **options: Any) -> Any:
        try:
            return original(payload, *args, **options)
        except too_large:
            parts = payload if isinstance(payload, list) else [payload]
            large = (isinstance(part, mutator_class) or hasattr(part, "LARGE_CHECKPOINT") for part in parts)
            if not all(large):
                raise
            logger.info("checkpoint: %s saved beyond NNI's limit of 4 KB", type(parts[0]).__name__)
            return original(payload, *args, **{**options, "pickle_size_limit": CHECKPOINT_LIMIT})

    setattr(dump, _MENDED, True)
    experiment.dump = dump
