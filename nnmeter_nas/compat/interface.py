"""nn-Meter 2.0's interface: ``import nn_meter`` imports this after ``nnmeter_nas.compat.install()``.

Names, arguments and their defaults are nn-Meter's. Latencies come from this package's predictor packs. Some
things differ on purpose: operators without a prediction cause a warning, nothing is unpickled, predictors of
version 1.0 are downloaded only on request, and there is no configuration file.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from ..files import HOME, user_folder
from ..metrics import latency_metrics
from ..packs import find_pack
from ..packs.nnmeter1.download import discard, download
from ..predictor import LatencyPredictor
from ..predictor import list_latency_predictors as list_cards
from ..readers import read_model
from ..readers.nni.ir import read_nni_ir
from ..readers.nnmeter_ir.writer import to_nnmeter_ir
from ..readers.torch.torchvision_models import IMAGE, find_torchvision
from .archives import unpack
from .bench import OFFICIAL, fetch_bench
from .kernels import KernelDetector
from .nni_supernet import is_cut, stationary_part

__all__ = [
    "bench_dataset",
    "change_user_data_folder",
    "create_user_configs",
    "download_from_url",
    "get_user_data_folder",
    "latency_metrics",
    "list_latency_predictors",
    "load_latency_predictor",
    "model_file_to_graph",
    "model_to_graph",
    "nnMeterPredictor",
    "nni_model_to_graph",
    "onnx_model_to_graph",
    "torch_model_to_graph",
]

logger = logging.getLogger("nn-Meter")


class nnMeterPredictor(LatencyPredictor):  # noqa: N801 nn-Meter's name
    """A :class:`nnmeter_nas.LatencyPredictor` that takes nn-Meter's arguments."""

    def predict(  # type: ignore[override]  # as in nn-Meter, the format is required
        self,
        model: Any,
        model_type: str,
        input_shape: tuple[int, ...] = IMAGE,
        apply_nni: bool = False,
    ) -> float:
        """Predict the latency of ``model`` in ms, batch 1; see :func:`model_to_graph` for the arguments.

        Raises:
            ReaderError, GraphError, ShapeError: the model cannot be read.

        Warns:
            LatencyWarning: operators are left out, or are far outside what was measured.
        """
        logger.info("Start latency prediction ...")
        latency = super().predict(*_to_read(model, model_type, input_shape))
        logger.info("Predict latency: %s ms", latency)
        return latency

    @property
    def kd(self) -> KernelDetector:
        """The detector of the kernels that the device runs."""
        return KernelDetector(self.pack.rules)

    def __reduce__(self) -> tuple[Any, ...]:
        return load_latency_predictor, (self.device, self.version)


def load_latency_predictor(predictor_name: str, predictor_version: float | None = None) -> nnMeterPredictor:
    """Load the predictor of a device, by default its newest version; 1.0 is nn-Meter's, once imported.

    Raises:
        UnknownDeviceError: no predictor has that name or version.
        PackError: its pack is damaged.
    """
    return nnMeterPredictor(find_pack(predictor_name, predictor_version))


def list_latency_predictors() -> list[dict[str, Any]]:
    """Return the cards of all predictors with nn-Meter's keys: name, version, category, kernel_predictors."""
    return [{**card, "kernel_predictors": card["kernel_types"]} for card in list_cards()]


def model_file_to_graph(
    filename: str,
    model_type: str,
    input_shape: tuple[int, ...] = IMAGE,
    apply_nni: bool = False,
) -> dict[str, Any]:
    """Convert a model file to nn-Meter IR; the contents of an nn-Meter IR file are returned unchanged.

    With ``model_type`` "torch", ``filename`` is the name of a torchvision network. As in nn-Meter, all are
    read with images of 224 x 224 unless ``input_shape`` says otherwise, also those that usually take others.

    Raises:
        ReaderError, GraphError, ShapeError: the model cannot be read.
    """
    if model_type == "nnmeter-ir":
        read_model(filename, model_type)
        return dict(json.loads(Path(filename).read_text(encoding="utf-8")))
    return to_nnmeter_ir(read_model(*_to_read(filename, model_type, input_shape)))


