"""The modules of ``tools/site``, which are no package."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

from layout import REPOSITORY

FOLDER = REPOSITORY / "tools" / "site"


def site_tool(name: str) -> ModuleType:
    """Import a module of ``tools/site``."""
    sys.path.insert(0, str(FOLDER))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
