"""Machines of a file: what is wrong with it is named, and each machine is asked before a trial goes there."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nnmeter_nas.errors import SearchError, SettingsError
from nnmeter_nas.nni import NAS, nni_line
from nnmeter_nas.search import machine
from nnmeter_nas.search.machines import Checked, Machine, check_machines, fit_machines, places, read_machines
from nnmeter_nas.search.manager_process import free_port
from nnmeter_nas.search.remote import remote_machines
from nnmeter_nas.search.tunnels import tunnels
from ssh_hosts import Host, hosts, needs_namespaces

pytestmark = pytest.mark.nni3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no machines: write `machines:`"),
        ("machines: []", "has no machines"),
        ("machines: {host: a}", "has no machines"),
        ("machines: [", "is no YAML file"),
        ("- host: a", "machine 1: it needs a host and a user, and may have"),
        ("- {host: a, user: b}\n- 10.0.0.1", "machine 1: there is no key"),
        ("- {host: a, user: b, key: KEY}\n- 10.0.0.1", "machine 2: it needs a host"),
        ("- {host: a, user: b, key: KEY, ports: 22}", "ports is none of host, user, port"),
        ("- {host: a, user: b, password: c}", "passwords are not taken: NNI shows them on its page"),
        ("- {host: a, user: b, key: KEY, port: ssh}", "port='ssh' is not of the kind"),
        ("- {host: a, user: b, key: KEY, gpus: [a]}", "gpus=\\('a',\\) is not of the kind"),
        ("- {host: '', user: b, key: KEY}", "host='' is not of the kind"),
    ],
)
def test_a_wrong_file_is_named_with_the_machine(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "key").touch()
    file = tmp_path / "machines.yaml"
    file.write_text(text.replace("KEY", str(tmp_path / "key")))
    with pytest.raises(SettingsError, match=rf"machines\.yaml.*{message}"):
        read_machines(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"machines=.*none\.yaml cannot be read \(No such file"):
        read_machines(tmp_path / "none.yaml")


def test_a_file_gives_its_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id_rsa").touch()
    file = tmp_path / "machines.yaml"
    file.write_text(
        "machines:\n"
        "  - {host: 10.0.0.1, user: me, python: /opt/venv/bin/python3.11, gpus: [0, 2], trials_per_gpu: 2}\n"
        "  - {host: 10.0.0.2, user: me, port: 2222, gpus: 1, python: /opt/venv/bin/}\n"
    )
    first, second = read_machines(file)
    assert first == Machine(
        "10.0.0.1", "me", key=str(tmp_path / ".ssh" / "id_rsa"), python="/opt/venv/bin/python3.11",
        gpus=(0, 2), trials_per_gpu=2,
    )  # fmt: skip
    assert first.python_folder == second.python_folder == "/opt/venv/bin"
    assert (second.port, second.gpus, str(second)) == (2222, (1,), "me@10.0.0.2:2222")
    assert [places([first, second], gpus) for gpus in (0, 1, 2)] == [2, 5, 2]
    assert places([Machine("10.0.0.3", "me", gpus=tuple(range(8)))], 1) == 8


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpus() == 0
    listed = tmp_path / "nvidia-smi"
    listed.write_text(
        "#!/bin/sh\n"
        "echo 'GPU 0: NVIDIA H200 (UUID: GPU-0)'\n"
        "echo '  MIG 1g.18gb     Device  0: (UUID: MIG-0)'\n"
        "echo 'GPU 1: NVIDIA H200 (UUID: GPU-1)'\n"
    )
    listed.chmod(0o755)
    assert machine.gpus() == 2


def test_builds_for_another_accelerator_are_the_same_version_and_others_are_not() -> None:
    here = {"versions": {"Python": "3.11", "nni": "3.0", "torch": "2.13.0+cpu"}}
    there = {"versions": {"Python": "3.11", "nni": "3.0", "torch": "2.13.1+cu126"}, "failures": {}}
    assert machine.lacks(here, there) == []
    there = {"versions": {"Python": "3.12", "nni": "2.10.1", "torch": "2.1.0"}, "failures": {"mine": "no"}}
    assert machine.lacks(here, there) == [
        "it has Python 3.12, and the search runs with 3.11",
        "it has nni 2.10.1, and the search runs with 3.0",
        "it has torch 2.1.0, and the search runs with 2.13.0+cpu",
        "it cannot import mine: no",
    ]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A machine with a server of OpenSSH's."""
    needs_namespaces()
    with hosts(tmp_path, 1) as (one,):
        yield one


