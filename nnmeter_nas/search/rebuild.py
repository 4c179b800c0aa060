"""Rebuild the networks that a search found from their architecture files, and export them to ONNX."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ReaderError
from ..extras import load_extra
from ..supernet.named import make_space
from .report.outcome import Hardware

_PURPOSE = "exporting a network"


@dataclass(frozen=True)
class Architecture:
    """An architecture as a search saved it.

    Attributes:
        space: name of its search space, as ``make_space`` takes it.
        input_shape: NCHW.
        choices: name of the chosen candidate by label.
        values: its measures, by name.
        hardware: the hardware that each latency in ``values`` was predicted for, by name of the measure.
    """

    space: str
    input_shape: tuple[int, ...]
    choices: Mapping[str, str]
    values: Mapping[str, float]
    hardware: Mapping[str, Hardware]


def load_architecture(path: str | Path) -> Architecture:
    """Load the architecture in a file that a search saved, such as ``best/1.json``.

    Raises:
        ReaderError: a search did not save the file.
        OSError: the file cannot be read.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        shape = tuple(int(size) for size in found["input_shape"])
        if not found["choices"] or min(shape) < 1:
            raise ValueError("it has no choices, or no input shape")
        return Architecture(
            space=str(found["space"]),
            input_shape=shape,
            choices={label: str(name) for label, name in found["choices"].items()},
            values={name: float(value) for name, value in found["values"].items()},
            hardware={
                name: Hardware(
                    str(pack["device"]), float(pack["pack_version"]), str(pack["pack_fingerprint"])
                )
                for name, pack in found["devices"].items()
                if name in found["values"]
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReaderError(
            f"{path} is no architecture that a search saved, such as RUN/best/1.json: "
            f"{type(error).__name__}: {error}"
        ) from error


def rebuild(architecture: Architecture, weights: str | Path | None = None) -> Any:
    """Build the network of an architecture, as a torch module in evaluation mode.

    Args:
        architecture: from :func:`load_architecture`.
        weights: file of a state dict that ``torch.save`` wrote; without it, weights are random.

    Raises:
        SpaceError: its space cannot be loaded, or lacks one of its choices.
        ReaderError: the file has no weights, or the weights of another network.
        MissingPackageError: torch or NNI is not installed.
    """
    lines = load_extra("nnmeter_nas.nni", "nni", _PURPOSE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NNI warns about new parts of torch
        network = lines.build_network(partial(make_space, architecture.space), architecture.choices)
    if weights is not None:
        _load_weights(network, weights)
    return network.eval()


def _load_weights(network: Any, file: str | Path) -> None:
    """Load a complete state dict into ``network``."""
    torch = load_extra("torch", "nni", _PURPOSE)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except OSError:
        raise
    except Exception as error:  # torch, pickle and zip raise their own errors
        reason = " ".join(str(error).split())
        raise ReaderError(
            f"{file} holds no weights of this network as torch.save(network.state_dict(), FILE) writes them: "
            f"{reason[:300]}"
        ) from error


def to_onnx(network: Any, architecture: Architecture) -> Any:
    """Export a network as an ONNX ``ModelProto``, batch 1, with its architecture in metadata ``nnmeter_nas``.

    Raises:
        ReaderError: torch cannot export it.
        MissingPackageError: torch, onnx or onnxscript is not installed.
    """
    torch = load_extra("torch", "nni", _PURPOSE)
    for module in ("onnx", "onnxscript"):
        load_extra(module, "onnx", _PURPOSE)
    example = torch.zeros(architecture.input_shape)
    try:
        with _quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=["output"],
            )
        model = program.model_proto
    except Exception as error:  # exporting a user's network can raise anything
        raise ReaderError(f"torch cannot export the network: {type(error).__name__}: {error}") from error
    about = {"space": architecture.space, "choices": dict(architecture.choices)}
    model.metadata_props.add(key="nnmeter_nas", value=json.dumps(about))
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress of torch's exporter and its hints about missing packages."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
