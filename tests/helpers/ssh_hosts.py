"""Machines that take ssh connections: network namespaces of this one, each with a server of OpenSSH's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

_SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass
class Host:
    """A machine.

    Attributes:
        name: of its network namespace.
        address: where it listens.
        home: the home folder of those who log in.
        key: the private key that lets them in.
        known_hosts: a file with the keys of all machines.
    """

    name: str
    address: str
    home: Path
    key: Path
    known_hosts: Path

    def processes(self) -> list[psutil.Process]:
        """What runs on it."""
        found = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True)
        return [psutil.Process(int(line)) for line in found.stdout.split() if psutil.pid_exists(int(line))]

    def die(self) -> None:
        """End at once, as if the power failed: no process closes its connections."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "up0", "down"], check=True)
        self.end_processes()

    def come_back(self) -> None:
        """Start anew after :meth:`die`."""
        subprocess.run(["ip", "-n", self.name, "link", "set", "up0", "up"], check=True)
        _serve(self)

    def end_processes(self) -> None:
        """Kill all that runs on it."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)


def needs_namespaces() -> None:
    """Skip a test unless machines can be made here."""
    if _SERVER is None or shutil.which("ssh") is None:
        pytest.skip("needs OpenSSH's client and server")
    if os.geteuid() != 0:
        pytest.skip("only root makes network namespaces")
    name = f"nnm{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("network namespaces cannot be made here")
    subprocess.run(["ip", "netns", "del", name], check=True)


@contextlib.contextmanager
def hosts(folder: Path, count: int) -> Iterator[list[Host]]:
    """Make so many machines, which only this one reaches; ``folder`` holds their keys and homes."""
    Path("/run/sshd").mkdir(exist_ok=True)  # where OpenSSH's server keeps its processes without rights
    mark = uuid.uuid4().hex[:6]
    net = int(mark[:2], 16)
    key = _key(folder / "user_key")
    made: list[Host] = []
    with contextlib.ExitStack() as cleaning:
        for number in range(1, count + 1):
            name, outside = f"nnm{mark}{number}", f"nv{mark}{number}"
            here, there = f"10.219.{net}.{4 * number + 1}", f"10.219.{net}.{4 * number + 2}"
            home = folder / name
            home.mkdir()
            host = Host(name, there, home, key, folder / "known_hosts")
            _ip("netns", "add", name)
            cleaning.callback(_ip, "netns", "del", name)
            cleaning.callback(host.end_processes)
            _ip("link", "add", outside, "type", "veth", "peer", "name", "up0", "netns", name)
            _ip("addr", "add", f"{here}/30", "dev", outside)
            _ip("link", "set", outside, "up")
            _ip("-n", name, "addr", "add", f"{there}/30", "dev", "up0")
            _ip("-n", name, "link", "set", "up0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _serve(host)
            made.append(host)
        yield made


def _serve(host: Host) -> None:
    """Start the server of a machine; :meth:`Host.end_processes` ends it."""
    host_key, log = host.home / "host_key", host.home / "sshd.log"
    if not host_key.exists():
        _key(host_key)
        public = host_key.with_suffix(".pub").read_text().split()
        with host.known_hosts.open("a") as file:
            file.write(f"{host.address} {public[0]} {public[1]}\n")
    configuration = host.home / "sshd_config"
    configuration.write_text(
        f"HostKey {host_key}\nAuthorizedKeysFile {host.key}.pub\nPasswordAuthentication no\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nPidFile none\nSetEnv HOME={host.home} OMP_NUM_THREADS=1\n"
        f"Subsystem sftp internal-sftp\nMaxStartups 100\n"
    )
    log.unlink(missing_ok=True)
    # It goes into the background by itself, and its parent ends.
    subprocess.run(
        ["ip", "netns", "exec", host.name, str(_SERVER), "-E", str(log), "-f", str(configuration)],
        stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    for _ in range(300):
        if log.exists() and "listening" in log.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"no server on {host.name}: {log.read_text()}")


def _key(file: Path) -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)

