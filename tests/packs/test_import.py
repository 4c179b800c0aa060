"""Import of nn-Meter's predictors from folders and zips is atomic and rejects attacks."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forests import DEVICE, KERNELS, fitted, rows, write_predictor, zipped
from layout import REPOSITORY
from nnmeter_nas import load_latency_predictor
from nnmeter_nas.errors import PackError, UnknownDeviceError
from nnmeter_nas.files import sha256
from nnmeter_nas.packs import (
    find_pack,
    import_predictor,
    load_pack,
    pack_cards,
    pack_folders,
    read_forest,
    register_predictor,
    remove_predictor,
    verify_pack,
)
from nnmeter_nas.packs.nnmeter1 import members
from nnmeter_nas.packs.registry import bundled_packs


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for imported packs."""
    monkeypatch.setenv("NNMETER_NAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor like nn-Meter's unpacked release; its only metadata is the folder's name."""
    return write_predictor(tmp_path_factory.mktemp("release") / DEVICE)


@pytest.fixture
def source(release: Path, tmp_path: Path) -> Path:
    """A copy of the release that tests may change."""
    return shutil.copytree(release, tmp_path / "source" / DEVICE)


@pytest.fixture(scope="session")
def archived(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A zip of a predictor with one forest."""
    folder = tmp_path_factory.mktemp("archived")
    return zipped(write_predictor(folder / DEVICE, {"fc": 4}), folder / "any.zip").read_bytes()


def packs(home: Path) -> list[str]:
    """The entries in the folder of packs."""
    return sorted(str(path.relative_to(home / "packs")) for path in (home / "packs").rglob("*"))


@pytest.mark.parametrize("kind", ["folder", "zip", "zip without a folder"])
def test_imported_predictor_predicts_the_same_as_its_pickles(
    release: Path, tmp_path: Path, home: Path, kind: str
) -> None:
    given: Path = release
    if kind != "folder":
        given = zipped(release, tmp_path / "any.zip", "" if "without" in kind else f"{DEVICE}/")
    folder = import_predictor(given, name=DEVICE if "without" in kind else None)
    assert folder == home / "packs" / DEVICE / "1.0"
    for kernel, n_features in KERNELS.items():
        x = rows(20, n_features, seed=2)
        stored = read_forest(folder / "forests" / f"{kernel}.forest").predict(x)
        np.testing.assert_allclose(stored, read_forest(release / f"{kernel}.pkl").predict(x), rtol=1e-12)
        expected = fitted(n_features=n_features, count=60).predict(x)
        np.testing.assert_allclose(stored, expected, rtol=1e-9, atol=0)
    assert (folder / "fusion_rules.json").read_bytes() == (release / "fusion_rules.json").read_bytes()
    verify_pack(folder)


def test_imported_version_is_not_the_default(release: Path) -> None:
    import_predictor(release)
    assert load_latency_predictor(DEVICE).version == 2.1
    imported = load_latency_predictor(DEVICE.upper(), predictor_version=1.0)
    assert (imported.device, imported.version) == (DEVICE, 1.0)
    assert {(card["name"], card["version"]) for card in pack_cards()} >= {(DEVICE, 1.0), (DEVICE, 2.0)}


def test_card_names_the_source_of_the_pack(release: Path, tmp_path: Path) -> None:
    archive = zipped(release, tmp_path / "any.zip")
    card = load_pack(import_predictor(archive)).card
    assert card["kind"] == "forests"
    assert card["category"] == "cpu"
    assert card["runtime"] == "TFLite 2.1"
    assert card["source"] == {"from": str(archive), "sha256": sha256(archive)}
    assert card["kernel_types"] == sorted(KERNELS)
    assert {kernel: facts["features"] for kernel, facts in card["forests"].items()} == KERNELS


def test_meta_file_and_arguments_name_the_pack(source: Path, home: Path) -> None:
    meta = {"name": "myPhone", "version": 2.5, "category": "gpu", "kernel_predictors": list(KERNELS)}
    (source / "meta.yaml").write_text(yaml.safe_dump(meta))
    assert import_predictor(source) == home / "packs" / "myPhone" / "2.5"
    assert load_latency_predictor("MYPHONE").pack.card["category"] == "gpu"
    assert import_predictor(source, name="another", version=3) == home / "packs" / "another" / "3.0"


def test_names_of_known_devices_get_their_usual_case(release: Path, home: Path) -> None:
    assert import_predictor(release, name=DEVICE.lower()) == home / "packs" / DEVICE / "1.0"
    assert import_predictor(release, name="myPhone") == home / "packs" / "myPhone" / "1.0"
    assert import_predictor(release, name="MYphone") == home / "packs" / "myPhone" / "1.0"


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("fusion_rules.json", r"fusion_rules\.json"),
        ("*.pkl", r"lacks conv-bn-relu\.pkl, fc\.pkl, relu\.pkl"),
        ("fc.pkl", r"lacks fc\.pkl"),
    ],
)
@pytest.mark.parametrize("as_zip", [True, False])
def test_error_names_missing_files(
    source: Path, tmp_path: Path, home: Path, missing: str, named: str, as_zip: bool
) -> None:
    for file in source.glob(missing):
        file.unlink()
    (source / "meta.yaml").write_text(yaml.safe_dump({"name": DEVICE, "kernel_predictors": list(KERNELS)}))
    with pytest.raises(PackError, match=named):
        import_predictor(zipped(source, tmp_path / "any.zip") if as_zip else source)
    assert packs(home) == []


@pytest.mark.parametrize(
    "rules", [b"", b"{", b"[]", b'{"BF_conv_relu": true}', b'{"BF_conv_relu": {}}', b"\xff", b"[" * 100_000]
)
def test_rule_file_without_rules_is_rejected(source: Path, home: Path, rules: bytes) -> None:
    (source / "fusion_rules.json").write_bytes(rules)
    with pytest.raises(PackError, match=r"fusion_rules\.json"):
        import_predictor(source)
    assert packs(home) == []


@pytest.mark.parametrize(
    "meta",
    ["- a\n", "{", "name: [1]", "name: ../up", "name: /root", "version: newest", "version: -1",
     "version: .nan", "version: [1]", "category: 5", "kernel_predictors: fc", "kernel_predictors: [[1]]"],
)  # fmt: skip
def test_invalid_meta_file_is_rejected(source: Path, home: Path, meta: str) -> None:
    (source / "meta.yaml").write_text(meta)
    with pytest.raises(PackError):
        import_predictor(source)
    assert packs(home) == []


def test_huge_meta_file_is_rejected(source: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)), "name: *a59"]
    (source / "meta.yaml").write_text("\n".join(lines))
    with pytest.raises(PackError, match="name"):
        import_predictor(source)


def test_malicious_pickle_is_rejected_and_nothing_is_kept(source: Path, home: Path) -> None:
    (source / "relu.pkl").write_bytes(b"cposix\nsystem\n(Vtouch payload-ran\ntR.")
    with pytest.raises(PackError, match=r"relu\.pkl .*posix\.system"):
        import_predictor(source)
    assert packs(home) == []


@pytest.mark.parametrize("name", [".pkl", "..pkl", "a b.pkl", "-x.pkl"])
def test_pickle_of_an_unknown_kernel_is_rejected(source: Path, home: Path, name: str) -> None:
    shutil.copy(source / "fc.pkl", source / name)
    if name.startswith("."):
        import_predictor(source)  # hidden files, as file managers create them, are ignored
        return
    with pytest.raises(PackError, match="no name of a kernel"):
        import_predictor(source)
    assert packs(home) == []


def test_importing_the_same_source_again_keeps_the_pack(release: Path) -> None:
    folder = import_predictor(release)
    before = [(path, path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.rglob("*"))]
    assert import_predictor(release) == folder
    assert [(p, p.stat().st_mtime_ns, p.stat().st_ino) for p in sorted(folder.rglob("*"))] == before


def test_changed_content_or_a_repair_replaces_a_pack(source: Path, home: Path) -> None:
    folder = import_predictor(source)
    old = load_latency_predictor(DEVICE, 1.0).pack
    (source / "fc.pkl").unlink()
    assert import_predictor(source) == folder
    assert load_latency_predictor(DEVICE, 1.0).pack.card["kernel_types"] == ["conv-bn-relu", "relu"]
    assert old.card["kernel_types"] == sorted(KERNELS)
    (folder / "forests" / "relu.forest").write_bytes(b"damaged")
    import_predictor(source)
    verify_pack(folder)
    assert [name for name in packs(home) if name.startswith(".")] == []


def test_failed_import_keeps_the_existing_pack(source: Path) -> None:
    folder = import_predictor(source)
    (source / "relu.pkl").write_bytes((source / "relu.pkl").read_bytes()[:-9])
    with pytest.raises(PackError, match="relu"):
        import_predictor(source)
    verify_pack(folder)


def test_bundled_versions_cannot_be_replaced(release: Path, home: Path) -> None:
    with pytest.raises(PackError, match="ships with"):
        import_predictor(release, version=2.0)
    assert packs(home) == []


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "name", ["../se.pkl", f"{DEVICE}/../../se.pkl", "/tmp/se.pkl", "C:/se.pkl", "..\\se.pkl", "../readme"]
)
def test_zip_entry_outside_folder_is_rejected(release: Path, tmp_path: Path, home: Path, name: str) -> None:
    with pytest.raises(PackError, match="outside"):
        import_predictor(zipped(release, tmp_path / "any.zip", **{name: b"x"}))
    assert packs(home) == []


def test_zip_with_links_or_duplicates_is_rejected(release: Path, tmp_path: Path, home: Path) -> None:
    path = zipped(release, tmp_path / "any.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link(f"{DEVICE}/se.pkl"), "/etc/passwd")
    with pytest.raises(PackError, match="link"):
        import_predictor(path)
    for double in (f"{DEVICE}/fc.pkl", f"{DEVICE}/FC.pkl"):
        path = zipped(release, tmp_path / "any.zip")
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            archive.write(release / "fc.pkl", double)
        with pytest.raises(PackError, match="twice"):
            import_predictor(path)
    path = zipped(release, tmp_path / "any.zip", **{"other/fc.pkl": b"x"})
    with pytest.raises(PackError, match="several predictors"):
        import_predictor(path)
    assert packs(home) == []


def test_zip_bombs_are_rejected_before_unpacking(
    release: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(release, tmp_path / "any.zip", **{f"{DEVICE}/se.pkl": bytes(8 << 20)})
    with pytest.raises(PackError, match=r"se\.pkl' unpacks to 8388608 bytes"):
        import_predictor(path)
    path = zipped(release, tmp_path / "any.zip")
    data = path.read_bytes()
    for limit, value in (("MAX_ZIP_BYTES", 1000), ("MAX_ZIP_ENTRIES", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(members, limit, value)
            with pytest.raises(PackError, match="more than a predictor can take"):
                import_predictor(path)
    # Entries that share the same compressed bytes.
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    largest = max(entries, key=lambda entry: entry.compress_size)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(5):
            copy = zipfile.ZipInfo(f"{DEVICE}/fc{number}.pkl")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset"):
                setattr(copy, field, getattr(largest, field))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    assert len(data) < path.stat().st_size < 2 * len(data)
    with pytest.raises(PackError, match="overlap"):
        import_predictor(path)
    assert packs(home) == []


def test_encrypted_or_damaged_zips_are_rejected(release: Path, tmp_path: Path, home: Path) -> None:
    path = zipped(release, tmp_path / "any.zip")
    data = path.read_bytes()
    encrypted = bytearray(data)
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        encrypted[encrypted.index(magic) + flags] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(PackError, match="encrypted"):
        import_predictor(path)
    for start in range(0, len(data), len(data) // 40):
        damaged = bytearray(data)
        damaged[start : start + 30] = bytes(30)
        path.write_bytes(damaged)
        try:
            folder = import_predictor(path)
        except PackError:
            assert packs(home) == []
        else:
            verify_pack(folder)
            remove_predictor(folder.parent.name)
        path.write_bytes(data[:start])
        with pytest.raises(PackError, match="no zip"):
            import_predictor(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_of_another_method_is_rejected(release: Path, tmp_path: Path, home: Path, method: int) -> None:
    path = tmp_path / "any.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in release.iterdir():
            archive.write(file, f"{DEVICE}/{file.name}")
    with pytest.raises(PackError, match="neither stored nor deflated"):
        import_predictor(path)
    assert packs(home) == []


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_zip_with_changed_bytes_gives_a_pack_or_an_error(
    archived: bytes, tmp_path: Path, home: Path, data: st.DataObject
) -> None:
    content, directory = bytearray(archived), archived.index(b"PK\1\2")
    places = st.one_of(st.integers(0, 60), st.integers(directory, len(archived) - 1))
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "any.zip").write_bytes(content)
    try:
        folder = import_predictor(tmp_path / "any.zip", name=DEVICE)
    except PackError:
        assert packs(home) == []
    else:
        verify_pack(folder)
        remove_predictor(DEVICE)


def test_files_added_to_zips_by_file_managers_are_ignored(release: Path, tmp_path: Path) -> None:
    names = ("__MACOSX/{}/._fc.pkl", "__MACOSX/{}/fc.pkl", "{}/.DS_Store", "{}/._fc.pkl", "{}/readme.txt")
    extra = {name.format(DEVICE): b"x" for name in names}
    folder = import_predictor(zipped(release, tmp_path / "any.zip", **extra))
    assert load_pack(folder).card["kernel_types"] == sorted(KERNELS)


def test_hash_of_a_zip_is_checked(release: Path, tmp_path: Path, home: Path) -> None:
    path = zipped(release, tmp_path / "any.zip")
    with pytest.raises(PackError, match="SHA-256"):
        import_predictor(path, sha256="0" * 64)
    with pytest.raises(PackError, match="folder"):
        import_predictor(release, sha256="0" * 64)
    assert packs(home) == []
    verify_pack(import_predictor(path, sha256=sha256(path).upper()))


@pytest.mark.parametrize(
    "source", ["nowhere.zip", "cortexA76", "", "file:///etc/passwd", "http://127.0.0.1/x.zip"]
)
def test_invalid_source_is_rejected(
    source: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(PackError, match=r"https://|lacks"):
        import_predictor(source)
    assert packs(home) == []


def test_registered_predictor_comes_from_its_package_location(source: Path, home: Path) -> None:
    meta: dict[str, Any] = {
        "name": "myPhone", "version": 1.5, "category": "cpu", "package_location": DEVICE,
        "kernel_predictors": list(KERNELS),
    }  # fmt: skip
    path = source.parent / "meta.yaml"
    path.write_text(yaml.safe_dump(meta))
    assert register_predictor(path) == home / "packs" / "myPhone" / "1.5"
    assert load_latency_predictor("myPhone").version == 1.5
    for entry in meta:
        path.write_text(yaml.safe_dump({key: value for key, value in meta.items() if key != entry}))
        with pytest.raises(PackError, match=f"lacks {entry}"):
            register_predictor(path)
    path.write_text(yaml.safe_dump({**meta, "kernel_predictors": [*KERNELS, "split"]}))
    with pytest.raises(PackError, match=r"lacks split\.pkl"):
        register_predictor(path)
    path.write_text(yaml.safe_dump({**meta, "package_location": "elsewhere"}))
    with pytest.raises(PackError, match="elsewhere"):
        register_predictor(path)
    with pytest.raises(PackError, match="nowhere"):
        register_predictor(home / "nowhere.yaml")


def test_only_imported_packs_are_removed(release: Path, home: Path) -> None:
    import_predictor(release)
    import_predictor(release, version=1.5)
    assert remove_predictor(DEVICE.lower(), 1.5) == [1.5]
    assert (DEVICE, 1.0) in pack_folders()
    assert remove_predictor(DEVICE) == [1.0]
    assert packs(home) == []
    for name, version in ((DEVICE, None), (DEVICE, 2.0), ("nobody", None)):
        with pytest.raises(UnknownDeviceError, match="no imported predictor"):
            remove_predictor(name, version)
    assert find_pack(DEVICE).version == 2.1
    assert bundled_packs().is_dir()


def test_progress_is_reported_in_bytes_of_the_pickles(release: Path) -> None:
    told: list[tuple[str, int, int]] = []
    import_predictor(release, progress=lambda *figures: told.append(figures))
    total = sum(file.stat().st_size for file in release.glob("*.pkl"))
    assert {figures[2] for figures in told} == {total}
    assert [figures[1] for figures in told] == sorted(figures[1] for figures in told)
    assert told[-1][1] == total


IMPORT = """
import sys
from nnmeter_nas.packs import import_predictor
from nnmeter_nas.packs.nnmeter1 import importing
if sys.argv[2:]:
    real = importing.write_forest
    def write_forest(path, forest):
        real(path, forest)
        print("stored", path.name, flush=True)
        if path.stem == sys.argv[2]:
            sys.stdin.read()
    importing.write_forest = write_forest
print(import_predictor(sys.argv[1]), flush=True)
"""


def process(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", IMPORT, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True)


@pytest.mark.parametrize("kernel", ["conv-bn-relu", "relu"])
def test_killed_import_leaves_no_pack_and_the_next_one_works(release: Path, home: Path, kernel: str) -> None:
    killed = process(release, kernel)
    assert killed.stdout is not None
    while f"stored {kernel}.forest" not in killed.stdout.readline():
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert (DEVICE, 1.0) not in pack_folders()
    assert not (home / "packs" / DEVICE).exists()
    verify_pack(import_predictor(release))
    assert [name for name in packs(home) if name.startswith(".")] == []


def test_concurrent_imports_of_the_same_source_take_turns(release: Path, home: Path) -> None:
    first = process(release, "relu")
    assert first.stdout is not None
    while "stored relu.forest" not in first.stdout.readline():
        assert first.poll() is None
    second = process(release)
    time.sleep(1)
    assert second.poll() is None, "the second import does not wait for the first"
    assert first.communicate("go on")[0].strip() == str(home / "packs" / DEVICE / "1.0")
    assert second.communicate()[0].strip() == str(home / "packs" / DEVICE / "1.0")
    verify_pack(home / "packs" / DEVICE / "1.0")
