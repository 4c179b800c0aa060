"""NNI's TPE, asked directly: NNI 3.0's strategy ``TPE`` wraps this tuner, and sleeps a second a trial."""

from __future__ import annotations

from collections.abc import Sequence

from nni.algorithms.hpo.tpe_tuner import TpeTuner

from .samplers import Row, Values


class TpeSampler:
    """NNI's tree of Parzen estimators on the choices of a space; it maximises the accuracy alone.

    It never proposes the same architecture twice.
    """

    def __init__(self, sizes: Sequence[int], seed: int) -> None:
        """Choose among so many candidates at each position."""
        self._tuner = TpeTuner(optimize_mode="maximize", seed=seed)
        self._tuner.update_search_space(
            {str(p): {"_type": "choice", "_value": list(range(size))} for p, size in enumerate(sizes)}
        )
        self._positions = len(sizes)
        self._asked = 0

    def ask(self) -> Row:
        """See :class:`Sampler`."""
        self._asked += 1
        chosen = self._tuner.generate_parameters(self._asked)
        return tuple(chosen[str(position)] for position in range(self._positions))

    def tell(self, values: Values | None, then: Row | None) -> None:
        """See :class:`Sampler`; the tuner needs no help to find something new."""
        if values is None:
            self._tuner.trial_end(self._asked, False)
        else:
            self._tuner.receive_trial_result(self._asked, {}, values[0])
