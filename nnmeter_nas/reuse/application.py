"""Units at work in a model, and the tensors between them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..shapes import Shape
from .summary import Consumer, InseparableError, Producer, Summary


class Source:
    """An operator of the model that hands out a unit's result, or an input of the model.

    Attributes:
        producer: what its unit's summary knows of it; None of an input.
        pooled: whether squeeze-excite might hold it.
        consumers: operators of other units that read it, and where these units are at work.
        is_output: whether the model hands it out.
        is_part: whether its unit became one with what reads it.
    """

    def __init__(self, producer: Producer | None) -> None:
        self.producer = producer
        self.pooled = producer is not None and producer.pooled
        self.consumers: list[tuple[Application, Consumer]] = []
        self.is_output = False
        self.is_part = False


@dataclass(eq=False)
class UnitTensor:
    """A tensor between units.

    Attributes:
        source, slot: what makes it once the model is pruned, and which output of that it is.
        shape: of the tensor.
        alias: stands for the operator that was pruned, if one was: another tensor until then.
        sole_result_of: the application that hands out this and nothing else, if one does.
    """

    source: Source
    slot: int
    shape: Shape
    alias: object | None = None
    sole_result_of: Application | None = None


@dataclass(eq=False)
class Application:
    """A unit at work in a model.

    Attributes:
        content: number of what it executes.
        node: of NNI's graph.
        operands: of the node.
        site: content and arguments, by which it is recognised in other models.
        order: place among the applications.
        size: nodes of NNI's graph.
        tensors: distinct ones that it reads.
        parts: units that became one with it, themselves or as parts of others.
        summary: of the unit.
        sources: operators that hand out its results.
        is_part: whether it became one with what reads it.
    """

    content: int
    node: Any
    operands: list[Any]
    site: Hashable
    order: int
    size: int
    tensors: list[UnitTensor]
    parts: frozenset[Application]
    summary: Summary
    sources: list[Source]
    is_part: bool = False

    @property
    def is_of_use(self) -> bool:
        """Whether an output of the model depends on it, once what reads its results is connected."""
        return any(source.consumers or source.is_output for source in self.sources)

    def become_part(self) -> None:
        """Become one with what reads it.

        Raises:
            InseparableError: it became one with something else.
        """
        if self.is_part:
            raise InseparableError("two units are to become one with a third")
        self.is_part = True
        for source in self.sources:
            source.is_part = True

    def connect(self) -> None:
        """Note the operators that read arguments at what makes these.

        Raises:
            InseparableError: an argument is from inside another unit.
        """
        for tensor, consumers in zip(self.tensors, self.summary.consumers, strict=True):
            if tensor.source.is_part:
                raise InseparableError("an argument is from inside another unit")
            tensor.source.consumers += [(self, consumer) for consumer in consumers]
