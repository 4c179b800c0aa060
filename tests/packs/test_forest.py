"""Forests predict the same as scikit-learn, from a memory-mapped file a seventh the size of the pickle."""

from __future__ import annotations

import io
import mmap
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor, ExtraTreeRegressor

from forests import fitted, release_pickle, rows
from nnmeter_nas.errors import NnMeterNasError, PackError
from nnmeter_nas.packs import read_forest
from nnmeter_nas.packs.nnmeter1.forest import Forest, read_pickled_forest, write_forest

MODELS: dict[str, Any] = {
    "nn-Meter's": RandomForestRegressor(
        20, max_depth=25, min_samples_leaf=1, min_samples_split=2, max_features=3, oob_score=True, n_jobs=2
    ),
    "nodes in best-first order": RandomForestRegressor(10, max_leaf_nodes=40),
    "large leaves": RandomForestRegressor(10, min_samples_leaf=9, bootstrap=False, max_features=0.5),
    "one split": RandomForestRegressor(5, max_depth=1),
    "pruned": RandomForestRegressor(5, ccp_alpha=1e-3),
    "of medians": RandomForestRegressor(3, criterion="absolute_error"),
    "extra trees": ExtraTreesRegressor(10),
    "a tree": DecisionTreeRegressor(),
    "an extra tree": ExtraTreeRegressor(max_leaf_nodes=9),
}


def of_pickle(data: bytes) -> Forest:
    return read_pickled_forest(io.BytesIO(data), len(data), "some.pkl")


def around_thresholds(model: Any) -> np.ndarray[Any, Any]:
    """Rows at each threshold, one float32 step below and above it, and far away."""
    trees = [estimator.tree_ for estimator in getattr(model, "estimators_", [model])]
    splits = {(f, t) for tree in trees for f, t in zip(tree.feature, tree.threshold, strict=True) if f >= 0}
    found = []
    for feature, threshold in sorted(splits)[:200]:
        near = np.float32(threshold)
        below, above = np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(1e9))
        for value in (threshold, near, below, above):
            row = rows(1)[0]
            row[feature] = value
            found.append(row)
    return np.array([*found, [0] * 4, [-1e30] * 4, [1e30] * 4])


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    return fitted(MODELS[request.param].set_params(random_state=0))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.filterwarnings("ignore:Some inputs do not have OOB scores")
def test_forest_predicts_the_same_as_scikit_learn(model: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "fc.pkl").write_bytes(pickle.dumps(model, protocol))
    pickled = read_forest(tmp_path / "fc.pkl")
    write_forest(tmp_path / "fc.forest", pickled)
    stored = read_forest(str(tmp_path / "fc.forest"))
    x = np.concatenate([rows(500, seed=3), rows(500, seed=4) + 0.5, around_thresholds(model)])
    for forest in (pickled, stored):
        assert forest.n_features == 4
        np.testing.assert_allclose(forest.predict(x), model.predict(x), rtol=1e-9, atol=0)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("word", [None, "<i4", "<i8", ">i4", ">i8"])
def test_forest_predicts_the_same_as_old_releases(protocol: int, word: str | None) -> None:
    model = fitted()
    order = (word or "<")[0]
    dtype = [
        *((name, word) for name in ("left_child", "right_child", "feature")),
        *((name, f"{order}f8") for name in ("threshold", "impurity")),
        *(("n_node_samples", word), ("weighted_n_node_samples", f"{order}f8")),
    ]
    data = release_pickle(model, protocol, dtype if word else None)
    assert b"missing_go_to_left" not in data
    assert b"n_features_in_" not in data
    assert b"_core" not in data
    np.testing.assert_allclose(of_pickle(data).predict(rows(50)), model.predict(rows(50)), rtol=1e-9, atol=0)


def test_constant_target_gives_one_leaf_per_tree() -> None:
    model = RandomForestRegressor(3).fit(rows(20), np.full(20, 0.125))
    assert of_pickle(pickle.dumps(model)).predict(rows(5)).tolist() == [0.125] * 5


@pytest.mark.parametrize("n_features", [1, 255, 256, 300])
def test_forests_with_any_number_of_features_are_stored(n_features: int, tmp_path: Path) -> None:
    model = fitted(RandomForestRegressor(5, max_features=1, random_state=0), n_features)
    write_forest(tmp_path / "wide.forest", of_pickle(pickle.dumps(model)))
    x = rows(100, n_features, seed=1)
    stored = read_forest(tmp_path / "wide.forest")
    np.testing.assert_allclose(stored.predict(x), model.predict(x), rtol=1e-9, atol=0)


@pytest.mark.parametrize("old", [True, False])
def test_stored_forest_is_at_most_15_percent_of_the_pickle(old: bool, tmp_path: Path) -> None:
    model = fitted(RandomForestRegressor(20, random_state=0), count=3000)
    data = release_pickle(model) if old else pickle.dumps(model)
    write_forest(tmp_path / "fc.forest", of_pickle(data))
    assert (tmp_path / "fc.forest").stat().st_size <= 0.15 * len(data)


def test_stored_forest_is_memory_mapped(tmp_path: Path) -> None:
    write_forest(tmp_path / "fc.forest", of_pickle(pickle.dumps(fitted())))
    forest = read_forest(tmp_path / "fc.forest")
    for array in (forest.feature, forest.payload):
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base, mmap.mmap)


