"""Reader of ONNX models."""

from . import attention, convolutions, products, recurrent

__all__ = ["attention", "convolutions", "products", "recurrent"]
