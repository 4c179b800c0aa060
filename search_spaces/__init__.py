"""Search spaces for NNI 2.10.1 and 3.0; importing this package imports torch and nni."""

from .proxylessnas import MOBILE_BLOCKS, ZERO, ProxylessNASSpace, proxylessnas
from .shufflenet import BLOCKS, ShuffleNetV2OneShot, spos

__all__ = [
    "BLOCKS", "MOBILE_BLOCKS", "ZERO", "ProxylessNASSpace", "ShuffleNetV2OneShot", "proxylessnas", "spos",
]  # fmt: skip
