"""Reader of ONNX models."""

from . import convolutions, products, recurrent

__all__ = ["convolutions", "products", "recurrent"]
