"""Patches of either NNI line's graph engine: layer choices may share a label; refusals are one sentence."""

from __future__ import annotations

import copy
import importlib
import inspect
import logging
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from ..errors import SpaceError
from .line import NAS, RETIARII, nni_line
from .replaced import is_replaced, replace, wrap

logger = logging.getLogger(__name__)

#: Where each line keeps the converter of modules and the mutators of its graphs.
_HOMES = {
    RETIARII: ("nni.nas.execution.pytorch.converter", "nni.nas.nn.pytorch.mutator"),
    NAS: ("nni.nas.space.pytorch.converter", "nni.nas.space.pytorch.mutator"),
}

#: Most characters of torch's reason in a message.
_LONGEST = 240
#: What the engine that every space can use is called, here and in each line.
_OTHER_ENGINE = {
    RETIARII: "NNI's PyEngineConfig",
    NAS: "NNI's SimplifiedModelFormatConfig",
}


def name_what_torchscript_refuses() -> None:
    """Let an experiment whose space the graph engine cannot take end with a SpaceError that says what to do.

    NNI shows a traceback through torch and itself. Does nothing without NNI, or when called again.
    """
    line = nni_line()
    if line == RETIARII:
        wrap(importlib.import_module("nni.nas.experiment.pytorch"), "preprocess_model", _converted)
    elif line == NAS:
        wrap(importlib.import_module("nni.nas.experiment").NasExperiment, "executable_model_factory", _made)


def _converted(convert: Any, model: Any, *args: Any, **options: Any) -> Any:
    """Convert the space of NNI 2.10.1, to its graph or for the engine of Python."""
    try:
        return convert(model, *args, **options)
    except Exception as error:
        if not options.get("full_ir", True) or options.get("oneshot"):
            raise
        raise SpaceError(_refusal(model, error, _OTHER_ENGINE[RETIARII])) from error


def _made(make: Any, experiment: Any, config: Any) -> Any:
    """Make what NNI 3.0 searches: a graph of the space, or the space itself."""
    try:
        return make(experiment, config)
    except Exception as error:
        formats: Any = importlib.import_module("nni.nas.experiment.config")
        if not isinstance(config, formats.GraphModelFormatConfig):
            raise
        raise SpaceError(_refusal(experiment.model_space, error, _OTHER_ENGINE[NAS])) from error


def _refusal(space: Any, error: Exception, other: str) -> str:
    """Return in one sentence why the graph engine cannot take ``space``, and what can."""
    text = str(error)
    where = re.search(r'File "(.+?)", line (\d+)', text)
    reason = textwrap.shorten(text[: where.start() if where else None], _LONGEST).strip(" :.")
    at = f" at {where[1]}:{where[2]}" if where else ""
    kind = _class_at(space, where[1], int(where[2])) if where else None
    of = f" of {kind}" if kind not in (None, type(space).__name__) else ""
    return (
        f"NNI's graph engine cannot take {type(space).__name__}, since TorchScript refuses the code{of}{at} "
        f"({reason or type(error).__name__}); search with engine=py, which is {other}"
    )


def _class_at(space: Any, file: str, line: int) -> str | None:
    """Return the name of the class of a part of ``space`` whose code is at that line of a file."""
    for kind in {type(part): None for part in space.modules()}:
        function = inspect.unwrap(kind.forward)
        code = getattr(function, "__code__", None)
        if code is None or code.co_filename != file:
            continue
        first = code.co_firstlineno
        if first <= line < first + len(inspect.getsourcelines(function)[0]):
            return kind.__name__
    return None


def tell_repeated_choices_apart() -> None:
    """Let the graph engine take layer choices that share a label, as in repeated cells.

    NNI names a candidate only after its label and name. If several choices share a label, the candidates of
    one replace those of another, and no network can be made. With this patch, the candidates of all but the
    first choice of a label have a number after their names, and are chosen by position.

    Does nothing without NNI, or when called again.
    """
    line = nni_line()
    if line is None:
        return
    home, mutators = _HOMES[line]
    converter: Any = importlib.import_module(f"{home}.graph_gen")
    utils: Any = importlib.import_module(f"{home}.utils")
    if is_replaced(converter, "build_cand_name"):
        return
    names = _Names(utils)
    replace(converter, "build_cand_name", names)
    replace(converter, "get_full_name_by_scope_name", names.full_name)
    replace(utils, "get_full_name_by_scope_name", names.full_name)
    plain, shaped = converter.GraphConverter, converter.GraphConverterWithShape
    for kind in (plain, shaped):
        wrap(kind, "convert_module", names.starting)
    wrap(plain, "_convert_module", names.converting)
    wrap(shaped, "_trace_module", names.tracing)
    wrap(importlib.import_module(mutators).LayerChoiceMutator, "mutate", _by_position)
    logger.info("NNI patched: under the graph engine, layer choices may share a label")


class _Names:
    """Names candidates after the layer choice being converted.

    Attributes:
        choices: label -> full names of its layer choices, in the order of conversion.
        current: full name of the layer choice being converted.
    """

    def __init__(self, utils: Any) -> None:
        self.choices: dict[str, list[str]] = {}
        self.current = ""
        self._utils = utils
        self._layer_choice = importlib.import_module("nni.nas.nn.pytorch").LayerChoice

    def __call__(self, name: str, label: str) -> str:
        """Return the unique name of the candidate ``name`` of the current choice."""
        known = self.choices.setdefault(label, [])
        if self.current not in known:
            known.append(self.current)
        number = known.index(self.current)
        return self._utils.build_cand_name(name, label) + (f"_at_{number + 1}" if number else "")

    def starting(self, convert: Any, *args: Any, **kwargs: Any) -> Any:
        """Forget the choices of earlier spaces, and convert."""
        self.choices = {}
        return convert(*args, **kwargs)

    def converting(
        self, convert: Any, converter: Any, script: Any, module: Any, full_name: str, *args: Any
    ) -> Any:
        """Make a layer choice the current one during its conversion."""
        before = self.current
        if isinstance(module, self._layer_choice):
            self.current = full_name
        try:
            return convert(converter, script, module, full_name, *args)
        finally:
            self.current = before

    def tracing(self, trace: Any, *args: Any, **kwargs: Any) -> Any:
        """Trace, and restore the current choice afterwards."""
        before = self.current
        try:
            return trace(*args, **kwargs)
        finally:
            self.current = before

    def full_name(self, model: Any, scopes: Sequence[str], prefix: str = "") -> str:
        """Return the full name of the module at a path of names, and make it the current choice."""
        self.current = prefix
        for scope in scopes:
            node = model.get_node_by_name(self.current)
            if self._utils.is_layerchoice_node(node):
                self.current = self(scope, node.operation.parameters["label"])
            else:
                self.current = self._utils.build_full_name(self.current, scope)
        return self.current


def _by_position(mutate: Any, mutator: Any, model: Any) -> None:
    """Let all layer choices of a label take the candidate at the position that is drawn for the first."""
    candidates = mutator.nodes[0].operation.parameters["candidates"]
    position = candidates.index(mutator.choice(candidates))
    for node in mutator.nodes:
        alone = copy.copy(mutator)
        alone.nodes, alone.choice = [node], lambda known: known[position]
        mutate(alone, model)
