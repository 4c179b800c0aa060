"""Rules for schedules that TVM asks for and lacks on this processor: it warns of each, once a kernel."""

from __future__ import annotations

from typing import Any

from .imports import load_tvm

#: What TVM's poolings ask for.
_ASKED_FOR = ("pool_max", "pool_avg", "adaptive_pool_max", "adaptive_pool_avg")


def load_rules() -> None:
    """Give TVM rules that do what it does without them: they leave the schedule as it is."""
    tvm = load_tvm()
    for name in _ASKED_FOR:
        tvm.register_global_func(f"s_tir.meta_schedule.cpu.meta_schedule.{name}", _as_it_is, override=True)


def _as_it_is(schedule: Any, _: Any) -> list[Any]:
    return [schedule]
