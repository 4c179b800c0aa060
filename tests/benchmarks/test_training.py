"""Pack training: one seed gives one pack, an interrupted run goes on, and the card tells the truth."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnmeter_nas import LatencyPredictor
from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.packs import pack_training
from nnmeter_nas.benchmarks.packs.kernel_table import build_tables
from nnmeter_nas.benchmarks.packs.pack_training import Plan, held_out, train_packs
from nnmeter_nas.errors import DatasetError, UnknownDeviceError
from nnmeter_nas.kernels.configuration import COLUMNS
from nnmeter_nas.kernels.fusion import parse_rules
from nnmeter_nas.packs import load_pack
from nnmeter_nas.packs.estimates import fit_rates
from nnmeter_nas.packs.network import member_latency
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers.nnmeter_ir.dataset import dataset_files, iter_models
from nnmeter_nas.training import fit as training
from nnmeter_nas.training.accuracy import accuracy
from nnmeter_nas.training.fit import fit_member, growth_pairs
from nnmeter_nas.training.settings import Settings
from nnmeter_nas.training.table import KernelTable, load_table, save_table
from synthetic_bench import CPU, VPU, write_bench

PLAN = Plan(devices=(CPU, VPU), members=2, seed=0, epochs=2, lofo_epochs=1)
QUICK = Settings(epochs=2, hidden=16)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up dataset of two families."""
    return write_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def table(bench: Path) -> KernelTable:
    """The kernel table of the made-up dataset under the CPU's rules."""
    return build_tables(bench, {CPU: parse_rules(devices()[CPU]["fusion_rules"])})[CPU]


@pytest.fixture(scope="module")
def trained(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``packs`` trained on the made-up dataset and the ``work`` that they came from."""
    folder = tmp_path_factory.mktemp("trained")
    train(bench, folder)
    return folder


def train(bench: Path, folder: Path, plan: Plan = PLAN) -> None:
    train_packs(bench, folder / "packs", folder / "work", plan)


def all_models(table: KernelTable) -> Any:
    return np.arange(len(table.ids))


def test_same_seed_gives_the_same_network(table: KernelTable) -> None:
    first, second, other = (
        fit_member(table, CPU, all_models(table), QUICK, seed).to_arrays() for seed in (0, 0, 1)
    )
    for name, array in first.items():
        np.testing.assert_array_equal(second[name], array)
    assert any(not np.array_equal(other[name], array) for name, array in first.items())


def test_same_command_gives_the_same_packs(trained: Path, bench: Path, tmp_path: Path) -> None:
    train(bench, tmp_path)
    for device in PLAN.devices:
        first, second = (load_pack(folder / "packs" / device / "2.1") for folder in (trained, tmp_path))
        for name, array in first.predictors.to_arrays().items():
            np.testing.assert_array_equal(second.predictors.to_arrays()[name], array)
        assert second.card == first.card


def test_network_learns_and_generalises_to_models_not_seen(table: KernelTable) -> None:
    seen = np.flatnonzero(~held_out(table.ids))
    unseen = np.flatnonzero(held_out(table.ids))
    network = fit_member(table, CPU, seen, Settings(epochs=150, hidden=32, batch=16), 0)
    predicted = pack_training.predicted_latency(network, table)
    assert len(unseen) >= 3
    assert accuracy(predicted[unseen], table.measured(CPU)[unseen])["mape"] < 10


def test_training_sees_what_prediction_computes(table: KernelTable) -> None:
    blank = training.blank_network(table.configurations)
    twin = training._Network(blank.names, 16)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    found = blank.features(table.configurations)
    inputs = np.tanh(found.descriptors)
    tensors = [torch.from_numpy(a).float() for a in (found.terms, inputs)]
    with torch.no_grad():
        expected, _ = twin(torch.from_numpy(found.kinds), *tensors)
    latency = member_latency(twin.arrays(), blank.names.group_of_kind, found, inputs)
    np.testing.assert_allclose(latency, expected.numpy(), rtol=1e-5)


def test_interrupted_training_goes_on_where_it_stopped(
    bench: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = pack_training.fit_member, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pack_training, "fit_member", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(bench, tmp_path)
    assert not (tmp_path / "packs").exists()
    done = fits(tmp_path)
    assert len(done) == 3

    train(bench, tmp_path)
    # Two devices, each with two members, and two for each of two families to leave out; the fourth was begun
    # twice.
    assert calls == 2 * (2 + 2 * 2) + 1
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for device in PLAN.devices:
        resumed, whole = (load_pack(folder / "packs" / device / "2.1") for folder in (tmp_path, trained))
        for name, array in whole.predictors.to_arrays().items():
            np.testing.assert_array_equal(resumed.predictors.to_arrays()[name], array)


def fits(folder: Path) -> dict[Path, int]:
    """Finished fits of a work folder and when each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.glob("work/fits-*/*.npz")}


