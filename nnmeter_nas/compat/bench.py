"""nn-Meter's benchmark dataset: where its files are, fetched and unpacked if they are missing."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import DatasetError
from ..files import sha256, user_folder
from ..packs.nnmeter1.download import discard, download
from ..readers.nnmeter_ir.dataset import dataset_files
from .archives import unpack

#: The dataset of 26,000 measured models.
OFFICIAL = "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data/datasets.zip"
_HASH = "#sha256="

logger = logging.getLogger("nn-Meter")


def fetch_bench(source: str, folder: Path) -> list[Path]:
    """Return the ``<family>s.jsonl`` files of ``folder``; if there are none, unpack ``source`` there.

    The files may also lie in a folder of it, as a zip file of a folder has them.

    A download that breaks off goes on where it stopped, and the folder appears whole or not at all.

    Args:
        source: the path of a zip file, or an ``https://`` address, which may end in ``#sha256=`` and the hash
            that the file must have.
        folder: where the files are.

    Raises:
        DatasetError: the zip file holds no such files.
        PackError: it cannot be fetched or read, or has another hash.
        MissingPackageError: httpx is not installed.
    """
    if not any(_with_files(folder).glob("*.jsonl")):
        _unpack(source, folder)
    try:
        return dataset_files(_with_files(folder))
    except DatasetError as error:
        raise DatasetError(
            f"{source} holds no *.jsonl files; unpack nn-Meter's datasets.zip into {folder}"
        ) from error


def bench_folder(source: Path) -> Path:
    """Return the folder of the dataset that is meant by a folder, a zip file, or the word "official".

    A zip file is unpacked into the user's data folder once; "official" is downloaded once.

    Raises:
        DatasetError, PackError, MissingPackageError: as in :func:`fetch_bench`.
    """
    if str(source) == "official":
        folder = user_folder() / "dataset"
        fetch_bench(OFFICIAL, folder)
    elif source.suffix == ".zip" and source.is_file():
        folder = user_folder() / f"dataset-{sha256(source)[:16]}"
        fetch_bench(str(source), folder)
    else:
        folder = source
    return _with_files(folder)


def _with_files(folder: Path) -> Path:
    """The folder itself, or the first one in it that has the files in its place."""
    found = [folder, *sorted({file.parent for file in folder.glob("[!._]*/*.jsonl")})]
    return next((one for one in found if any(one.glob("*.jsonl"))), folder)


def _unpack(source: str, folder: Path) -> None:
    if Path(source).is_file():
        unpack(Path(source), folder)
        return
    url, _, expected = source.partition(_HASH)
    logger.info("Download from %s ...", url)
    archive = download(url, expected or None, otherwise=f"unpack it into {folder}")
    try:
        unpack(archive, folder)
    finally:
        discard(archive)
