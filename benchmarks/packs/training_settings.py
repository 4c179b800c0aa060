"""How the networks of packs are fitted, by category of device; known without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """How a network is fitted; part of the key under which a fit is cached.

    Attributes:
        loss_scale: relative error at which the loss starts to flatten (Cauchy), so that the noisy
            measurements of one family do not pull the rest.
        correction_penalty: on the squared correction; keeps the work in the extrapolating base.
        kind_penalty: on a kind's deviation from its group.
        monotony_penalty: on kernels that would get faster by growing.
    """

    epochs: int = 40
    hidden: int = 128
    batch: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    loss_scale: float = 0.1
    correction_penalty: float = 1e-3
    kind_penalty: float = 1e-3
    monotony_penalty: float = 10.0
    growth_pairs: int = 256


#: By category of device; chosen by what generalised best to families left out. The noisier the measurements,
#: the more the base is trusted over the correction.
SETTINGS = {
    "cpu": Settings(loss_scale=0.2, correction_penalty=1e-2, kind_penalty=3e-2),
    "gpu": Settings(),
    "vpu": Settings(correction_penalty=1e-1, kind_penalty=5e-2),
}