@pytest.mark.parametrize(
    "damage", [b"", b"PK\x03\x04 cut off", None], ids=["empty", "cut off", "other arrays"]
)
def test_damaged_fit_is_trained_again(
    bench: Path, trained: Path, tmp_path: Path, damage: bytes | None
) -> None:
    shutil.copytree(trained / "work", tmp_path / "work")
    victim = next(path for path in fits(tmp_path) if "member0" in path.name)
    if damage is None:
        np.savez(victim, center=np.zeros(3))
    else:
        victim.write_bytes(damage)
    before = fits(tmp_path)
    train(bench, tmp_path)
    assert {path for path, written in fits(tmp_path).items() if written != before[path]} == {victim}


def test_other_seed_does_not_take_over_finished_fits(bench: Path, trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "work", tmp_path / "work")
    plan = replace(PLAN, devices=(CPU,), members=1, seed=5)
    train(bench, tmp_path, plan)
    first, other = (load_pack(folder / "packs" / CPU / "2.1").predictors for folder in (trained, tmp_path))
    assert not np.array_equal(first.members[0]["kind_bias"], other.members[0]["kind_bias"])


def test_held_out_ids_depend_on_the_id_alone_and_are_a_tenth() -> None:
    ids = [f"net_{i}" for i in range(2000)]
    mask = held_out(ids)
    assert 0.07 < mask.mean() < 0.13
    np.testing.assert_array_equal(held_out(ids[::-1]), mask[::-1])


def test_held_out_models_and_left_out_families_are_not_trained_on(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], set[str]]] = []
    real = pack_training.fit_member

    def spy(table: KernelTable, device: str, models: Any, settings: Settings, seed: int) -> Any:
        seen.append((set(table.ids[models]), set(table.families[models])))
        return real(table, device, models, settings, seed)

    monkeypatch.setattr(pack_training, "fit_member", spy)
    train(bench, tmp_path, replace(PLAN, devices=(CPU,), members=1))
    [member, *left_out] = seen
    assert not held_out(member[0]).any()
    twice = ["plainnet", "plainnet", "wideception", "wideception"]
    assert sorted(families.pop() for _, families in left_out if len(families) == 1) == twice


@pytest.mark.parametrize("device", PLAN.devices)
def test_card_says_what_prediction_really_reaches(trained: Path, bench: Path, device: str) -> None:
    pack = load_pack(trained / "packs" / device / "2.1")
    predictor = LatencyPredictor(pack)
    pairs = [
        (predictor.predict(model.graph), model.latency_ms[device])
        for path in dataset_files(bench)
        for model in iter_models(path)
        if device in model.latency_ms and held_out([model.id])[0]
    ]
    expected = accuracy(*zip(*pairs, strict=True))
    claimed = pack.card["accuracy"]["held_out_ids"]["all"]
    assert claimed["models"] == len(pairs)
    for name in ("mape", "within_5", "within_10"):
        assert claimed[name] == pytest.approx(expected[name], abs=0.01)


@pytest.mark.parametrize("device", PLAN.devices)
def test_card_tells_the_accuracy_by_network_too(trained: Path, device: str) -> None:
    accuracy = load_pack(trained / "packs" / device / "2.1").card["accuracy"]
    networks = {name: found for name, found in accuracy["held_out_networks"].items() if name != "mean"}
    assert sum(found["models"] for found in networks.values()) == accuracy["held_out_ids"]["all"]["models"]
    mean = np.mean([found["within_10"] for found in networks.values()])
    assert accuracy["held_out_networks"]["mean"]["within_10"] == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("device", PLAN.devices)
def test_card_carries_the_rates_of_its_estimates(trained: Path, device: str) -> None:
    pack = load_pack(trained / "packs" / device / "2.1")
    fitted = fit_rates(pack.predictors)
    assert set(pack.rates) == set(pack.card["rates"]) == set(fitted)
    for name, rate in pack.rates.items():
        assert rate == pytest.approx(fitted[name], rel=1e-3)


