"""Predictor packs are small, free of pickles, found by name, documented by cards, and rejected if damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forests import KERNELS, write_predictor
from graphs import squeeze_excite
from ir import small_cnn
from nnmeter_nas import LatencyWarning, files, list_latency_predictors, load_latency_predictor
from nnmeter_nas.errors import PackError, UnknownDeviceError
from nnmeter_nas.kernels.configuration import FORMULA_TYPES
from nnmeter_nas.packs import (
    find_pack,
    import_predictor,
    load_pack,
    pack_cards,
    pack_folders,
    registry,
    save_pack,
    verify_pack,
)
from nnmeter_nas.packs import pack as pack_module
from nnmeter_nas.packs.fingerprint import pack_fingerprint
from nnmeter_nas.packs.registry import PackWarning, devices

DEVICES = sorted(devices())
DEVICE = "cortexA76cpu_tflite21"
VERSION = 2.1
FILES = ("pack.yaml", "weights.npz", "SHA256SUMS")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the user's packs."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def bundled(device: str) -> Path:
    return pack_folders()[device, VERSION]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of a bundled pack that tests may damage."""
    return shutil.copytree(bundled(DEVICE), tmp_path / DEVICE / "2.1")


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nn-Meter's pickled forests."""
    return write_predictor(tmp_path_factory.mktemp("release") / DEVICE)


@pytest.fixture
def forests(release: Path) -> Path:
    """An imported pack of forests that tests may damage."""
    return import_predictor(release)


def reseal(folder: Path) -> None:
    """Update the checksums of a changed pack."""
    names = [line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def card_of(folder: Path) -> dict[str, Any]:
    card = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    assert isinstance(card, dict)
    return card


def change_card(folder: Path, **changes: Any) -> None:
    """Rewrite the card of ``folder`` and update its checksum; None removes an entry."""
    card = {k: v for k, v in {**card_of(folder), **changes}.items() if v is not None}
    (folder / "pack.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    reseal(folder)


def change_weights(folder: Path, arrays: dict[str, Any]) -> None:
    """Replace the arrays of ``folder`` and update their checksum."""
    np.savez_compressed(folder / "weights.npz", **arrays)
    reseal(folder)


def weights_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def test_all_four_devices_ship_with_the_package() -> None:
    found = {(card["name"], card["version"]) for card in list_latency_predictors()}
    assert {(device, VERSION) for device in DEVICES} <= found


@pytest.mark.parametrize("device", DEVICES)
def test_pack_is_at_most_a_megabyte_and_has_no_code(device: str) -> None:
    content = list(bundled(device).iterdir())
    assert sorted(path.name for path in content) == sorted(FILES)
    assert sum(path.stat().st_size for path in content) <= 1_000_000
    assert {array.dtype.kind for array in weights_of(bundled(device)).values()} == {"f", "U"}


@pytest.mark.parametrize("device", DEVICES)
def test_card_describes_the_pack_and_its_training_data(device: str) -> None:
    card = card_of(bundled(device))
    assert (card["name"], card["version"]) == (device, VERSION)
    assert card["category"] in ("cpu", "gpu", "vpu")
    assert card["runtime"]
    assert card["date"]
    assert card["code_version"]
    assert set(card["kernel_types"]) <= set(FORMULA_TYPES)
    assert "Open Use of Data" in card["trained_on"]["licence"]


@pytest.mark.parametrize("device", DEVICES)
def test_card_has_both_evaluations_for_every_family(device: str) -> None:
    accuracy = card_of(bundled(device))["accuracy"]
    held_out, left_out = accuracy["held_out_ids"], accuracy["leave_one_family_out"]
    families = set(left_out["families"])
    assert len(families) >= (11 if "adreno" in device else 12)
    assert set(held_out) == {"all", *families}
    for figures in [*held_out.values(), *left_out["families"].values()]:
        assert set(figures) >= {"models", "within_5", "within_10", "mape", "spearman"}
        assert figures["models"] > 0
        assert 0 <= figures["within_5"] <= figures["within_10"] <= 100
    within = [figures["within_10"] for figures in left_out["families"].values()]
    assert left_out["mean_within_10"] == pytest.approx(np.mean(within), abs=0.01)
    assert any("mobilenetv3" in note for note in left_out["notes"]), "what cannot be learnt is to be named"


@pytest.mark.parametrize("name", [DEVICE.upper(), DEVICE.lower(), "CortexA76CPU_TFLite21"])
def test_device_names_match_in_any_case(name: str) -> None:
    assert load_latency_predictor(name).device == DEVICE


@pytest.mark.parametrize("version", [None, 2.1, "2.1"])
def test_version_is_optional(version: Any) -> None:
    assert load_latency_predictor(DEVICE, predictor_version=version).version == VERSION


@pytest.mark.parametrize("version", [2, 2.0, "2.0"])
@pytest.mark.parametrize("device", DEVICES)
def test_the_version_before_stays_loadable(device: str, version: Any) -> None:
    old = load_latency_predictor(device, predictor_version=version)
    assert old.version == 2.0
    verify_pack(pack_folders()[device, 2.0])


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("cortexA76cpu", DEVICE),
        ("adreno640gpu_tflite", "adreno640gpu_tflite21"),
        ("Adreno630", "adreno630gpu_tflite21"),
        ("myriad", "myriadvpu_openvino2019r2"),
    ],
)
def test_error_for_a_misspelled_device_suggests_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"{typo}.*did you mean '{meant}'") as caught:
        load_latency_predictor(typo)
    assert all(device in str(caught.value) for device in DEVICES)


