"""nn-Meter's fusion test: models of operators alone and together, and the rules that their latencies tell.

Two operators are one kernel if ``T(a) + T(b) - T(ab) > EMP_ALPHA * min(T(a), T(b))``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any, ClassVar

import networkx as nx

from ...errors import SettingsError, nearest
from ...graph.model_graph import finish
from ...graph.shapes import Shape
from .models import (
    OPERATORS,
    Model,
    as_graph,
    check_implement,
    from_nchw,
    input_shapes,
    to_nchw,
    write_model,
)
from .registry import listed, load_class, registered
from .results import Latency, Models, merge_info, read_json, read_profiled_results, write_json
from .settings import ALPHAS
from .workspace import builder_config

__all__ = ["BaseTestCase", "detect_fusion_rule", "generate_testcases", "list_operators", "list_testcases"]

#: The case of operators with several readers.
_MON = "MON"

logger = logging.getLogger("nn-Meter")


class BaseTestCase:
    """A fusion test of the user's: a block, and the cases of how a device may split it into kernels.

    A method ``_model_block`` returns the block and the shapes of its inputs; so does ``_model_NAME`` for a
    part ``NAME`` of a case. A part without a method is the operator of that name. A model is a
    ``torch.nn.Module``, with ``IMPLEMENT: torch``, or a model graph of this package. The case whose parts
    take most nearly as long as the block is what the device does.

    Attributes:
        name: of the rule.
        cases: the parts of each case.
        true_case: the case for which the rule holds.
        deps: other rules, and what they must be for this one to be tested.
        input_shape: of the inputs, without the batch; that of the settings if None.
        implement: how models are written.
    """

    name: str = ""
    cases: ClassVar[Any] = None
    true_case: str = ""
    deps: ClassVar[Mapping[str, bool]] = {}
    input_shape: Any = None
    implement: Any = None

    def __init__(self, config: Mapping[str, Any], **options: Any) -> None:
        self.config = config
        self.latency: dict[str, Latency] = {}
        self.load_config()

    def load_config(self) -> None:
        """Take over the settings of the fusion test."""
        config = self.config
        self.implement = check_implement(self.implement or config["IMPLEMENT"])
        if not self.input_shape:
            shape = (1, config["CIN"], config["HW"], config["HW"])
            self.input_shape = from_nchw(shape, self.implement)
        self.kernel_size, self.cout, self.padding = config["KERNEL_SIZE"], config["COUT"], config["PADDING"]
        self.workspace_path = os.path.join(config["WORKSPACE"], "testcases")

    def generate_testcase(self) -> dict[str, dict[str, Any]]:
        """Return the models of the block and of the parts of all cases, with the shapes of their inputs."""
        found = {"block": self._made("block")}
        for part in dict.fromkeys(part for parts in self.cases.values() for part in parts):
            found[part] = self._made(part)
        return found

    def _made(self, part: str) -> dict[str, Any]:
        method = getattr(self, f"_model_{part}", None)
        if method is None:
            graph = single_model(part, self.input_shape, self.config, self.implement)
            return {"model": graph, "shapes": input_shapes(graph, self.implement)}
        model, shapes = method()
        return {"model": model, "shapes": shapes}

    def save_testcase(self) -> dict[str, dict[str, Any]]:
        """Write the models; return their paths, with the shapes of their inputs."""
        found = self.generate_testcase()
        for part, made in found.items():
            graph = as_graph(made["model"], made["shapes"], self.implement)
            path = os.path.join(self.workspace_path, f"{self.name}_{part}")
            made["model"] = write_model(graph, path, self.implement)
        return found

    def load_latency(self, testcase: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what was measured of the models, and add up each case."""
        self.latency["block"] = Latency(testcase["block"]["latency"])
        for case, parts in self.cases.items():
            of_parts = {part: Latency(testcase[part]["latency"]) for part in parts}
            self.latency |= of_parts
            self.latency[case] = sum((of_parts[part] for part in parts), Latency())

    def test(self) -> Any:
        """Return the name of the case that the device does."""
        block = self.latency["block"].avg
        # The true case comes first: it wins when another is as near.
        cases = sorted(self.cases, key=lambda case: case != self.true_case)
        return min(cases, key=lambda case: abs(self.latency[case].avg - block))


