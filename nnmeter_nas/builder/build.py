"""Build a predictor pack of a device: measure networks in rounds, fit, and stop when it no longer helps."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..backends import Backend, as_attached, load_backend
from ..errors import NnMeterNasError, PackError, SettingsError, UnknownBackendError
from ..extras import load_extra
from ..packs.pack import read_card, save_pack
from ..packs.registry import pack_folders, user_packs
from ..packs.store import check_device_name, locked, user_pack, written_pack
from .attached import in_use
from .choosing import choose_networks
from .drift import warn_of_drift
from .evidence import VERSION, Evidence
from .fitting import predicted
from .lone import choose_pieces
from .measuring import measure
from .plan import Plan
from .rules import Found
from .warming import cross_fitted_warm, fit_warmth
from .worker import Worker, worker
from .workspace import PACK, RULES, SETTINGS, UNDISTURBED, Round, open_workspace, read_device

#: A build stops when so many rounds gained less than so many points within ±10 %.
_PATIENCE, _GAIN = 3, 1.0


def build(
    name: str,
    backend_name: str,
    folder: Path,
    plan: Plan,
    show: Callable[[Round], None],
    tell: Callable[[str], None],
    say: Callable[[str], None] = lambda text: None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Build the pack of a device, and keep it among the user's packs; return its folder.

    If that was done already, it does nothing.

    Args:
        name: name of the device.
        backend_name, options: as :func:`nnmeter_nas.backends.load_backend` takes them.
        folder: workspace. A build that was interrupted goes on from there, and measures nothing twice.
        plan: how much to measure.
        show: is called after each round, and at the start with the rounds of a build that goes on.
        tell: is called with what goes on within a round.
        say: is called with what an attached device says of itself, at the start and when that changes, and
            with what else a user should know.

    Raises:
        WorkspaceError: the workspace belongs to another device, backend, runtime or machine.
        UnknownBackendError, MissingPackageError: no such backend, or its runtime is not installed.
        MeasurementError: too few networks could be measured.
        DeviceLostError: an attached device is not there, or does not come back.
        SettingsError: no device can have this name, or another pack has it; the backend has no such option.

    Warns:
        LatencyWarning: the machine was disturbed during most visits.
    """
    for module in ("onnx", "scipy", "torch"):
        load_extra(module, "build", "building a predictor")
    name = _own_name(name)
    target = user_pack(name, VERSION)
    backend = load_backend(backend_name, options)
    device = {**identity(name, backend_name, backend), "plan": asdict(plan)}
    if _is_built(folder, device, target):
        return target
    with (
        open_workspace(folder, device) as workspace,
        in_use(backend, say),
        worker_of(backend, backend_name, plan.limit_s, options) as running,
    ):

        def within_budget(text: str) -> None:
            tell(f"{text}, {workspace.seconds / 60:.2f} of {plan.minutes:g} minutes")

        # The rules are written last: they tell that a build with this plan has come to its end.
        (folder / RULES).unlink(missing_ok=True)
        for found in workspace.rounds:
            show(found)
        network, rules = None, list[str]()
        if workspace.rounds:
            tell("fitting")
            evidence = Evidence.of(workspace, name)
            network, rules = evidence.fit(plan.seed), evidence.rules
        while not _is_enough(workspace.rounds, plan):
            names = choose_networks(workspace, plan, len(workspace.rounds), network, rules)
            measure(workspace, names, backend, running, plan.visits, within_budget, say)
            if not workspace.tells_kernels:
                if (unknown := workspace.unknown_operator) is not None:
                    say(
                        f"the backend tells what {unknown!r} took, which is no operator of the networks that "
                        "it was given, so pieces of networks are measured too"
                    )
                pieces = choose_pieces(workspace, plan.seed, len(workspace.rounds), plan.round_size)
                measure(workspace, pieces, backend, running, plan.visits, within_budget, say)
            tell("fitting")
            evidence = Evidence.of(workspace, name)
            network, rules = evidence.fit(plan.seed), evidence.rules
            ms = predicted(network, evidence.table).mean(axis=0)
            workspace.end_round(evidence.judge(ms, workspace))
            evidence.report(workspace, ms, evidence.judges)
            show(workspace.rounds[-1])
        if workspace.undisturbed is not None:
            workspace.keep(UNDISTURBED, workspace.undisturbed.to_entry())
        warn_of_drift(workspace.visits, workspace.undisturbed)
        running.close()  # it holds networks that are not measured again
        say("measuring has ended; fitting the pack takes minutes")
        tell("fitting the pack")
        warmth = fit_warmth(evidence.table, evidence.source, plan.seed)
        crossed = cross_fitted_warm(evidence.table, evidence.source, warmth, plan.seed)
        card, network, prototypes = evidence.pack(workspace, plan, warmth, crossed)
        with locked(f"{name}-{VERSION}"), written_pack(target) as partial:
            save_pack(partial, card, network, prototypes)
        shutil.rmtree(folder / PACK, ignore_errors=True)
        shutil.copytree(target, folder / PACK)
        evidence.report(workspace, crossed.ms, warmth=warmth)
        workspace.write_yaml(RULES, _rules_entry(evidence.rules, evidence.votes))
    return target


