"""The accuracies of NAS-Bench-201 in the package are those of its authors' table, cell by cell."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from nnmeter_nas.benchmarks.__main__ import main
from nnmeter_nas.benchmarks.search.nasbench201_accuracy import (
    DATASETS,
    FILE,
    load_accuracies,
    write_accuracies,
)
from nnmeter_nas.costs.table import every_architecture
from nnmeter_nas.errors import DatasetError

#: The authors' names of our candidates.
OPERATIONS = {
    "none": "none",
    "skip_connect": "skip_connect",
    "conv_1x1": "nor_conv_1x1",
    "conv_3x3": "nor_conv_3x3",
    "avg_pool_3x3": "avg_pool_3x3",
}


@pytest.fixture(scope="module")
def table(shared_dir: Path) -> Path:
    """The authors' table."""
    file = shared_dir / "data" / "nasbench201_accuracy.csv.gz"
    if not file.exists():
        pytest.skip("needs the table of accuracies, shared/data/nasbench201_accuracy.csv.gz")
    return file


def cell(architecture: dict[str, str]) -> str:
    """An architecture of our space as the authors write it: for each node, ``|operation~source|``."""
    nodes = []
    for node in (1, 2, 3):
        edges = [f"{OPERATIONS[architecture[f'edge_{source}_{node}']]}~{source}" for source in range(node)]
        nodes.append(f"|{'|'.join(edges)}|")
    return "+".join(nodes)


def test_every_cell_has_the_accuracies_of_the_table(table: Path) -> None:
    from nnmeter_nas.supernet.named import load_space

    with gzip.open(table, "rt") as file:
        by_cell = {record["cell"]: record for record in csv.DictReader(file)}
    space = load_space("nasbench201")
    names = [tuple(map(str, known)) for known in space.candidates.values()]
    rows = every_architecture([len(known) for known in names])
    cells = [
        cell({label: names[p][row[p]] for p, label in enumerate(space.candidates)}) for row in rows.tolist()
    ]
    assert set(cells) == set(by_cell)
    for name, known in load_accuracies().items():
        for part, found in (("val", known.validation), ("test", known.test)):
            percent = [float(by_cell[cell][f"{name}-{part}"]) for cell in cells]
            np.testing.assert_allclose(100 * found, percent, atol=5.1e-4)


def test_the_command_makes_the_file_again_to_the_byte(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "nnmeter_nas.benchmarks.search.nasbench201_accuracy.FILE", tmp_path / "accuracy.npz"
    )
    assert main(["nasbench201-accuracy", str(table)]) == 0
    assert (tmp_path / "accuracy.npz").read_bytes() == FILE.read_bytes()


def test_accuracies_are_shares_of_images_and_differ_between_cells() -> None:
    known = load_accuracies()
    assert list(known) == list(DATASETS)
    for accuracies in known.values():
        for shares in (accuracies.validation, accuracies.test):
            assert shares.shape == (5**6,)
            assert 0 < shares.min() < 0.2 < shares.max() < 1
        assert np.corrcoef(accuracies.validation, accuracies.test)[0, 1] > 0.97


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["cell,cifar10-val"], "no column 'cifar10-test'"),
        (["{header}", "|none~0|,1,1,1,1,1,1"], "line 2: '|none~0|' is no cell"),
        (["{header}", "{none},1,1,1,1,1,300"], "line 2, imagenet16-120-test: '300' is no percentage"),
        (["{header}", "{none},1,1,1.23,1,1,1"], "cifar100-val: '1.23' is no percentage in steps"),
        (["{header}", "{none},1,1,1,1,1,1"], "has 1 of the 15625 cells"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    header = ",".join(["cell", *(f"{name}-{part}" for name in DATASETS for part in ("val", "test"))])
    none = cell(dict.fromkeys([f"edge_{a}_{b}" for b in (1, 2, 3) for a in range(b)], "none"))
    file = tmp_path / "table.csv"
    file.write_text("\n".join(line.format(header=header, none=none) for line in lines))
    with pytest.raises(DatasetError) as raised:
        write_accuracies(file, tmp_path / "accuracy.npz")
    assert message in str(raised.value)
    assert not (tmp_path / "accuracy.npz").exists()
