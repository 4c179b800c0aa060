"""``nnmeter-nas proxylessnas`` and ``retrain``: search an architecture for a device, and train it."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from .. import load_latency_predictor
from .arguments import DEFAULT_DEVICE, add_command, positive_float, positive_int
from .messages import console, fail, note, warn

_EPILOG = """\
The flags are those of NNI's ProxylessNAS example; they may be written with hyphens too. Interrupted, the same
command goes on where it was. It needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'

examples:
  nnmeter-nas proxylessnas --applied_hardware cortexA76cpu_tflite21 --reference_latency 1
  nnmeter-nas proxylessnas --dataset imagefolder --data ILSVRC --reference_latency 40 --n_worker 8
  nnmeter-nas retrain proxylessnas-output/architecture.json
"""
_RETRAIN_EPILOG = """\
Give the --dataset and the --size of the search. Interrupted, the same command goes on where it was.

example:
  nnmeter-nas retrain proxylessnas-output/architecture.json --epochs 60
"""
#: Penalty -> flag of a parameter -> the parameter in NNI's name.
_PENALTIES = {
    "add#linear": {"grad_reg_loss_lambda": "lambda"},
    "mul#log": {"grad_reg_loss_alpha": "alpha", "grad_reg_loss_beta": "beta"},
}


def add_parser(commands: Any) -> None:
    """Add both commands."""
    summary = "search a network that learns best within a latency, by ProxylessNAS"
    parser = add_command(commands, "proxylessnas", run, summary, _EPILOG)
    _add_latency_arguments(parser)
    _add_task_arguments(parser)
    training = _add_training_arguments(parser, "proxylessnas-output")
    _flag(training, "--no-warmup", dest="warmup", action="store_false",
          help="let the architecture learn from the first step on")
    _flag(training, "--warmup_epochs", type=positive_int, metavar="N",
          help="epochs in which the weights alone are trained (default: a third of all)")
    _flag(training, "--arc_learning_rate", type=positive_float, metavar="RATE",
          help="of the architecture (default: one by which it can settle in the steps there are)")
    _flag(training, "--train_mode", choices=["search", "retrain"], default="search",
          help="retrain trains the architecture of --exported_arch_path instead (default: %(default)s)")
    _flag(training, "--exported_arch_path", type=Path, metavar="FILE",
          help="where the architecture goes (default: architecture.json in --output), or is retrained from")

    summary = "train an architecture that a search has exported, from scratch"
    again = add_command(commands, "retrain", run_retrain, summary, _RETRAIN_EPILOG)
    again.add_argument("exported_arch_path", type=Path, metavar="ARCH",
                       help="JSON file: candidate by label, as `proxylessnas` and NNI export it")
    _add_task_arguments(again)
    _add_training_arguments(again, "retrain-output")


def run(options: argparse.Namespace) -> int:
    """Search, and print what was found; or retrain, if that is the mode."""
    if options.train_mode == "retrain":
        if options.exported_arch_path is None:
            options.parser.error("--train_mode retrain: name the architecture with --exported_arch_path")
        return run_retrain(options)
    _check(options)
    load_latency_predictor(options.applied_hardware)  # a wrong name shall not cost the start of torch and NNI
    if options.reference_latency is None:
        note("without --reference_latency the search does not care for latency")
    return _with_torch(options, _search)


def run_retrain(options: argparse.Namespace) -> int:
    """Train an exported architecture, and print its accuracy."""
    _check(options)
    return _with_torch(options, _retrain)


def _search(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import search_for_device
    from nnmeter_nas.estimators.proxyless_search import SearchSettings

    epochs = _weight_settings(options)["epochs"]
    warmup = options.warmup_epochs or epochs // 3 if options.warmup else 0
    settings = SearchSettings(
        **_weight_settings(options),
        warmup_epochs=warmup,
        arc_learning_rate=options.arc_learning_rate,
        reference_latency=options.reference_latency,
        grad_reg_loss_type=options.grad_reg_loss_type,
        grad_reg_loss_params=_penalty_parameters(options),
    )
    found = search_for_device(
        _task(options), options.applied_hardware, settings, options.output, options.checkpoint_path,
        options.exported_arch_path, note,
    )  # fmt: skip
    out, result, reference = console(), found.result, options.reference_latency
    for label, candidate in result.architecture.items():
        out.print(f"{label:>10}  {candidate}")
    aim = "" if reference is None else f", reference {reference:g} ms"
    out.print(f"{found.latency_ms:.4g} ms on {found.device} by its full graph{aim}; "
              f"{result.table_latency_ms:.4g} ms by the lookup table", soft_wrap=True)
    out.print(f"{result.held_out_accuracy:.1%} of the held-out images right with the weights of the search")
    if reference is not None and found.latency_ms > reference:
        warn(f"the architecture is slower than the reference; {_stronger(options)} to weigh latency more")
    return _print_files(found.files)


def _retrain(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import train_found
    from nnmeter_nas.estimators.proxyless_training import WeightSettings

    settings = WeightSettings(**_weight_settings(options))
    accuracy, files = train_found(
        _task(options), options.exported_arch_path, settings, options.output, options.checkpoint_path
    )
    console().print(f"{accuracy:.2%} of the held-out images right")
    return _print_files(files)


def _print_files(files: tuple[Path, ...]) -> int:
    for file in files:
        console().print(f"Saved {file}", soft_wrap=True)
    return 0


def _stronger(options: argparse.Namespace) -> str:
    if options.grad_reg_loss_type == "add#linear":
        return "raise --grad_reg_loss_lambda"
    return "raise --grad_reg_loss_beta"


def _with_torch(options: argparse.Namespace, command: Any) -> int:
    # NNI 2.10.1 warns about parts of torch that came after it.
    warnings.filterwarnings("ignore", module=r"nni\b")
    try:
        import torch

        from nnmeter_nas.estimators.proxyless_task import DEFAULTS

        size = options.size or DEFAULTS[options.dataset].size
        # Threads of a small network wait for each other longer than they work.
        if options.threads or size == "small":
            torch.set_num_threads(options.threads or 1)
        code: int = command(options)
        return code
    except ModuleNotFoundError as error:
        if str(error.name).startswith("nnmeter_nas"):
            raise
        return fail(f"{error}; `{options.command}` needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'")
    except KeyboardInterrupt:
        note("interrupted; the same command goes on from its last checkpoint")
        return 130


def _weight_settings(options: argparse.Namespace) -> dict[str, Any]:
    from nnmeter_nas.estimators.proxyless_task import DEFAULTS

    usual = DEFAULTS[options.dataset]
    return {
        "epochs": options.epochs or usual.epochs,
        "train_batch_size": options.train_batch_size or usual.train_batch_size,
        "learning_rate": options.learning_rate,
        "no_decay_keys": "" if options.no_decay_keys == "None" else options.no_decay_keys,
        "seed": options.seed,
    }


def _task(options: argparse.Namespace) -> Any:
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


def _penalty_parameters(options: argparse.Namespace) -> dict[str, float]:
    """The parameters given for the penalty; those of the other one are pointed out."""
    chosen = options.grad_reg_loss_type
    for penalty, flags in _PENALTIES.items():
        for flag in flags:
            if penalty != chosen and getattr(options, flag) is not None:
                warn(f"--{flag} is a parameter of {penalty} and does nothing with {chosen}")
    given = {name: getattr(options, flag) for flag, name in _PENALTIES[chosen].items()}
    return {name: value for name, value in given.items() if value is not None}


def _check(options: argparse.Namespace) -> None:
    """Wrong usage that takes no dataset to see."""
    if options.dataset != "digits" and options.data_path is None:
        options.parser.error(f"--dataset {options.dataset} is read from a folder: name it with --data DIR")


def _add_latency_arguments(parser: argparse.ArgumentParser) -> None:
    latency = parser.add_argument_group("latency")
    _flag(latency, "--applied_hardware", default=DEFAULT_DEVICE, metavar="DEVICE",
          help="device to search for, see `predictors list` (default: %(default)s)")
    _flag(latency, "--reference_latency", type=positive_float, metavar="MS",
          help="latency to aim at; without it latency is left out of the loss")
    _flag(latency, "--grad_reg_loss_type", choices=list(_PENALTIES), default="add#linear",
          help="how latency enters the loss (default: %(default)s)")
    _flag(latency, "--grad_reg_loss_lambda", type=positive_float, metavar="X",
          help="weight of the latency in add#linear (default: 1)")
    _flag(latency, "--grad_reg_loss_alpha", type=positive_float, metavar="X",
          help="factor of the loss in mul#log (default: 1)")
    _flag(latency, "--grad_reg_loss_beta", type=positive_float, metavar="X",
          help="weight of the latency in mul#log (default: 0.6)")


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    task = parser.add_argument_group("dataset and search space")
    _flag(task, "--dataset", choices=["digits", "cifar10", "imagefolder"], default="digits",
          help="digits comes with scikit-learn; cifar10 is its binary version; imagefolder holds "
          "train/CLASS and val/CLASS (default: %(default)s)")
    task.add_argument("--data", "--data_path", "--data-path", dest="data_path", type=Path, metavar="DIR",
                      help="folder of the dataset")
    _flag(task, "--resize_scale", type=_share, default=0.08, metavar="SHARE",
          help="smallest share of a photograph to train on (default: %(default)s)")
    _flag(task, "--size", choices=["small", "imagenet"],
          help="of the space: 32x32 or 224x224 images (default: imagenet for imagefolder, else small)")
    for what, name in (("layers", "n_cell"), ("channels", "width"), ("stride", "stride")):
        _flag(task, f"--{name}_stages", type=_sizes, metavar="N,N,...", help=f"{what} of each stage")
    _flag(task, "--dropout_rate", type=_share, metavar="SHARE", help="of the features before the classifier")
    _flag(task, "--bn_momentum", type=_share, default=0.1, metavar="X", help="(default: %(default)s)")
    _flag(task, "--bn_eps", type=positive_float, default=1e-3, metavar="X", help="(default: %(default)s)")


def _add_training_arguments(parser: argparse.ArgumentParser, output: str) -> Any:
    training = parser.add_argument_group("training")
    _flag(training, "--epochs", type=positive_int, metavar="N", help="(default: 30 for digits, else 120)")
    _flag(training, "--train_batch_size", type=positive_int, metavar="N",
          help="(default: 16 for digits, 128 for cifar10, else 256)")
    _flag(training, "--test_batch_size", type=positive_int, default=250, metavar="N",
          help="(default: %(default)s)")
    _flag(training, "--learning_rate", type=positive_float, default=0.05, metavar="RATE",
          help="of the weights, at the start (default: %(default)s)")
    _flag(training, "--no_decay_keys", choices=["None", "bn", "bn#bias"], default="bn",
          help="what is spared from weight decay (default: %(default)s)")
    _flag(training, "--seed", type=int, default=0, metavar="S", help="of everything random (default: 0)")
    _flag(training, "--device", default="auto", metavar="NAME",
          help="cpu, cuda, cuda:1 ...; a GPU if there is one, by default")
    _flag(training, "--threads", type=positive_int, metavar="N",
          help="cores to use (default: 1 for the small space, where more are slower; else all)")
    _flag(training, "--n_worker", type=_count, default=0, metavar="N",
          help="processes that read images ahead (default: %(default)s)")
    training.add_argument("--checkpoint", "--checkpoint_path", "--checkpoint-path", dest="checkpoint_path",
                          type=Path, metavar="FILE", help="where the state is kept (default: in --output)")
    training.add_argument("-o", "--output", type=Path, default=Path(output), metavar="DIR",
                          help="for everything that is written (default: %(default)s)")
    return training


def _flag(group: Any, name: str, **options: Any) -> None:
    """Add a flag that may be written with hyphens as well, which the help leaves out."""
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


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


# argparse names the function in its messages
_share.__name__, _count.__name__ = "float", "int"
