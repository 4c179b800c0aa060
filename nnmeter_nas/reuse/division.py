"""Divides a model into units that are remembered."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..fusion import FusionRules
from ..readers.inputs import InputShape
from ..readers.nni_content import Contents
from ..readers.nni_ir import GraphBuilder, operation_of, root_inputs
from ..readers.nni_operators import Tensor
from ..shapes import Shape
from .application import Application, Source, UnitTensor
from .arguments import Arguments
from .borders import inseparable_contents
from .reading import read_alone
from .summary import Argument, InseparableError, PassedOn, Result, Summary

#: Nodes of NNI's graph up to which a cell is one unit; larger ones are evaluated node by node.
UNIT_NODES = 32
#: Nodes up to which units become one; beyond it, there is little to reuse.
_LARGEST_UNIT = 96
#: Units that are remembered, about; some 100 MB.
REMEMBERED = 20_000
#: Times that a model is evaluated anew, as some of its units became one.
_ROUNDS = 8


@dataclass
class Memory:
    """What is known of units from the models that were divided so far.

    Attributes:
        contents: numbers for what units execute.
        summaries: of units, by content and what they can see of their operands.
        merging: units that become one, the first by its site, the one that reads its result by content.
    """

    contents: Contents = field(default_factory=Contents)
    summaries: dict[Hashable, Summary] = field(default_factory=dict)
    merging: set[tuple[Hashable, int]] = field(default_factory=set)

    @property
    def is_full(self) -> bool:
        """Whether it is time to begin with another."""
        return max(len(self.summaries), len(self.contents)) > REMEMBERED


def divide(
    model: Any, input_shape: InputShape | None, rules: FusionRules, memory: Memory
) -> list[Application]:
    """The units at work in a model, whose kernels are those of the whole.

    Args:
        model, input_shape: as :func:`nnmeter_nas.readers.nni_ir.read_nni_ir` takes them.
        rules: the device's fusion rules.
        memory: of models under the same rules; learns what is new.

    Raises:
        InseparableError: the kernels of units might not be those of the whole.
        OpaqueError: a parameter cannot be compared.
        NnMeterNasError: the model cannot be read.
    """
    inputs = root_inputs(model, input_shape)
    for _ in range(_ROUNDS):
        units = _Evaluation(model, rules, memory).run(inputs)
        inseparable = {
            (unit.site, content) for unit in units for content in inseparable_contents(unit, rules)
        }
        if not inseparable:
            return units
        if inseparable <= memory.merging:
            raise InseparableError("a unit cannot become one with what reads it")
        memory.merging |= inseparable
    raise InseparableError("too many units become one")


class _Evaluation(GraphBuilder):
    """Evaluates a model unit by unit; a tensor is a :class:`UnitTensor`."""

    def __init__(self, model: Any, rules: FusionRules, memory: Memory) -> None:
        super().__init__(model)
        self._rules = rules
        self._memory = memory
        self._contents = memory.contents.reading(model)
        self._units: list[Application] = []

    def run(self, inputs: Sequence[tuple[str, Shape]]) -> list[Application]:
        """The units that the outputs of the model depend on, connected; ``inputs`` are names and shapes."""
        for name, shape in inputs:
            self.shape(Tensor(self.add_input(name, shape)))  # refuses what no model may have
        tensors = [UnitTensor(Source(None), 0, shape) for _, shape in inputs]
        outputs = list(_tensors_in(self.evaluate(self.model.root_graph, tensors)))
        if any(tensor.source.is_part for tensor in outputs):
            raise InseparableError("an output is from inside a unit")
        for tensor in outputs:
            tensor.source.is_output = True
        units = []
        for unit in reversed(self._units):  # what reads results comes before what makes them
            if unit.is_of_use:  # which what became a part is not
                unit.connect()
                units.append(unit)
        return units[::-1]

    def _evaluate_node(self, node: Any, operands: list[Any]) -> Any:
        if operation_of(self.model, node).type in ("prim::Constant", "prim::GetAttr"):
            return super()._evaluate_node(node, operands)
        content = self._contents.node(node)
        if self._memory.contents.size(content) > UNIT_NODES:
            return super()._evaluate_node(node, operands)
        return self._evaluate_unit(content, node, operands)

    def _evaluate_unit(self, content: int, node: Any, operands: list[Any]) -> Any:
        arguments = Arguments()
        site = key = (content, *map(arguments.code, operands))
        size = self._memory.contents.size(content)
        makers = [tensor.sole_result_of for tensor in arguments.tensors]
        merging = [unit for unit in makers if unit and (unit.site, content) in self._memory.merging]
        # One with an operator that only passes values on would be one with nothing.
        if merging and (size > 1 or self._summary(site, node, operands, arguments).runs):
            size += sum(unit.size for unit in merging)
            if size > _LARGEST_UNIT:
                raise InseparableError("most of the model becomes one unit")
            for unit in merging:
                unit.become_part()
            arguments = Arguments(frozenset(merging).union(*(unit.parts for unit in merging)))
            key = (content, *map(arguments.code, operands))
        summary = self._summary(key, node, operands, arguments)
        sources = [Source(producer) for producer in summary.producers]
        result = _filled(summary.result, arguments, sources)
        if summary.runs:
            unit = Application(
                content=content,
                node=node,
                operands=operands,
                site=site,
                order=len(self._units),
                size=size,
                tensors=arguments.tensors,
                parts=arguments.parts,
                summary=summary,
                sources=sources,
            )
            self._units.append(unit)
            if type(result) is UnitTensor and sources:
                result.sole_result_of = unit
        return result

    def _summary(self, key: Hashable, node: Any, operands: list[Any], arguments: Arguments) -> Summary:
        summary = self._memory.summaries.get(key)
        if summary is None:
            summary = read_alone(self.model, node, operands, arguments, self._rules)
            self._memory.summaries[key] = summary
        return summary


def _filled(template: Any, arguments: Arguments, sources: list[Source]) -> Any:
    """The result of a unit of these ``sources``, as its summary's ``template`` has it."""
    aliases: defaultdict[int, object] = defaultdict(object)

    def filled(part: Any) -> Any:
        kind = type(part)
        if kind is Argument:
            return arguments.names[part.name][0]
        if kind is PassedOn:
            tensor = arguments.tensors[part.argument]
            return UnitTensor(tensor.source, tensor.slot, tensor.shape, aliases[part.alias])
        if kind is Result:
            alias = None if part.alias is None else aliases[part.alias]
            return UnitTensor(sources[part.producer], part.slot, part.shape, alias)
        if kind is list:
            return list(map(filled, part))
        if kind is dict:
            return {key: filled(item) for key, item in part.items()}
        return part

    return filled(template)


def _tensors_in(value: Any) -> Iterator[UnitTensor]:
    if type(value) is UnitTensor:
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors_in(item)
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
