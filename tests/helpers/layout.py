"""Paths in the checkout of ``nnmeter_nas`` and its plugin packages."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
REPOSITORY = Path(__file__).resolve().parents[2]
PLUGIN_FOLDERS = ("benchmarks", "estimators", "search_spaces", "strategies")
SOURCES = {
    "nnmeter_nas": REPOSITORY / "nnmeter_nas",
    **{f"nnmeter_nas.{folder}": REPOSITORY / folder for folder in PLUGIN_FOLDERS},
}
