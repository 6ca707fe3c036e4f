"""idl-audit attack and idl-audit certify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from idl_audit.analysis.attacks import ATTACKS, AttackOptions
from idl_audit.analysis.verdicts import METHODS, Options, in_order_of_cost
from idl_audit.audit.robustness import RobustnessOptions, audit_robustness
from idl_audit.cli import options as o
from idl_audit.cli.show import EXIT_INTERRUPTED, check_output, command, deliver, progress_bar
from idl_audit.data.numbers import parse_eps, parse_number
from idl_audit.errors import OptionError

SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save",
        help="Write the adversarial inputs to this .npz file (inputs, labels, predictions, eps, indices).",
        show_default=False,
        rich_help_panel=o.OUTPUT,
    ),
]

ATTACK_METHODS = (*ATTACKS, "lp")


@command
def certify(
    model: o.ModelArgument,
    data: o.DataOption,
    eps: o.EpsOption,
    method: Annotated[
        str, typer.Option("--method", help=f"Which methods to use, a list of: {', '.join(METHODS)}.", metavar="LIST")
    ] = "interval,sign,pgd,linear,lp",
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    labels: o.LabelsOption = None,
    limit: o.LimitOption = None,
    index: o.IndexOption = None,
    scale: o.ScaleOption = None,
    mean: o.MeanOption = None,
    std: o.StdOption = None,
    layout: o.LayoutOption = o.LayoutName.NATIVE,
    bounds: o.BoundsOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    save: SaveOption = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    time_limit: o.TimeLimitOption = 60.0,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Decide for each sample whether any change of its inputs by at most EPS can change the predicted class.

    certified: proved that none can. falsified: one was found, and the original network confirms it.
    clean_wrong: the network is wrong without any change. unknown: neither, with the reason.
    """
    check_output(output, read=(model, data, labels), written=(save,))
    given = o.data_options(
        data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
    )
    chosen = RobustnessOptions(
        eps=parse_eps(eps),
        data=given,
        verdicts=Options(methods=_methods(method, tuple(METHODS), "method"), time_limit=time_limit, seed=seed),
        save=save,
        force=force,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
    )
    _run("certify", model, chosen, format, output, quiet=quiet, verbose=verbose)


@command
def attack(
    model: o.ModelArgument,
    data: o.DataOption,
    eps: o.EpsOption,
    method: Annotated[
        str,
        typer.Option("--method", help=f"Which attacks to use, a list of: {', '.join(ATTACK_METHODS)}.", metavar="LIST"),
    ] = "sign,pgd,lp",
    fraction: Annotated[
        str, typer.Option("--fraction", help="Share of the inputs that sensitivity and gradient may change.")
    ] = "0.1",
    output_name: o.OutputNameOption = None,
    arch: o.ArchOption = None,
    input_shape: o.InputShapeOption = None,
    allow_code_execution: o.AllowCodeOption = False,
    labels: o.LabelsOption = None,
    limit: o.LimitOption = None,
    index: o.IndexOption = None,
    scale: o.ScaleOption = None,
    mean: o.MeanOption = None,
    std: o.StdOption = None,
    layout: o.LayoutOption = o.LayoutName.NATIVE,
    bounds: o.BoundsOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    save: SaveOption = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    time_limit: o.TimeLimitOption = 60.0,
    max_memory: o.MaxMemoryOption = None,
    seed: o.SeedOption = 0,
) -> None:
    """Look for inputs within EPS of each sample that the network misclassifies, and let the network confirm them.

    The attack lp is the paper's: the minimiser of an LP relaxation; where its bound proves that there is no such
    input, the sample is certified.
    """
    check_output(output, read=(model, data, labels), written=(save,))
    share = parse_number(fraction, option="--fraction")
    if not 0 < share <= 1:
        raise OptionError(f"--fraction must lie above 0 and be at most 1, not {fraction}")
    methods = _methods(method, ATTACK_METHODS, "attack")
    given = o.data_options(
        data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
    )
    chosen = RobustnessOptions(
        eps=parse_eps(eps),
        data=given,
        verdicts=Options(methods=methods, time_limit=time_limit, attack=AttackOptions(fraction=share), seed=seed),
        save=save,
        force=force,
        model=o.model_options(
            output_name, max_memory, arch=arch, input_shape=input_shape, allow_code_execution=allow_code_execution
        ),
    )
    _run("attack", model, chosen, format, output, quiet=quiet, verbose=verbose)


def _methods(text: str, known: tuple[str, ...], noun: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise OptionError(f"--method must name at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise OptionError(f"there is no {noun} '{name}'; known are {', '.join(known)}")
    return in_order_of_cost(names)


def _run(
    name: str,
    model: Path,
    chosen: RobustnessOptions,
    format: o.Format,
    output: Path | None,
    *,
    quiet: bool,
    verbose: bool,
) -> None:
    with progress_bar(name, quiet=quiet) as watch:
        report = audit_robustness(name, model, chosen, watch=watch)
    deliver(report, format=format, output=output, verbose=verbose)
    if report.status == "incomplete":
        raise typer.Exit(EXIT_INTERRUPTED)
