"""Patches of NNI that let searches run to their end; each patch is narrow and says its purpose.

Making a filter or a strategy of this package changes one thing in NNI: when an experiment starts, it checks
whether one exists (:func:`patch_when_experiment_starts`). Only then is NNI patched. :func:`patch` patches at
once, and :func:`unpatch` undoes everything.
"""

from __future__ import annotations

import importlib
import io
import logging
import os
import threading
import weakref
from pathlib import Path
from typing import Any

from ..files import write_bytes
from .endless import end_what_waits, tell_of_filters
from .graph_engine import name_what_torchscript_refuses
from .line import NAS, RETIARII, nni_line
from .manager_scripts import ADDRESS, LISTEN, OWN_PARAMETERS, environment_with, node_options
from .replaced import restore, wrap

logger = logging.getLogger(__name__)

#: Largest pickled part of a checkpoint, in bytes; mutators of 20 choices at ImageNet size take 0.5 MB.
CHECKPOINT_LIMIT = 64 * 1024 * 1024

#: Seconds that NNI's manager may take to start.
_MANAGER_S = 30

#: Existing filters, strategies and profilers of this package, and its stand-in for nn-Meter while installed.
#: We assume that experiments that start meanwhile use them.
_ours: weakref.WeakSet[Any] = weakref.WeakSet()
#: The last experiment that started while one of them existed.
_experiment: weakref.ref[Any] | None = None


def patch() -> None:
    """Patch NNI so that experiments end when they should, can be resumed, and say what an engine refuses.

    Does nothing without NNI. Calling it again changes nothing.
    """
    line = nni_line()
    if line == NAS:
        _hear_of_resumed_trials()
        _load_checkpoints_of_strategies()
        _save_state_of_filters()
        tell_of_filters()
    elif line == RETIARII:
        _lift_checkpoint_limit()
        _run_callbacks_one_at_a_time()
        end_what_waits()
    if line is not None:
        _mend_manager()
        _wait_for_manager()
    name_what_torchscript_refuses()


def unpatch() -> None:
    """Restore everything that this package has replaced in NNI, for experiments or anything else."""
    restore()
    logger.info("NNI is as it was installed")


def need_patches(user: Any) -> None:
    """Note that ``user`` needs NNI to be patched for as long as it exists."""
    _ours.add(user)


def no_longer_need_patches(user: Any) -> None:
    """Call :func:`unpatch` if nobody but ``user`` needs the patches."""
    _ours.discard(user)
    if not _ours:
        unpatch()


def patch_when_experiment_starts(user: Any) -> None:
    """Call :func:`patch` when an experiment starts while ``user``, a filter or a strategy, exists.

    An experiment saves its space before it touches its strategy or filter, so patching any later is too late.
    If ``user`` is made inside an experiment, as when NNI 2.10.1 resumes one, that experiment is patched at
    once. Does nothing without NNI.
    """
    need_patches(user)
    line = nni_line()
    if line is None:
        return
    if line == NAS:
        kind, start = importlib.import_module("nni.nas.experiment").NasExperiment, "start"
    else:
        kind, start = importlib.import_module("nni.nas.experiment.pytorch").RetiariiExperiment, "run"
        if importlib.import_module("nni.nas.execution.common.integration_api")._advisor is not None:
            patch()

    def starting(original: Any, experiment: Any, *args: Any, **options: Any) -> Any:
        global _experiment
        if _ours:
            patch()
            _experiment = weakref.ref(experiment)
        return original(experiment, *args, **options)

    wrap(kind, start, starting)


def experiment_space() -> Any:
    """Return the module that the running experiment searches, or None if none is running."""
    experiment = _experiment() if _experiment is not None else None
    return getattr(experiment, "base_model" if nni_line() == RETIARII else "model_space", None)


def _hear_of_resumed_trials() -> None:
    """Let NNI 3.0's engine keep listening when an experiment is resumed.

    NNI's manager first sends the earlier trials, in commands meant for tuners. The engine of architecture
    searches does not know these commands: the thread that listens for new trials dies, and the experiment
    waits for ever.
    """
    channel: Any = importlib.import_module("nni.runtime.tuner_command_channel.channel")
    commands = channel.CommandType

    def received(receive: Any, self: Any) -> Any:
        while (found := receive(self))[0] in (commands.ImportData, commands.AddCustomizedTrialJob):
            logger.debug("left out what tuners are told of a resumed experiment")
        return found

    wrap(channel.TunerCommandChannel, "_receive", received, "resumed experiments hear of their trials")


