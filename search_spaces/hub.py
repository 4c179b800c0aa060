"""Search spaces of NNI's hub, with their default arguments."""

from __future__ import annotations

import importlib
from typing import Any

from nnmeter_nas.errors import SpaceError, nearest

#: Spaces whose networks take images, and whose choices can be listed.
SPACES = ("MobileNetV3Space", "ProxylessNAS", "ShuffleNetSpace")


def hub(name: str, **arguments: Any) -> Any:
    """Make a search space of ``nni.nas.hub.pytorch``; its networks take inputs of (1, 3, 224, 224).

    Args:
        name: name of the class, one of :data:`SPACES`.
        arguments: arguments of its constructor.

    Raises:
        SpaceError: there is no such space.
    """
    if name not in SPACES:
        raise SpaceError(f"NNI's hub has no space {name!r} that can be read; {nearest(name, SPACES)}")
    return getattr(importlib.import_module("nni.nas.hub.pytorch"), name)(**arguments)
