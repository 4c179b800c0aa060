"""A sampler of Optuna that answers over pipes: ``python optuna_side.py SAMPLER SEED SIZES``.

It runs under the interpreter that has Optuna. SIZES is the number of candidates of each position, as a JSON
list. It writes each architecture that it proposes as a line of JSON, and reads a line with what became of it:
``{"values": [accuracy, ms] or null, "next": an architecture to propose next, or null}``.
"""

from __future__ import annotations

import json
import sys
import warnings


def main(sampler: str, seed: int, sizes: list[int]) -> None:
    """Propose until the other side closes the pipe; the sampler has Optuna's own parameters."""
    import optuna

    warnings.simplefilter("ignore")  # some of its samplers are called experimental
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    chosen = getattr(optuna.samplers, sampler)(seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=chosen)
    while True:
        trial = study.ask()
        row = [trial.suggest_categorical(str(p), list(range(size))) for p, size in enumerate(sizes)]
        print(json.dumps(row), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        answer = json.loads(line)
        if answer["values"] is None:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, answer["values"])
        if answer["next"] is not None:
            study.enqueue_trial({str(p): index for p, index in enumerate(answer["next"])})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
