"""A local HTTPS server that serves one file, correctly or with errors."""

from __future__ import annotations

import http.server
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme

from forests import DEVICE
from nnmeter_nas.packs.nnmeter1 import download as download_module

#: The content of the served file.
CONTENT = bytes(range(256)) * 4096


@dataclass
class Server:
    """The state of the server: what it serves and how, and the requests it received."""

    address: str = ""
    content: bytes = CONTENT
    etag: str | None = '"first"'
    #: For each of the next answers, the number of bytes after which its connection breaks.
    breaks: list[int] = field(default_factory=list)
    #: Added to the Content-Length of answers.
    lie: int = 0
    #: Statuses of the first answers.
    statuses: list[int] = field(default_factory=list)
    redirect: str | None = None
    ranges: bool = True
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{self.address}/{DEVICE}.zip"

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(asked)
        if self.statuses:
            return handler.send_error(self.statuses.pop(0))
        if self.redirect and handler.path.endswith(".zip"):
            handler.send_response(302)
            handler.send_header("Location", self.redirect)
            return handler.end_headers()
        if self.etag and asked.get("if-none-match") == self.etag:
            handler.send_response(304)
            return handler.end_headers()
        start = 0
        if self.ranges and asked.get("if-range", self.etag) == self.etag and "range" in asked:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked["range"])[1])  # type: ignore[index]
        handler.send_response(206 if start else 200)
        body = self.content[start:]
        handler.send_header("Content-Length", str(len(body) + self.lie))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        handler.end_headers()
        handler.wfile.write(body[: self.breaks.pop(0)] if self.breaks else body)
        handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server whose certificate downloads trust, and an empty folder for downloads."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download_module, "BACKOFF", 0.0)
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    served = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:  # the base class's name
            served.answer(self)

        def log_message(self, *_: Any) -> None:
            """Print nothing, to keep the test output clean."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.socket = context.wrap_socket(listener.socket, server_side=True)
    served.address = f"https://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield served
    listener.shutdown()
    listener.server_close()
