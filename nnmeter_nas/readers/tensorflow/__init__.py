"""Reader of frozen TensorFlow graphs, without TensorFlow."""

from . import recurrent

__all__ = ["recurrent"]
