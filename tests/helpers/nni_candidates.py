"""Make candidates like a strategy of NNI 2.10.1."""

from __future__ import annotations

import random
from typing import Any

from nni.nas.experiment.pytorch import preprocess_model
from nni.nas.strategy.utils import dry_run_for_search_space, get_targeted_model


def make_candidates(space: Any, engine: str, count: int) -> list[Any]:
    """Random candidates in the form that NNI passes to a filter under ``engine``."""
    dummy = list(space.input_shape) if engine == "graph" else None
    base, mutators = preprocess_model(space, None, None, full_ir=engine == "graph", dummy_input=dummy)
    choices = dry_run_for_search_space(base, mutators)
    draw = random.Random(0)
    return [get_targeted_model(base, mutators, {k: draw.choice(v) for k, v in choices.items()})
            for _ in range(count)]
