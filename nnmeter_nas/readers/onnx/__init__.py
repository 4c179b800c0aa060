"""Reader of ONNX models."""

from . import products

__all__ = ["products"]