def reached(host: Host) -> Machine:
    """The machine with this environment's Python."""
    return Machine(
        host.address, "root", key=str(host.key), known_hosts=str(host.known_hosts), python=sys.executable
    )


def test_each_machine_says_what_it_has_before_a_trial_goes_there(host: Host, tmp_path: Path) -> None:
    good = reached(host)
    (tmp_path / "nobody").touch()
    lacking = {
        replace(good, python="/nowhere/bin"): "it has no /nowhere/bin/python or /nowhere/bin/python3",
        replace(good, user="nobody"): "ssh fails: .*Permission denied",
        replace(good, known_hosts=str(tmp_path / "nobody")): "ssh fails: Host key verification failed",
        replace(good, port=23): "ssh fails: .*Connection refused",
    }
    found = check_machines([good, *lacking])
    assert found.pop(good) == Checked([], machine.gpus())
    for one, pattern in lacking.items():
        [reason] = found[one].lacks
        assert re.search(pattern, reason), reason
    told: list[str] = []
    numbered = replace(good, gpus=(0,))
    assert fit_machines([numbered, replace(good, port=23)], told.append, gpus=1) == [numbered]
    assert f"root@{host.address}:23 is left out" in told[0]
    with pytest.raises(SearchError, match="it has 1 GPUs for trials, and a trial takes 2"):
        fit_machines([numbered], told.append, gpus=2)
    with pytest.raises(SearchError, match=r"none of the machines can run a trial: root@.*:23: ssh fails"):
        fit_machines([replace(good, port=23)], told.append)


def test_an_experiment_of_ones_own_gets_the_machines_in_its_configuration(host: Host, tmp_path: Path) -> None:
    if nni_line() != NAS:
        pytest.skip("NNI 2.10.1 does not notice that a machine is gone")
    from nni.nas.experiment.config import NasExperimentConfig

    good = reached(host)
    file = tmp_path / "machines.yaml"
    file.write_text(json.dumps([
        {"host": good.host, "user": good.user, "key": good.key, "known_hosts": good.known_hosts, "port": port,
         "python": good.python}
        for port in (22, 23)
    ]))  # fmt: skip
    config = NasExperimentConfig("ts", "simplified", "remote")
    config.trial_concurrency, config.max_trial_number = 1, 2
    told: list[str] = []
    with remote_machines(file, config, free_port(None), told.append):
        assert "--require" in os.environ["NODE_OPTIONS"]
        final = config.canonical_copy()
    assert [one.host for one in final.training_service.machine_list] == [host.address]
    assert (final.nni_manager_ip, final.trial_command.split()[0]) == ("127.0.0.1", "python3")
    assert "is left out: ssh fails" in told[0]


@pytest.fixture
def service() -> Iterator[int]:
    """A port of this machine's own address where something answers."""

    def answer() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.sendall(b"hello")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1]


def heard(host: Host, port: int) -> bytes:
    """What a machine hears at a port of its own."""
    script = f"cat < /dev/tcp/127.0.0.1/{port}"
    return subprocess.run(
        ["ip", "netns", "exec", host.name, "bash", "-c", script], capture_output=True
    ).stdout


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.2)


@pytest.mark.slow
def test_a_machine_reaches_this_one_through_its_tunnel_alone_and_again_after_it_was_away(
    host: Host, service: int
) -> None:
    told: list[str] = []
    assert heard(host, service) == b""
    with tunnels([reached(host), replace(reached(host), port=23)], service, told.append) as open_ones:
        assert open_ones == [reached(host)]
        assert "no tunnel to root@" in told.pop()
        assert heard(host, service) == b"hello"
        host.die()
        wait_until(lambda: told)
        assert "is out of reach" in told.pop()
        assert heard(host, service) == b""
        host.come_back()
        wait_until(lambda: told)
        assert "is there again" in told.pop()
        assert heard(host, service) == b"hello"
    wait_until(lambda: heard(host, service) == b"")