def test_any_number_of_rows_is_predicted() -> None:
    model = fitted()
    forest = of_pickle(pickle.dumps(model))
    many = rows(30_000, seed=5)
    np.testing.assert_allclose(forest.predict(many), model.predict(many), rtol=1e-9, atol=0)
    assert forest.predict(np.empty((0, 4))).shape == (0,)
    assert forest.predict([[1, 2, 3, 4]]) == pytest.approx(model.predict([[1, 2, 3, 4]]), rel=1e-9)


@pytest.mark.parametrize(
    "bad",
    [rows(3, 3), rows(3, 5), [1.0, 2.0, 3.0, 4.0], np.zeros((2, 2, 4)), [["a", "b", "c", "d"]], [[1, 2], [3]],
     [[1, 2, 3, np.nan]], [[1, 2, 3, np.inf]], [[1, 2, 3, 1e39]], None],
)  # fmt: skip
def test_invalid_rows_are_rejected(bad: Any) -> None:
    with pytest.raises(ValueError, match="rows") as caught:
        of_pickle(pickle.dumps(fitted())).predict(bad)
    assert isinstance(caught.value, NnMeterNasError)


def change_tree(field: str, node: int, value: float) -> bytes:
    """A pickled forest with one changed node."""
    model = fitted(count=40)
    tree = model.estimators_[2].tree_
    kind, arguments, state = tree.__reduce__()
    state["nodes"][field][node] = value
    other = kind.__new__(kind, *arguments)
    # Patch the bytes, because __setstate__ rejects some values
    data = pickle.dumps(model)
    before, after = tree.__reduce__()[2]["nodes"].tobytes(), state["nodes"].tobytes()
    assert other is not tree
    assert data.count(before) == 1
    return data.replace(before, after)


@pytest.mark.parametrize(
    ("field", "node", "value"),
    [
        ("left_child", 0, 0),
        ("left_child", 1, 0),
        ("right_child", 0, 1),
        ("right_child", 0, 10**9),
        ("right_child", 0, -5),
        ("right_child", 1, 1),
        ("left_child", 0, -1),
        ("feature", 0, 4),
        ("feature", 0, -2),
        ("threshold", 0, float("nan")),
    ],
)
def test_malformed_pickled_tree_is_rejected(field: str, node: int, value: float) -> None:
    with pytest.raises(PackError, match=r"some\.pkl holds no fitted forest"):
        of_pickle(change_tree(field, node, value))


def test_unfitted_and_multi_target_forests_are_rejected() -> None:
    several = RandomForestRegressor(2).fit(rows(20), rows(20, 2))
    for model in (RandomForestRegressor(), several):
        with pytest.raises(PackError, match="holds no fitted forest"):
            of_pickle(pickle.dumps(model))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("stored") / "fc.forest"
    write_forest(path, of_pickle(pickle.dumps(fitted(count=40))))
    return path.read_bytes()


def test_truncated_or_extended_stored_forest_is_rejected(stored: bytes, tmp_path: Path) -> None:
    path = tmp_path / "fc.forest"
    for end in (*range(0, len(stored), 61), len(stored) - 1):
        path.write_bytes(stored[:end])
        with pytest.raises(PackError, match=r"fc\.forest"):
            read_forest(path)
    path.write_bytes(stored + b"\0")
    with pytest.raises(PackError, match="size"):
        read_forest(path)
    with pytest.raises(PackError, match="nowhere"):
        read_forest(tmp_path / "nowhere.forest")
    with pytest.raises(PackError, match="nowhere"):
        read_forest(tmp_path / "nowhere.pkl")
    with pytest.raises(PackError, match="cannot be"):
        read_forest(tmp_path)


def test_prediction_ends_even_if_a_tree_has_a_cycle(stored: bytes, tmp_path: Path) -> None:
    forest = of_pickle(pickle.dumps(fitted(count=40)))
    payload = forest.payload.copy()
    for right in (0, len(payload), 2**32 - 1):
        payload.view("<u4")[1::2][forest.feature != 255] = right
        broken = Forest(4, forest.depth, forest.roots, forest.feature, payload)
        with pytest.raises(PackError, match="damaged"):
            broken.predict(np.full((1, 4), 1e9))


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_stored_forest_gives_a_number_or_an_error(
    stored: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.forest"
    content = bytearray(stored)
    for position in data.draw(st.lists(st.integers(0, len(stored) - 1), min_size=1, max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    try:
        forest = read_forest(path)
        assert forest.predict(np.full((2, forest.n_features), 150.0)).shape == (2,)
    except PackError:
        return


def test_header_that_contradicts_the_content_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "huge.forest"
    for features, trees, nodes, depth in (
        (4, 1, 2**60, 1), (4, 2**31, 4, 1), (4, 0, 0, 0), (4, 1, 0, 0), (4, 1, 1, 2**63), (2**31, 1, 1, 0),
        (0, 1, 1, 0),
    ):  # fmt: skip
        path.write_bytes(struct.pack("<4sHHIIQQ", b"nnmF", 1, 1, features, trees, nodes, depth) + bytes(17))
        with pytest.raises(PackError, match=r"huge\.forest is damaged"):
            read_forest(path)
