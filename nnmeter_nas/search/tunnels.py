"""Tunnels by ssh through which other machines reach NNI's manager, which listens on this machine only.

A tunnel also tells whether its machine is there: ssh ends it once the machine has not answered for 15 s, and
NNI then sees that the connection is lost.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

from .machines import Machine

logger = logging.getLogger(__name__)

#: Seconds between two attempts to reach a machine again.
_PAUSE_S = 5.0


@contextlib.contextmanager
def tunnels(
    machines: Sequence[Machine], port: int, told: Callable[[str], None] = logger.warning
) -> Iterator[list[Machine]]:
    """Let ``machines`` reach ``port`` of this machine under 127.0.0.1 there, until the context ends.

    A tunnel that breaks is opened again.

    Args:
        machines: as :func:`.machines.read_machines` returns them.
        port: of NNI's manager.
        told: called when a machine cannot be reached, and when it can be again.

    Yields:
        The machines that have a tunnel.
    """
    opened = [_Tunnel(machine, port, told) for machine in machines]
    try:
        yield [tunnel.machine for tunnel in opened if tunnel.is_open]
    finally:
        for tunnel in opened:
            tunnel.close()


class _Tunnel:
    """A tunnel to one machine, which a thread opens again whenever it breaks.

    Attributes:
        machine: the machine.
        is_open: whether it could be opened at first; one that could not is not tried again.
    """

    def __init__(self, machine: Machine, port: int, told: Callable[[str], None]) -> None:
        self.machine, self._port, self._told = machine, port, told
        self._closing = threading.Event()
        self._process = self._start()
        self.is_open = self._is_up()
        if self.is_open:
            threading.Thread(target=self._watch, daemon=True).start()
        else:
            told(f"no tunnel to {machine}: {self._errors()}")

    def close(self) -> None:
        """Close the tunnel for good."""
        self._closing.set()
        self._process.terminate()
        self._process.wait()

    def _start(self) -> subprocess.Popen[str]:
        place = f"127.0.0.1:{self._port}:127.0.0.1:{self._port}"
        # cat ends when nobody holds its input any more: the tunnel ends with this process, however that ends.
        command = [*self.machine.ssh("-o", "ExitOnForwardFailure=yes", "-R", place), "echo up; exec cat"]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _is_up(self) -> bool:
        """Wait until the tunnel is open, or has failed; return which."""
        assert self._process.stdout is not None
        return self._process.stdout.readline() == "up\n"

    def _errors(self) -> str:
        """Return why a tunnel failed."""
        _, errors = self._process.communicate()
        lines = [line for line in errors.splitlines() if line.strip()]
        return lines[-1] if lines else f"ssh ended with {self._process.returncode}"

    def _watch(self) -> None:
        """Open the tunnel again whenever it breaks."""
        is_lost = False
        while not self._closing.is_set():
            if not is_lost:
                self._process.wait()
                if self._closing.is_set():
                    return
                self._told(f"the machine {self.machine} is out of reach; its trials go to others")
            self._process = self._start()
            is_lost = not self._is_up()
            if is_lost:
                self._process.communicate()
                self._closing.wait(_PAUSE_S)
            else:
                self._told(f"the machine {self.machine} is there again")
