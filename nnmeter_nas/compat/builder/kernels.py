"""Models of kernels: which there are, of which sizes, and their files."""

from __future__ import annotations

import logging
import os
import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from ...errors import SettingsError, nearest
from .faults import recorded
from .models import as_graph, check_implement, input_shapes, lone_kernel, write_model
from .registry import listed, load_class, registered
from .results import Models, merge_info, write_json
from .sampling import BaseConfigSampler, sampler_of
from .workspace import builder_config

__all__ = ["generate_config_sample", "list_kernels"]

_AFTER_CONV = ("bn-relu", "bn-relu6", "bn", "relu", "relu6", "hswish", "block", "bn-hswish")
_AFTER_DWCONV = ("bn", "relu", "relu6", "bn-relu", "bn-relu6", "block", "bn-hswish")
#: Kernel types of nn-Meter.
KERNELS = (
    *(f"conv-{rest}" for rest in _AFTER_CONV),
    *(f"dwconv-{rest}" for rest in _AFTER_DWCONV),
    "maxpool", "avgpool", "fc", "concat", "split", "channelshuffle", "se", "global-avgpool", "bnrelu", "bn",
    "hswish", "swish", "relu", "addrelu", "add",
)  # fmt: skip
_LETTERS = string.ascii_uppercase + string.digits

logger = logging.getLogger("nn-Meter")


def generate_config_sample(
    kernel_type: str,
    sample_num: int,
    mark: str = "",
    sampling_mode: str = "prior",
    configs: Sequence[Mapping[str, Any]] | None = None,
) -> Models:
    """Draw sizes of kernels and write their models; return the paths and sizes by kernel type and name.

    They are also in ``predictor_build/results/<kernel_type>_<mark>.json`` of the workspace. A kernel that
    cannot be written is named in ``generate_error.log``, and the others go on.

    Args:
        kernel_type: as :func:`list_kernels` names it.
        sample_num: kernels to draw; with "finegrained", around each of ``configs``.
        mark: part of the names of the files.
        sampling_mode: "prior" or "finegrained".
        configs: the kernels to draw around, with "finegrained".

    Raises:
        WorkspaceError: no workspace is in use.
        SettingsError: an argument is wrong, or a registered class cannot be imported.
        MissingPackageError: what writes the models is not installed.
        OSError: a disk is full.
    """
    workspace = builder_config.get("WORKSPACE", "predbuild")
    implement = check_implement(builder_config.get("IMPLEMENT", "predbuild"))
    sampler = _sampler(kernel_type)
    if sampling_mode == "prior":
        drawn = sampler.prior_config_sampling(sample_num)
    elif sampling_mode == "finegrained":
        drawn = sampler.finegrained_config_sampling(configs=list(configs or ()), sample_num=sample_num)
    else:
        raise SettingsError(f"sampling_mode={sampling_mode!r} is neither 'prior' nor 'finegrained'")
    logger.info("building kernel for %s...", kernel_type)
    found: dict[str, dict[str, Any]] = {}
    for config in drawn:
        name = "".join(random.choices(_LETTERS, k=6))
        path = os.path.join(workspace, "kernels", f"{kernel_type}_{mark}_{name}")
        with recorded(os.path.join(workspace, "results", "generate_error.log"), f"{kernel_type} {config}"):
            graph = _model(kernel_type, config, implement)
            file = write_model(graph, path, implement)
            found[name] = {"model": file, "shapes": input_shapes(graph, implement), "config": config}
    path = os.path.join(workspace, "results", f"{kernel_type}_{mark}.json")
    write_json(path, merge_info({kernel_type: found}, path))
    logger.info("Generate %s kernels and save info to %s", len(found), path)
    return {kernel_type: found}


def check_kernel_type(kernel_type: str) -> None:
    """Check that models of a kernel type can be made, and its features told.

    Raises:
        WorkspaceError: no workspace is in use.
        SettingsError: there is no such type, or a registered class cannot be imported or writes other models.
    """
    implement = check_implement(builder_config.get("IMPLEMENT", "predbuild"))
    _sampler(kernel_type)
    own = registered("kernels").get(kernel_type)
    if own is not None:
        _block(kernel_type, own, implement)
        load_class(own, "parser_module")


def list_kernels() -> list[str]:
    """Return the names of all kernel types; those of registered ones start with a star."""
    return [*KERNELS, *listed("kernels")]


def _sampler(kernel_type: str) -> BaseConfigSampler:
    own = registered("kernels")
    if kernel_type in own:
        sampler: BaseConfigSampler = load_class(own[kernel_type], "sampler_module")()
        return sampler
    if kernel_type not in KERNELS:
        raise SettingsError(f"no kernel type {kernel_type!r}; {nearest(kernel_type, [*KERNELS, *own])}")
    return sampler_of(kernel_type)


def _model(kernel_type: str, config: Mapping[str, Any], implement: str) -> nx.DiGraph:
    """The model of a kernel."""
    own = registered("kernels").get(kernel_type)
    if own is None:
        return lone_kernel(kernel_type, config)
    block = _block(kernel_type, own, implement)(config)
    return as_graph(block.get_model(), block.input_tensor_shape, implement)


def _block(kernel_type: str, entry: dict[str, Any], implement: str) -> Any:
    """The registered class of a kernel type."""
    if entry.get("implement", implement) != implement:
        raise SettingsError(
            f"{kernel_type} is registered for {entry['implement']}, not IMPLEMENT: {implement}"
        )
    return load_class(entry)
