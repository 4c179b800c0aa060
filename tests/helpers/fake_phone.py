"""A phone that exists only here: an adbd on loopback, a shell in a folder of its own, what it says of itself.

Debian's adb talks to it as to a phone over Wi-Fi: ``adb connect``, ``adb push``, ``adb shell``. Paths under
``/data/local/tmp`` and ``/sys`` lead into its folder; ``getprop``, ``dumpsys`` and ``taskset`` are its own.
The tool on it is ``benchmark_model.py``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

_CNXN, _AUTH, _OPEN, _OKAY, _WRTE, _CLSE = (
    int.from_bytes(word, "little") for word in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
_VERSION, _MOST = 0x01000000, 64 * 1024
_TOKEN = 1
_TOOL = Path(__file__).with_name("benchmark_model.py")
_PROPERTIES = {
    "ro.product.manufacturer": "Paper", "ro.product.model": "Phone 1", "ro.soc.manufacturer": "Acme",
    "ro.soc.model": "AC100", "ro.build.version.release": "13", "ro.serialno": "PAPER1",
}  # fmt: skip


@contextlib.contextmanager
def own_adb(home: Path) -> Iterator[None]:
    """Let adb use a server and keys of its own, so that a user's phones are not touched; end the server."""
    if shutil.which("adb") is None:
        pytest.skip("adb is not installed: apt install adb")
    # A port found free could be the phone's own a moment later. A socket's path may have 108 characters.
    with tempfile.TemporaryDirectory(prefix="adb") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{folder}/server")
        patch.setenv("HOME", str(home))
        patch.delenv("ANDROID_SERIAL", raising=False)
        yield
        _adb("kill-server")


@contextlib.contextmanager
def connected(root: Path, **properties: str) -> Iterator[FakePhone]:
    """A phone that adb is connected to."""
    phone = FakePhone(root, **properties)
    _adb("connect", phone.serial)
    try:
        yield phone
    finally:
        _adb("disconnect", phone.serial)
        phone.close()


def _adb(*arguments: str) -> None:
    subprocess.run(["adb", *arguments], check=False, capture_output=True, timeout=60)