@pytest.mark.parametrize("version", [3.0, 0, "newest", float("nan")])
def test_error_for_an_unknown_version_lists_the_known_ones(version: Any) -> None:
    with pytest.raises(UnknownDeviceError, match=rf"{version}.*{DEVICE}.*2\.0"):
        load_latency_predictor(DEVICE, version)


@pytest.mark.parametrize("name", FILES)
def test_error_names_a_missing_file(pack: Path, name: str) -> None:
    (pack / name).unlink()
    with pytest.raises(PackError, match=f"incomplete.*{name}"):
        load_pack(pack)


@pytest.mark.parametrize("name", ["pack.yaml", "weights.npz"])
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "emptied", "appended to"])
def test_damaged_file_fails_the_hash_check(pack: Path, name: str, damage: str) -> None:
    content = bytearray((pack / name).read_bytes())
    if damage == "a flipped bit":
        content[len(content) // 2] ^= 1
    elif damage == "cut short":
        del content[-10:]
    elif damage == "emptied":
        content.clear()
    else:
        content += b"\n"
    (pack / name).write_bytes(content)
    with pytest.raises(PackError, match=f"{name} is damaged"):
        load_pack(pack)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0" * 64 + b"  pack.yaml\n"])
def test_damaged_checksums_are_rejected(pack: Path, content: bytes) -> None:
    (pack / "SHA256SUMS").write_bytes(content)
    with pytest.raises(PackError, match="damaged"):
        load_pack(pack)


def test_folder_without_a_pack_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="incomplete"):
        load_pack(tmp_path / "nowhere")


def test_error_for_another_pack_format_asks_for_an_update(pack: Path) -> None:
    change_card(pack, format=99)
    with pytest.raises(PackError, match=r"format 99.*update"):
        load_pack(pack)


@pytest.mark.parametrize("entry", ["format", "name", "version", "fusion_rules", "kernel_types"])
def test_card_without_an_entry_is_rejected(pack: Path, entry: str) -> None:
    change_card(pack, **{entry: None})
    with pytest.raises(PackError, match=entry):
        load_pack(pack)


@pytest.mark.parametrize(
    "changes", [{"version": "newest"}, {"fusion_rules": ["conv"]}, {"fusion_rules": [1]}, {"fusion_rules": 5}]
)
def test_card_with_an_invalid_entry_is_rejected(pack: Path, changes: dict[str, Any]) -> None:
    change_card(pack, **changes)
    with pytest.raises(PackError, match=next(iter(changes))):
        load_pack(pack)