def _own_name(name: str) -> str:
    """Return the name of a device of the user's own, in the spelling of a pack that was built of it.

    Raises:
        SettingsError: it is no name, or that of a pack that was not built.
    """
    try:
        name = check_device_name(name, "the new pack")
    except PackError as error:
        raise SettingsError(str(error)) from error
    for (device, version), folder in pack_folders().items():
        own = user_packs() in folder.parents
        if device == name and not (own and version == VERSION and _was_built(read_card(folder))):
            origin = "is there already and was not built" if own else "comes with this package"
            remove = f", or remove that one: nnmeter-nas predictors remove {name}" if own else ""
            raise SettingsError(
                f"a predictor {name} {version} {origin}; give your device another name{remove}"
            )
    return name


def _was_built(card: Mapping[str, Any]) -> bool:
    """Whether a pack with this card comes from a build as it is, and was not calibrated since."""
    return "trained_on" in card and "calibration" not in card


def _is_built(folder: Path, device: Mapping[str, Any], target: Path) -> bool:
    """Whether a build with the same plan has come to its end here."""
    if not (folder / RULES).exists() or not target.exists():
        return False
    before = read_device(folder)
    return all(before.get(key) == value for key, value in device.items())


def worker_of(
    backend: Backend, name: str, limit_s: float, options: Mapping[str, str] | None
) -> AbstractContextManager[Worker]:
    """A worker of a backend that was made by ``name`` and ``options``: of the same device, and as patient."""
    attached = as_attached(backend)
    found = options if attached is None else attached.options  # those say which device was found
    return worker(name, limit_s * getattr(backend, "patience", 1.0), found)


def identity(name: str, backend_name: str, backend: Backend) -> dict[str, Any]:
    """What a workspace must agree with: the device, its backend, the runtime and the machine that runs it."""
    attached = as_attached(backend)
    found: dict[str, Any] = {
        "name": name,
        "backend": backend_name,
        "runtime": f"{backend.name} {_version(backend, backend_name)}",
        "machine": _machine() if attached is None else attached.machine,
    }
    if attached is not None:
        found |= {"category": attached.category, SETTINGS: dict(attached.settings)}
    return found


def _version(backend: Backend, name: str) -> str:
    """The version of a backend's runtime, which may be asked of a device.

    Raises:
        UnknownBackendError: it does not tell.
    """
    try:
        return str(backend.version)
    except NnMeterNasError:
        raise
    except Exception as error:  # a backend of the user's may raise anything
        raise UnknownBackendError(
            f"backend {name!r} does not tell its version: {type(error).__name__}: {error}"
        ) from error


def _machine() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _is_enough(rounds: Sequence[Round], plan: Plan) -> bool:
    """Whether to stop: most of another round would be beyond the budget, or accuracy no longer improves."""
    if not rounds:
        return False
    last = rounds[-1]
    took = last.minutes - (rounds[-2].minutes if len(rounds) > 1 else 0.0)
    if last.minutes + took / 2 >= plan.minutes:
        return True
    if last.networks + last.left_out + plan.round_size > plan.networks:
        return True
    if len(rounds) <= _PATIENCE:
        return False
    before = max(one.within_10 for one in rounds[:-_PATIENCE])
    return max(one.within_10 for one in rounds[-_PATIENCE:]) < before + _GAIN


def _rules_entry(rules: Sequence[str], votes: Sequence[Found]) -> dict[str, Any]:
    return {
        "rules": list(rules),
        "votes": {
            "->".join(one.names): {"fused": one.fused, "seen": one.seen}
            | ({"uncertain": True} if one.uncertain else {})
            for one in votes
        },
    }
