"""TFLite on a phone: Debian's adb, and a phone that exists only here."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed")

from fake_phone import FakePhone, connected, own_adb
from nnmeter_nas.backends import load_backend
from nnmeter_nas.backends.adb.tflite import TfliteAdb
from nnmeter_nas.builder.attached import in_use, patiently
from nnmeter_nas.builder.networks import random_network
from nnmeter_nas.cli.messages import in_flags
from nnmeter_nas.errors import DeviceLostError, MeasurementError, SettingsError
from nnmeter_nas.graph.model_graph import add_input, add_op, finish, new_graph

LIMIT_S = 20.0


@pytest.fixture(scope="module", autouse=True)
def adb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A server of adb of these tests."""
    with own_adb(tmp_path_factory.mktemp("adb")):
        yield


@pytest.fixture
def phone(tmp_path: Path) -> Iterator[FakePhone]:
    """A phone that is attached."""
    with connected(tmp_path / "phone") as found:
        yield found


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small model."""
    graph = new_graph()
    x = add_input(graph, "x", (1, 3, 16, 16))
    x = add_op(graph, "conv_1", "conv", [x], {"out_channels": 8, "kernel": (3, 3), "padding": "same"})
    add_op(graph, "relu_2", "relu", [x], {})
    path = tmp_path / "model.tflite"
    TfliteAdb().write(finish(graph), path)
    return path


def backend_of(phone: FakePhone, **options: str) -> TfliteAdb:
    """The backend, with a tool that is here and goes to the phone."""
    tool = phone.tool(phone.root / "here" / "benchmark_model")
    backend = load_backend("tflite-adb", {"benchmark_model": str(tool), **options})
    assert isinstance(backend, TfliteAdb)
    return backend


def test_a_network_runs_and_its_operators_are_told(phone: FakePhone, tmp_path: Path) -> None:
    backend = backend_of(phone, taskset="F0", threads="2")
    graph = random_network(3)
    backend.write(graph, tmp_path / "network.tflite")
    with in_use(backend, lambda text: None):
        ms, kernels = backend.load(tmp_path / "network.tflite").visit(True, LIMIT_S)
        assert kernels is not None
        assert ms == pytest.approx(sum(kernel.ms for kernel in kernels), rel=0.01)
        assert {name for kernel in kernels for name in kernel.operators} <= set(graph)
        # A visit leaves the tool for the next one, and nothing else.
        [left] = (phone.temporary / "nnmeter-nas").iterdir()
        assert left.name.startswith("benchmark_model-")
        again, kernels = backend.load(tmp_path / "network.tflite").visit(False, LIMIT_S)
        assert (again, kernels) == (ms, None)
    assert list(phone.temporary.iterdir()) == [], "and the end leaves nothing"
    assert set((phone.root / "masks").read_text().split()) == {"f0"}
    runs = [command for command in phone.commands if "--graph" in command]
    assert len(runs) == 3
    assert all("--num_threads=2 --use_xnnpack=true" in command for command in runs)
    assert ["--enable_op_profiling=true" in command for command in runs] == [False, True, False]


def test_a_tool_on_the_phone_is_used_where_it_is(phone: FakePhone, model: Path) -> None:
    backend = load_backend("tflite-adb", {"delegate": "none"})
    with pytest.raises(MeasurementError, match=r"has no TFLite tool at /data/local/tmp/benchmark_model"):
        _ = backend.version
    tool = phone.tool(phone.temporary / "benchmark_model")
    assert re.fullmatch("none, 1 thread, tool [0-9a-f]{12}", backend.version)
    with in_use(backend, lambda text: None):
        assert backend.load(model).run() > 0
    assert list(phone.temporary.iterdir()) == [tool]


@pytest.mark.parametrize("fault", ["quiet", "xnnpack"])
def test_a_tool_that_tells_no_operators_is_a_silent_device(phone: FakePhone, model: Path, fault: str) -> None:
    phone.fault(f"all={fault}")
    ms, kernels = backend_of(phone).load(model).visit(True, LIMIT_S)
    assert ms > 0
    assert kernels is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("garbage", r"told no latency; its last words: dolor"),
        ("killed", "was killed by signal 9"),
        ("crash", "was killed by signal 11"),
        ("error", "ended with exit code 1: Failed to allocate tensors!"),
        ("delegate", "does not run with xnnpack: ERROR: Failed to apply GPU delegate"),
        ("flags", "does not know --use_xnnpack=true"),
        ("old", "does not know --use_xnnpack=true"),
        ("hang", "did not end within 1 s"),
    ],
)
def test_a_run_that_fails_says_why_and_is_cleaned_up(
    phone: FakePhone, model: Path, fault: str, message: str
) -> None:
    backend = backend_of(phone)
    phone.fault(f"model={fault}:1")
    with pytest.raises(MeasurementError, match=message):
        backend.load(model).visit(False, 1.0 if fault == "hang" else LIMIT_S)
    assert list((phone.temporary / "nnmeter-nas").glob("*.tflite")) == []
    assert not (phone.temporary / "nnmeter-nas" / "pid").exists()
    assert backend.load(model).run() > 0, "the phone goes on"


def test_a_run_that_hangs_is_ended_on_the_phone(phone: FakePhone, model: Path) -> None:
    backend = backend_of(phone)
    backend.look()
    phone.fault("model=hang")
    with pytest.raises(MeasurementError, match="did not end"):
        backend.load(model).visit(False, 1.0)
    assert running(phone) == []
    # Nor does one go on whose visitor was killed.
    thread = threading.Thread(target=ended_by_another, args=(backend, model))
    thread.start()
    wait_for(lambda: running(phone))
    backend.close()
    assert running(phone) == []
    thread.join()


def ended_by_another(backend: TfliteAdb, model: Path) -> None:
    """Run a model that is ended from outside."""
    with pytest.raises(MeasurementError, match="killed by signal 9"):
        backend.load(model).run()


def running(phone: FakePhone) -> list[str]:
    """Processes of this machine that run something in the folder of the phone."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{phone.temporary}/nnmeter-nas/benchmark_model" in command and "sh -c" not in command:
            found.append(command)
    return found


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_latency_of_zero_comes_back_as_it_is(phone: FakePhone, model: Path) -> None:
    phone.fault("all=zero")
    assert backend_of(phone).load(model).run() == 0.0


