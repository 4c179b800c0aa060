"""Write a folder of very many small ONNX files, a few of them broken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np

from nnmeter_nas.extras import load_extra
from nnmeter_nas.files import write_bytes

#: Every so many files, the last one is cut off in the middle.
BROKEN_EVERY = 1000
#: Different networks; the other files are hard links to these.
_NETWORKS = 1000
#: Files of a folder.
_FOLDER = 1000
_MARK = ".whole"


def many_files(folder: Path, count: int) -> Path:
    """Fill ``folder`` with ``count`` files, unless it holds so many already, and return it."""
    mark = folder / _MARK
    wanted = json.dumps({"files": count, "broken every": BROKEN_EVERY})
    if mark.exists() and mark.read_text() == wanted:
        return folder
    folder.mkdir(parents=True)  # what is there is not ours
    originals: list[Path] = []
    content = _networks()
    for number in range(count):
        path = folder / f"{number // _FOLDER:04}" / f"{number % _FOLDER:04}.onnx"
        path.parent.mkdir(exist_ok=True)
        if number % BROKEN_EVERY == BROKEN_EVERY - 1:
            path.write_bytes(originals[0].read_bytes()[:100])
        elif len(originals) < _NETWORKS:
            path.write_bytes(next(content))
            originals.append(path)
        else:
            os.link(originals[number % _NETWORKS], path)
    write_bytes(mark, wanted.encode())
    return folder


def _networks() -> Iterator[bytes]:
    """Yield different small networks as ONNX: a stem, two separable convolutions, a pool, a classifier."""
    sizes = product(range(8, 136, 8), range(16, 144, 8), (3, 5, 7), (32, 64))
    yield from (_network(*size) for size in islice(sizes, _NETWORKS))


def _network(stem: int, width: int, kernel: int, resolution: int) -> bytes:
    onnx = load_extra("onnx", "onnx", "writing ONNX files")
    helper, nodes, weights = onnx.helper, [], {}
    shapes = (
        ("stem", 3, stem, 3, 2, 1),
        ("depth1", stem, stem, kernel, 1, stem), ("point1", stem, width, 1, 1, 1),
        ("depth2", width, width, kernel, 2, width), ("point2", width, 2 * width, 1, 1, 1),
    )  # fmt: skip
    previous = "image"
    for name, cin, cout, size, stride, group in shapes:
        weights[f"{name}.weight"] = np.zeros((cout, cin // group, size, size), np.float32)
        attributes = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [size // 2] * 4}
        inputs = [previous, f"{name}.weight"]
        nodes.append(helper.make_node("Conv", inputs, [name], name, group=group, **attributes))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], f"{name}.relu"))
        previous = f"{name}.relu"
    weights["classes"] = np.zeros((2 * width, 10), np.float32)
    nodes.append(helper.make_node("GlobalAveragePool", [previous], ["pool"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"], "flat"))
    nodes.append(helper.make_node("MatMul", ["flat", "classes"], ["scores"], "fc"))
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "small",
        [helper.make_tensor_value_info("image", kind, (1, 3, resolution, resolution))],
        [helper.make_tensor_value_info("scores", kind, (1, 10))],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )  # fmt: skip
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return made
