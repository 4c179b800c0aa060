"""Flags that ``proxylessnas`` and ``retrain`` share: the dataset, the space and the training."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .arguments import DEFAULT_DEVICE, count, new_file, positive_float, positive_int, share
from .messages import console, fail, note

#: What holds where neither a flag nor a search says otherwise, by destination.
_USUAL: Mapping[str, Any] = {
    "applied_hardware": DEFAULT_DEVICE,
    "dataset": "digits",
    "resize_scale": 0.08,
    "bn_momentum": 0.1,
    "bn_eps": 1e-3,
}
#: Flags that a search records, as their destinations; all others have defaults of their own.
_RECORDED = (
    *_USUAL, "data_path", "size", "n_cell_stages", "width_stages", "stride_stages", "dropout_rate",
    "reference_latency",
)  # fmt: skip


def fill_in(options: argparse.Namespace, recorded: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Give the flags of device, dataset and space that were not given the values of a search, or usual ones.

    Args:
        options: flags that were not given are None.
        recorded: values of a search by destination. The images of another dataset than its own are not
            looked for where its own are.

    Returns:
        What was taken from the search.
    """
    recorded = dict(recorded or {})
    if options.dataset not in (None, recorded.get("dataset")):
        recorded.pop("data_path", None)
    taken: dict[str, Any] = {}
    for name in _RECORDED:
        if getattr(options, name, None) is None:
            if recorded.get(name) is not None:
                taken[name] = recorded[name]
            setattr(options, name, taken.get(name, _USUAL.get(name)))
    return taken


def print_files(files: tuple[Path, ...]) -> int:
    """Print the names of the files written, and return the exit code for success."""
    for file in files:
        console().print(f"Saved {file}", soft_wrap=True)
    return 0


def with_torch(options: argparse.Namespace, command: Callable[[argparse.Namespace], int]) -> int:
    """Call ``command`` with torch set to the options' number of threads, and return the exit code.

    If a package is missing or the user interrupts, say how to go on.
    """
    # NNI 2.10.1 warns about parts of torch that are newer than it.
    warnings.filterwarnings("ignore", module=r"nni\b")
    try:
        import torch

        from nnmeter_nas.estimators.proxyless_task import DEFAULTS

        size = options.size or DEFAULTS[options.dataset].size
        # In a small network, threads spend more time waiting for each other than working.
        if options.threads or size == "small":
            torch.set_num_threads(options.threads or 1)
        return command(options)
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nnmeter_nas"):
            raise
        return fail(f"{error}; `{options.command}` needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'")
    except KeyboardInterrupt:
        note("interrupted; the same command goes on from its last checkpoint")
        return 130


