"""Reader of ONNX models."""

from . import convolutions, products

__all__ = ["convolutions", "products"]
