"""Reader of torch modules."""

from . import convolutions, products, recurrent

__all__ = ["convolutions", "products", "recurrent"]
