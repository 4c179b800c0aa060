"""Checks a built site: every link leads to something that is there, and nothing is loaded from elsewhere.

    python tools/site/links.py build/site
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes by which a page loads something as it is shown: tag -> attribute.
_LOADED = {"audio": "src", "iframe": "src", "img": "src", "link": "href", "script": "src", "source": "src"}
#: Links of a page's head that load nothing.
_NOT_LOADED = {"canonical", "next", "prev", "alternate"}


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag names and where it leads."""
        given = {name: value or "" for name, value in attrs}
        self.anchors.update(value for name in ("id", "name") if (value := given.get(name)))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if (source := given.get(_LOADED.get(tag, ""))) and given.get("rel") not in _NOT_LOADED:
            self.loaded.append(source)


def faults(site: Path) -> Iterator[str]:
    """Yield a sentence for each link that leads nowhere, and for each thing that is loaded from elsewhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        where = path.relative_to(site).as_posix()
        if path.name == "404.html":  # a server shows it at any address, so its links are absolute
            continue
        yield from (f"{where} loads {url}" for url in page.loaded if urlsplit(url).netloc)
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                yield f"{where} leads to {link}, which is not there"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{where} leads to {link}, and that page has no such anchor"


def main() -> int:
    """Check the site that the command line names."""
    found = list(faults(Path(sys.argv[1]).resolve()))
    print("\n".join(found) or "every link leads to something, and nothing is loaded from elsewhere")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