@pytest.mark.parametrize("text", ["- a list\n", "{", "just text"])
def test_invalid_card_is_rejected(pack: Path, text: str) -> None:
    (pack / "pack.yaml").write_text(text, encoding="utf-8")
    reseal(pack)
    with pytest.raises(PackError, match=r"pack\.yaml"):
        load_pack(pack)


def test_weights_with_objects_are_rejected_unread(pack: Path) -> None:
    change_weights(pack, {**weights_of(pack), "center": np.array([{"an": "object"}], dtype=object)})
    with pytest.raises(PackError, match=r"weights\.npz"):
        load_pack(pack)


@pytest.mark.parametrize("missing", ["center", "range_low", "member0.group_weights", "member"])
def test_weights_without_an_array_are_rejected(pack: Path, missing: str) -> None:
    change_weights(pack, {k: v for k, v in weights_of(pack).items() if not k.startswith(missing)})
    with pytest.raises(PackError, match="weights"):
        load_pack(pack)


def test_weights_for_other_kernel_types_are_rejected(pack: Path) -> None:
    arrays = weights_of(pack)
    change_weights(pack, {**arrays, "member0.kind_weights": arrays["member0.kind_weights"][1:]})
    with pytest.raises(PackError, match="do not fit the kernel types"):
        load_pack(pack)


def test_weights_that_are_not_an_archive_are_rejected(pack: Path) -> None:
    (pack / "weights.npz").write_bytes(b"PK\x03\x04 but no archive")
    reseal(pack)
    with pytest.raises(PackError, match=r"weights\.npz"):
        load_pack(pack)


def test_loading_a_predictor_rejects_a_damaged_pack(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "bundled_packs", lambda: pack.parents[1])
    assert load_latency_predictor(DEVICE).device == DEVICE
    (pack / "pack.yaml").write_text("nonsense", encoding="utf-8")
    with pytest.raises(PackError, match="damaged"):
        load_latency_predictor(DEVICE)


def test_saved_pack_predicts_the_same_as_the_original(tmp_path: Path) -> None:
    original = load_pack(bundled(DEVICE))
    save_pack(tmp_path / "copy", original.card, original.predictors)
    copy = load_pack(tmp_path / "copy")
    assert copy.card == {**original.card, "format": 2}
    assert copy.rules == original.rules
    for name, array in original.predictors.to_arrays().items():
        np.testing.assert_array_equal(copy.predictors.to_arrays()[name], array)


CALIBRATION = {"made_from": {"predictor": DEVICE}, "scale": 2.0, "launch_ms": 0.0, "offset_ms": 0.0,
               "kernel_types": {}}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "stale"),
    [
        ({"accuracy": {}}, False),
        ({"intervals": None}, False),
        ({"date": "2030-01-01", "hardware": "a pixel", "training": {"members": 3}}, False),
        ({"version": 3.0}, True),
        ({"fusion_rules": ["conv->bn"]}, True),
        ({"rates": {"relu": [0.1, 0.1, 0.1]}}, True),
        ({"anything new": 1}, True),
        ({"calibration": {**CALIBRATION, "scale": 3.0}}, True),
        ({"calibration": {**CALIBRATION, "made_from": {"predictor": "x"}, "models": 9}}, False),
    ],
)
def test_fingerprint_changes_with_what_latencies_depend_on(changed: dict[str, Any], stale: bool) -> None:
    pack = load_latency_predictor(DEVICE).pack
    if "calibration" in changed:
        pack = replace(pack, card={**pack.card, "calibration": CALIBRATION})
    found = pack_fingerprint(replace(pack, card={**pack.card, **changed}))
    assert (found != pack_fingerprint(pack)) == stale


def test_fingerprint_covers_the_weights_of_predictors_and_no_prototypes() -> None:
    pack = load_latency_predictor(DEVICE).pack
    assert pack.prototypes is not None
    told = pack.prototypes.to_arrays()
    assert set(told) < set(pack.weights)
    for name, array in pack.weights.items():
        if array.ndim and len(array):
            other = replace(pack, weights={**pack.weights, name: array[:-1]})
            assert (pack_fingerprint(other) != pack_fingerprint(pack)) == (name not in told), name


