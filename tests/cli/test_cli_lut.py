"""`lut`: tables are built once and never used stale; what is shown and ranked is what they hold."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import random
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from layout import HELPERS

pytest.importorskip("torch")
pytest.importorskip("nni", reason="reads search spaces")

from any_tables import with_header
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.cli import main
from nnmeter_nas.cli.plots import heat_column, heat_map, heat_title
from nnmeter_nas.costs import FactorTable, build_table, bundled, load_table, measures, save_table
from nnmeter_nas.costs.bundled import bundled_tables
from nnmeter_nas.costs.cache import check_table
from nnmeter_nas.supernet import Space
from nnmeter_nas.supernet.named import load_space
from toy_supernets import entangled_supernet, residual_supernet, width_supernet

COMMAND = Path(sysconfig.get_path("scripts")) / "nnmeter-nas"
CPU, GPU = "cortexA76cpu_tflite21", "adreno640gpu_tflite21"
DEVICES = (CPU, GPU, "adreno630gpu_tflite21", "myriadvpu_openvino2019r2")
TOY = """
import sys
sys.path.insert(0, {tests!r})
from toy_supernets import entangled_supernet, residual_supernet, width_supernet

made = residual_supernet({more})

def waits():
    print("waiting", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module ``toy_spaces`` of search spaces."""
    monkeypatch.chdir(tmp_path)
    write_spaces(tmp_path, monkeypatch)
    return tmp_path


def write_spaces(folder: Path, monkeypatch: pytest.MonkeyPatch, more: str = "") -> None:
    text = TOY.format(tests=str(HELPERS), more=more)
    (folder / "toy_spaces.py").write_text(text, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "toy_spaces", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def built(folder: Path, space: str, shape: str, device: str = CPU) -> Path:
    return folder / f"tables/{space}_{shape}/{device}_2.1.npz"


def assert_same(found: FactorTable, expected: FactorTable) -> None:
    """Equal in all but the last digits, which are up to the machine's matrix products."""
    assert with_header(found, worst_error=0.0).header == with_header(expected, worst_error=0.0).header
    assert list(found.candidates.items()) == list(expected.candidates.items())
    assert found.constant == pytest.approx(expected.constant)
    assert list(found.factors) == list(expected.factors)
    for positions, ms in expected.factors.items():
        np.testing.assert_allclose(found.factors[positions], ms, atol=1e-9)


# --- build ---


def test_tables_are_built_for_every_device_and_kept(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["lut", "build", "--space", "toy_spaces:made", "toy_spaces:width_supernet", "-o", "tables"]
    assert main([*command, "--predictor", CPU, GPU]) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).exists() for path in paths] == [True] * 4
    made = built(folder, "toy_spaces.made", "1x3x16x16")
    assert_same(load_table(made), build_table(residual_supernet(), load_latency_predictor(CPU)))
    before = [Path(path).stat().st_mtime_ns for path in paths]
    contents = [Path(path).read_bytes() for path in paths]
    assert main([*command, "--predictor", CPU, GPU]) == 0
    output = capsys.readouterr()
    assert output.out.split() == paths
    assert "2 of 2 tables were there and are kept" in output.err
    assert [Path(path).stat().st_mtime_ns for path in paths] == before
    assert main([*command, "--predictor", CPU, GPU, "--force"]) == 0
    assert "kept" not in capsys.readouterr().err
    assert all(Path(path).stat().st_mtime_ns > time for path, time in zip(paths, before, strict=True))
    assert [Path(path).read_bytes() for path in paths] == contents


def test_one_table_goes_to_the_file_that_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lut", "build", "--space", "toy_spaces:made", "--predictor"]
    for name in ("nni/latency_table.yaml", "table.npz"):
        assert main([*command, CPU, "-o", name]) == 0
        assert capsys.readouterr().out.split() == [name]
        assert_same(load_table(folder / name), build_table(residual_supernet(), load_latency_predictor(CPU)))
    [entry] = yaml.safe_load((folder / "nni/latency_table.yaml").read_text())  # as NNI writes and reads it
    assert entry["applied_hardware"] == CPU
    assert entry["latency_table"]["layer_1"]["2"] == 0.0
    with pytest.raises(SystemExit):
        main([*command, CPU, GPU, "-o", "table.npz"])
    assert "is the file of one table, and there are 2" in capsys.readouterr().err


