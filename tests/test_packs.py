"""Predictor packs: small, free of pickles, found by name, honest on their cards, refused when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from ir import small_cnn

from nnmeter_nas import list_latency_predictors, load_latency_predictor
from nnmeter_nas.errors import PackError, UnknownDeviceError
from nnmeter_nas.kernels import KERNEL_TYPES
from nnmeter_nas.packs import files, load_pack, pack_folders, registry, save_pack
from nnmeter_nas.packs.registry import devices

DEVICES = sorted(devices())
DEVICE = "cortexA76cpu_tflite21"
VERSION = 2.0
FILES = ("pack.yaml", "weights.npz", "SHA256SUMS")


def bundled(device: str) -> Path:
    return pack_folders()[device, VERSION]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A copy of a bundled pack, to damage."""
    return shutil.copytree(bundled(DEVICE), tmp_path / DEVICE / "2.0")


def reseal(folder: Path) -> None:
    """Make the checksums of a changed pack right again."""
    lines = [f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n" for n in FILES[:2]]
    (folder / "SHA256SUMS").write_text("".join(lines))


def card_of(folder: Path) -> dict[str, Any]:
    card = yaml.safe_load((folder / "pack.yaml").read_text(encoding="utf-8"))
    assert isinstance(card, dict)
    return card


def change_card(folder: Path, **changes: Any) -> None:
    """Rewrite the card of ``folder``, checksum and all; None removes an entry."""
    card = {k: v for k, v in {**card_of(folder), **changes}.items() if v is not None}
    (folder / "pack.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    reseal(folder)


def change_weights(folder: Path, arrays: dict[str, Any]) -> None:
    """Replace the arrays of ``folder``, checksum and all."""
    np.savez_compressed(folder / "weights.npz", **arrays)
    reseal(folder)


def weights_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def test_all_four_devices_ship_with_the_package() -> None:
    found = {(card["name"], card["version"]) for card in list_latency_predictors()}
    assert {(device, VERSION) for device in DEVICES} <= found


@pytest.mark.parametrize("device", DEVICES)
def test_pack_takes_at_most_a_megabyte_and_holds_no_code(device: str) -> None:
    content = list(bundled(device).iterdir())
    assert sorted(path.name for path in content) == sorted(FILES)
    assert sum(path.stat().st_size for path in content) <= 1_000_000
    assert all(array.dtype.kind == "f" for array in weights_of(bundled(device)).values())


@pytest.mark.parametrize("device", DEVICES)
def test_card_says_what_the_pack_is_and_was_trained_on(device: str) -> None:
    card = card_of(bundled(device))
    assert (card["name"], card["version"]) == (device, VERSION)
    assert card["category"] in ("cpu", "gpu", "vpu")
    assert card["runtime"]
    assert card["date"]
    assert card["code_version"]
    assert set(card["kernel_types"]) <= set(KERNEL_TYPES)
    assert "Open Use of Data" in card["trained_on"]["licence"]


@pytest.mark.parametrize("device", DEVICES)
def test_card_carries_both_evaluations_for_every_family(device: str) -> None:
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


@pytest.mark.parametrize("version", [None, 2, 2.0, "2.0"])
def test_version_may_be_left_out_or_given(version: Any) -> None:
    assert load_latency_predictor(DEVICE, predictor_version=version).version == VERSION


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("cortexA76cpu", DEVICE),
        ("adreno640gpu_tflite", "adreno640gpu_tflite21"),
        ("Adreno630", "adreno630gpu_tflite21"),
        ("myriad", "myriadvpu_openvino2019r2"),
    ],
)
def test_misspelt_device_gets_the_nearest_name(typo: str, meant: str) -> None:
    with pytest.raises(UnknownDeviceError, match=f"{typo}.*did you mean '{meant}'") as caught:
        load_latency_predictor(typo)
    assert all(device in str(caught.value) for device in DEVICES)


@pytest.mark.parametrize("version", [3.0, 0, "newest", float("nan")])
def test_unknown_version_lists_those_there_are(version: Any) -> None:
    with pytest.raises(UnknownDeviceError, match=rf"{version}.*{DEVICE}.*2\.0"):
        load_latency_predictor(DEVICE, version)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(pack: Path, name: str) -> None:
    (pack / name).unlink()
    with pytest.raises(PackError, match=f"incomplete.*{name}"):
        load_pack(pack)