def _load_checkpoints_of_strategies() -> None:
    """Let NNI 3.0 resume an experiment with today's torch, and never leave a half-written checkpoint.

    The state of NNI's own strategies holds NumPy arrays and objects of NNI. Since 2.6, ``torch.load`` refuses
    them unless told to trust the file. The file is safe: the experiment wrote it itself. A process killed
    while it writes leaves the previous checkpoint.
    """
    module: Any = importlib.import_module("nni.nas.utils.serializer")
    torch: Any = importlib.import_module("torch")

    def save(_: Any, self: Any, checkpoint: Any, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes(f"{path}{self.suffix}", buffer.getvalue())

    def load(_: Any, self: Any, path: Path) -> Any:
        found = module._find_path_with_prefix(path, self.suffix)
        return torch.load(found, map_location=self._map_location, weights_only=False)

    wrap(module.TorchSerializer, "save", save)
    wrap(module.TorchSerializer, "load", load, "checkpoints of strategies can be loaded")


def _save_state_of_filters() -> None:
    """Let NNI 3.0's ``Filter`` save the state of its filter function, if it has any."""
    middleware: Any = importlib.import_module("nni.nas.strategy.middleware").Filter

    def saved(state_dict: Any, self: Any) -> dict[str, Any]:
        state: dict[str, Any] = state_dict(self)
        if hasattr(self.filter_fn, "state_dict"):
            state["filter_fn"] = self.filter_fn.state_dict()
        return state

    def restored(load_state_dict: Any, self: Any, state: dict[str, Any]) -> None:
        load_state_dict(self, state)
        if "filter_fn" in state:
            self.filter_fn.load_state_dict(state["filter_fn"])

    wrap(middleware, "load_state_dict", restored)
    wrap(middleware, "state_dict", saved, "Filter keeps the state of its function")


def _mend_manager() -> None:
    """Let NNI's manager give each trial its own parameters, and listen to those who must reach it alone.

    It runs pickled code from anyone who can reach it, and NNI lets it listen on every interface. Now it
    listens on this machine only, unless other machines must reach it, or the environment variable of
    :data:`.manager_scripts.ADDRESS` names another address.
    """
    launcher: Any = importlib.import_module("nni.experiment.launcher")

    def started(start: Any, what: Any, key: Any, config: Any, port: Any, *args: Any, **more: Any) -> Any:
        platform = getattr(config.training_service, "platform", "hybrid")
        manager = str(getattr(config, "nni_manager_ip", None) or "")
        is_local = platform == "local" or manager in ("localhost", "127.0.0.1")
        address = os.environ.get(ADDRESS) or ("127.0.0.1" if is_local else "0.0.0.0")
        if not is_local and not address.startswith("127."):
            logger.warning(
                "NNI's manager listens on %s, port %d, as the machines of the training service %s report to "
                "it. Whoever reaches that port can run code here: let a firewall admit those machines alone, "
                "and give the experiment a url_prefix that cannot be guessed; or use remote_machines of this "
                "package, with which it listens on this machine only", address, port, platform,
            )  # fmt: skip
        with environment_with({"NODE_OPTIONS": node_options(LISTEN, OWN_PARAMETERS), ADDRESS: address}):
            return start(what, key, config, port, *args, **more)

    what = "the manager listens on this machine only, and gives trials their own parameters"
    wrap(launcher, "start_experiment", started, what)


def _wait_for_manager() -> None:
    """Give NNI's manager more time to start: on a busy machine it needs more than NNI's three seconds."""
    launcher: Any = importlib.import_module("nni.experiment.launcher")

    def patient(check: Any, port: Any, retry: int = 3, url_prefix: Any = None) -> None:
        check(port, max(retry, _MANAGER_S), url_prefix)

    wrap(launcher, "_check_rest_server", patient, "the manager has time to start")


def _run_callbacks_one_at_a_time() -> None:
    """Give NNI 2.10.1's queue of trial events a lock.

    Two threads empty it without a lock, so an event can be handled twice. The second removal then fails, and
    NNI's dispatcher ends, and the experiment with it.
    """
    advisor: Any = importlib.import_module("nni.nas.execution.common.integration").RetiariiAdvisor
    lock = threading.RLock()

    def alone(process: Any, self: Any) -> None:
        with lock:
            process(self)

    wrap(advisor, "process_queued_callbacks", alone, "callbacks of trials run one at a time")


def _lift_checkpoint_limit() -> None:
    """Let NNI 2.10.1 save checkpoints of spaces with choices, and of strategies that were given a space.

    Before an experiment starts, it saves its mutators and its strategy, each of at most 4 KB. Under the graph
    engine a mutator holds the whole base model and is larger, so every experiment with a choice ends there
    (``PayloadTooLarge``, NNI issue 5237). This patch raises the limit for mutators and strategies to
    :data:`CHECKPOINT_LIMIT`. Everything else keeps the old limit.
    """
    experiment: Any = importlib.import_module("nni.nas.experiment.pytorch")
    large: tuple[Any, ...] = (
        importlib.import_module("nni.nas.mutable").Mutator,
        importlib.import_module("nni.nas.strategy.base").BaseStrategy,
    )
    too_large: Any = importlib.import_module("nni.common.serializer").PayloadTooLarge

    def dumped(dump: Any, payload: Any, *args: Any, **options: Any) -> Any:
        try:
            return dump(payload, *args, **options)
        except too_large:
            parts = payload if isinstance(payload, list) else [payload]
            if not all(isinstance(part, large) for part in parts):
                raise
            logger.info("checkpoint: %s saved beyond NNI's limit of 4 KB", type(parts[0]).__name__)
            return dump(payload, *args, **{**options, "pickle_size_limit": CHECKPOINT_LIMIT})

    wrap(experiment, "dump", dumped, "checkpoints of large spaces can be saved")
