"""Unpack a downloaded zip file into one folder, completely or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from ..errors import PackError
from ..packs.nnmeter1.members import check_entries


def unpack(archive: Path, folder: Path) -> None:
    """Unpack ``archive`` into ``folder``; files that are there stay. A new or empty folder appears whole.

    Raises:
        PackError: it is not a zip file, is damaged, or has entries outside the folder. Nothing is written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as file, tempfile.TemporaryDirectory(dir=folder.parent) as room:
            unpacked = Path(room, "unpacked")
            check_entries(file.infolist(), archive)
            file.extractall(unpacked)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            if folder.exists():
                shutil.copytree(unpacked, folder, dirs_exist_ok=True)
            else:
                os.replace(unpacked, folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise PackError(f"{archive} is no zip that can be read: {error}") from error