@pytest.mark.parametrize("name", ["pack.yaml", "weights.npz"])
@pytest.mark.parametrize("damage", ["a flipped bit", "cut short", "emptied", "appended to"])
def test_damaged_file_is_refused_by_its_hash(pack: Path, name: str, damage: str) -> None:
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
def test_damaged_checksums_are_refused(pack: Path, content: bytes) -> None:
    (pack / "SHA256SUMS").write_bytes(content)
    with pytest.raises(PackError, match="damaged"):
        load_pack(pack)


def test_folder_without_a_pack_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="incomplete"):
        load_pack(tmp_path / "nowhere")


def test_pack_of_another_format_asks_for_an_update(pack: Path) -> None:
    change_card(pack, format=99)
    with pytest.raises(PackError, match=r"format 99.*update"):
        load_pack(pack)


@pytest.mark.parametrize("entry", ["format", "name", "version", "fusion_rules", "kernel_types"])
def test_card_that_lacks_an_entry_is_refused(pack: Path, entry: str) -> None:
    change_card(pack, **{entry: None})
    with pytest.raises(PackError, match=entry):
        load_pack(pack)


@pytest.mark.parametrize(
    "changes", [{"version": "newest"}, {"fusion_rules": ["conv"]}, {"fusion_rules": [1]}, {"fusion_rules": 5}]
)
def test_card_with_a_senseless_entry_is_refused(pack: Path, changes: dict[str, Any]) -> None:
    change_card(pack, **changes)
    with pytest.raises(PackError, match=next(iter(changes))):
        load_pack(pack)


@pytest.mark.parametrize("text", ["- a list\n", "{", "just text"])
def test_card_that_is_no_card_is_refused(pack: Path, text: str) -> None:
    (pack / "pack.yaml").write_text(text, encoding="utf-8")
    reseal(pack)
    with pytest.raises(PackError, match=r"pack\.yaml"):
        load_pack(pack)


def test_weights_that_hold_objects_are_refused_unread(pack: Path) -> None:
    change_weights(pack, {**weights_of(pack), "center": np.array([{"an": "object"}], dtype=object)})
    with pytest.raises(PackError, match=r"weights\.npz"):
        load_pack(pack)


@pytest.mark.parametrize("missing", ["center", "range_low", "member0.group_weights", "member"])
def test_weights_that_lack_an_array_are_refused(pack: Path, missing: str) -> None:
    change_weights(pack, {k: v for k, v in weights_of(pack).items() if not k.startswith(missing)})
    with pytest.raises(PackError, match="weights"):
        load_pack(pack)


def test_weights_for_other_kernel_types_are_refused(pack: Path) -> None:
    arrays = weights_of(pack)
    change_weights(pack, {**arrays, "member0.kind_weights": arrays["member0.kind_weights"][1:]})
    with pytest.raises(PackError, match="other kernel types"):
        load_pack(pack)


def test_weights_that_are_no_archive_are_refused(pack: Path) -> None:
    (pack / "weights.npz").write_bytes(b"PK\x03\x04 but no archive")
    reseal(pack)
    with pytest.raises(PackError, match=r"weights\.npz"):
        load_pack(pack)


def test_damaged_pack_is_refused_when_a_predictor_is_asked_for(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "bundled_packs", lambda: pack.parents[1])
    assert load_latency_predictor(DEVICE).device == DEVICE
    (pack / "pack.yaml").write_text("nonsense", encoding="utf-8")
    with pytest.raises(PackError, match="damaged"):
        load_latency_predictor(DEVICE)


def test_saved_pack_predicts_what_the_original_does(tmp_path: Path) -> None:
    original = load_pack(bundled(DEVICE))
    save_pack(tmp_path / "copy", original.card, original.network)
    copy = load_pack(tmp_path / "copy")
    assert copy.card == original.card
    assert copy.rules == original.rules
    for name, array in original.network.to_arrays().items():
        np.testing.assert_array_equal(copy.network.to_arrays()[name], array)


@pytest.mark.parametrize("writes", [0, 1, 2])
def test_interrupted_save_leaves_no_pack_that_loads_half(
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
    half = {**original.network.to_arrays(), "center": original.network.center + 1}
    with pytest.raises(OSError, match="no space"):
        save_pack(pack, {**original.card, "date": "2099-01-01"}, type(original.network).from_arrays(half))
    monkeypatch.undo()
    assert sorted(path.name for path in pack.iterdir()) == sorted(FILES), "temporary files are left behind"
    try:
        loaded = load_pack(pack)
    except PackError:
        return
    assert loaded.card == original.card
    np.testing.assert_array_equal(loaded.network.center, original.network.center)


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
