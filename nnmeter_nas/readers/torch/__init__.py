"""Reader of torch modules."""

from . import convolutions, products

__all__ = ["convolutions", "products"]
