"""Damage nn-Meter IR at random, and check that it is read or rejected."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nnmeter_nas.errors import NnMeterNasError
from nnmeter_nas.kernels.configuration import Configurations, configuration
from nnmeter_nas.kernels.fusion import fuse, parse_rules
from nnmeter_nas.packs.registry import devices
from nnmeter_nas.readers import read_model

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.just(2.5),
    st.just(float("nan")),
    st.just("junk"),
    st.just([]),
    st.just({}),
    st.just([[]]),
    st.just([None]),
    st.just(["a", 3]),
    st.just([[1, "b"]]),
    st.just({"type": "Conv2D"}),
    st.lists(st.integers(-2, 9), max_size=5),
).map(copy.deepcopy)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Yield the path of every nested element of ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in [(*path, key), *places(inner, (*path, key))]]


def damage(ir: dict[str, Any], data: st.DataObject) -> None:
    """Replace one to three elements anywhere inside ``ir`` by junk, or remove them."""
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(places(ir)))
        holder = ir
        for key in parents:
            holder = holder[key]
        if data.draw(st.booleans()):
            holder[last] = data.draw(JUNK)
        else:
            del holder[last]

GPU_RULES = parse_rules(devices()["adreno640gpu_tflite21"]["fusion_rules"])


def assert_read_or_rejected(ir: dict[str, Any]) -> None:
    """Assert that reading gives a complete model graph with kernels, or raises an error of the package."""
    try:
        graph = read_model(ir, "nnmeter-ir")
    except NnMeterNasError:
        return
    for _, node in graph.nodes(data=True):
        assert all(isinstance(d, int) and d > 0 for shape in node["out_shapes"] for d in shape)
    kernels = fuse(graph, GPU_RULES).nodes(data="kernel")
    rows = Configurations.of(configuration(kernel) for _, kernel in kernels)
    for numbers in (rows.sizes, rows.declared):
        assert np.isfinite(numbers).all()
        assert (numbers >= 0).all()