def test_a_full_phone_is_no_fault_of_the_model(phone: FakePhone, model: Path) -> None:
    phone.is_full = True
    with pytest.raises(OSError, match=f"the storage of phone {phone.serial} is full"):
        backend_of(phone).load(model).run()


def test_a_loose_cable_is_waited_for(
    phone: FakePhone, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnmeter_nas.builder.attached._PAUSE_S", 0.05)
    backend, told = backend_of(phone), list[str]()
    ms = backend.load(model).run()
    phone.unplug()
    with pytest.raises(DeviceLostError, match=f"phone {phone.serial} is .*cable|plug it in"):
        backend.load(model).run()
    asked: list[int] = []

    def ask() -> float:
        asked.append(1)
        return backend.load(model).run()

    def tell(text: str) -> None:
        if not told:
            phone.plug()
        told.append(text)

    assert patiently(ask, backend, tell) == ms
    assert len(asked) == 2
    assert told[0].startswith(f"waiting: phone {phone.serial} is ")


def test_a_cable_that_comes_loose_during_a_run_loses_the_run_alone(phone: FakePhone, model: Path) -> None:
    backend = backend_of(phone)
    phone.fault("model=hang:1")
    threading.Thread(target=lambda: (wait_for(lambda: running(phone)), phone.unplug(), phone.plug())).start()
    with pytest.raises(DeviceLostError):
        backend.load(model).visit(False, LIMIT_S)
    wait_for(backend.is_there)
    assert backend.load(model).run() > 0
    assert running(phone) == [], "what still ran is ended before the next"


def test_a_network_that_takes_the_phone_down_is_at_fault(phone: FakePhone) -> None:
    backend = backend_of(phone)
    backend.look()

    def ask() -> float:
        raise DeviceLostError("it restarted")

    with pytest.raises(MeasurementError, match="the device was lost 3 times while it ran: it restarted"):
        patiently(ask, backend, lambda text: None)
    backend.close()


def test_a_phone_that_allows_nothing_says_what_to_do(tmp_path: Path) -> None:
    phone = FakePhone(tmp_path / "phone")
    phone.is_unauthorized = True
    try:
        with pytest.raises(DeviceLostError, match=r"is (unauthorized|authorizing); unlock it and allow"):
            backend_of(phone, serial=phone.serial).look()
    finally:
        os.system(f"adb disconnect {phone.serial} > {os.devnull}")
        phone.close()


def test_of_two_phones_one_is_named(phone: FakePhone, model: Path, tmp_path: Path) -> None:
    with connected(tmp_path / "other", **{"ro.product.model": "Phone 2", "ro.serialno": "PAPER2"}) as other:
        with pytest.raises(DeviceLostError, match="several phones are attached: ") as raised:
            backend_of(phone).look()
        assert in_flags(str(raised.value), ["serial"]).endswith("; name one by --serial SERIAL")
        first, second = (backend_of(one, serial=one.serial) for one in (phone, other))
        with in_use(first, lambda text: None), in_use(second, lambda text: None):
            assert first.load(model).run() == second.load(model).run()
        assert (first.machine, second.machine) == ("Paper Phone 1, Acme AC100", "Paper Phone 2, Acme AC100")
        assert (first.settings["phone"], second.settings["phone"]) == ("PAPER1", "PAPER2")
    with pytest.raises(DeviceLostError, match="phone nobody is not there; plug it in"):
        backend_of(phone, serial="nobody").look()


def test_one_phone_is_measured_by_one_process(phone: FakePhone) -> None:
    first, second = backend_of(phone), backend_of(phone)
    with in_use(first, lambda text: None):
        with pytest.raises(MeasurementError, match="another process measures on phone"):
            second.look()
        second.close()
        assert first.look() == [], "and it takes nothing away from the first"


def test_what_the_phone_is_and_what_moves_is_said(phone: FakePhone) -> None:
    backend, all_cores = backend_of(phone, taskset="70"), backend_of(phone)
    assert backend.look() == [
        "Paper Phone 1, SoC Acme AC100, Android 13",
        "cores 4, 5, 6: governor schedutil, 300 to 2800 MHz",
        "its battery has 31.2 °C",
        "warning: the clock of cores 4, 5, 6 may move from 300 to 2800 MHz (governor schedutil); latencies "
        "move with it; on a rooted phone, fix it",
    ]
    assert backend.look() == []
    phone.set_clock(5, "powersave", 300, 1200, 2800)
    phone.warm(45.0, 2)
    assert backend.look() == [
        "warning: core 5: governor schedutil, 300 to 2800 MHz, became powersave, 300 to 1200 MHz",
        "warning: its battery rose from 31.2 to 45.0 °C",
        "warning: Android slows it down for heat now (level 2); let it cool",
    ]
    assert backend.look() == []
    backend.close()
    told = all_cores.look()
    all_cores.close()
    assert "warning: its cores are of different speed, and a run may move between them; use --taskset" in told
    assert "warning: the clock of core 5 is limited to 1200 of 2800 MHz" in told
    assert "warning: it is warm (45.0 °C), and may slow down; let it cool" in told
    for number in range(8):
        phone.set_clock(number, "performance", 1800, 1800, 1800)
    phone.warm(25.0, 0)
    assert backend.look()[1:] == [
        "cores 4, 5, 6: governor performance, 1800 to 1800 MHz", "its battery has 25.0 °C",
    ], "a phone that is held still gives no warning"  # fmt: skip
    backend.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delegate": "hexagon"}, "delegate='hexagon' must be one of none, xnnpack, gpu, nnapi, default"),
        ({"threads": "0"}, "threads='0' must be a whole number of at least 1"),
        ({"taskset": "0-3"}, "taskset='0-3' must be a mask of cores in hex"),
        ({"benchmark_model": "missing"}, "benchmark_model='missing' is no file here"),
        ({"port": "5037"}, "backend 'tflite-adb' has no option 'port'; it has serial, benchmark_model, "),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_backend("tflite-adb", options)


def test_a_backend_without_options_takes_none() -> None:
    with pytest.raises(SettingsError, match="backend 'litert' has no option 'serial'; it has none"):
        load_backend("litert", {"serial": "1"})
