"""Training and latency estimates for the candidates of an architecture search."""

from .digits import digits, train_on_digits

__all__ = ["digits", "train_on_digits"]