def weight_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings for training weights, by their names in ``WeightSettings``."""
    from nnmeter_nas.estimators.proxyless_task import DEFAULTS

    usual = DEFAULTS[options.dataset]
    return {
        "epochs": options.epochs or usual.epochs,
        "train_batch_size": options.train_batch_size or usual.train_batch_size,
        "learning_rate": options.learning_rate,
        "no_decay_keys": "" if options.no_decay_keys == "None" else options.no_decay_keys,
        "seed": options.seed,
    }


def make_task(options: argparse.Namespace) -> Any:
    """Make the dataset and the search space that the options name."""
    from nnmeter_nas.estimators.proxyless_task import Task

    stages = {
        "depths": options.n_cell_stages,
        "channels": options.width_stages,
        "strides": options.stride_stages,
        "dropout": options.dropout_rate,
    }
    return Task(
        dataset=options.dataset,
        data_path=options.data_path,
        size=options.size,
        stages={name: value for name, value in stages.items() if value is not None},
        bn_momentum=options.bn_momentum,
        bn_eps=options.bn_eps,
        resize_scale=options.resize_scale,
        n_worker=options.n_worker,
        test_batch_size=options.test_batch_size,
        device=options.device,
    )


def check_task(options: argparse.Namespace) -> None:
    """End with a usage error if a file or folder that the options name cannot be what it is named for."""
    if options.dataset != "digits":
        if options.data_path is None:
            options.parser.error(
                f"--dataset {options.dataset} is read from a folder: name it with --data DIR"
            )
        if not options.data_path.is_dir():
            options.parser.error(f"argument --data: {options.data_path} is no folder")
    if options.output.exists() and not options.output.is_dir():
        options.parser.error(f"argument -o/--output: {options.output} is no folder")


def add_task_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the dataset and the search space."""
    task = parser.add_argument_group("dataset and search space")
    add_flag(task, "--dataset", choices=["digits", "cifar10", "imagefolder"],
             help="digits comes with scikit-learn; cifar10 is its binary version; imagefolder holds "
             f"train/CLASS and val/CLASS (default: {_USUAL['dataset']})")
    task.add_argument("--data", "--data_path", "--data-path", dest="data_path", type=Path, metavar="DIR",
                      help="folder of the dataset")
    add_flag(task, "--resize_scale", type=share, metavar="SHARE",
             help=f"smallest share of a photograph to train on (default: {_USUAL['resize_scale']})")
    add_flag(task, "--size", choices=["small", "imagenet"],
             help="of the space: 32x32 or 224x224 images (default: imagenet for imagefolder, else small)")
    for what, name in (("layers", "n_cell"), ("channels", "width"), ("stride", "stride")):
        add_flag(task, f"--{name}_stages", type=_sizes, metavar="N,N,...", help=f"{what} of each stage")
    add_flag(task, "--dropout_rate", type=share, metavar="SHARE",
             help="of the features before the classifier")
    for name, kind in (("bn_momentum", share), ("bn_eps", positive_float)):
        add_flag(task, f"--{name}", type=kind, metavar="X", help=f"(default: {_USUAL[name]})")


def add_hardware_argument(group: Any, what: str) -> None:
    """Add the flag for the device; ``what`` says what it is for."""
    add_flag(group, "--applied_hardware", metavar="DEVICE",
             help=f"{what}, see `predictors list` (default: {DEFAULT_DEVICE})")


def add_training_arguments(parser: argparse.ArgumentParser, output: str) -> Any:
    """Add the flags for training and for the results' folder (default ``output``); return their group."""
    training = parser.add_argument_group("training")
    add_flag(training, "--epochs", type=positive_int, metavar="N", help="(default: 30 for digits, else 120)")
    add_flag(training, "--train_batch_size", type=positive_int, metavar="N",
             help="(default: 16 for digits, 128 for cifar10, else 256)")
    add_flag(training, "--test_batch_size", type=positive_int, default=250, metavar="N",
             help="(default: %(default)s)")
    add_flag(training, "--learning_rate", type=positive_float, default=0.05, metavar="RATE",
             help="of the weights, at the start (default: %(default)s)")
    add_flag(training, "--no_decay_keys", choices=["None", "bn", "bn#bias"], default="bn",
             help="what is spared from weight decay (default: %(default)s)")
    add_flag(training, "--seed", type=count, default=0, metavar="S", help="of everything random (default: 0)")
    add_flag(training, "--device", default="auto", metavar="NAME",
             help="cpu, cuda, cuda:1 ...; a GPU if there is one, by default")
    add_flag(training, "--threads", type=positive_int, metavar="N",
             help="cores to use (default: 1 for the small space, where more are slower; else all)")
    add_flag(training, "--n_worker", type=count, default=0, metavar="N",
             help="processes that read images ahead (default: %(default)s)")
    training.add_argument("--checkpoint", "--checkpoint_path", "--checkpoint-path", dest="checkpoint_path",
                          type=new_file, metavar="FILE",
                          help="where the state is kept (default: in --output)")
    training.add_argument("-o", "--output", type=Path, default=Path(output), metavar="DIR",
                          help="for everything that is written (default: %(default)s)")
    return training


def add_flag(group: Any, name: str, **options: Any) -> None:
    """Add a flag that also works with hyphens; the help does not show that spelling."""
    dest = options.pop("dest", name[2:].replace("-", "_"))
    group.add_argument(name, dest=dest, **options)
    hyphened = f"--{name[2:].replace('_', '-')}"
    if hyphened != name:
        hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        group.add_argument(hyphened, dest=dest, **{**options, **hidden})


def _sizes(text: str) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes such as 4,4,4,4,4,1")
    return values
