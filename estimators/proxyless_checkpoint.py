"""The state of a training in one file, so that the training can resume as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnmeter_nas.errors import SearchError
from nnmeter_nas.files import write_bytes

_FORMAT = "nnmeter_nas training 2"
#: The last bytes of a file are this mark, and the SHA-256 of all bytes before it. torch reads over them.
_MARK = b"\nsha256 "
_HASH_BYTES = 64


@dataclass(frozen=True)
class Checkpoint:
    """A file with the state of a training.

    Attributes:
        path: the file; each save replaces it whole.
        settings: everything that the training depends on, as JSON values; files with other settings are
            refused.
        network: saved with its weights, and its architecture parameters if it has any.
        optimizers: saved with their moments.
        device: device of the network; the states of its and the CPU's random numbers are saved.
    """

    path: Path
    settings: Mapping[str, Any]
    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    device: torch.device

    def load(self) -> int:
        """Restore the state if the file exists.

        Returns:
            Number of steps done; 0 without a file.

        Raises:
            SearchError: the file is damaged, is not a checkpoint, or has other settings.
        """
        if not self.path.exists():
            return 0
        state = self._read()
        self._check_settings(state["settings"])
        self.network.load_state_dict(state["network"])
        for optimizer, its_state in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its_state)
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"].cpu(), self.device)
        return int(state["step"])

    def save(self, step: int) -> None:
        """Save the state after ``step`` steps.

        Raises:
            SearchError: a weight is not finite; the file stays unchanged.
        """
        for name, values in self.network.state_dict().items():
            if not torch.isfinite(values).all():
                raise SearchError(f"{name} is not finite after step {step}; {self.way_back()}")
        state = {
            "format": _FORMAT,
            "settings": dict(self.settings),
            "step": step,
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        file = io.BytesIO()
        torch.save(state, file)
        written = file.getbuffer()
        write_bytes(self.path, written, _MARK, hashlib.sha256(written).hexdigest().encode())

    def way_back(self) -> str:
        """Say what to do about a training that diverged."""
        advice = "lower learning_rate or arc_learning_rate"
        return f"{advice}; {self.path} keeps the last good state" if self.path.exists() else advice

    def _read(self) -> dict[str, Any]:
        content = self.path.read_bytes()
        written, found = content[: -len(_MARK) - _HASH_BYTES], content[-len(_MARK) - _HASH_BYTES :]
        # torch itself checks nothing: it loads flipped bits as weights.
        if found != _MARK + hashlib.sha256(written).hexdigest().encode():
            raise SearchError(
                f"{self.path} is damaged or no checkpoint; remove it to start anew, or name another file"
            )
        state: dict[str, Any] = torch.load(io.BytesIO(written), map_location=self.device, weights_only=True)
        if state["format"] != _FORMAT:
            raise SearchError(f"{self.path} was written by another version; name another file")
        return state

    def _check_settings(self, found: Mapping[str, Any]) -> None:
        differing = [
            f"{name} is {found.get(name)!r} there and {self.settings.get(name)!r} here"
            for name in sorted({*found, *self.settings})
            if found.get(name) != self.settings.get(name)
        ]
        if differing:
            raise SearchError(
                f"{self.path} belongs to another training: {', '.join(differing)}; "
                "give its settings to go on with it, or another checkpoint_path"
            )
