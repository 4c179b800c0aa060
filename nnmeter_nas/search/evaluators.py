"""Make the evaluator that the settings of a search name."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from ..errors import SearchError
from ..extras import load_extra
from ..nni import NAS, nni_line


def experiments() -> Any:
    """Return the adapter that runs experiments on the installed line of NNI."""
    name = "experiment_nas" if nni_line() == NAS else "experiment_retiarii"
    return load_extra(f"nnmeter_nas.nni.{name}", "nni", "searching for architectures")


def make_evaluator(name: str, arguments: Mapping[str, Any], input_shape: Sequence[int]) -> Any:
    """Make the evaluator ``name``, a ``module:attribute``: one of NNI's, or a function to wrap in one.

    The function gets the network or its factory, and those of ``arguments`` and ``input_shape`` that it
    takes. It returns its metric or reports it with ``nni.report_final_result``.

    Raises:
        SearchError: there is no such function or evaluator.
    """
    found = _imported(name)
    if hasattr(found, "_execute"):
        return found
    if not callable(found):
        kind = type(found).__name__
        raise SearchError(f"evaluator={name}: a {kind} is neither a function nor one of NNI's evaluators")
    known = inspect.signature(found).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    offered = {"input_shape": list(input_shape), **arguments}
    taken = {key: value for key, value in offered.items() if takes_all or key in known}
    return experiments().FunctionalEvaluator(found, **taken)


def _imported(name: str) -> Any:
    """Import ``module:attribute`` from the current folder or an installed package."""
    module, colon, attribute = name.partition(":")
    if not colon or not attribute:
        raise SearchError(f"evaluator={name}: write module:function, such as my_training:train")
    sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        return functools.reduce(getattr, attribute.split("."), import_module(module))
    except Exception as error:  # importing a user's module can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise SearchError(f"evaluator={name}: cannot load it: {reason}") from error
    finally:
        sys.path.remove("")
