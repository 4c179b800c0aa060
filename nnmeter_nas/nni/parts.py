"""Let NNI, which prices the layers of a network one by one and sums them up, see them as parts of it.

Alone a layer is a small network, which takes less than the layer does in its network; see
:class:`~nnmeter_nas.packs.warmth.Warmth`.
"""

from __future__ import annotations

from typing import Any

from ..predictor import LatencyPredictor
from .replaced import wrap


def price_as_parts(owner: Any, name: str, attribute: str) -> None:
    """Patch ``name`` of NNI's class ``owner``, a method that prices layers by its predictor ``attribute``."""

    def pricing(original: Any, self: Any, *arguments: Any, **options: Any) -> Any:
        predictor = getattr(self, attribute)
        if isinstance(predictor, LatencyPredictor):
            setattr(self, attribute, predictor.of_parts())
        return original(self, *arguments, **options)

    wrap(owner, name, pricing)
