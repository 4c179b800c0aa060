"""Forest: regression trees in nine bytes a node, memory-mapped and walked by all trees and rows at once.

The nodes of all trees are stored one after another, each tree in preorder, so a left child is the next node.
A node is a feature (one byte; the highest value marks a leaf) and eight bytes: the threshold and the position
of the right child, or the value of the leaf. scikit-learn casts its input to float32 and goes left if
``x <= threshold``, so a threshold rounded down to float32 decides the same. Leaf values stay float64.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ...errors import FeatureError, PackError
from ...files import write_bytes
from ...kernels.configuration import FloatArray
from .pickles import Record, decode_pickle

#: A stored forest: header, roots ``[trees]``, payload ``[nodes]``, feature ``[nodes]``; little-endian.
SUFFIX = ".forest"
#: Magic, format, bytes per feature, number of features, trees and nodes, depth.
_HEADER = struct.Struct("<4sHHIIQQ")
_MAGIC, _FORMAT = b"nnmF", 1
#: Trees times rows to walk at once: enough for NumPy to be fast, few enough for the cache.
_WALKERS = 1 << 16
#: Positions of nodes are uint32.
_MAX_NODES = 2**32 - 1

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Forest:
    """Regression trees that predict their mean.

    Attributes:
        n_features: number of features in a row.
        depth: number of steps from a root to the deepest leaf.
        roots: root node of each tree, ``[trees]``.
        feature: feature that a node compares, ``[nodes]``; the highest value of its type marks a leaf.
        payload: eight bytes a node, ``[nodes]``: float32 threshold and uint32 right child, or float64 value.
    """

    n_features: int
    depth: int
    roots: IntArray
    feature: npt.NDArray[Any]
    payload: npt.NDArray[np.uint64]

    def predict(self, rows: npt.ArrayLike) -> FloatArray:
        """Mean over the trees, ``[n, features] -> [n]``, as scikit-learn's ``predict`` returns it.

        Raises:
            FeatureError: ``rows`` has another shape, or holds a number that is not finite in float32.
            PackError: the forest is damaged.
        """
        x = self._checked(rows)
        step = max(1, _WALKERS // len(self.roots))
        means = [self._leaves(x[start : start + step]).mean(axis=0) for start in range(0, len(x), step)]
        return np.concatenate(means) if means else np.empty(0)

    def _checked(self, rows: npt.ArrayLike) -> npt.NDArray[np.float32]:
        try:
            with np.errstate(over="ignore"):
                x = np.asarray(rows, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise FeatureError(f"rows hold no numbers: {error}") from error
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise FeatureError(f"rows must be of shape [n, {self.n_features}], and are of {list(x.shape)}")
        if not np.isfinite(x).all():
            raise FeatureError("rows hold NaN, infinity, or a number beyond float32")
        return x

    def _leaves(self, x: npt.NDArray[np.float32]) -> FloatArray:
        """Value of the leaf that each row reaches in each tree, ``[n, features] -> [trees, n]``.

        NumPy checks every position, and the stored depth limits the walk, so a damaged forest raises.
        """
        n, trees, leaf = len(x), len(self.roots), np.iinfo(self.feature.dtype).max
        by_feature = x.T.ravel()  # the index of a missing feature is beyond the end of this array
        reached = np.empty(trees * n)
        walker, node, row = np.arange(trees * n), np.repeat(self.roots, n), np.tile(np.arange(n), trees)
        try:
            for _ in range(self.depth + 1):
                feature, payload = self.feature.take(node), self.payload.take(node)
                # Positions instead of masks: indexing with them is up to three times as fast.
                inner = (feature != leaf).nonzero()[0]
                if len(inner) < len(node):
                    ended = (feature == leaf).nonzero()[0]
                    reached[walker.take(ended)] = payload.take(ended).view("<f8")
                    walker, node, row = walker.take(inner), node.take(inner), row.take(inner)
                    feature, payload = feature.take(inner), payload.take(inner)
                threshold, right = payload.view("<f4")[::2], payload.view("<u4")[1::2]
                x_of_node = by_feature.take(np.multiply(feature, n, dtype=np.intp) + row)
                node = np.where(x_of_node <= threshold, node + 1, right)
        except IndexError as error:
            raise PackError(f"the forest is damaged: {error}") from error
        if len(walker):
            raise PackError(f"the forest is damaged: a path is longer than its depth of {self.depth}")
        return reached.reshape(trees, n)


def read_forest(path: str | Path) -> Forest:
    """Open a stored forest (``.forest``), memory-mapped, or decode scikit-learn's pickle.

    Opening reads the header and the roots; predictions read the pages of nodes as they need them.

    Raises:
        PackError: the file cannot be read or is damaged, or the pickle is refused.
    """
    path = Path(path)
    try:
        if path.suffix != SUFFIX:
            with path.open("rb") as file:
                return read_pickled_forest(file, path.stat().st_size, str(path))
        stored = np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
    except (OSError, ValueError) as error:
        raise PackError(f"{path} cannot be opened: {error}") from error
    if len(stored) < _HEADER.size:
        raise PackError(f"{path} is damaged: it is cut short")
    magic, format_, width, n_features, trees, nodes, depth = _HEADER.unpack(stored[: _HEADER.size].tobytes())
    if magic != _MAGIC or format_ != _FORMAT or width not in (1, 2):
        raise PackError(f"{path} is no forest of format {_FORMAT}")
    if not 0 < n_features < 2 ** (8 * width):
        raise PackError(f"{path} is damaged: it has {n_features} features in {width} bytes")
    payload_at = _HEADER.size + 8 * trees
    feature_at = payload_at + 8 * nodes
    if len(stored) != feature_at + width * nodes or not 0 < trees <= nodes or depth >= nodes:
        raise PackError(f"{path} is damaged: its size does not fit its header")
    roots = stored[_HEADER.size : payload_at].view("<i8").astype(np.int64)
    if roots.min() < 0 or roots.max() >= nodes:
        raise PackError(f"{path} is damaged: a tree starts outside the file")
    feature, payload = stored[feature_at:].view(f"<u{width}"), stored[payload_at:feature_at].view("<u8")
    return Forest(n_features, depth, roots, feature, payload)


def read_pickled_forest(file: BinaryIO, size: int, name: str) -> Forest:
    """Decode the forest in a pickle of ``size`` bytes; messages call it ``name``.

    Raises:
        PackError: the pickle is damaged, refused, or holds no forest.
    """
    record = decode_pickle(file, size, name)
    try:
        return _forest(record, size)
    # In a pickle, any field of the record may hold any value.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise PackError(f"{name} holds no fitted forest of scikit-learn's regressors: {error}") from error


def write_forest(path: str | Path, forest: Forest) -> None:
    """Store ``forest`` in one file."""
    width, nodes = forest.feature.itemsize, len(forest.feature)
    header = (_MAGIC, _FORMAT, width, forest.n_features, len(forest.roots), nodes, forest.depth)
    write_bytes(
        path,
        _HEADER.pack(*header),
        forest.roots.astype("<i8").data,
        forest.payload.data,
        forest.feature.data,
    )


def _forest(record: Any, size: int) -> Forest:
    """The forest in a decoded pickle of ``size`` bytes, or a forest of its one tree; ValueError if none."""
    if not isinstance(record, Record):
        raise ValueError("it is none")
    estimators = record.state.get("estimators_", [record])
    trees = [estimator.state["tree_"] for estimator in estimators]
    sizes = [len(tree.state["nodes"]) for tree in trees]
    widths = {int(tree.arguments[0]) for tree in trees}
    nodes = sum(sizes)
    # A pickle may refer to the same array many times.
    if not trees or nodes * 8 > size or nodes > _MAX_NODES:
        raise ValueError(f"it has {len(trees)} trees with {nodes} nodes in {size} bytes")
    if len(widths) != 1 or not 0 < (n_features := widths.pop()) < np.iinfo(np.uint16).max:
        raise ValueError("its trees compare no, too many, or different numbers of features")
    roots = np.cumsum([0, *sizes[:-1]])
    feature = np.empty(nodes, np.uint8 if n_features <= np.iinfo(np.uint8).max else np.dtype("<u2"))
    payload = np.empty(nodes, "<u8")
    depths = [
        _store_tree(tree, n_features, root, feature[root : root + count], payload[root : root + count])
        for tree, root, count in zip(trees, roots, sizes, strict=True)
    ]
    return Forest(n_features, max(depths), roots, feature, payload)


def _store_tree(
    tree: Record, n_features: int, root: int, feature: npt.NDArray[Any], payload: npt.NDArray[np.uint64]
) -> int:
    """Write the nodes of ``tree``, from node ``root`` on, to ``feature`` and ``payload``; return depth."""
    nodes, values, n = tree.state["nodes"], tree.state["values"], len(feature)
    if values.shape != (n, 1, 1) or nodes.shape != (n,):
        raise ValueError(f"a tree of {n} nodes has values {list(values.shape)}; only one target is read")
    if not np.isfinite(values).all() or np.isnan(nodes["threshold"]).any():
        raise ValueError("a tree has values that are not finite")
    if any(nodes[name].dtype.kind != "i" for name in ("left_child", "right_child", "feature")):
        raise ValueError("a tree has nodes that do not refer to others by integers")
    left, right = nodes["left_child"].astype(np.int64), nodes["right_child"].astype(np.int64)
    compared = nodes["feature"].astype(np.int64)
    inner = left >= 0
    if not ((compared >= 0) & (compared < n_features))[inner].all():
        raise ValueError("a tree compares a feature that there is not")
    position, depth = _preorder(left, right, inner)
    feature[:] = np.iinfo(feature.dtype).max
    feature[position[inner]] = compared[inner]
    split = np.empty((np.count_nonzero(inner), 2), "<u4")
    split[:, 0] = _float32_below(nodes["threshold"][inner]).astype("<f4").view("<u4")
    split[:, 1] = root + position[right[inner]]
    payload[position[inner]] = split.view("<u8")[:, 0]
    payload[position[~inner]] = values[~inner, 0, 0].astype("<f8").view("<u8")
    return depth


def _preorder(left: IntArray, right: IntArray, inner: npt.NDArray[np.bool_]) -> tuple[IntArray, int]:
    """Positions of nodes in the order root, left part, right part; and the depth of the tree.

    ``left`` and ``right`` are the children of ``inner`` nodes. ValueError if these are not a tree with root
    node 0.
    """
    n = len(left)
    children = np.concatenate([left[inner], right[inner]])
    if not n or not np.array_equal(np.sort(children), np.arange(1, n)):
        raise ValueError("the nodes of a tree are no tree")
    levels, level = [], np.zeros(1, np.int64)
    while len(level := level[inner[level]]):
        levels.append(level)
        level = np.concatenate([left[level], right[level]])
    size = np.ones(n, np.int64)
    for level in reversed(levels):
        size[level] += size[left[level]] + size[right[level]]
    if size[0] != n:
        raise ValueError("the nodes of a tree are no tree")
    position = np.zeros(n, np.int64)
    for level in levels:
        position[left[level]] = position[level] + 1
        position[right[level]] = position[level] + 1 + size[left[level]]
    return position, len(levels)


def _float32_below(threshold: FloatArray) -> npt.NDArray[np.float32]:
    """For each threshold, the largest float32 that does not exceed it."""
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
    return np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
