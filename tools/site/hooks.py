"""What mkdocs calls as it builds the site: adds generated pages, and mends links out of ``docs``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api import MODULES, python_pages
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from repository import PAGES, links_in_site, text_of

from commands import commands_page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the Python names into the navigation."""
    (reference,) = (section["Reference"] for section in config.nav or [] if "Reference" in section)
    pages: list[Any] = [{name: f"reference/python/{name}.md"} for name in MODULES]
    reference.append({"Python": ["reference/python/index.md", *pages]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of ``docs`` holds."""
    for name, content in _generated():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links to other files of the repository lead to their pages."""
    return links_in_site(markdown, page.file.src_uri)


def _generated() -> Iterator[tuple[str, str]]:
    """Each generated page: its name on the site, and its Markdown."""
    for source, name in PAGES.items():
        yield name, text_of(source)
    yield "reference/commands.md", commands_page()
    yield from python_pages()
