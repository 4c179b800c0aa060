"""NNI's manager: the scripts that it loads, run in the Node.js that NNI brings, and its start."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from nnmeter_nas.nni.manager_scripts import ADDRESS, LISTEN, REACH_MACHINES, environment_with, node_options
from nnmeter_nas.nni.patches import patch, unpatch
from nnmeter_nas.search.manager_process import free_port

pytestmark = pytest.mark.nni3

#: A server on any free port says where it listens; ``HOST`` is what it asks for itself.
SERVER = """
const server = require('net').createServer();
const listening = () => { console.log(JSON.stringify(server.address())); server.close(); };
process.env.HOST ? server.listen(0, process.env.HOST, listening) : server.listen(0, listening);
"""


@pytest.fixture
def node() -> str:
    """The Node.js of NNI."""
    found = find_spec("nni_node")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs NNI")
    return str(Path(found.submodule_search_locations[0]) / "node")


@pytest.mark.parametrize(
    ("environment", "address"),
    [({}, "127.0.0.1"), ({ADDRESS: "0.0.0.0"}, "0.0.0.0"), ({"HOST": "127.0.0.2"}, "127.0.0.2")],
)
def test_a_server_listens_on_one_address_however_often_the_script_is_loaded(
    environment: dict[str, str], address: str, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NODE_OPTIONS", raising=False)
    with environment_with({**environment, "NODE_OPTIONS": node_options(LISTEN)}):
        options = {**os.environ, "NODE_OPTIONS": node_options(LISTEN, REACH_MACHINES)}
        done = subprocess.run([node, "-e", SERVER], env=options, capture_output=True, text=True)
    assert json.loads(done.stdout)["address"] == address, done.stderr
    assert "NODE_OPTIONS" not in os.environ


class Status(BaseHTTPRequestHandler):
    """Answers as a manager does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "INITIALIZED"}')

    def log_message(self, *_: object) -> None:
        pass


def test_a_manager_may_take_longer_to_start_than_nni_waits() -> None:
    launcher: Any = pytest.importorskip("nni.experiment.launcher")
    port = free_port()

    def start_late() -> None:
        time.sleep(6)
        with HTTPServer(("127.0.0.1", port), Status) as server:
            server.handle_request()

    manager = threading.Thread(target=start_late)
    manager.start()
    patch()
    try:
        launcher._check_rest_server(port)
    finally:
        unpatch()
        manager.join(timeout=60)