class BasicFusion(BaseTestCase):
    """The test of two operators, one after the other."""

    def load_config(self) -> None:
        """Take over the settings; the input has one dimension if an operator asks for that."""
        if set(self.cases["ops"]) & set(self.config["LAYERS_1D"] or ()):
            self.input_shape = [self.config["SHAPE_1D"]]
        super().load_config()
        self.eps = next(float(self.config[name]) for name in ALPHAS if name in self.config)

    @property
    def _names(self) -> tuple[str, str]:
        first, second = self.cases["ops"]
        return (f"{first}_1", f"{second}_2") if first == second else (first, second)

    def generate_testcase(self) -> dict[str, dict[str, Any]]:
        """Return the models of each operator and of both."""
        first, second = self.cases["ops"]
        shape = to_nchw(self.input_shape, self.implement)
        alone = single_model(first, self.input_shape, self.config, self.implement)
        model = Model()
        between = _add(model, first, shape, None, self.config, self.implement)
        between_shape = model.shape(between)
        _add(model, second, between_shape, between, self.config, self.implement)
        then = single_model(second, from_nchw(between_shape, self.implement), self.config, self.implement)
        graphs = dict(zip((*self._names, "block"), (alone, then, finish(model.graph)), strict=True))
        return {
            name: {"model": graph, "shapes": input_shapes(graph, self.implement)}
            for name, graph in graphs.items()
        }

    def load_latency(self, testcase: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what was measured of the models."""
        first, second = self._names
        for name in ("block", first, second):
            self.latency[name] = Latency(testcase[name]["latency"])
        self.latency["ops"] = self.latency[first] + self.latency[second]

    def test(self) -> bool:
        """Return whether both together save enough to be one kernel."""
        quicker = min(self.latency[name].avg for name in self._names)
        return self.latency["ops"].avg - self.latency["block"].avg > self.eps * quicker


class MultipleOutNodes(BaseTestCase):
    """Whether an operator joins one that others read too: a depthwise convolution with two readers."""

    name = _MON
    cases: ClassVar[Any] = {
        "apart": ["dwconv", "relu_relu", "relu_dwconv"],
        "first": ["dwconv_relu_relu", "relu_dwconv"],
        "second": ["dwconv_relu", "dwconv", "relu_relu"],
    }
    true_case = "apart"
    deps: ClassVar[Mapping[str, bool]] = {"BF_dwconv_relu": True}

    def _model_block(self) -> tuple[nx.DiGraph, Any]:
        model, x = self._start()
        x = model.add("dwconv", [x], self.config)
        self._chain(model, x, "relu", "relu")
        self._chain(model, x, "relu", "dwconv")
        return self._done(model)

    def generate_testcase(self) -> dict[str, dict[str, Any]]:
        """Return the models of the block and of the chains of all cases."""
        found = {"block": dict(zip(("model", "shapes"), self._model_block(), strict=True))}
        for chain in dict.fromkeys(chain for chains in self.cases.values() for chain in chains):
            model, x = self._start()
            self._chain(model, x, *chain.split("_"))
            found[chain] = dict(zip(("model", "shapes"), self._done(model), strict=True))
        return found

    def _start(self) -> tuple[Model, str]:
        model = Model()
        return model, model.input(to_nchw(self.input_shape, self.implement))

    def _chain(self, model: Model, x: str, *ops: str) -> None:
        for op in ops:
            x = model.add(op, [x], self.config)

    def _done(self, model: Model) -> tuple[nx.DiGraph, Any]:
        graph = finish(model.graph)
        return graph, input_shapes(graph, self.implement)

    def test(self) -> int:
        """Return 0 if nothing joins, 1 if the first reader does, and 2 if the other one does."""
        return list(self.cases).index(super().test())


def single_model(
    op: str, input_shape: Sequence[int], config: Mapping[str, Any], implement: str
) -> nx.DiGraph:
    """Return the model of one operator."""
    model = Model()
    _add(model, op, to_nchw(input_shape, implement), None, config, implement)
    return finish(model.graph)


def _add(
    model: Model, op: str, shape: Shape, before: str | None, config: Mapping[str, Any], implement: str
) -> str:
    """Add an operator that reads ``before`` or an input, and inputs of the same shape if it reads two."""
    own = registered("operators").get(op, {}).get(implement)
    if own is not None:
        operator = load_class(own)(from_nchw(shape, implement), config)
        count = 2 if operator.get_is_two_inputs() else 1
        part = as_graph(operator.get_model(), [from_nchw(shape, implement)] * count, implement)
        given = [model.input(shape) for _ in range(count - (before is not None))]
        return model.embed(part, [*([] if before is None else [before]), *given])
    if op not in OPERATORS:
        raise SettingsError(
            f"no operator {op!r} with IMPLEMENT: {implement}; "
            f"{nearest(op, [*OPERATORS, *registered('operators')])}"
        )
    return model.add(op, model.operands(op, shape, before), config)


def _testcases(config: Mapping[str, Any]) -> Iterator[type[BaseTestCase]]:
    """The tests that the settings name.

    Raises:
        SettingsError: a name is none of a test.
    """
    implement = check_implement(config["IMPLEMENT"])
    for pair in config["BASIC_TESTCASES"] or ():
        ops = str(pair).split("_")
        if len(ops) != 2:
            raise SettingsError(f"BASIC_TESTCASES: {pair} is no pair of operators such as conv_relu")
        name = f"BF_{pair}"
        yield type(name, (BasicFusion,), {"name": name, "cases": {"ops": ops}, "implement": implement})
    own = registered("testcases")
    for case in config["OTHER_TESTCASES"] or ():
        if implement in own.get(case, {}):
            yield load_class(own[case][implement])
        elif case == _MON:
            yield MultipleOutNodes
        else:
            raise SettingsError(
                f"OTHER_TESTCASES: no test case {case} with IMPLEMENT: {implement}; "
                f"{nearest(str(case), [_MON, *own])}"
            )


def generate_testcases() -> Models:
    """Write the models of all fusion tests; return their paths by test and part.

    They are also in ``fusion_rule_test/results/origin_testcases.json`` of the workspace.

    Raises:
        WorkspaceError: no workspace is in use.
        SettingsError: a test cannot be made.
        MissingPackageError: what writes the models is not installed.
    """
    config = builder_config.get_module("ruletest")
    found = {case.name: case(config).save_testcase() for case in _testcases(config)}
    path = _results("origin_testcases.json")
    write_json(path, merge_info(found, path))
    logger.info("Save the original testcases information to %s", path)
    return found


def detect_fusion_rule(profiled_testcases: str | Models) -> dict[str, dict[str, Any]]:
    """Return the fusion rules that measured tests tell: for each whether the device obeys it.

    They are also in ``fusion_rule_test/results/detected_fusion_rule.json``, which is what
    ``register --predictor`` takes as ``fusion_rules.json``. A test that was not measured in full is left out.

    Args:
        profiled_testcases: what :func:`nnmeter_nas.compat.builder.profiling.profile_models` returned, or the
            path of its file.

    Raises:
        WorkspaceError: no workspace is in use, or the file cannot be read.
    """
    if isinstance(profiled_testcases, str):
        profiled_testcases = read_profiled_results(read_json(profiled_testcases))
    config = builder_config.get_module("ruletest")
    cases = {case.name: case for case in _testcases(config)}
    order = TopologicalSorter({name: list(case.deps) for name, case in cases.items()}).static_order()
    found: dict[str, dict[str, Any]] = {}
    for name in order:
        if name not in cases or name not in profiled_testcases:
            continue
        case = cases[name](config)
        obeyed = {dep: bool(found.get(dep, {}).get("obey", expected)) for dep, expected in case.deps.items()}
        if obeyed != {dep: bool(expected) for dep, expected in case.deps.items()}:
            found[name] = {"obey": False}
            continue
        try:
            case.load_latency(profiled_testcases[name])
        except KeyError as error:
            logger.warning("%s is left out: %s was not measured", name, error)
            continue
        found[name] = {"obey": _obeyed(case)}
        if config["DETAIL"]:
            found[name]["latency"] = {part: str(value) for part, value in case.latency.items()}
    path = _results("detected_fusion_rule.json")
    write_json(path, merge_info(found, path))
    logger.info("Save the detected fusion rule information to %s", path)
    return found


def _obeyed(case: BaseTestCase) -> bool | int:
    """Whether a rule holds; a test case of the user's tells a case, which must be its true one."""
    said = case.test()
    if isinstance(said, str):
        return said == case.true_case
    return said if isinstance(case, MultipleOutNodes) else bool(said)


def _results(name: str) -> str:
    return os.path.join(builder_config.get("WORKSPACE", "ruletest"), "results", name)


def list_operators() -> list[str]:
    """Return the names of all operators; those of registered ones start with a star."""
    return [*OPERATORS, *listed("operators")]


def list_testcases() -> list[str]:
    """Return the names of all test cases but pairs; those of registered ones start with a star."""
    return [_MON, *listed("testcases")]