def test_fingerprint_of_forests_tells_the_source_and_not_where_it_was(forests: Path) -> None:
    pack = load_pack(forests)
    source = pack.card["source"]
    for name, stale in (("from", False), ("sha256", True)):
        other = replace(pack, card={**pack.card, "source": {**source, name: "another"}})
        assert (pack_fingerprint(other) != pack_fingerprint(pack)) == stale


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_interrupted_save_leaves_no_partial_pack(
    pack: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    original = load_pack(pack)
    real, done = files.os.replace, 0

    def replace(source: str, target: Path) -> None:
        nonlocal done
        if done == writes:
            raise OSError("no space left on device")
        done += 1
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    half = {**original.predictors.to_arrays(), "center": original.predictors.center + 1}
    with pytest.raises(OSError, match="no space"):
        save_pack(pack, {**original.card, "date": "2099-01-01"}, type(original.predictors).from_arrays(half))
    monkeypatch.undo()
    assert sorted(path.name for path in pack.iterdir()) == sorted(FILES), "temporary files are left behind"
    try:
        loaded = load_pack(pack)
    except PackError:
        return
    assert loaded.card == original.card
    np.testing.assert_array_equal(loaded.predictors.center, original.predictors.center)


def test_forests_predict_models(forests: Path) -> None:
    predictor = load_latency_predictor(DEVICE, 1.0)
    with pytest.warns(LatencyWarning, match="dwconv"):  # has no forest
        assert predictor.predict(small_cnn()) > 0
    assert predictor.pack.card["kind"] == "forests"
    assert load_pack(forests).card == predictor.pack.card


@pytest.mark.parametrize(("kernels", "units"), [(KERNELS, 6), ({**KERNELS, "se": 2}, 2)])
def test_forests_price_a_pattern_whole_if_they_know_it(
    kernels: dict[str, int], units: int, tmp_path: Path
) -> None:
    pack = load_pack(import_predictor(write_predictor(tmp_path / DEVICE, kernels)))
    assert len(pack.kernel_graph(squeeze_excite())) == units



@pytest.mark.parametrize("name", ["pack.yaml", "fusion_rules.json", "SHA256SUMS", "forests/fc.forest"])
def test_error_names_a_missing_file_of_a_forest_pack(forests: Path, name: str) -> None:
    (forests / name).unlink()
    for check in (load_pack, verify_pack):
        with pytest.raises(PackError, match=f"incomplete.*{name}"):
            check(forests)


@pytest.mark.parametrize("name", ["pack.yaml", "fusion_rules.json", "forests/fc.forest"])
def test_error_names_a_damaged_file_of_a_forest_pack(forests: Path, name: str) -> None:
    content = bytearray((forests / name).read_bytes())
    content[-1] ^= 1
    (forests / name).write_bytes(content)
    with pytest.raises(PackError, match=f"{name} is damaged"):
        verify_pack(forests)
    if not name.startswith("forests/"):
        with pytest.raises(PackError, match=f"{name} is damaged"):
            load_pack(forests)


def test_forest_of_another_size_is_rejected_unread(forests: Path) -> None:
    with (forests / "forests" / "fc.forest").open("ab") as file:
        file.write(b"more")
    with pytest.raises(PackError, match=r"fc\.forest is damaged"):
        load_pack(forests)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "trees"},
        {"kind": ["forests"]},
        {"forests": None},
        {"forests": ["fc"]},
        {"forests": {"fc": {}}},
        {"forests": {"fc": {"bytes": "many"}}},
        {"forests": {"../../fc": {"bytes": 1}}},
        {"forests": {5: {"bytes": 1}}},
    ],
)
def test_invalid_card_of_forests_is_rejected(forests: Path, changes: dict[str, Any]) -> None:
    change_card(forests, **changes)
    with pytest.raises(PackError, match=next(iter(changes))):
        load_pack(forests)


@pytest.mark.parametrize("device", DEVICES)
def test_bundled_packs_pass_the_check_of_all_hashes(device: str) -> None:
    verify_pack(bundled(device))


