"""The parts of NNI that a search space needs, under the same names for 2.10.1 and 3.0.

``nn`` holds the layers that both lines can convert; ``LayerChoice`` chooses between blocks. Derive a space
from ``ModelSpace`` and decorate it with ``model_space``: 2.10.1 needs a decorated plain module, 3.0 a module
of its own base class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_nas: Any = importlib.import_module("nni.nas.nn.pytorch")

nn: Any = importlib.import_module("nni.nas.nn.pytorch.layers")
LayerChoice: Any = _nas.LayerChoice

ModelSpace: Any
model_space: Callable[[Any], Any]

if hasattr(_nas, "ModelSpace"):
    ModelSpace = _nas.ModelSpace

    def model_space(cls: Any) -> Any:
        """Return ``cls`` unchanged: 3.0 records a space's arguments in its base class."""
        return cls
else:
    ModelSpace = nn.Module
    model_space = importlib.import_module("nni.retiarii").model_wrapper
