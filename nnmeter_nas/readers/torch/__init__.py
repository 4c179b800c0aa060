"""Reader of torch modules."""

from . import attention, convolutions, products, recurrent

__all__ = ["attention", "convolutions", "products", "recurrent"]