@pytest.mark.parametrize("device", PLAN.devices)
def test_card_carries_leave_one_family_out_for_every_family(trained: Path, device: str) -> None:
    card = load_pack(trained / "packs" / device / "2.1").card
    left_out = card["accuracy"]["leave_one_family_out"]
    assert set(left_out["families"]) == {"plainnet", "wideception"}
    within = [figures["within_10"] for figures in left_out["families"].values()]
    assert left_out["mean_within_10"] == pytest.approx(np.mean(within), abs=0.01)
    for figures in left_out["families"].values():
        # Two passes over the data teach so little that ten networks of the family itself teach more.
        assert figures["within_10"] < figures["calibrated_with_10_within_10"]
    assert any("concat kernels occur in wideception alone" in note for note in left_out["notes"])
    assert any("dwconv kernels occur in plainnet alone" in note for note in left_out["notes"])
    # One model in seven has no figure of the VPU.
    measured = 60 if device == CPU else 50
    assert sum(figures["models"] for figures in left_out["families"].values()) == measured


@pytest.mark.parametrize("device", PLAN.devices)
def test_card_tells_how_often_intervals_hold(trained: Path, device: str) -> None:
    pack = load_pack(trained / "packs" / device / "2.1")
    assert pack.intervals is not None
    assert pack.prototypes is not None
    assert set(pack.prototypes.points) == set(pack.card["kernel_types"])
    covered = pack.card["intervals"]["coverage"]
    assert set(covered) == {"held_out_ids", "plainnet", "wideception"}
    assert all(0 <= found["coverage"] <= 100 and found["half_width"] > 0 for found in covered.values())


def test_device_without_figures_is_named(bench: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=f"no latency of 'adreno640gpu_tflite21'.*{CPU}"):
        train(bench, tmp_path, replace(PLAN, devices=("adreno640gpu_tflite21",)))


def test_unknown_device_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownDeviceError, match=f"did you mean '{CPU}'"):
        train(tmp_path, tmp_path, replace(PLAN, devices=("cortexA76",)))
    assert not list(tmp_path.iterdir())


def test_model_that_cannot_be_read_is_named_with_its_file(tmp_path: Path) -> None:
    write_bench(tmp_path, models=2)
    path = tmp_path / "plainnets.jsonl"
    path.write_text(path.read_text().replace('"weight_shape"', '"gone"'), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"plainnets\.jsonl: model 'plainnet_0': .*weight_shape"):
        build_tables(tmp_path, {CPU: parse_rules(["conv->relu"])})


def test_command_trains_and_says_where_packs_are(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(bench), "--predictor", CPU, "--output", str(tmp_path / "packs")]
    arguments += ["--work", str(tmp_path / "work"), "--members", "1", "--epochs", "1", "--lofo-epochs", "1"]
    assert main([*arguments, "--workers", "1"]) == 0
    assert load_pack(tmp_path / "packs" / CPU / "2.1").name == CPU
    assert "wrote" in capsys.readouterr().err


def test_command_ends_with_an_error_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(tmp_path), "--work", str(tmp_path / "work")]) == 1
    assert "error: no <family>s.jsonl files" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("option", ["--members", "--epochs", "--lofo-epochs", "--workers"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_command_refuses_senseless_numbers(
    tmp_path: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), option, value])
    assert option in capsys.readouterr().err


def test_table_adds_up_kernels_of_each_model(table: KernelTable, tmp_path: Path) -> None:
    per_kernel = np.arange(len(table.configurations), dtype=float)
    for i in (0, len(table.ids) - 1):
        mine = table.index[table.start[i] : table.start[i + 1]]
        assert table.sums(per_kernel)[i] == per_kernel[mine].sum()
    rows = zip(table.types.tolist(), table.sizes.tolist(), table.declared.tolist(), strict=True)
    assert len(set(map(str, rows))) == len(table.configurations)
    save_table(tmp_path / "table.npz", table)
    again = load_table(tmp_path / "table.npz")
    for name in KernelTable.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))


def test_growth_pairs_grow_in_some_size_and_shrink_in_none(table: KernelTable) -> None:
    smaller, larger = growth_pairs(table.configurations, np.random.default_rng(0), 2000)
    assert smaller.sizes.shape == larger.sizes.shape == (2000, len(COLUMNS))
    assert (larger.sizes >= smaller.sizes).all()
    assert (larger.declared >= smaller.declared).all()
    assert np.mean((larger.sizes > smaller.sizes).any(axis=1)) > 0.7
