"""What ``nnmeter-nas build`` found, in the result files of nn-Meter's builder.

Below the folder that is given they lie where nn-Meter's workspace has them:

========================================================== ==============================================
``fusion_rule_test/results/detected_fusion_rule.json``     the rules that were found, and pairs that are none
``predictor_build/results/TYPE_build.json``                sizes of the kernels of a type
``predictor_build/results/profiled_TYPE.json``             their latencies
``predictor_build/results/collection/Data_TYPE_build.csv`` their features and latencies
========================================================== ==============================================
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from ...builder.evidence import Evidence
from ...builder.observations import kernel_times
from ...builder.workspace import RULES, open_workspace, read_device
from ...errors import WorkspaceError
from ...kernels.configuration import COLUMNS, configuration
from ...kernels.fusion import Kernel, fuse, parse_rules
from ..kernels import get_kernel_name, nn_meter_op
from .forests import save_kernel_data
from .kernels import KERNELS
from .models import OPERATORS, from_nchw
from .results import Latency, Models, dump_profiled_results, write_json

__all__ = ["write_build_results"]

#: Part of the names of the files.
_MARK = "build"
#: What nn-Meter calls an operator of a rule, where that is not its name in :data:`OPERATORS`.
_RULE_NAMES = {"pool": ("avgpool", "maxpool")} | {ours: (name,) for name, ours in OPERATORS.items()}
#: Kernel types that have a window.
_WITH_WINDOW = ("conv-bn-relu", "dwconv-bn-relu", "maxpool", "avgpool")
#: Tensors that a concatenation of nn-Meter's joins at most.
_CONCATENATED = 4


def write_build_results(workspace: Path, folder: Path) -> list[Path]:
    """Write what a finished build found as files of nn-Meter's; return their paths.

    Kernels are those that nn-Meter has a type for, and whose sizes are all that its type knows: square maps
    and windows, no groups, no dilation. Those of equal sizes are one, with the mean of their latencies.

    Args:
        workspace: of ``nnmeter-nas build``.
        folder: where the files go. It may be a workspace of nn-Meter's: then these files are replaced.

    Raises:
        WorkspaceError: ``workspace`` holds no finished build.
    """
    if not (workspace / RULES).is_file():
        raise WorkspaceError(f"{workspace} holds no finished build; nnmeter-nas build makes one")
    device = read_device(workspace)
    with open_workspace(workspace, device) as opened:
        evidence = Evidence.of(opened, device["name"])
    rules = folder / "fusion_rule_test" / "results" / "detected_fusion_rule.json"
    write_json(rules, _rules(evidence))
    written, results = [rules], folder / "predictor_build" / "results"
    for kernel_type, kernels in sorted(_kernels(evidence).items()):
        models: Models = {kernel_type: kernels}
        sizes, profiled = results / f"{kernel_type}_{_MARK}.json", results / f"profiled_{kernel_type}.json"
        without = {
            name: {key: value for key, value in kernel.items() if key != "latency"}
            for name, kernel in kernels.items()
        }
        write_json(sizes, {kernel_type: without})
        write_json(profiled, dump_profiled_results(models))
        written += [sizes, profiled, Path(save_kernel_data(kernel_type, models, _MARK, str(results)))]
    return written


def _rules(evidence: Evidence) -> dict[str, dict[str, bool]]:
    """Rules by nn-Meter's names; what the build could not tell is left out."""
    found: dict[str, dict[str, bool]] = {}
    for vote in evidence.votes:
        obeyed = "->".join(vote.names) in evidence.rules
        if len(vote.names) == 1:
            continue  # a whole pattern, which has no rule there
        # Nobody writes down the longer chains that are none: their pairs tell.
        if obeyed or (len(vote.names) == 2 and not vote.uncertain):
            for names in product(*(_RULE_NAMES.get(name, (name,)) for name in vote.names)):
                found["BF_" + "_".join(names)] = {"obey": obeyed}
    return found


def _kernels(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    """Kernels by type and name, as nn-Meter's builder lists them, with their latencies."""
    times: dict[str, dict[tuple[int, ...], list[float]]] = defaultdict(lambda: defaultdict(list))
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for network, kernel, ms in _measured(evidence):
        kernel_type = get_kernel_name(nn_meter_op(kernel))
        config = _config(kernel_type, kernel)
        if config is None:
            continue
        of_type = times[kernel_type][tuple(config.values())]
        of_type.append(ms)
        if len(of_type) == 1:
            shapes = [from_nchw(shape, "tensorflow") for shape in kernel.in_shapes]
            name = f"{len(found[kernel_type]):06d}"
            found[kernel_type][name] = {"model": network, "shapes": shapes, "config": config}
    for kernel_type, kernels in found.items():
        for described, measured in zip(kernels.values(), times[kernel_type].values(), strict=True):
            described["latency"] = Latency(statistics.mean(measured), statistics.pstdev(measured))
    return found


def _measured(evidence: Evidence) -> Iterator[tuple[str, Kernel, float]]:
    """Each kernel whose latency is known, with the network that it was measured in."""
    rules = parse_rules(evidence.rules)
    for observation in evidence.observations:
        kernels = [kernel for _, kernel in fuse(observation.graph, rules).nodes(data="kernel")]
        times = kernel_times(observation, [kernel.members for kernel in kernels])
        if observation.is_piece and len(kernels) == 1:
            times = {0: observation.ms}
        for i, ms in times.items():
            yield observation.name, kernels[i], ms


def _config(kernel_type: str, kernel: Kernel) -> dict[str, int] | None:
    """The sizes that nn-Meter knows of a kernel; None if there are others, or it has no such type."""
    if kernel_type not in KERNELS:
        return None
    size = {name: int(value) for name, value in zip(COLUMNS, configuration(kernel).sizes, strict=True)}
    if kernel_type == "fc":
        return {"CIN": size["cin"], "COUT": size["cout"]} if size["hin"] * size["win"] == 1 else None
    if size["hin"] != size["win"]:
        return None
    if kernel_type == "concat":
        channels = [shape[1] for shape in kernel.in_shapes]
        if len(channels) > _CONCATENATED or len({shape[2:] for shape in kernel.in_shapes}) > 1:
            return None
        padded = [*channels, *[0] * (_CONCATENATED - len(channels))]
        return {"HW": size["hin"]} | {f"CIN{i}": count for i, count in enumerate(padded, 1)}
    found = {"HW": size["hin"], "CIN": size["cin"]}
    if kernel_type not in _WITH_WINDOW:
        return found
    if (size["kh"], size["sh"], size["dilation"], size["groups"]) != (size["kw"], size["sw"], 1, 1):
        return None
    found |= {"COUT": size["cout"], "KERNEL_SIZE": size["kh"], "STRIDES": size["sh"]}
    return found | {"POOL_STRIDES": size["sh"]} if kernel_type.endswith("pool") else found
