"""Train NNI 3.0's one-shot strategies for a few steps."""

from __future__ import annotations

from typing import Any

import torch
from nni.nas.evaluator.pytorch import Classification
from nni.nas.execution.sequential import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import DataLoader, TensorDataset


def train(strategy: Any, space: Any, steps: int) -> None:
    """Run a one-shot ``strategy`` on random images for some steps."""
    torch.manual_seed(0)
    images, classes = torch.rand(4 * steps, 3, 16, 16), torch.randint(10, (4 * steps,))
    loader = DataLoader(TensorDataset(images, classes), batch_size=4)
    evaluator = Classification(
        learning_rate=0.01, train_dataloaders=loader, val_dataloaders=loader, num_classes=10, max_epochs=1,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, logger=False,
        accelerator="cpu",
    )
    raw = RawFormatModelSpace.from_model(space)
    raw.evaluator = evaluator
    strategy(raw, SequentialExecutionEngine())
