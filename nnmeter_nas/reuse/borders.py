"""What finishing or fusing the whole model might do across the borders of a unit.

Pruning is no matter here: a unit of which a result is zero or constant has no summary, and a model in
which some of a unit's results are of no use is refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..fusion import FusionRules
from .application import Application, Source
from .summary import Consumer, InseparableError, Producer

#: Operators that finishing may make one, the one that feeds first.
_JOINED_BY_FINISHING = frozenset({("sigmoid", "mul"), ("concat", "concat")})


def inseparable_contents(unit: Application, rules: FusionRules) -> set[int]:
    """Contents of units that might do something else if they could see into ``unit``, which they read.

    All units of the model are connected.

    Raises:
        InseparableError: one result of several is of no use, so that the whole model prunes more.
    """
    return {content for source in unit.sources for content in _inseparable_contents(source, rules)}


def _inseparable_contents(source: Source, rules: FusionRules) -> Iterator[int]:
    producer = source.producer
    if producer is None or not (source.consumers or source.is_output):
        raise InseparableError("a result is of no use")
    fused_with = {(id(unit), consumer.fused_with) for unit, consumer in source.consumers}
    alone = len(fused_with) == 1 and not source.is_output and not producer.read_inside
    for unit, consumer in source.consumers:
        if (alone and _may_join(consumer, producer, rules)) or _may_be_one(producer, consumer, rules):
            # Which of its parts takes the tensor is of no matter: no other has it among its operands.
            yield from (part.content for part in (unit, *unit.parts))


def _may_join(consumer: Consumer, producer: Producer, rules: FusionRules) -> bool:
    """Whether the rules let a consumer without rivals join the kernel that ends with ``producer``."""
    if producer.kernel is None or consumer.type is None:
        return False
    return rules.allow(producer.kernel, consumer.type)


def _may_be_one(producer: Producer, consumer: Consumer, rules: FusionRules) -> bool:
    """Whether finishing or a whole pattern might make one operator of both."""
    ops = producer.data["op"], consumer.data["op"]
    return ops in _JOINED_BY_FINISHING or rules.may_be_in_one_pattern(
        producer.data, consumer.data, producer.pooled
    )