def model_to_graph(
    model: Any, model_type: str, input_shape: tuple[int, ...] = IMAGE, apply_nni: bool = False
) -> dict[str, Any]:
    """Convert a model to nn-Meter IR.

    Args:
        model: a torch module, an ONNX model, a candidate of an NNI search space, or nn-Meter IR, which
            is returned unchanged.
        model_type: "torch", "onnx", "nni-ir" or "nnmeter-ir".
        input_shape: NCHW, batch 1, or CHW; as in nn-Meter, only "torch" uses it.
        apply_nni: has no effect: there is only one way to read a torch module.

    Raises:
        ReaderError, GraphError, ShapeError: the model cannot be read.
    """
    if model_type == "nnmeter-ir":
        return model
    return to_nnmeter_ir(read_model(*_to_read(model, model_type, input_shape)))


def onnx_model_to_graph(model: Any) -> dict[str, Any]:
    """Convert an ONNX model to nn-Meter IR; see :func:`model_to_graph`."""
    return model_to_graph(model, "onnx")


def nni_model_to_graph(model: Any) -> dict[str, Any]:
    """Convert a candidate of an NNI search space to nn-Meter IR; see :func:`model_to_graph`."""
    return model_to_graph(model, "nni-ir")


def torch_model_to_graph(
    model: Any, input_shape: tuple[int, ...] = IMAGE, apply_nni: bool = False
) -> dict[str, Any]:
    """Convert a torch module to nn-Meter IR; see :func:`model_to_graph`."""
    return model_to_graph(model, "torch", input_shape)


def create_user_configs() -> None:
    """Create the folder of the user's data; there is no configuration to write."""
    user_folder().mkdir(parents=True, exist_ok=True)


def get_user_data_folder() -> str:
    """Return the folder of imported predictors and downloaded datasets."""
    return str(user_folder())


def change_user_data_folder(new_folder: str) -> None:
    """Keep the user's data in ``new_folder`` from now on, in this process and the processes that it starts.

    To keep it there permanently, set the environment variable ``NNMETER_NAS_HOME``.
    """
    os.environ[HOME] = os.path.abspath(new_folder)
    create_user_configs()


def download_from_url(urladdr: str, ppath: str) -> None:
    """Unpack the zip file at an ``https://`` address into the folder ``ppath``.

    Raises:
        PackError: it cannot be fetched, is not a zip file, or has entries outside the folder.
        MissingPackageError: httpx is not installed.
    """
    archive = download(urladdr, otherwise=f"unpack it into {ppath}")
    try:
        unpack(archive, Path(ppath))
    finally:
        discard(archive)


def bench_dataset(url: str = OFFICIAL, data_folder: str | None = None) -> list[str]:
    """Return the paths of nn-Meter's benchmark dataset, fetching it if it is missing.

    The files are named ``<family>s.jsonl`` and hold one model with its latencies per line.

    Args:
        url: what to fetch if the folder has no such files: the ``https://`` address of a zip file, which may
            end in ``#sha256=`` and its hash, or the path of a zip file.
        data_folder: folder of the files; by default ``dataset`` in the user's data folder.

    Raises:
        DatasetError: the zip file holds no such files.
        PackError, MissingPackageError: as in :func:`download_from_url`.
    """
    folder = user_folder() / "dataset" if data_folder is None else Path(data_folder)
    return [str(file) for file in fetch_bench(url, folder)]


def _to_read(model: Any, model_type: str, input_shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Turn nn-Meter's model arguments into arguments of :func:`nnmeter_nas.read_model`.

    A whole NNI candidate stays unchanged.
    """
    if model_type == "torch":
        shape = (1, *input_shape) if len(input_shape) == 3 else tuple(input_shape)  # an image without a batch
        if not isinstance(model, str):
            return model, model_type, shape
        found = find_torchvision(model)
        if (usual := found.usual_shape) != shape:
            logger.info("%s is read with the input %s; input_shape=%s is its usual one", model, shape, usual)
        return (found.read(shape),)
    if model_type == "nni-ir" and hasattr(model, "root_graph") and is_cut(model):
        return (read_nni_ir(*stationary_part(model)),)
    return model, model_type
