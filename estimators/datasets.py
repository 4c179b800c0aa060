"""Images to train on: scikit-learn's digits, CIFAR-10 in its binary version, or a folder of files per class.

A :class:`Dataset` holds two sets of images. :class:`Batches` shuffles one of them endlessly. Batch number
``n`` depends only on ``n`` and a seed, so training can stop and resume anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from nnmeter_nas.errors import DatasetError, SettingsError, nearest
from nnmeter_nas.extras import load_extra

DATASETS = ("digits", "cifar10", "imagefolder")
#: Suffixes of image files, in lower case.
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_CIFAR10_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR10_TEST = "test_batch.bin"
#: Bytes of a record: the class, then 32x32 pixels in each of 3 channels.
_CIFAR10_RECORD = 1 + 3 * 32 * 32
#: ImageNet's mean and standard deviation per channel, the usual ones for networks that see photographs.
_PHOTO_MEAN, _PHOTO_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Side of the enlarged image divided by the side of the centre crop.
_MARGIN = 256 / 224


class Images(Protocol):
    """Images with their classes."""

    def __len__(self) -> int: ...

    def batch(self, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images (n, C, H, W) and classes (n,) at ``chosen`` places, varied by ``rng`` if given."""


@dataclass(frozen=True)
class Dataset:
    """The images that a network learns from, and the images that test it.

    Attributes:
        name: one of :data:`DATASETS`.
        classes: number of classes.
        train: images to learn from.
        held_out: images for testing only.
    """

    name: str
    classes: int
    train: Images
    held_out: Images


def check_dataset(name: str) -> None:
    """Raise a DatasetError unless ``name`` is one of :data:`DATASETS`."""
    if name not in DATASETS:
        raise DatasetError(f"dataset={name!r} is not known; {nearest(str(name), DATASETS)}")


def load_dataset(
    name: str,
    data: Path | None = None,
    input_shape: Sequence[int] = (1, 3, 32, 32),
    seed: int = 0,
    resize_scale: float = 0.08,
) -> Dataset:
    """Load the dataset ``name`` for a network with input ``input_shape``.

    Args:
        name: one of :data:`DATASETS`.
        data: the dataset's folder; digits needs none.
        input_shape: NCHW; the batch size is ignored.
        seed: seed for splitting the digits.
        resize_scale: smallest share of a photograph that training may crop (imagefolder only).

    Raises:
        DatasetError: the dataset is unknown, or its folder or files are missing or damaged.
        MissingPackageError: a package needed to read it is not installed.
    """
    check_dataset(name)
    if name == "digits":
        return _digits(input_shape, seed)
    if data is None:
        raise DatasetError(f"the dataset {name} is read from a folder, which data_path has to name")
    if not data.is_dir():
        raise DatasetError(f"{data} is no folder; data_path takes the folder that holds {name}")
    return (
        _cifar10(data, input_shape) if name == "cifar10" else _image_folder(data, input_shape, resize_scale)
    )


