"""Search spaces for NNI 2.10.1 and 3.0; importing this package imports torch and nni."""

from .shufflenet import BLOCKS, ShuffleNetV2OneShot, spos

__all__ = ["BLOCKS", "ShuffleNetV2OneShot", "spos"]
