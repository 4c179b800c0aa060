"""The machines of a file, reached by ssh: who they are, and whether each can run trials."""

from __future__ import annotations

import inspect
import json
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import SearchError, SettingsError
from . import machine

#: Seconds for a machine to take a connection, and to say what it has: importing torch takes long on some.
_CONNECT_S, _ANSWER_S = 20, 300


@dataclass(frozen=True)
class Machine:
    """A machine that takes ssh connections with a key.

    Attributes:
        host, port, user: where, and as whom.
        key: file of the private key.
        known_hosts: file with the machine's own key, as ssh keeps them; empty means ssh's files.
        python: the interpreter that trials run with, or its folder; empty means the first on the path there.
        gpus: numbers of the GPUs that may be used; None means all that nvidia-smi lists.
        trials_per_gpu: trials that share a GPU.
    """

    host: str
    user: str
    port: int = 22
    key: str = "~/.ssh/id_rsa"
    known_hosts: str = ""
    python: str = ""
    gpus: tuple[int, ...] | None = None
    trials_per_gpu: int = 1

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Machine:
        """Make a machine of the plain values that the settings of a search hold."""
        gpus = values.get("gpus")
        return cls(**{**values, "gpus": None if gpus is None else tuple(gpus)})

    @property
    def python_folder(self) -> str:
        """The folder of the interpreter; empty if none is given."""
        path = self.python
        return path.rpartition("/")[0] if path.rpartition("/")[2].startswith("python") else path.rstrip("/")

    def ssh(self, *options: str) -> list[str]:
        """Return the command that runs something there: the caller adds what. It asks for nothing."""
        known = ["-o", f"UserKnownHostsFile={self.known_hosts}"] if self.known_hosts else []
        return [
            "ssh", "-T", *known, "-p", str(self.port), "-i", self.key,
            "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}",
            "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", *options,
            f"{self.user}@{self.host}",
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.user}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def read_machines(path: str | Path) -> list[Machine]:
    """Read a YAML file with a list of machines, each with the fields of :class:`Machine`.

    Raises:
        SettingsError: the file cannot be read or is no such list, or the key of a machine is not there.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"machines={path} cannot be read ({error.strerror}); name a YAML file with host, user and key of "
            f"each machine"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no YAML file: {' '.join(str(error).split())}") from error
    if isinstance(found, Mapping):
        found = found.get("machines")
    if not isinstance(found, list) or not found:
        raise SettingsError(f"{path} has no machines: write `machines:`, and a `- host:` for each")
    return [_machine(f"{path}, machine {number}", entry) for number, entry in enumerate(found, 1)]


def _machine(place: str, entry: Any) -> Machine:
    """Make a machine of an entry of a file at ``place``."""
    known = [field.name for field in fields(Machine)]
    if not isinstance(entry, Mapping) or not {"host", "user"} <= entry.keys():
        raise SettingsError(f"{place}: it needs a host and a user, and may have {', '.join(known)}")
    if unknown := [str(name) for name in entry if name not in known]:
        way = "; passwords are not taken: NNI shows them on its page, so use a key" * ("password" in unknown)
        raise SettingsError(f"{place}: {', '.join(unknown)} is none of {', '.join(known)}{way}")
    values = dict(entry)
    if values.get("gpus") is not None:
        gpus = values["gpus"]
        values["gpus"] = tuple(gpus) if isinstance(gpus, list | tuple) else (gpus,)
    kinds: dict[str, type | tuple[type, ...]] = {"port": int, "trials_per_gpu": int}
    for name, value in values.items():
        parts = value if name == "gpus" and value is not None else [value]
        kind = int if name == "gpus" else kinds.get(name, str)
        if value is not None and not all(isinstance(part, kind) and part != "" for part in parts):
            raise SettingsError(f"{place}: {name}={value!r} is not of the kind {kind}")
    for name in ("key", "known_hosts"):  # HOME is another one for NNI
        if path := values.get(name, getattr(Machine, name)):
            values[name] = str(Path(path).expanduser().absolute())
    made = Machine(**values)
    if not Path(made.key).is_file():
        raise SettingsError(f"{place}: there is no key {made.key}; name the private key's file as `key:`")
    return made


def fit_machines(machines: Sequence[Machine], told: Callable[[str], None], gpus: int = 0) -> list[Machine]:
    """Return those of ``machines`` that can run trials of ``gpus`` GPUs each, and tell what the others lack.

    A machine whose file does not number its GPUs comes back with the numbers of those that it has.

    Raises:
        SearchError: none of them can.
    """
    fit, lacking = [], {}
    for one, found in check_machines(machines).items():
        if one.gpus is None and found.gpus:
            one = replace(one, gpus=tuple(range(found.gpus)))
        reasons = [*found.lacks]
        if not reasons and not places([one], gpus):
            reasons = [f"it has {len(one.gpus or ())} GPUs for trials, and a trial takes {gpus}"]
        if reasons:
            lacking[one] = "; ".join(reasons)
        else:
            fit.append(one)
    if not fit:
        reasons = [f"{one}: {why}" for one, why in lacking.items()]
        raise SearchError(f"none of the machines can run a trial: {' / '.join(reasons)}")
    for one, why in lacking.items():
        told(f"the machine {one} is left out: {why}")
    return fit


def places(machines: Sequence[Machine], gpus: int) -> int:
    """Return how many trials of ``gpus`` GPUs each the machines have room for: one each, if of none."""
    if not gpus:
        return len(machines)
    return sum(len(one.gpus or ()) * one.trials_per_gpu // gpus for one in machines)


@dataclass(frozen=True)
class Checked:
    """What a machine says of itself.

    Attributes:
        lacks: what keeps it from running trials: nothing, if it will do.
        gpus: how many GPUs it has.
    """

    lacks: list[str]
    gpus: int = 0


def check_machines(machines: Sequence[Machine]) -> dict[Machine, Checked]:
    """Ask each machine what it has.

    Raises:
        SearchError: there is no command ssh.
    """
    here = machine.facts()
    with ThreadPoolExecutor(len(machines)) as pool:
        answers = list(pool.map(_ask, machines))
    return {
        one: Checked([answer])
        if isinstance(answer, str)
        else Checked(machine.lacks(here, answer), answer["gpus"])
        for one, answer in zip(machines, answers, strict=True)
    }


def _ask(one: Machine) -> dict[str, Any] | str:
    """Return the facts of a machine, or why it tells none."""
    folder = one.python_folder
    pythons = [f"{folder}/python", f"{folder}/python3"] if folder else ["python", "python3"]
    choose = " || ".join(f"command -v {shlex.quote(python)}" for python in pythons)
    # The checking module goes in as the program.
    command = f"exec $({choose}) -"
    try:
        done = subprocess.run(
            [*one.ssh(), command], input=inspect.getsource(machine), text=True, capture_output=True,
            timeout=_ANSWER_S,
        )  # fmt: skip
        if done.returncode == 0:
            return dict(json.loads(done.stdout.strip().splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return f"it does not answer within {_ANSWER_S} s"
    except FileNotFoundError as error:
        raise SearchError("there is no command ssh on this machine: install OpenSSH's client") from error
    except (ValueError, IndexError):
        return f"its Python answers {done.stdout[-80:]!r}"
    if done.returncode == 127:
        return f"it has no {' or '.join(pythons)}; name its interpreter as `python:`"
    said = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return f"{'ssh' if done.returncode == 255 else 'its Python'} fails: {said[-1]}"
