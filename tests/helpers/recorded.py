"""Recorded predictions of networks and architectures, in every format, on every device.

``python tests/helpers/recorded.py`` writes the current figures to ``recorded.json``. With ``--check`` it
compares the current figures with the recorded ones. Further arguments select the figures whose names contain
all of them.
"""

from __future__ import annotations

import io
import json
import math
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import onnx
import torch

from ir_to_tensorflow import graph_def_of_ir
from nni_networks import frozen
from nnmeter_nas import list_latency_predictors, load_latency_predictor, read_model
from nnmeter_nas.benchmarks import networks
from nnmeter_nas.benchmarks.networks import NETWORKS, build_network, input_shape
from nnmeter_nas.costs.measures import latencies
from nnmeter_nas.costs.probing import EXACT
from nnmeter_nas.kernels.configuration import kernel_type
from nnmeter_nas.readers.nnmeter_ir.writer import to_nnmeter_ir
from nnmeter_nas.supernet import load_space, make_space

RECORD = Path(__file__).with_name("recorded.json")
#: Networks that together cover all kinds of layers; few, because the newer ONNX exporter is slow.
DYNAMO = ("alexnet", "densenet121", "efficientnet_b0", "googlenet", "mobilenet_v3_large", "resnext50_32x4d",
          "shufflenet_v2_x1_0", "squeezenet1_0")  # fmt: skip
#: Bundled spaces, and how many architectures of each are recorded.
SPACES = ("spos", "spos-small", "proxylessnas", "proxylessnas-small", "nasbench201", "nasbench201-small")
ARCHITECTURES = 4

Figures = dict[str, Any]


def figures(graph: Any) -> Figures:
    """Latency in ms by device of what the pack has predictors for, and the operators that it has none for."""
    found: Figures = {}
    for predictor in predictors():
        nodes = dict(predictor.explain(graph).kernel_graph.nodes(data=True))
        types = predictor.pack.predictors.names.types
        without = {name for name, data in nodes.items() if kernel_type(data["kernel"]) not in types}
        found[predictor.device] = math.fsum(nodes[name]["latency_ms"] for name in nodes.keys() - without)
        found["left out"] = sorted({nodes[name]["kernel"].op for name in without})
    return found


def predictors() -> list[Any]:
    """The bundled predictor of each device, in the version that the figures were recorded with."""
    return [load_latency_predictor(card["name"], 2.0) for card in list_latency_predictors()
            if card["version"] == 2.0]  # fmt: skip


def onnx_of(network: torch.nn.Module, shape: tuple[int, ...], dynamo: bool = False) -> onnx.ModelProto:
    """The network as an ONNX model, from the tracing exporter or from the one based on torch.export."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            return torch.onnx.export(network, (torch.zeros(shape),), dynamo=True, verbose=False).model_proto
        buffer = io.BytesIO()
        torch.onnx.export(network, (torch.zeros(shape),), buffer, dynamo=False)
    return onnx.load_from_string(buffer.getvalue())


def nni_ir_of(network: torch.nn.Module, shape: tuple[int, ...]) -> Any:
    """The network in NNI 2.10.1's graph IR."""
    from nni.nas.execution.pytorch.converter import convert_to_graph
    from nni.nas.execution.pytorch.converter.graph_gen import GraphConverterWithShape

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script = torch.jit.script(network)
        return convert_to_graph(script, network, GraphConverterWithShape(), dummy_input=torch.zeros(shape))


@cache
def nni_networks() -> Any:
    """The reference networks, built from NNI 2.10.1's layers so that they convert to its graph IR."""
    folder = Path(tempfile.mkdtemp()) / "networks_of_nni"
    folder.mkdir()
    for path in Path(networks.__file__).parent.glob("*.py"):
        source = path.read_text().replace("from torch import nn", "import nni.retiarii.nn.pytorch as nn")
        (folder / path.name).write_text(source)  # TorchScript reads it again, so that it has to stay
    sys.path.insert(0, str(folder.parent))
    return import_module(folder.name)


def ir_of(network: torch.nn.Module, shape: tuple[int, ...]) -> Any:
    """The network in nn-Meter IR."""
    return to_nnmeter_ir(read_model(network, input_shape=shape))


#: Format -> function that converts a network to it.
FORMATS: dict[str, Callable[[torch.nn.Module, tuple[int, ...]], Any]] = {
    "torch": lambda network, shape: read_model(network, input_shape=shape),
    "onnx": lambda network, shape: read_model(onnx_of(network, shape)),
    "onnx-dynamo": lambda network, shape: read_model(onnx_of(network, shape, dynamo=True)),
    "nnmeter-ir": lambda network, shape: read_model(ir_of(network, shape), "nnmeter-ir"),
    "tensorflow": lambda network, shape: read_model(
        graph_def_of_ir(ir_of(network, shape)), "pb"
    ),
    "nni-ir": lambda network, shape: read_model(nni_ir_of(network, shape), "nni-ir", shape),
}