@dataclass(frozen=True)
class MemoryImages:
    """Images that fit into memory.

    Attributes:
        pixels: (n, C, H, W), of any type.
        classes: (n,).
        mean: mean of each channel, subtracted from the pixels first.
        std: standard deviation of each channel; the pixels are then divided by it.
        side: height and width to scale images to.
        shift: a varied image moves by at most this many pixels each way; 0 turns variation off.
    """

    pixels: torch.Tensor
    classes: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    side: int
    shift: int = 0

    def __len__(self) -> int:
        return len(self.classes)

    def batch(self, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`Images`; variation mirrors half of the images."""
        places = torch.from_numpy(chosen)
        pixels = (self.pixels[places].float() - self.mean[:, None, None]) / self.std[:, None, None]
        if rng is not None and self.shift:
            pixels = self._varied(pixels, rng)
        if pixels.shape[-1] != self.side:
            pixels = functional.interpolate(pixels, (self.side, self.side), mode="bilinear")
        return pixels, self.classes[places]

    def _varied(self, pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        count, _, height, width = pixels.shape
        padded = functional.pad(pixels, (self.shift,) * 4)
        top, left = torch.from_numpy(rng.integers(0, 2 * self.shift + 1, (2, count)))
        rows = top[:, None] + torch.arange(height)
        columns = left[:, None] + torch.arange(width)
        mirrored = torch.from_numpy(rng.random(count) < 0.5)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        image = torch.arange(count)[:, None, None]
        return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class FileImages:
    """Images read from files when needed.

    Attributes:
        files: their paths.
        classes: (n,).
        side: height and width of the images that a network gets.
        scale: smallest share of an image that variation keeps.
    """

    files: Sequence[Path]
    classes: torch.Tensor
    side: int
    scale: float = 0.08

    def __len__(self) -> int:
        return len(self.files)

    def batch(self, chosen: np.ndarray, rng: np.random.Generator | None) -> tuple[torch.Tensor, torch.Tensor]:
        """See :class:`Images`; variation crops each image and mirrors half of them."""
        pixels = torch.stack([self._read(self.files[place], rng) for place in chosen])
        mean, std = torch.tensor(_PHOTO_MEAN), torch.tensor(_PHOTO_STD)
        return (pixels - mean[:, None, None]) / std[:, None, None], self.classes[torch.from_numpy(chosen)]

    def _read(self, file: Path, rng: np.random.Generator | None) -> torch.Tensor:
        """Read the image in ``file`` as (3, side, side), values 0 to 1."""
        pil = load_extra("PIL.Image", "search", "reading images")
        try:
            with pil.open(file) as opened:
                image = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises these for damaged files
            raise DatasetError(f"{file} cannot be read as an image: {error}") from error
        box = _centre(image.size) if rng is None else _cutting(image.size, self.scale, rng)
        image = image.resize((self.side, self.side), pil.Resampling.BILINEAR, box=box)
        pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1) / 255
        if rng is not None and rng.random() < 0.5:
            pixels = pixels[:, :, ::-1]
        return torch.from_numpy(pixels.copy())


def _centre(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the central square of an image of ``size`` (width, height) as left, top, right, bottom."""
    side = min(size) / _MARGIN
    left, top = ((length - side) / 2 for length in size)
    return left, top, left + side, top + side


def _cutting(
    size: tuple[int, int], scale: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return a crop of random area and aspect ratio at a random place (Szegedy et al., 2015)."""
    area = size[0] * size[1] * rng.uniform(scale, 1.0)
    proportion = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    width = min(np.sqrt(area * proportion), size[0])
    height = min(np.sqrt(area / proportion), size[1])
    left, top = rng.uniform(0, size[0] - width), rng.uniform(0, size[1] - height)
    return left, top, left + width, top + height


class Batches(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batches of images, in endless passes that each have a new random order.

    A pass drops its last images if they do not fill a batch.

    Args:
        images: the images to draw from.
        batch_size: images per batch.
        seed: seed for order and variation; batch ``n`` depends only on it and on ``n``.
        part: indices of the images to use; all by default.

    Raises:
        SettingsError: there are fewer images than a batch needs.
    """

    def __init__(
        self, images: Images, batch_size: int, seed: Sequence[int], part: np.ndarray | None = None
    ) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, tuple(seed)
        self.part = np.arange(len(images)) if part is None else part
        if len(self.part) < batch_size:
            raise SettingsError(
                f"a batch of {batch_size} is more than the {len(self.part)} images to draw it from; "
                "take a smaller train_batch_size"
            )
        self._order: tuple[int, np.ndarray] = (-1, self.part)

    def __len__(self) -> int:
        return len(self.part) // self.batch_size

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        epoch, place = divmod(number, len(self))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([*self.seed, epoch]).permutation(self.part)
        chosen = self._order[1][place * self.batch_size : (place + 1) * self.batch_size]
        return self.images.batch(chosen, np.random.default_rng([*self.seed, epoch, place]))

    def loader(self, start: int, end: int, workers: int = 0, pinned: bool = False) -> Any:
        """Load batches ``start`` to ``end`` (excluded); ``workers`` processes prepare them ahead."""
        # It has its own generator: otherwise it draws from the global one, which the caller's training uses.
        return torch.utils.data.DataLoader(
            self, batch_size=None, sampler=range(start, end), num_workers=workers, pin_memory=pinned,
            generator=torch.Generator(),
        )  # fmt: skip


def _digits(input_shape: Sequence[int], seed: int) -> Dataset:
    load_extra("sklearn.datasets", "search", "the digits")
    from .digits import digits

    images, classes, held_out, held_out_classes = digits(input_shape, seed)
    nothing, one = torch.zeros(images.shape[1]), torch.ones(images.shape[1])
    side = input_shape[-1]
    return Dataset(
        "digits",
        10,
        MemoryImages(images, classes, nothing, one, side),
        MemoryImages(held_out, held_out_classes, nothing, one, side),
    )


def _cifar10(folder: Path, input_shape: Sequence[int]) -> Dataset:
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    missing = [name for name in (*_CIFAR10_TRAIN, _CIFAR10_TEST) if not (folder / name).is_file()]
    if missing:
        raise DatasetError(
            f"{folder} lacks {', '.join(missing)}: unpack CIFAR-10's binary version "
            "(cifar-10-binary.tar.gz, folder cifar-10-batches-bin) and name its folder; the Python version "
            "consists of pickles, which are not read"
        )
    train = [_cifar10_records(folder / name) for name in _CIFAR10_TRAIN]
    pixels = torch.cat([part for part, _ in train])
    classes = torch.cat([part for _, part in train])
    std, mean = torch.std_mean(pixels[::10].float(), (0, 2, 3))
    images = MemoryImages(pixels, classes, mean, std, side=input_shape[-1], shift=4)
    test_pixels, test_classes = _cifar10_records(folder / _CIFAR10_TEST)
    return Dataset("cifar10", 10, images, replace(images, pixels=test_pixels, classes=test_classes))


def _cifar10_records(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read pixels (n, 3, 32, 32) and classes (n,) from a binary batch."""
    raw = np.fromfile(file, dtype=np.uint8)
    records = raw[: len(raw) // _CIFAR10_RECORD * _CIFAR10_RECORD].reshape(-1, _CIFAR10_RECORD)
    if not len(records) or records.size != len(raw) or records[:, 0].max() > 9:
        raise DatasetError(
            f"{file} is no batch of CIFAR-10's binary version, or was cut short; download it again"
        )
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return pixels, torch.from_numpy(records[:, 0].astype(np.int64))


def _image_folder(folder: Path, input_shape: Sequence[int], scale: float) -> Dataset:
    load_extra("PIL.Image", "search", "reading images")
    if input_shape[1] != 3:
        raise DatasetError(f"images have 3 channels, and the network takes {input_shape[1]}")
    names = _classes(folder / "train")
    unknown = sorted(set(_classes(folder / "val")) - set(names))
    if unknown:
        raise DatasetError(
            f"{folder / 'val'} has classes that {folder / 'train'} lacks: {', '.join(unknown)}"
        )
    parts = []
    for part in ("train", "val"):
        found = [(file, place) for place, name in enumerate(names) for file in _images(folder / part / name)]
        if not found:
            raise DatasetError(
                f"{folder / part} holds no images ({', '.join(_IMAGE_SUFFIXES)}) in its classes"
            )
        files, classes = zip(*found, strict=True)
        parts.append(FileImages(files, torch.tensor(classes), input_shape[-1], scale))
    return Dataset("imagefolder", len(names), *parts)


def _classes(folder: Path) -> list[str]:
    """Return the names of the classes: each is a folder."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if not names:
        raise DatasetError(
            f"{folder} holds no folder a class; images are looked for in train/CLASS and val/CLASS"
        )
    return names


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in _IMAGE_SUFFIXES)
