"""Run the samplers of Optuna, under an interpreter of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType

from nnmeter_nas.errors import SearchError

from .samplers import Row, Values

_SIDE = Path(__file__).with_name("optuna_side.py")


class OptunaSampler:
    """One of Optuna's multi-objective samplers, which maximises accuracy and minimises latency.

    It is a process of its own until the context ends.
    """

    def __init__(self, python: Path, sampler: str, sizes: Sequence[int], seed: int) -> None:
        """Start ``sampler`` (a name in Optuna) on choices among so many candidates.

        Args:
            python: interpreter of an environment with Optuna.
            sampler: ``NSGAIISampler``, ``TPESampler`` or ``GPSampler``.
            sizes: number of candidates of each position.
            seed: of the sampler.

        Raises:
            SearchError: there is no such interpreter.
        """
        self._python = python
        self._errors = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed with the context)
        try:
            self._process = subprocess.Popen(
                [python, "-I", _SIDE, sampler, str(seed), json.dumps(list(sizes))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            )  # fmt: skip
        except OSError as error:
            self._errors.close()
            raise SearchError(
                f"Optuna's samplers run under {str(python)!r} (`make compare` sets it up), or leave them out "
                f"with --strategy: {error}"
            ) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def __enter__(self) -> OptunaSampler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for file in (self._to, self._from, self._errors):
            file.close()

    def ask(self) -> Row:
        """See :class:`Sampler`.

        Raises:
            SearchError: Optuna failed.
        """
        line = self._from.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines() or ["it said nothing"]
            raise SearchError(f"Optuna does not run under {str(self._python)!r}: {said[-1]}")
        return tuple(json.loads(line))

    def tell(self, values: Values | None, then: Row | None) -> None:
        """See :class:`Sampler`."""
        self._to.write(json.dumps({"values": values, "next": then}) + "\n")
        self._to.flush()