def network_cases() -> Iterator[tuple[str, str]]:
    """Each reference network, paired with each format that it is recorded in."""
    for name in NETWORKS:
        for form in FORMATS:
            if form != "onnx-dynamo" or name in DYNAMO:
                yield name, form


def network_figures(name: str, form: str) -> Figures:
    """The figures of a reference network read from a format."""
    build = nni_networks().build_network if form == "nni-ir" else build_network
    return figures(FORMATS[form](build(name), input_shape(name)))


def architectures(name: str) -> tuple[Any, list[dict[str, str]]]:
    """A bundled space and its recorded architectures."""
    space, draw = load_space(name), random.Random(0)
    choices = space.candidates.items()
    return space, [{label: draw.choice(known) for label, known in choices} for _ in range(ARCHITECTURES)]


def architecture_figures(
    name: str, exports: int = ARCHITECTURES, tables: bool = True
) -> Iterator[tuple[str, Figures]]:
    """The figures of a bundled space's architectures: read from each form of NNI 2.10.1, and looked up.

    ``exports`` of them are exported to ONNX, and ``tables`` are built, both of which take minutes.
    """
    from nni.nas.execution.pytorch.converter import convert_to_graph
    from nni.nas.execution.pytorch.converter.graph_gen import GraphConverterWithShape
    from nni.nas.nn.pytorch.mutator import process_inline_mutation
    from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model

    space, drawn = architectures(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = make_space(name)
        script, zeros = torch.jit.script(module), torch.zeros(space.input_shape)
        base = convert_to_graph(script, module, GraphConverterWithShape(), dummy_input=zeros)
        mutators = process_inline_mutation(base)
    exact = exact_tables(space) if tables else {}
    for number, architecture in enumerate(drawn):
        row = [[known.index(architecture[label]) for label, known in space.candidates.items()]]
        network = frozen(lambda: make_space(name), architecture)
        yield f"{name} {number} space", figures(space.model_graph(architecture))
        yield f"{name} {number} torch", figures(read_model(network, input_shape=space.input_shape))
        if number < exports:
            exported = onnx_of(network, space.input_shape, dynamo=True)
            yield f"{name} {number} onnx", figures(read_model(exported))
        if tables:
            yield f"{name} {number} table", {d: float(t.values(row)[0]) for d, t in exact.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_targeted_model(base, mutators, {
                (mutator, index): nodes[space.candidates[mutator.label].index(architecture[mutator.label])]
                for (mutator, index), nodes in dry_run_for_search_space(base, mutators).items()
            })  # fmt: skip
        yield f"{name} {number} nni-ir", figures(read_model(model, "nni-ir"))


def exact_tables(space: Any) -> dict[str, Any]:
    """The table of each device that has an exact one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        measures = latencies(space, predictors())  # at once, as devices share the model graphs
    tables = {p.device: m.table for p, m in zip(predictors(), measures, strict=True) if m.table is not None}
    return {device: table for device, table in tables.items() if table.header.worst_error <= EXACT}


def today(words: Sequence[str] = (), exports: int = ARCHITECTURES) -> Iterator[tuple[str, Figures]]:
    """The current figures by name, for names that contain all ``words``.

    Args:
        words: the name must contain all of them.
        exports: number of architectures per space to export to ONNX, which is slow.
    """
    for name, form in network_cases():
        if all(word in f"{name} {form}".split() for word in words):
            yield f"{name} {form}", network_figures(name, form)
    for name in SPACES:
        if not words or name in words:
            yield from architecture_figures(name, exports)


def differences(then: Figures, now: Figures) -> list[str]:
    """The differences between two records of the same case, each with both figures."""
    return [
        f"{key} was {then.get(key)}, is {now.get(key)}"
        for key in sorted({*then, *now})
        if (then.get(key) != now.get(key))
        and not (isinstance(then.get(key), float) and math.isclose(then[key], now.get(key, 0), rel_tol=1e-9))
    ]


def main(arguments: Sequence[str]) -> None:
    """Record the current figures, or with ``--check`` compare them with the recorded ones."""
    if "--check" not in arguments:
        RECORD.write_text(json.dumps(dict(today()), indent=0, sort_keys=True) + "\n")
        return
    record = json.loads(RECORD.read_text())
    for key, now in today([word for word in arguments if word != "--check"], exports=1):
        print(key, *differences(record[key], now) or ["as it was"], sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1:])
