"""What goes wrong with one model is written down, and the others go on."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

from ...errors import DeviceLostError, MissingPackageError, SettingsError, ToolError
from ...files import is_disk_full

#: Errors that are no fault of a model, so that no later one would fare better.
_OF_ALL = (DeviceLostError, ToolError, MissingPackageError, SettingsError)

logger = logging.getLogger("nn-Meter")


@contextlib.contextmanager
def recorded(log: str, name: str) -> Iterator[None]:
    """Write what goes wrong with one model into a file, whatever a class of the user's raises.

    A lost phone, a full disk or a wrong setting is no fault of the model, and goes on as it is.
    """
    try:
        yield
    except _OF_ALL:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise
        os.makedirs(os.path.dirname(log), exist_ok=True)
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{name}: {type(error).__name__}: {error}\n")
        logger.warning("%s failed: %s", name, error)