def test_checksums_without_a_forest_are_found(forests: Path) -> None:
    lines = (forests / "SHA256SUMS").read_text().splitlines(keepends=True)
    (forests / "SHA256SUMS").write_text("".join(line for line in lines if "relu.forest" not in line))
    with pytest.raises(PackError, match=r"lacks forests/conv-bn-relu\.forest, forests/relu\.forest"):
        verify_pack(forests)


def test_user_packs_are_listed_with_the_bundled_ones(forests: Path) -> None:
    assert pack_folders()[DEVICE, 1.0] == forests
    versions = [version for device, version in pack_folders() if device == DEVICE]
    assert versions == [2.1, 2.0, 1.0]
    cards = [(card["name"], card["version"]) for card in pack_cards()]
    assert cards == list(pack_folders())
    assert set(load_latency_predictor(DEVICE, 1.0).pack.card["kernel_types"]) == set(KERNELS)


@pytest.mark.parametrize("damage", ["card", "checksums", "foreign", "not a version", "not a pack"])
def test_damaged_user_pack_does_not_stop_others_from_loading(
    release: Path, home: Path, damage: str
) -> None:
    folder = import_predictor(release, version=3.0)
    if damage == "card":
        (folder / "pack.yaml").write_text("nonsense")
    elif damage == "checksums":
        (folder / "SHA256SUMS").unlink()
    elif damage == "foreign":
        change_card(folder, format=99)
    elif damage == "not a version":
        folder = folder.rename(folder.parent / "newest")
    else:
        (folder / "pack.yaml").unlink()
    others = set(DEVICES) - {DEVICE}
    if damage in ("not a version", "not a pack"):
        assert load_latency_predictor(DEVICE).version == VERSION
        assert len(pack_cards()) == 2 * len(DEVICES)
        return
    with pytest.warns(PackWarning, match="left out"):
        assert load_latency_predictor(DEVICE).version == VERSION
    with pytest.warns(PackWarning, match="left out"):
        assert {card["name"] for card in pack_cards()} == set(DEVICES)
    with pytest.raises(PackError):
        load_latency_predictor(DEVICE, 3.0)
    for device in others:
        assert load_latency_predictor(device).version == VERSION


def test_pack_under_another_packs_name_is_rejected(forests: Path) -> None:
    forests.rename(forests.parent / "1.5")
    with pytest.raises(PackError, match=f"holds the predictor '{DEVICE}' 1.0, not '{DEVICE}' 1.5"):
        load_latency_predictor(DEVICE, 1.5)


def test_only_a_replaced_pack_is_loaded_again(forests: Path, release: Path) -> None:
    first = find_pack(DEVICE, 1.0)
    assert find_pack(DEVICE, 1.0) is first
    change_card(forests, date="2099-01-01")
    assert find_pack(DEVICE, 1.0).card["date"] == "2099-01-01"


def test_finding_a_pack_reads_only_its_own_card(forests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    real = pack_module.read_card

    def read_card(folder: Path) -> dict[str, Any]:
        read.append(folder)
        return real(folder)

    monkeypatch.setattr(pack_module, "read_card", read_card)
    registry._load.cache_clear()
    find_pack(DEVICE.lower())
    assert read == [bundled(DEVICE)]


WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "sklearn", "nni", "scipy", "onnx", "joblib", "matplotlib"}:
            raise ImportError(name + " is not installed")
sys.meta_path.insert(0, Refuse())
import json, numpy
real_load = numpy.load
def load(*arguments, **options):
    assert not options.get("allow_pickle"), "weights were loaded with pickle allowed"
    return real_load(*arguments, **options)
numpy.load = load
import nnmeter_nas
model = json.load(sys.stdin)
for card in nnmeter_nas.list_latency_predictors():
    print(card["name"], nnmeter_nas.load_latency_predictor(card["name"]).predict(model))
"""


def test_prediction_needs_neither_torch_nor_nni_nor_scikit_learn() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        input=json.dumps(small_cnn()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = {name: float(ms) for name, ms in (line.split() for line in answer.stdout.splitlines())}
    assert set(found) >= set(DEVICES)
    for device in DEVICES:
        assert found[device] == pytest.approx(load_latency_predictor(device).predict(small_cnn()))
