"""The code on Markdown pages: finds it, and runs it as a reader would.

A block of Python or of shell commands is run, page by page and from top to bottom. A comment above a block
says otherwise::

    <!-- not run: it needs a phone -->
    <!-- in nnmeter_nas/ops/convolutions.py -->      quoted from that file

A block of Python whose first line is ``# my_space.py`` is a file that a reader saves under that name.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MARK = r"(?:^<!-- (?P<mark>[^\n]*?) -->\n)?"
_BLOCK = re.compile(_MARK + r"^```(?P<language>python|sh)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


@dataclass(frozen=True)
class Snippet:
    """A block of code on a page.

    Attributes:
        page: the page.
        line: number of its first line there.
        language: ``python`` or ``sh``.
        code: its text.
        mark: what the comment above it says; empty without one.
    """

    page: Path
    line: int
    language: str
    code: str
    mark: str

    @property
    def why_not_run(self) -> str | None:
        """The reason for which it is not run; None if it is."""
        kind, _, reason = self.mark.partition(": ")
        if kind == "not run":
            return reason
        return f"quoted from {kind[3:]}" if kind.startswith("in ") else None

    def run(self, folder: Path, names: dict[str, Any]) -> None:
        """Run it in a folder; Python finds and leaves its variables in ``names``.

        Raises:
            AssertionError: a command failed.
        """
        if self.language == "sh":
            self._run_commands(folder)
        elif saved := _FILE.match(self.code):
            (folder / saved[1]).write_text(self.code, encoding="utf-8")
        else:
            # Empty lines before it: tracebacks then name the line of the page.
            exec(compile("\n" * (self.line - 1) + self.code, self.page, "exec"), names)

    def _run_commands(self, folder: Path) -> None:
        scripts = Path(sys.executable).parent
        found = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.code],
            cwd=folder,
            env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "MPLBACKEND": "Agg"},
            capture_output=True,
            text=True,
        )
        assert found.returncode == 0, f"{self.page}:{self.line}\n{self.code}\n{found.stdout}{found.stderr}"


def snippets(page: Path) -> Iterator[Snippet]:
    """Yield the blocks of Python and shell commands of a page, from top to bottom."""
    text = page.read_text(encoding="utf-8")
    for block in _BLOCK.finditer(text):
        line = text.count("\n", 0, block.start("code")) + 1
        yield Snippet(page, line, block["language"], block["code"], block["mark"] or "")
