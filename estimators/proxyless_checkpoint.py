"""A training's state in one file, so that the same training can go on from it as if it had never ended."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnmeter_nas.errors import SearchError
from nnmeter_nas.files import write_bytes

_FORMAT = "nnmeter_nas training 1"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training is kept, and what of it.

    Attributes:
        path: the file; it is replaced whole.
        settings: what the training depends on, as JSON values; a file of other settings is refused.
        network: its weights, and the architecture parameters if it has any.
        optimizers: with their moments.
        device: of the network; the state of its random numbers is kept as well as the CPU's.
    """

    path: Path
    settings: Mapping[str, Any]
    network: nn.Module
    optimizers: Sequence[torch.optim.Optimizer]
    device: torch.device

    def load(self) -> int:
        """Restore the state, if there is a file.

        Returns:
            Steps done; 0 without a file.

        Raises:
            SearchError: the file is damaged, no checkpoint, or of a training with other settings.
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
        """Keep the state after ``step`` steps.

        Raises:
            SearchError: a weight is not finite; the file stays as it was.
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
        write_bytes(self.path, file.getbuffer())

    def way_back(self) -> str:
        """What to do about a training that went astray."""
        advice = "lower learning_rate or arc_learning_rate"
        return f"{advice}; {self.path} keeps the last good state" if self.path.exists() else advice

    def _read(self) -> dict[str, Any]:
        try:
            state = torch.load(self.path, map_location=self.device, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
            raise SearchError(
                f"{self.path} is damaged or no checkpoint; remove it to start anew, or name another file"
            ) from error
        if not isinstance(state, dict) or state.get("format") != _FORMAT:
            raise SearchError(f"{self.path} is no checkpoint of this program; name another file")
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
