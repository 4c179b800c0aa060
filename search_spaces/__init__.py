"""Search spaces for NNI 2.10.1 and 3.0; importing this package imports torch and nni."""

from .hub import hub
from .nasbench201 import OPERATIONS, NASBench201Space, nasbench201
from .proxylessnas import MOBILE_BLOCKS, ZERO, ProxylessNASSpace, proxylessnas
from .shufflenet import BLOCKS, ShuffleNetV2OneShot, spos

__all__ = [
    "BLOCKS", "MOBILE_BLOCKS", "OPERATIONS", "ZERO", "NASBench201Space", "ProxylessNASSpace",
    "ShuffleNetV2OneShot", "hub", "nasbench201", "proxylessnas", "spos",
]  # fmt: skip
