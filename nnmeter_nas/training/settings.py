"""Settings for fitting the networks of packs, by category of device; importing them does not load torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Settings for fitting a network; they are part of the key of a cached fit.

    Attributes:
        loss_scale: relative error at which the loss starts to flatten (Cauchy), so that the noisy
            measurements of one family do not distort the rest.
        correction_penalty: penalty on the squared correction; it makes the base, which extrapolates, explain
            most of the latency.
        kind_penalty: penalty on a kind's deviation from its group.
        launch_penalty: penalty on the cost of a launch, in mean latencies of a kernel. Only kernels with
            little work tell launches from work. Where the data has few of them, launches would stand in for
            what larger kernels lose elsewhere, and small networks would look slow.
        monotony_penalty: penalty on kernels that would get faster by growing.
    """

    epochs: int = 40
    hidden: int = 128
    batch: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    loss_scale: float = 0.1
    correction_penalty: float = 1e-3
    kind_penalty: float = 1e-3
    launch_penalty: float = 0.02
    monotony_penalty: float = 10.0
    growth_pairs: int = 256


#: Settings by category of device, chosen because they generalised best to left-out families. The noisier the
#: measurements, the more the fit relies on the base instead of the correction.
SETTINGS = {
    "cpu": Settings(loss_scale=0.2, correction_penalty=1e-2, kind_penalty=3e-2, launch_penalty=1.0),
    "gpu": Settings(),
    "vpu": Settings(correction_penalty=1e-1, kind_penalty=5e-2),
}
