"""The classes that users derive operators and kernels from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["BaseBlock", "BaseOperator"]


class BaseOperator:
    """An operator of a fusion test.

    Args:
        input_shape: of what it reads, without the batch: CHW with ``IMPLEMENT: torch``.
        config: the settings of the fusion test.
    """

    def __init__(
        self, input_shape: Sequence[int] | None = None, config: Mapping[str, Any] | None = None
    ) -> None:
        self.input_shape, self.config = input_shape, config

    def get_model(self) -> Any:
        """Return a ``torch.nn.Module``."""
        raise NotImplementedError(f"{type(self).__name__} has no get_model")

    def get_output_shape(self) -> Any:
        """Return the shape of its result; that of its input unless overridden."""
        return self.input_shape

    def get_is_two_inputs(self) -> bool:
        """Return whether it reads two tensors of its shape."""
        return False


class BaseBlock:
    """A kernel.

    Attributes:
        input_shape: of one input, without the batch: CHW with ``IMPLEMENT: torch``.
        input_tensor_shape: of all inputs.

    Args:
        config: sizes of the kernel.
        batch_size: has no effect: models are measured at batch 1.
    """

    def __init__(self, config: Mapping[str, Any], batch_size: int = 1) -> None:
        self.config, self.batch_size = config, batch_size
        self.input_shape: Any = None
        self.input_tensor_shape: Any = None

    def get_model(self) -> Any:
        """Return a ``torch.nn.Module``."""
        raise NotImplementedError(f"{type(self).__name__} has no get_model")
