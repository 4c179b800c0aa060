"""Import hooks: find ``nn_meter`` in this package, and mend modules of NNI when they are loaded."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from functools import partial, partialmethod
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location, spec_from_loader
from types import ModuleType
from typing import Any

from ..errors import MissingPackageError
from .nni_mended import MENDED

PACKAGE = "nn_meter"
#: Release of nn-Meter with this interface.
VERSION = "2.0"

_PREDICTOR = ("nnMeterPredictor", "load_latency_predictor", "list_latency_predictors")
_IR_CONVERTER = ("model_file_to_graph", "model_to_graph")
_CONFIG = ("create_user_configs", "change_user_data_folder", "get_user_data_folder")
_FLOPS = ("get_conv_flop_params", "get_dwconv_flop_params", "get_fc_flop_params")
#: Public names of each supported module of nn-Meter, of its release 2.0 and of its last state.
_MODULES = {
    PACKAGE: (
        *_PREDICTOR, *_IR_CONVERTER, *_CONFIG[:2], "download_from_url", "latency_metrics", "bench_dataset",
    ),
    "nn_meter.predictor": (*_PREDICTOR, "latency_metrics"),
    "nn_meter.predictor.nn_meter_predictor": _PREDICTOR,
    "nn_meter.predictor.prediction": (),
    "nn_meter.predictor.prediction.extract_feature": ("get_flops_params", "get_predict_features"),
    "nn_meter.predictor.prediction.predict_by_kernel": ("merge_conv_kernels",),
    "nn_meter.predictor.prediction.utils": ("get_kernel_name", "get_accuracy", "latency_metrics"),
    "nn_meter.kernel_detector": ("KernelDetector",),
    "nn_meter.kernel_detector.kernel_detector": ("KernelDetector",),
    "nn_meter.ir_converter": _IR_CONVERTER,
    "nn_meter.ir_converter.utils": (
        *_IR_CONVERTER, "onnx_model_to_graph", "nni_model_to_graph", "torch_model_to_graph",
    ),
    "nn_meter.utils": (*_CONFIG, "download_from_url", "latency_metrics", *_FLOPS),
    "nn_meter.utils.config_manager": _CONFIG,
    "nn_meter.utils.evaluation": ("latency_metrics", "get_accuracy", *_FLOPS),
    "nn_meter.utils.path": ("get_filename", "get_filename_without_ext"),
    "nn_meter.utils.utils": ("download_from_url", "NumpyEncoder"),
    "nn_meter.dataset": ("bench_dataset",),
}  # fmt: skip
_TESTER = "nn_meter.builder.backend_meta.fusion_rule_tester"
_KERNEL_BUILDER = "nn_meter.builder.kernel_predictor_builder"
#: Modules of nn-Meter that are imported only when asked for, and the modules here that have their names.
_ON_REQUEST = {
    "nn_meter.dataset.gnn_dataloader": ("gnn_dataloader",),
    "nn_meter.builder": ("builder.workspace", "builder.profiling", "builder.procedure"),
    "nn_meter.builder.config_manager": ("builder.workspace",),
    "nn_meter.builder.nn_meter_builder": ("builder.profiling", "builder.procedure"),
    "nn_meter.builder.utils": ("builder.results",),
    "nn_meter.builder.backends": ("builder.backends",),
    "nn_meter.builder.backends.interface": ("builder.backends",),
    "nn_meter.builder.backends.tflite": ("builder.backends",),
    "nn_meter.builder.backend_meta": (),
    "nn_meter.builder.backend_meta.utils": ("builder.results",),
    _TESTER: ("builder.testcases",),
    f"{_TESTER}.interface": ("builder.testcases",),
    f"{_TESTER}.utils": ("builder.testcases",),
    _KERNEL_BUILDER: ("builder.sampling", "builder.kernels", "builder.forests"),
    f"{_KERNEL_BUILDER}.data_sampler": ("builder.sampling", "builder.kernels"),
    f"{_KERNEL_BUILDER}.predictor_builder": ("builder.forests",),
    "nn_meter.builder.nn_modules": ("builder.blocks",),
    "nn_meter.builder.nn_modules.interface": ("builder.blocks",),
}
#: Modules of this folder that hold those names.
_HOMES = ("interface", "kernels", "helpers")
#: nn-Meter's logging levels: for the origins of files, and for the results of commands.
_LEVELS = {"keyinfo": 22, "result": 25}


class Finder(MetaPathFinder):
    """Finds nn-Meter's modules in this package, and finds modules of NNI in order to mend them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for ``fullname`` if it is one of these modules, else None."""
        if fullname.partition(".")[0] == PACKAGE:
            return spec_from_loader(fullname, _NnMeterLoader(), is_package=True)
        found = PathFinder.find_spec(fullname, path) if fullname in MENDED else None
        if found is None or found.origin is None:
            return None
        return spec_from_file_location(fullname, found.origin, loader=_MendingLoader(fullname, found.origin))


class _NnMeterLoader(Loader):
    """Fills a module of nn-Meter with this package's functions."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Let Python create an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Bind the public names of ``module``.

        Raises:
            MissingPackageError: this package does not support that part of nn-Meter.
        """
        if module.__name__ in _ON_REQUEST:
            for home in _ON_REQUEST[module.__name__]:
                found = importlib.import_module(f".{home}", __package__)
                vars(module).update((name, getattr(found, name)) for name in found.__all__)
            return
        if module.__name__ not in _MODULES:
            raise MissingPackageError(
                f"nnmeter_nas stands in for nn-Meter and has no {module.__name__!r}; for that, "
                "install nn-Meter and call nnmeter_nas.compat.uninstall() before importing it"
            )
        homes = [importlib.import_module(f".{home}", __package__) for home in _HOMES]
        for name in _MODULES[module.__name__]:
            setattr(module, name, next(getattr(home, name) for home in homes if name in home.__all__))
        module.__all__ = list(_MODULES[module.__name__])  # type: ignore[attr-defined]
        if module.__name__ == PACKAGE:
            module.__doc__ = homes[0].__doc__
            module.__version__ = VERSION  # type: ignore[attr-defined]
            _set_up_logging()
            for submodule in _MODULES:
                importlib.import_module(submodule)


class _MendingLoader(SourceFileLoader):
    """Loads a module of NNI and mends it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then mend it."""
        super().exec_module(module)
        MENDED[self.name](module)  # NNI gives some packages the name of a module in them


class _OnStdout(logging.StreamHandler):  # type: ignore[type-arg] # Python 3.10 has no argument for it
    """Writes to standard output as it is then, which is redirected while a terminal shows a bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout


def _set_up_logging() -> None:
    """Add nn-Meter's levels to ``logging``, and a handler that writes to stdout to its logger "nn-Meter"."""
    library: Any = logging
    for name, level in _LEVELS.items():
        logging.addLevelName(level, name.upper())
        setattr(library, name.upper(), level)
        setattr(library, name, partial(logging.log, level))
        setattr(logging.Logger, name, partialmethod(logging.Logger.log, level))
    logger = logging.getLogger("nn-Meter")
    if not logger.handlers:
        handler = _OnStdout()
        handler.setFormatter(logging.Formatter("(nn-Meter) %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
