"""Reader of torch modules."""

from . import products

__all__ = ["products"]
