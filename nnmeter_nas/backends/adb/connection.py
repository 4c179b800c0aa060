"""Reach a phone with the program adb: choose it, run a command in its shell, put a file there."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import DeviceLostError, MeasurementError, MissingPackageError

#: Seconds for what takes no time.
_QUICK_S = 20.0
#: What the shell of the phone says last: without it the connection broke, and older phones tell no exit code.
_END = "nnmeter-nas-ended"
_ENDED = re.compile(rf"(?:^|\n){_END} (\d+)\s*$")
#: States that pass, and how long to wait for that, in s.
_UNSETTLED, _SETTLED_S = ("authorizing", "connecting", "offline"), 2.0
#: A phone that is reached over the network.
_ADDRESS = re.compile(r"[^:]+:\d+")
#: What to do about a phone in such a state.
_ADVICE = {
    "unauthorized": "unlock it and allow this computer in the question that it shows",
    "authorizing": "unlock it and allow this computer in the question that it shows",
    "no permissions": "let this user reach its USB device (udev rules), or start adb's server as root",
    "offline": "take the cable out and put it in again",
    "": "plug it in, with USB debugging on",
}


class Adb:
    """A phone that adb reaches.

    Attributes:
        serial: what adb calls it.
    """

    def __init__(self, serial: str) -> None:
        self.serial = serial

    @classmethod
    def to(cls, serial: str) -> Adb:
        """The phone with this serial number or address, or else the only one that is attached.

        Raises:
            DeviceLostError: it is not there or not ready, or several are and none was named.
            MissingPackageError: there is no adb.
        """
        if not serial:
            states = _states()
            if len(states) > 1:
                named = ", ".join(f"{one} ({state})" for one, state in states.items())
                raise DeviceLostError(f"several phones are attached: {named}; name one by serial=SERIAL")
            if not states:
                raise DeviceLostError(f"adb finds no phone; {_ADVICE['']}")
            [serial] = states
        found = cls(serial)
        if not found.is_there():
            raise found.lost()
        return found

    def is_there(self) -> bool:
        """Whether the phone answers; one that is reached over the network is called again."""
        return self._state() == "device"

    def _state(self) -> str:
        """What adb says of the phone; nothing if it does not know it."""
        state = _states().get(self.serial, "")
        if state in ("", "offline") and _ADDRESS.fullmatch(self.serial):
            _adb(["connect", self.serial], _QUICK_S)
            state = self._settled()
        return state

    def _settled(self) -> str:
        """What adb says of the phone once it has had time to answer."""
        end = time.monotonic() + _SETTLED_S
        while (state := _states().get(self.serial, "")) in _UNSETTLED and time.monotonic() < end:
            time.sleep(0.1)
        return state

    def lost(self, why: str = "") -> DeviceLostError:
        """An error that says that the phone is lost, and what to do."""
        state = self._state()
        if state == "device":
            return DeviceLostError(f"the connection to phone {self.serial} broke{why}")
        is_known = "is not there" if not state else f"is {state}"
        return DeviceLostError(f"phone {self.serial} {is_known}{why}; {_ADVICE.get(state, _ADVICE[''])}")

    def shell(self, command: str, limit_s: float = _QUICK_S) -> tuple[int, str]:
        """Run a command in the phone's shell; return its exit code, and all that it printed.

        Raises:
            DeviceLostError: the phone does not answer.
            TimeoutError: the command did not end in time; it may still run.
        """
        wrapped = f"{{ {command}\n}} 2>&1; code=$?; echo; echo {_END} $code"
        try:
            _, output = _adb(["-s", self.serial, "shell", wrapped], limit_s)
        except TimeoutError:
            if self._state() != "device":
                raise self.lost() from None
            raise
        ended = _ENDED.search(output)
        if ended is None:
            raise self.lost()
        return int(ended[1]), output[: ended.start()].strip("\n")

    def push(self, local: Path, remote: str, limit_s: float) -> None:
        """Put a file on the phone.

        Raises:
            DeviceLostError: the phone does not answer.
            OSError: its storage is full.
            MeasurementError: the phone refuses it.
        """
        try:
            code, output = _adb(["-s", self.serial, "push", str(local), remote], limit_s)
        except TimeoutError:
            raise self.lost(f" while {local.name} was pushed, which took over {limit_s:.0f} s") from None
        if code == 0:
            return
        if "No space left" in output:
            raise OSError(errno.ENOSPC, f"the storage of phone {self.serial} is full")
        if self._state() != "device" or "remote" not in output:
            raise self.lost(f" while {local.name} was pushed")
        raise MeasurementError(f"phone {self.serial} takes no file: {last_line(output)}")


def last_line(output: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "nothing")


def _states() -> Mapping[str, str]:
    """Serial number of each phone that adb knows, and its state: ``device`` if it is ready."""
    _, output = _adb(["devices"], _QUICK_S)
    lines = [line.split("\t", 1) for line in output.splitlines() if "\t" in line]
    # Some states are followed by what to do about them.
    return {serial: re.split(r"[;(]", state)[0].strip() for serial, state in lines}


def _adb(arguments: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Run adb; return its exit code and all that it printed.

    Raises:
        MissingPackageError: there is no adb.
        TimeoutError: it did not end in time.
    """
    program = shutil.which("adb")
    if program is None:
        raise MissingPackageError(
            "a phone is reached with the program adb, which is not there; on Debian and Ubuntu: apt install "
            "adb; elsewhere it is one of Android's platform tools"
        )
    try:
        ended = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"adb {arguments[0]} did not end within {limit_s:.0f} s") from None
    return ended.returncode, ended.stdout.decode(errors="replace").replace("\r\n", "\n")