class FakePhone:
    """The phone; it is plugged in.

    Attributes:
        root: folder of its files.
        serial: what adb calls it.
        is_full, is_unauthorized: what is wrong with it.
        commands: what its shell ran.
    """

    def __init__(self, root: Path, **properties: str) -> None:
        self.root = root
        self.commands: list[str] = []
        self.is_full = self.is_unauthorized = False
        self._connections: set[socket.socket] = set()
        self._fill({**_PROPERTIES, **properties})
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.serial = f"127.0.0.1:{self.port}"
        self._listen()

    @property
    def temporary(self) -> Path:
        """``/data/local/tmp``."""
        return self.root / "data" / "local" / "tmp"

    def _fill(self, properties: Mapping[str, str]) -> None:
        self.temporary.mkdir(parents=True)
        for number in range(8):
            most = 2800 if number > 3 else 1700
            self.set_clock(number, "schedutil", 300, most, most)
        battery = self.root / "sys" / "class" / "power_supply" / "battery"
        battery.mkdir(parents=True)
        (battery / "temp").write_text("312\n")
        for name, value in properties.items():
            (self.root / name).write_text(value)
        programs = {
            "getprop": f'cat "{self.root}/$1" 2>/dev/null; echo',
            "dumpsys": 'test "$1" = thermalservice && cat "$PHONE_ROOT/thermal" 2>/dev/null',
            "taskset": 'echo "$1" >> "$PHONE_ROOT/masks"; shift; exec "$@"',
        }
        for name, text in programs.items():
            self._program(self.root / "bin" / name, f"#!/bin/sh\n{text}\n")

    def set_clock(self, number: int, governor: str, least: int, most: int, hardware: int) -> None:
        """Set what the clock of a core may do, in MHz."""
        folder = self.root / "sys" / "devices" / "system" / "cpu" / f"cpu{number}" / "cpufreq"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scaling_governor").write_text(governor)
        for name, mhz in (("scaling_min", least), ("scaling_max", most), ("cpuinfo_max", hardware)):
            (folder / f"{name}_freq").write_text(f"{mhz}000")

    def warm(self, celsius: float, throttling: int) -> None:
        """Make it so warm, and let Android throttle it so much."""
        (self.root / "sys/class/power_supply/battery/temp").write_text(f"{celsius * 10:.0f}")
        (self.root / "thermal").write_text(f"IsStatusOverride: false\nThermal Status: {throttling}\n")

    def tool(self, path: Path) -> Path:
        """Write its benchmark_model to ``path``."""
        self._program(path, f"#!{sys.executable} -SE\n{_TOOL.read_text()}")
        return path

    def fault(self, text: str) -> None:
        """Let the tool fail as told, see ``benchmark_model.py``."""
        (self.root / "faults").write_text(text)

    @staticmethod
    def _program(path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def unplug(self) -> None:
        """Take the cable out."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def plug(self) -> None:
        """Put it in again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._connections.add(connection)
                threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()

    def shell(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command in its shell."""
        self.commands.append(command)
        for there in ("/data/local/tmp", "/sys/"):
            command = command.replace(there, f"{self.root}{there}")
        environment = {
            "PATH": f"{self.root}/bin:/usr/bin:/bin", "PHONE_ROOT": str(self.root), "LC_ALL": "C",
        }  # fmt: skip
        return subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        """Unplug it for good."""
        self.unplug()
        shutil.rmtree(self.root, ignore_errors=True)


class _Connection:
    """What adb's server and the phone say to each other."""

    def __init__(self, phone: FakePhone, connection: socket.socket) -> None:
        self._phone, self._connection = phone, connection
        self._streams: dict[int, _Stream] = {}
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Answer until the connection closes."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._read(24))
                self._answer(command, first, second, self._read(size))
        for stream in self._streams.values():
            stream.close()
        self._connection.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        """Send a message."""
        head = struct.pack("<6I", command, first, second, len(data), sum(data), command ^ 0xFFFFFFFF)
        with self._writing:
            self._connection.sendall(head + data)

    def _answer(self, command: int, first: int, second: int, data: bytes) -> None:
        if self._phone.is_unauthorized and command in (_CNXN, _AUTH):
            self.send(_AUTH, _TOKEN, 0, os.urandom(20))
        elif command == _CNXN:
            self.send(_CNXN, _VERSION, _MOST, b"device::ro.product.name=paper;features=cmd,shell_v2")
        elif command == _OPEN:
            number = len(self._streams) + 1
            self._streams[number] = _Stream(self, number, first)
            self.send(_OKAY, number, first)
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self._serve, args=(service, self._streams[number]), daemon=True).start()
        elif second in self._streams:
            self._streams[second].hear(command, data)

    def _serve(self, service: str, stream: _Stream) -> None:
        kind, _, text = service.partition(":")
        with contextlib.suppress(OSError, EOFError):
            if kind == "sync":
                self._sync(stream)
            elif kind.startswith("shell"):
                self._shell(text, stream)
            stream.end()

    def _shell(self, command: str, stream: _Stream) -> None:
        """Packets of the newer shell: 1 is output, 3 is the exit code."""
        process = self._phone.shell(command)
        assert process.stdout is not None
        while part := os.read(process.stdout.fileno(), 4096):
            stream.write(struct.pack("<BI", 1, len(part)) + part)
        stream.write(struct.pack("<BIB", 3, 1, process.wait() & 0xFF))

    def _sync(self, stream: _Stream) -> None:
        while True:
            word, size = struct.unpack("<4sI", stream.read(8))
            if word == b"QUIT":
                return
            path = Path(f"{self._phone.root}{stream.read(size).decode().rpartition(',')[0] or '/'}")
            if word == b"STAT":
                stream.write(struct.pack("<4sIII", b"STAT", 0, 0, 0))
            elif word == b"SEND":
                self._receive(path, stream)

    def _receive(self, path: Path, stream: _Stream) -> None:
        data = b""
        while True:
            word, size = struct.unpack("<4sI", stream.read(8))
            if word == b"DONE":
                break
            data += stream.read(size)
        if self._phone.is_full:
            reason = b"No space left on device"
            stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        path.write_bytes(data)
        path.chmod(path.stat().st_mode & ~stat.S_IXUSR)
        stream.write(struct.pack("<4sI", b"OKAY", 0))


class _Stream:
    """One stream of a connection; what is written waits for the other side to take it."""

    def __init__(self, connection: _Connection, mine: int, theirs: int) -> None:
        self._connection, self._mine, self._theirs = connection, mine, theirs
        self._heard: queue.Queue[bytes | None] = queue.Queue()
        self._taken = threading.Semaphore(1)
        self._rest = b""

    def hear(self, command: int, data: bytes) -> None:
        """Take a message."""
        if command == _WRTE:
            self._heard.put(data)
            self._connection.send(_OKAY, self._mine, self._theirs)
        elif command == _OKAY:
            self._taken.release()
        elif command == _CLSE:
            self.close()

    def read(self, size: int) -> bytes:
        """Wait for so many bytes."""
        while len(self._rest) < size:
            part = self._heard.get()
            if part is None:
                raise EOFError
            self._rest += part
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def write(self, data: bytes) -> None:
        """Send bytes when the other side has taken those before."""
        self._taken.acquire()
        self._connection.send(_WRTE, self._mine, self._theirs, data)

    def end(self) -> None:
        """Tell the other side that nothing follows."""
        self._taken.acquire()
        self._connection.send(_CLSE, self._mine, self._theirs)

    def close(self) -> None:
        """Let who reads or writes go on."""
        self._heard.put(None)
        self._taken.release()