def test_tables_that_are_damaged_stale_or_of_something_else_are_built_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["lut", "build", "--space", "toy_spaces:made", "-o", "tables"]
    path = built(folder, "toy_spaces.made", "1x3x16x16")
    assert main(command) == 0
    good, table = path.read_bytes(), load_table(path)
    for spoil, message in (
        (lambda: path.write_bytes(good[: len(good) // 2]), "is no lookup table"),
        (lambda: path.write_bytes(b""), "is no lookup table"),
        (lambda: save_table(with_header(table, pack_fingerprint="0"), path), "another content of the pack"),
        (lambda: save_table(dataclasses.replace(table, constant=9.0), path), "stale"),
        (lambda: write_spaces(folder, monkeypatch, "channels=8"), "another content of the space"),
    ):
        spoil()
        assert main(command) == 0
        error = capsys.readouterr().err
        assert "built anew" in error
        assert message in error
    expected = build_table(residual_supernet(channels=8), load_latency_predictor(CPU))
    assert_same(load_table(path), expected)


def test_killed_build_goes_on_where_it_was(folder: Path) -> None:
    command = [COMMAND, "lut", "build", "-o", "tables", "--space", "toy_spaces:made"]
    with subprocess.Popen(
        [*command, "toy_spaces:waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as build:
        assert build.stdout is not None
        path = Path(build.stdout.readline().strip())
        assert build.stdout.readline() == "waiting\n"
        build.send_signal(signal.SIGKILL)
        build.communicate()
    before = path.stat().st_mtime_ns
    assert [file for file in path.parent.iterdir() if file != path] == []
    assert main([str(part) for part in command[1:]]) == 0
    assert path.stat().st_mtime_ns == before


def test_a_space_that_fails_does_not_keep_the_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["toy_spaces:absent", "toy_spaces:made", "toy_spaces:waits", "nowhere:x", "spoos"]
    sys.modules.pop("nowhere", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO())
        assert main(["lut", "build", "--space", *names, "-o", "tables"]) == 1
    error = capsys.readouterr().err
    assert built(folder, "toy_spaces.made", "1x3x16x16").exists()
    assert len(list(folder.glob("tables/*"))) == 1
    for message in (
        "cannot load the search space toy_spaces:absent", "No module named 'nowhere'", "did you mean 'spos'",
        "toy_spaces:waits",
    ):  # fmt: skip
        assert message in error


def test_input_shape_is_the_one_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["lut", "build", "-o", "tables", "--input-shape", "1", "3", "48", "48", "--space"]
    assert main([*command, "spos-small"]) == 0
    assert load_table(built(folder, "spos-small", "1x3x48x48")).header.input_shape == (1, 3, 48, 48)
    assert main([*command, "toy_spaces:made"]) == 1
    assert "takes the input shape (1, 3, 16, 16), not (1, 3, 48, 48)" in capsys.readouterr().err


# --- The tables in the package ---


def rebuilt(name: str, device: str) -> None:
    [path] = bundled_tables().glob(f"{name}_*/{device}_*.npz")
    space, predictor = load_space(name), load_latency_predictor(device)
    found = load_table(path)
    check_table(found, space, predictor)
    assert_same(found, build_table(space, predictor))


def test_table_in_the_package_is_what_is_built_now() -> None:
    rebuilt("spos", CPU)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "device"), list(itertools.product(("spos", "proxylessnas"), DEVICES))[1:]
)
def test_every_table_in_the_package_is_what_is_built_now(name: str, device: str) -> None:
    rebuilt(name, device)


@pytest.mark.parametrize(
    ("name", "device"), list(itertools.product(("nasbench201", "nasbench201-small"), DEVICES))
)
def test_a_list_in_the_package_holds_what_graphs_take(name: str, device: str) -> None:
    """All 15,625 architectures take minutes to predict; some of them do."""
    [path] = bundled_tables().glob(f"{name}_*/{device}_*.npz")
    space, predictor, table = load_space(name), load_latency_predictor(device), load_table(path)
    check_table(table, space, predictor)
    draw = random.Random(0)
    rows = [{label: draw.choice(known) for label, known in space.candidates.items()} for _ in range(20)]
    for architecture, ms in zip(rows, table.latencies(table.indices(rows)), strict=True):
        assert ms == pytest.approx(predictor.predict(space.model_graph(architecture)), rel=1e-9)


def test_tables_in_the_package_need_neither_torch_nor_nni() -> None:
    script = """
import sys
from nnmeter_nas.cli import main
from nnmeter_nas.cli.plots import heat_column, heat_map, heat_title

for name in ("spos", "proxylessnas"):
    assert main(["lut", "show", name, "--predictor", "all", "--csv"]) == 0
assert "torch" not in sys.modules and "nni" not in sys.modules
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for device in DEVICES:
        for space in ("spos,ShuffleNetV2OneShot", "proxylessnas,ProxylessNASSpace"):
            assert f"\n{space},{device},2.1,1x3x224x224,layer_1," in found


@pytest.mark.parametrize("damaged", [False, True])
def test_stale_or_damaged_table_in_the_package_is_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damaged: bool
) -> None:
    fresh = build_table(load_space("spos-small"), load_latency_predictor(CPU))
    path = tmp_path / f"spos-small_1x3x32x32/{CPU}_2.1.npz"
    save_table(dataclasses.replace(with_header(fresh, pack_fingerprint="0"), constant=99.0), path)
    if damaged:
        path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr("nnmeter_nas.costs.bundled.bundled_tables", lambda: tmp_path)
    assert main(["lut", "show", "spos-small", "--predictor", CPU, "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)[0]["stationary_ms"] == pytest.approx(fresh.constant)
    assert ("no lookup table" if damaged else "stale") in shown.err


def test_stale_table_in_a_file_is_shown_with_a_warning(
    toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_table(with_header(load_table(toy_file), pack_fingerprint="0"), toy_file)
    assert main(["lut", "show", str(toy_file)]) == 0
    assert "warning" in (error := capsys.readouterr().err)
    assert "stale" in error


# --- show ---


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    """A table in which two choices interact."""
    path = tmp_path / "widths.npz"
    save_table(build_table(width_supernet(), load_latency_predictor(CPU)), path)
    return path


def test_table_of_blocks_tells_all_that_a_latency_consists_of(
    toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = load_table(toy_file)
    assert main(["lut", "show", str(toy_file)]) == 0
    printed = capsys.readouterr().out
    for label, known in table.candidates.items():
        [line] = [line for line in printed.splitlines() if line.startswith(f"│ {label}")]
        assert all(f"{ms:.4f}" in line for ms in table.block(label))
        assert all(name in printed for name in known)
    assert f"stationary part: {table.constant:.4f} ms" in printed
    assert "width and kernel interact" in printed
    every = table.latencies(list(itertools.product(*(range(len(k)) for k in table.candidates.values()))))
    assert f"18 architectures: {every.min():.3f} to {every.max():.3f} ms" in printed


def test_records_hold_every_block(toy_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = load_table(toy_file)
    assert main(["lut", "show", str(toy_file), "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert (record["predictor"], record["input_shape"]) == (CPU, "1x3x32x32")
    interactions = table.interactions().items()
    assert record["interactions"] == [{"labels": list(p), "ms": ms.tolist()} for p, ms in interactions]
    assert main(["lut", "show", str(toy_file), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    expected = {("stationary_block", "root"): table.constant}
    for label, known in table.candidates.items():
        expected |= {(label, name): ms for name, ms in zip(known, table.block(label), strict=True)}
    assert {(row["label"], row["candidate"]): float(row["ms"]) for row in rows} == expected


def test_heat_map_has_a_panel_a_device(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    heights = []
    for devices in ([CPU], [CPU, GPU]):
        path = tmp_path / "heat.png"
        assert main(["lut", "show", "spos", "--predictor", *devices, "--plot", str(path)]) == 0
        pixels = image.imread(path)
        assert len(np.unique(pixels[..., 0])) > 50  # many latencies, many shades
        heights.append(len(pixels))
    assert heights[1] > 1.7 * heights[0]


def test_heat_map_of_few_positions_cuts_no_title(toy_file: Path) -> None:
    table = load_table(toy_file)
    header = dataclasses.replace(table.header, device=f"{CPU}_of_a_long_name", space="Space" * 20)
    long = dataclasses.replace(table, header=header)
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(heat_map([long]))) as picture:
        edges = np.asarray(picture.convert("L"))[:, [0, 1, -2, -1]]
    assert edges.min() > 200  # nothing is drawn at the left and right edges


def test_heat_map_tells_which_values_are_above_the_cheapest() -> None:
    candidates = {"width": ("8", "16"), "kernel": ("k1", "k3"), "last": ("a", "b"), "only": ("c",)}
    factors = {(0,): np.array([1.0, 2.0]), (0, 1): np.array([[1.0, 3.0], [2.0, 6.0]]),
               (2,): np.array([0.0, 5.0])}  # fmt: skip
    table = FactorTable(candidates, 0.5, factors)
    found = {label: heat_column(table, label) for label in candidates}
    values = {label: ms.tolist() for label, (ms, _) in found.items()}
    assert values == {"width": [1.0, 2.0], "kernel": [0.0, 3.0], "last": [0.0, 5.0], "only": [0.0]}
    assert [label for label, (_, relative) in found.items() if relative] == ["kernel", "last"]
    assert "* above the cheapest candidate; on average where positions interact" in heat_title(table)
    assert "average" not in heat_title(FactorTable(candidates, 0.5, {(2,): np.array([0.0, 5.0])}))
    assert "*" not in heat_title(FactorTable(candidates, 0.5, {(0,): np.array([1.0, 2.0])}))


# --- rank ---


def ranked(capsys: pytest.CaptureFixture[str], *arguments: Any) -> list[dict[str, Any]]:
    assert main(["lut", "rank", *map(str, arguments), "--json"]) == 0
    records: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [record["rank"] for record in records] == list(range(1, len(records) + 1))
    return records


def test_ranking_tells_intervals_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    name = "nasbench201-small"
    plain, sure = (
        ranked(capsys, name, "--slowest", "--top", 2, "--predictor", CPU, *more)
        for more in ([], ["--intervals"])
    )
    for without, record in zip(plain, sure, strict=True):
        assert without["low_ms"] is without["high_ms"] is None
        assert record["latency_ms"] == without["latency_ms"]
        assert record["low_ms"] < record["latency_ms"] < record["high_ms"]
    assert main(["lut", "rank", name, "--slowest", "--top", "2", "--predictor", CPU, "--intervals"]) == 0
    assert f"{sure[0]['low_ms']:.4g} to {sure[0]['high_ms']:.4g}" in capsys.readouterr().out


def test_ranking_is_that_of_listing_all_architectures(
    toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = load_table(toy_file)
    choices = itertools.product(*table.candidates.values())
    every = sorted((dict(zip(table.labels, chosen, strict=True)) for chosen in choices), key=table.latency)
    for order, listed in (("--fastest", every), ("--slowest", every[::-1])):
        records = ranked(capsys, toy_file, order, "--top", 7)
        assert [record["architecture"] for record in records] == listed[:7]
        assert [record["latency_ms"] for record in records] == [table.latency(a) for a in listed[:7]]
    limit = table.latency(every[4]) + 1e-9
    assert [r["architecture"] for r in ranked(capsys, toy_file, "--max-latency", limit)] == every[:5]
    [record] = ranked(capsys, toy_file, "--slowest", "--max-latency", limit, "--top", 1)
    assert record["architecture"] == every[4]
    [record] = ranked(capsys, toy_file, "--closest", limit, "--top", 1)
    assert record["architecture"] == every[4]
    sampled = ranked(capsys, toy_file, "--sample", 1000, "--top", 18)
    assert [record["architecture"] for record in sampled] == every


def test_ranks_of_a_large_space_are_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    space = ("proxylessnas", "--predictor", CPU)
    fast, slow = (ranked(capsys, *space, order, "--top", 1)[0] for order in ("--fastest", "--slowest"))
    assert set(slow["architecture"].values()) == {"k7_e6"}
    assert list(fast["architecture"].values()).count("zero") == 15
    middle = (fast["latency_ms"] + slow["latency_ms"]) / 2
    near = [record["latency_ms"] for record in ranked(capsys, *space, "--closest", middle)]
    assert len(near) == 20
    assert near == pytest.approx([middle] * 20, rel=0.002)
    within = [r["latency_ms"] for r in ranked(capsys, *space, "--slowest", "--max-latency", middle)]
    assert max(within) <= middle
    assert within == pytest.approx([middle] * 20, rel=0.002)
    sampled = ranked(capsys, *space, "--sample", 500, "--closest", middle, "--seed", 1)
    sample = [record["latency_ms"] for record in sampled]
    assert sample == sorted(sample, key=lambda ms: abs(ms - middle))


def test_ranked_architectures_are_printed_and_are_columns_of_csv(
    toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [best, *_] = ranked(capsys, toy_file, "--top", 2)
    assert main(["lut", "rank", str(toy_file), "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert f"{best['latency_ms']:.4f} │ {' '.join(best['architecture'].values())}" in printed
    assert main(["lut", "rank", str(toy_file), "--top", "2", "--csv"]) == 0
    [row, _] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {label: row[label] for label in best["architecture"]} == best["architecture"]


def test_limit_that_nothing_meets_says_what_the_fastest_takes(
    toy_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fastest = ranked(capsys, toy_file, "--top", 1)[0]["latency_ms"]
    for more in ([], ["--slowest"], ["--sample", "5"], ["--closest", "3"]):
        assert main(["lut", "rank", str(toy_file), "--max-latency", f"{fastest / 2}", *more]) == 1
        assert f"the fastest of all takes {fastest:.4f} ms" in capsys.readouterr().err


# --- Wrong usage ---


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["build", "--space", "spos", "--predictor", "cortex", "-o", "x"], 2, "no predictor for device"),
        (["build", "--space", "spos"], 2, "-o/--output"),
        (["build", "--space", "spos", "-o", "x", "--scheduler", "auto"], 2, "add --backend dask or"),
        (["rank", "spos", "--scheduler", "tcp://127.0.0.1:1"], 2, "add --backend dask or --backend ray"),
        (["show", "missing.yaml"], 1, "cannot read the lookup table missing.yaml"),
        (["show", "spoz"], 1, "did you mean 'spos'"),
        (["show", "spos", "--predictor", "cortex"], 2, "no predictor for device 'cortex'"),
        (["show", "spos", "proxylessnas", "--plot", "x.png"], 2, "draws one search space"),
        (["show", "spos", "--plot", "x.jpg"], 2, "does not end in .png"),
        (["show", "TOY", "--predictor", GPU], 1, f"is of {CPU}, which --predictor does not name"),
        (["rank", "spos", "--fastest", "--slowest"], 2, "not allowed with"),
        (["rank", "spos", "--top", "0"], 2, "0 is not at least 1"),
        (["rank", "spos", "--max-latency", "nan"], 2, "nan is not a positive number"),
    ],
)
def test_wrong_usage_is_told_and_nothing_is_written(
    folder: Path, toy_file: Path, arguments: list[str], code: int, message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    before = sorted(folder.iterdir())
    try:
        found = main(["lut", *(str(toy_file) if a == "TOY" else a for a in arguments)])
    except SystemExit as usage:
        found = int(str(usage.code))
    assert found == code
    assert message in capsys.readouterr().err
    assert sorted(folder.iterdir()) == before


def test_spaces_are_loaded_from_where_they_are(folder: Path) -> None:
    fingerprint = Space.of_supernet(residual_supernet()).fingerprint
    assert load_space("toy_spaces:made").fingerprint == fingerprint
    assert load_space("toy_spaces:residual_supernet").fingerprint == fingerprint
    name = "nnmeter_nas.search_spaces:ShuffleNetV2OneShot"
    assert load_space(name).fingerprint == load_space("spos").fingerprint
    assert "" not in sys.path


def test_latency_beyond_pairs_of_choices_is_kept_and_found_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ["lut", "build", "--space", "toy_spaces:entangled_supernet", "--predictor", CPU, "-o", "tables"]
    assert main(build) == 0
    out, err = capsys.readouterr()
    written = Path(out.strip())
    assert (written.suffix, err) == (".npz", "")
    assert written.is_file()
    assert main(build) == 0
    assert "1 of 1 tables were there" in capsys.readouterr().err
    # In the package, searches take it from there.
    monkeypatch.setattr(bundled, "bundled_tables", lambda: folder / "tables")
    monkeypatch.setattr(measures, "learn_tables", None)
    space, predictor = Space.of_supernet(entangled_supernet()), load_latency_predictor(CPU)
    rows = np.array([[0] * len(space.candidates), [1] * len(space.candidates)])
    priced = [predictor.predict(space.model_graph(dict(zip(space.candidates, names, strict=True))))
              for names in ([known[i] for known in space.candidates.values()] for i in (0, 1))]
    assert measures.latency(space, predictor).values(rows) == pytest.approx(priced)
