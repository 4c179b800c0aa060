"""The models that a command line names, read one at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx

from ..errors import DatasetError, ReaderError
from ..readers import SUFFIXES, read_model, unknown_format
from ..readers.inputs import InputShape
from .messages import in_flags, note

#: A file with one graph per line, as in the bench dataset.
_LINES_SUFFIX, _LINES = ".jsonl", "nnmeter-ir lines"
#: Suffixes of model files in a folder -> model type.
FOLDER_SUFFIXES = {**SUFFIXES, _LINES_SUFFIX: _LINES}
#: Flag -> type of the models that it names.
_FLAGS = {"onnx": "onnx", "tensorflow": "pb", "nn_meter_ir": "nnmeter-ir"}


@dataclass(frozen=True)
class Model:
    """One model.

    Attributes:
        file: its file; None for a torchvision model.
        kind: its model type, as :func:`nnmeter_nas.read_model` takes it.
        read: function that reads the model graph.
    """

    name: str
    file: Path | None
    kind: str
    read: Callable[[], nx.DiGraph]


@dataclass(frozen=True)
class Models:
    """All models that a command line names. Iterating opens one file after another.

    Attributes:
        files: (path, model type) of each file, with folders expanded; the type is None if the suffix does not
            tell it.
        torchvision: names of torchvision models.
        input_shape: input shape of all models, or None.
        allow_quantized: read a quantised model as the float network.
        like_nn_meter: unless ``input_shape`` is given, read torchvision models with nn-Meter's input, not
            with their usual ones.
    """

    files: Sequence[tuple[Path, str | None]]
    torchvision: Sequence[str]
    input_shape: InputShape | None
    allow_quantized: bool = False
    like_nn_meter: bool = False

    @classmethod
    def named_by(cls, options: argparse.Namespace) -> Models:
        """Return the models that ``options`` name, in the order of the flags."""
        files = [found for path in options.model for found in _files(path, None)]
        for flag, kind in _FLAGS.items():
            files += [found for path in getattr(options, flag) or () for found in _files(path, kind)]
        shapes = options.input_shape or [None]
        input_shape = shapes[0] if len(shapes) == 1 else shapes
        how = options.allow_quantized, options.like_nn_meter
        return cls(files, options.torchvision or (), input_shape, *how)

    def __len__(self) -> int:
        return sum(_count(path) if kind == _LINES else 1 for path, kind in self.files) + len(self.torchvision)

    def __iter__(self) -> Iterator[Model]:
        how = self.input_shape, self.allow_quantized
        for path, kind in self.files:
            if kind == _LINES:
                yield from self._lines(path)
            else:
                read = partial(_read_file, path, kind, *how)
                yield Model(str(path), path, kind or "unknown", read)
        for name in self.torchvision:
            read = partial(_read_torchvision, name, *how, self.like_nn_meter)
            yield Model(name, None, "torch", read)

    def _lines(self, path: Path) -> Iterator[Model]:
        """Yield the models of a file with one graph per line; stop after a malformed line."""
        from ..readers.nnmeter_ir.dataset import iter_models  # late: other formats do not need it

        try:
            for model in iter_models(path):
                read = partial(
                    read_model, model.graph, "nnmeter-ir", self.input_shape, self.allow_quantized
                )
                yield Model(f"{path}:{model.id}", path, "nnmeter-ir", read)
        except DatasetError as error:
            yield Model(str(path), path, "nnmeter-ir", partial(_raise, error))


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case."""
    return path.suffix.lower()


def _suffixes(kind: str | None) -> dict[str, str]:
    """Map the suffixes of a model type to the type of such a file; None means all types."""
    if kind is None:
        return FOLDER_SUFFIXES
    kinds = (kind, _LINES) if kind == "nnmeter-ir" else (kind,)
    return {suffix: k for suffix, k in FOLDER_SUFFIXES.items() if k in kinds}


def _files(path: Path, kind: str | None) -> list[tuple[Path, str | None]]:
    """Return the file ``path`` itself, or the models in and below a folder, sorted.

    A folder without models is returned itself.
    """
    kinds = _suffixes(kind)
    if not path.is_dir():
        return [(path, kinds.get(suffix_of(path), kind))]
    found = sorted(p for p in path.rglob("*") if suffix_of(p) in kinds and p.is_file())
    return [(p, kinds[suffix_of(p)]) for p in found] or [(path, kind)]


def _count(path: Path) -> int:
    """Count the models in a file with one graph per line."""
    try:
        with path.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError:
        return 1


def _read_file(
    path: Path, kind: str | None, input_shape: InputShape | None, allow_quantized: bool
) -> nx.DiGraph:
    if path.is_dir():
        raise ReaderError(f"{path} is a folder without {' or '.join(_suffixes(kind))} files")
    if kind is None:
        way_out = "name it with --onnx, --tensorflow or --nn-meter-ir"
        raise unknown_format(path, FOLDER_SUFFIXES, way_out)
    return read_model(path, kind, input_shape, allow_quantized)


def _read_torchvision(
    name: str, input_shape: InputShape | None, allow_quantized: bool, like_nn_meter: bool
) -> nx.DiGraph:
    """Read a model with the given input; if none is given, tell which one is taken, unless it is common."""
    # late: files need none of it
    from ..readers.torch.torchvision_models import IMAGE, find_torchvision

    model = find_torchvision(name)
    usual = model.usual_shape
    as_nn_meter = like_nn_meter and len(usual) == len(IMAGE)  # nn-Meter reads only images
    graph = model.read(input_shape or (IMAGE if as_nn_meter else usual), allow_quantized)
    if input_shape is None and usual != IMAGE:
        told = (
            f"input_shape={IMAGE}, as by nn-Meter; its usual one is input_shape={usual}" if as_nn_meter else
            f"input_shape={usual}, its usual one; pass another for another latency"
        )  # fmt: skip
        note(in_flags(f"{name} is read with {told}", ["input_shape"]))
    return graph


def _raise(error: Exception) -> Any:
    raise error
