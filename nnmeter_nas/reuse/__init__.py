"""Latency of NNI's graph models, of which only what no earlier one had is read, fused and predicted.

The candidates of a space share nearly all of their cells. A model is evaluated as its reader does, but from
unit to unit, a unit being a cell or an operator, and of each unit a summary is remembered by its content and
its arguments. A summary comes from reading, finishing and fusing the unit alone, as a model graph that takes
the arguments and hands out the results.

The kernels of the units are those of the whole model if nothing that finishing or fusing does depends on both
sides of a border between units. That is checked at every border; a unit that cannot be told from what reads
its result becomes one with it. Where that does not help there is no answer, and the model is to be read as a
whole.

The modules, each of which imports from those before it alone:

* ``summary``: what is remembered of a unit;
* ``application``: units at work in a model, and the tensors between them;
* ``arguments``: the arguments of a unit, told apart as it has to tell them apart;
* ``unit_graph``: the model graph of a unit alone;
* ``reading``: the summary of a unit, from its model graph;
* ``borders``: what might happen across the borders of a unit;
* ``division``: divides a model into units;
* ``latencies``: sums up what they take.
"""

from .latencies import Parts, UnitLatencies

__all__ = ["Parts", "UnitLatencies"]
