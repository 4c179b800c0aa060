"""The models that a command line names, read one at a time."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
#: Kind of a source that names a model of torchvision.
_TORCHVISION = "torchvision"
#: Most sources of a chunk, and bytes of a file with one graph per line in a source: seconds of work.
_SOURCES, _RANGE_BYTES = 16, 1 << 20
#: Least number of chunks that workers share, so that each of them has something to do.
_CHUNKS = 64


class Source(NamedTuple):
    """Where models come from.

    Attributes:
        name: path as the user gave it, or name of a torchvision model.
        kind: model type; None if the suffix of a file does not tell it.
        start, end: of a file with one graph per line, take the lines that start at a byte in
            ``[start, end)``; an ``end`` of None is the end of the file.
    """

    name: str
    kind: str | None
    start: int = 0
    end: int | None = None


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
        sources: where they come from, each once; folders are expanded.
        folder: where relative paths start.
        input_shape: input shape of all models, or None.
        allow_quantized: read a quantised model as the float network.
        like_nn_meter: unless ``input_shape`` is given, read torchvision models with nn-Meter's input, not
            with their usual ones.
        tell: called with remarks on how a model is read.
    """

    sources: Sequence[Source]
    folder: str
    input_shape: InputShape | None
    allow_quantized: bool = False
    like_nn_meter: bool = False
    tell: Callable[[str], None] = note

    @classmethod
    def named_by(cls, options: argparse.Namespace) -> Models:
        """Return the models that ``options`` name, in the order of the flags."""
        sources = [found for path in options.model for found in _files(path, None)]
        for flag, kind in _FLAGS.items():
            sources += [found for path in getattr(options, flag) or () for found in _files(path, kind)]
        sources += [Source(name, _TORCHVISION) for name in options.torchvision or ()]
        input_shape = input_shape_of(options)
        how = options.allow_quantized, options.like_nn_meter
        return cls(list(dict.fromkeys(sources)), os.getcwd(), input_shape, *how)

    def __len__(self) -> int:
        return sum(_count(self.path(one)) if one.kind == _LINES else 1 for one in self.sources)

    def __iter__(self) -> Iterator[Model]:
        for source in self.sources:
            yield from self.models_of(source)

    def models_of(self, source: Source) -> Iterator[Model]:
        """Yield the models of one of the sources."""
        name, kind = source.name, source.kind
        how = self.input_shape, self.allow_quantized
        if kind == _TORCHVISION:
            read = partial(_read_torchvision, name, *how, self.like_nn_meter, self.tell)
            yield Model(name, None, "torch", read)
        elif kind == _LINES:
            yield from self._lines(source)
        else:
            path = self.path(source)
            yield Model(name, path, kind or "unknown", partial(_read_file, path, kind, *how))

    def path(self, source: Source) -> Path:
        """Return where this process, which may be in another folder or on another machine, finds a file."""
        return Path(source.name if os.getcwd() == self.folder else os.path.join(self.folder, source.name))

    def stamp(self, source: Source) -> list[int] | None:
        """Return what changes when a file does: size in bytes and time of change in ns; None without file."""
        if source.kind == _TORCHVISION:
            return None
        try:
            found = self.path(source).stat()
        except OSError:
            return None
        return [found.st_size, found.st_mtime_ns]

    def in_ranges(self) -> Models:
        """Return the same models, with large files of one graph per line as several sources."""
        return replace(self, sources=[part for source in self.sources for part in self._ranges(source)])

    def chunks(self, most: int = _SOURCES) -> list[Models]:
        """Return the same models in chunks of up to ``most`` sources; few models make smaller chunks."""
        size = max(1, min(most, len(self.sources) // _CHUNKS))
        starts = range(0, len(self.sources), size)
        return [replace(self, sources=self.sources[start : start + size]) for start in starts]

    def __str__(self) -> str:
        first, more = self.sources[0].name, len(self.sources) - 1
        return f"{first} and {more} more" if more else first

    def _ranges(self, source: Source) -> list[Source]:
        if source.kind != _LINES:
            return [source]
        try:
            size = self.path(source).stat().st_size
        except OSError:
            size = 0  # reading it tells why
        starts = range(0, max(size, 1), _RANGE_BYTES)
        return [source._replace(start=start, end=start + _RANGE_BYTES) for start in starts]

    def _lines(self, source: Source) -> Iterator[Model]:
        """Yield the models of a file with one graph per line; a malformed line is one that cannot be read."""
        from ..readers.nnmeter_ir.dataset import read_lines  # late: other formats do not need it

        path, how = self.path(source), (self.input_shape, self.allow_quantized)
        try:
            for model in read_lines(path, source.start, source.end):
                if isinstance(model, DatasetError):
                    yield Model(source.name, path, "nnmeter-ir", partial(_raise, model))
                else:
                    read = partial(read_model, model.graph, "nnmeter-ir", *how)
                    yield Model(f"{source.name}:{model.id}", path, "nnmeter-ir", read)
        except DatasetError as error:  # there is no such file
            yield Model(source.name, path, "nnmeter-ir", partial(_raise, error))


def suffix_of(path: Path) -> str:
    """Return the suffix in lower case."""
    return path.suffix.lower()


def _suffixes(kind: str | None) -> dict[str, str]:
    """Map the suffixes of a model type to the type of such a file; None means all types."""
    if kind is None:
        return FOLDER_SUFFIXES
    kinds = (kind, _LINES) if kind == "nnmeter-ir" else (kind,)
    return {suffix: k for suffix, k in FOLDER_SUFFIXES.items() if k in kinds}


def _files(path: Path, kind: str | None) -> list[Source]:
    """Return the file ``path`` itself, or the models in and below a folder, sorted.

    A folder without models is returned itself.
    """
    kinds = _suffixes(kind)
    if not path.is_dir():
        return [Source(str(path), kinds.get(suffix_of(path), kind))]
    # Strings and not paths: there may be millions.
    names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files
             if os.path.splitext(name)[1].lower() in kinds]  # fmt: skip
    names = sorted(filter(os.path.isfile, names), key=lambda name: name.split(os.sep))
    return [Source(n, kinds[os.path.splitext(n)[1].lower()]) for n in names] or [Source(str(path), kind)]


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
    name: str,
    input_shape: InputShape | None,
    allow_quantized: bool,
    like_nn_meter: bool,
    tell: Callable[[str], None],
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
        tell(in_flags(f"{name} is read with {told}", ["input_shape"]))
    return graph


def _raise(error: Exception) -> Any:
    raise error


def input_shape_of(options: argparse.Namespace) -> InputShape | None:
    """The shapes that ``--input-shape`` gave: of the input, or one for each of several."""
    shapes = options.input_shape or [None]
    return shapes[0] if len(shapes) == 1 else shapes
