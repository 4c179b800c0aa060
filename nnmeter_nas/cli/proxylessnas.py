"""``nnmeter-nas proxylessnas``: search for an architecture that fits a device, with ProxylessNAS."""

from __future__ import annotations

import argparse

from .. import load_latency_predictor
from .arguments import count, new_file, positive_float, positive_int
from .commands import set_command
from .messages import console, note, warn
from .retrain import run as run_retrain
from .training import (
    add_flag,
    add_hardware_argument,
    add_task_arguments,
    add_training_arguments,
    check_task,
    fill_in,
    make_task,
    print_files,
    weight_settings,
    with_torch,
)

_EPILOG = """\
The flags are those of NNI's ProxylessNAS example; they may be written with hyphens too. Interrupted, the same
command goes on where it was. It needs: pip install 'nnmeter_nas[search]' 'nni==2.10.1'

examples:
  nnmeter-nas proxylessnas --applied_hardware cortexA76cpu_tflite21 --reference_latency 1
  nnmeter-nas proxylessnas --dataset imagefolder --data ILSVRC --reference_latency 40 --n_worker 8
  nnmeter-nas retrain proxylessnas-output/architecture.json
"""
#: Penalty -> flag of a parameter -> NNI's name for the parameter.
_PENALTIES = {
    "add#hinge": {"grad_reg_loss_lambda": "lambda"},
    "add#linear": {"grad_reg_loss_lambda": "lambda"},
    "mul#log": {"grad_reg_loss_alpha": "alpha", "grad_reg_loss_beta": "beta"},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Fill in the command."""
    set_command(parser, run, _EPILOG)
    _add_latency_arguments(parser)
    add_task_arguments(parser)
    training = add_training_arguments(parser, "proxylessnas-output")
    add_flag(training, "--no-warmup", dest="warmup", action="store_false",
             help="let the architecture learn from the first step on")
    add_flag(training, "--warmup_epochs", type=positive_int, metavar="N",
             help="epochs in which the weights alone are trained (default: a third of all)")
    add_flag(training, "--settle_epochs", type=count, metavar="N",
             help="last epochs, in which the weights of the network found alone are trained "
             "(default: a fifth of all)")
    add_flag(training, "--arc_learning_rate", type=positive_float, metavar="RATE",
             help="of the architecture (default: one by which it can settle in the steps there are)")
    add_flag(training, "--train_mode", choices=["search", "retrain"], default="search",
             help="retrain trains the architecture of --exported_arch_path instead (default: %(default)s)")
    add_flag(training, "--exported_arch_path", type=new_file, metavar="FILE",
             help="where the architecture goes (default: architecture.json in --output), or comes from")


def run(options: argparse.Namespace) -> int:
    """Search and print the results, or retrain if that is the mode."""
    if options.train_mode == "retrain":
        if options.exported_arch_path is None:
            options.parser.error("--train_mode retrain: name the architecture with --exported_arch_path")
        return run_retrain(options)
    fill_in(options)
    check_task(options)
    load_latency_predictor(options.applied_hardware)  # fail on a wrong name before loading torch and NNI
    if options.reference_latency is None:
        note("without --reference_latency the search does not care for latency")
    return with_torch(options, _search)


def _search(options: argparse.Namespace) -> int:
    from nnmeter_nas.estimators.proxyless import search_for_device
    from nnmeter_nas.estimators.proxyless_search import SearchSettings

    epochs = weight_settings(options)["epochs"]
    warmup = options.warmup_epochs or epochs // 3 if options.warmup else 0
    settings = SearchSettings(
        **weight_settings(options),
        warmup_epochs=warmup,
        settle_epochs=epochs // 5 if options.settle_epochs is None else options.settle_epochs,
        arc_learning_rate=options.arc_learning_rate,
        reference_latency=options.reference_latency,
        grad_reg_loss_type=options.grad_reg_loss_type,
        grad_reg_loss_params=_penalty_parameters(options),
    )
    found = search_for_device(
        make_task(options), options.applied_hardware, settings, options.output, options.checkpoint_path,
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
        warn(f"the architecture is slower than the reference; {_way_out(options)}")
    return print_files(found.files)


def _way_out(options: argparse.Namespace) -> str:
    if options.grad_reg_loss_type == "add#hinge":
        return "by the lookup table, which the search goes by, it is not: leave some room for the difference"
    weight = "lambda" if options.grad_reg_loss_type == "add#linear" else "beta"
    return f"raise --grad_reg_loss_{weight}, or take --grad_reg_loss_type add#hinge, which keeps to it"


def _penalty_parameters(options: argparse.Namespace) -> dict[str, float]:
    """Return the parameters given for the penalty; warn of parameters of the other penalty."""
    chosen = options.grad_reg_loss_type
    for penalty, flags in _PENALTIES.items():
        for flag in flags:
            if flag not in _PENALTIES[chosen] and getattr(options, flag) is not None:
                warn(f"--{flag} is a parameter of {penalty} and does nothing with {chosen}")
    given = {name: getattr(options, flag) for flag, name in _PENALTIES[chosen].items()}
    return {name: value for name, value in given.items() if value is not None}


def _add_latency_arguments(parser: argparse.ArgumentParser) -> None:
    latency = parser.add_argument_group("latency")
    add_hardware_argument(latency, "device to search for")
    add_flag(latency, "--reference_latency", type=positive_float, metavar="MS",
             help="latency that the network found must not exceed; it may be faster. With NNI's own losses "
             "it is a scale, not a limit. Without it latency is left out of the loss")
    add_flag(latency, "--grad_reg_loss_type", choices=list(_PENALTIES), default="add#hinge",
             help="how latency enters the loss: add#hinge adds nothing up to the reference; add#linear and "
             "mul#log are NNI's, reward every ms saved, and end far below the reference or above it "
             "(default: %(default)s)")
    add_flag(latency, "--grad_reg_loss_lambda", type=positive_float, metavar="X",
             help="weight of the latency in add#hinge (default: 1) and add#linear (default: 0.2)")
    add_flag(latency, "--grad_reg_loss_alpha", type=positive_float, metavar="X",
             help="factor of the loss in mul#log (default: 1)")
    add_flag(latency, "--grad_reg_loss_beta", type=positive_float, metavar="X",
             help="weight of the latency in mul#log (default: 0.6)")
