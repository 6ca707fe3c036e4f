"""idl-audit attack and idl-audit certify."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.defaults import is_typed
from idl_audit.cli.exits import leave
from idl_audit.cli.show import (
    check_output,
    command,
    deliver,
    progress_bar,
    say,
    say_error,
    show,
    tell_resume,
    teller,
    written,
)
from idl_audit.commands.attack_objective import ObjectiveOptions, audit_objectives
from idl_audit.commands.certify import RobustnessOptions, audit_robustness
from idl_audit.commands.certify_property import PropertyOptions, audit_property
from idl_audit.commands.shared.journal import drop_journal, journal_beside, kept_journal
from idl_audit.data.numbers import parse_eps, parse_number
from idl_audit.decide.ladder import METHODS, Options, in_order_of_cost
from idl_audit.decide.objectives import SEARCHES
from idl_audit.report.wording import plain
from idl_audit.search.attacks import ATTACKS, AttackOptions
from idl_audit.values.errors import OptionError

SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save",
        help="Write the adversarial inputs to this .npz file (inputs, labels, predictions, eps, indices, originals).",
        show_default=False,
        rich_help_panel=o.OUTPUT,
    ),
]

SigmaOption = Annotated[
    Path | None,
    typer.Option(
        "--sigma",
        help="One radius for each input, multiplied by EPS; 0 holds it fixed. .npy, .npz (array sigma) or .csv.",
        metavar="FILE",
        show_default=False,
    ),
]

JobsOption = Annotated[
    int,
    typer.Option(
        "--jobs", help="Samples decided at the same time, in processes.", metavar="N", rich_help_panel=o.LIMITS
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the samples that an interrupted run with the same -o has decided (OUTPUT.journal).",
        rich_help_panel=o.OUTPUT,
    ),
]

ATTACK_METHODS = (*ATTACKS, "lp", "mip")
DEFAULT_ATTACKS = "sign,pgd,lp"


@command
def certify(
    ctx: typer.Context,
    model: o.ModelArgument,
    property: Annotated[
        Path | None,
        typer.Argument(
            help="A VNN-LIB property (.vnnlib or .vnnlib.gz) to decide, in place of samples.",
            metavar="PROPERTY",
            show_default=False,
        ),
    ] = None,
    data: o.OptionalDataOption = None,
    eps: Annotated[
        str | None,
        typer.Option(
            "-e",
            "--eps",
            help="How far every input may move, in data units: 8/255, 0.03, a list, or start:stop:count.",
            metavar="EPS",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            help=f"Which methods to use, a list of: {', '.join(METHODS)}; without it, those that suit model and set.",
            metavar="LIST",
            show_default=False,
        ),
    ] = None,
    sigma: SigmaOption = None,
    output_name: o.OutputNameOption = None,
    threshold: o.ThresholdOption = None,
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
    certificates: Annotated[
        Path | None,
        typer.Option(
            "--certificates",
            help="Write what proves each certified sample, or the PROPERTY, into this folder, for `verify`.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    time_limit: o.TimeLimitOption = 60.0,
    max_nodes: o.MaxNodesOption = None,
    max_memory: o.MaxMemoryOption = None,
    jobs: JobsOption = 1,
    resume: ResumeOption = False,
    seed: o.SeedOption = 0,
) -> None:
    """Decide for each sample whether any change of its inputs by at most EPS can change the predicted class.

    certified: proved that none can. falsified: one was found, and the original network confirms it.
    clean_wrong: the network is wrong without any change. unknown: neither, with the reason.

    With a PROPERTY in place of -d and -e: sat (the network violates it, with a witness), unsat (proved that it holds),
    unknown or timeout, on the first line; --time-limit is for the whole property, reading the model included.
    """
    reading = o.model_options(
        output_name,
        max_memory,
        arch=arch,
        input_shape=input_shape,
        allow_code_execution=allow_code_execution,
        threshold=threshold,
    )
    if property is not None:
        samples_only = {
            "--data": data,
            "--eps": eps,
            "--labels": labels,
            "--limit": limit,
            "--index": index,
            "--scale": scale,
            "--mean": mean,
            "--std": std,
            "--layout": None if layout is o.LayoutName.NATIVE else layout,
            "--bounds": bounds,
            "--threshold": threshold,
            "--method": method,
            "--save": save,
            "--sigma": sigma,
            "--jobs": None if jobs == 1 else jobs,
            "--resume": resume or None,
        }
        _refuse_beside(property, {option: value for option, value in samples_only.items() if is_typed(ctx, option)})
        _certify_property(
            model,
            property,
            PropertyOptions(
                time_limit=time_limit,
                max_nodes=max_nodes,
                seed=seed,
                model=reading,
                certificates=certificates,
                force=force,
            ),
            format,
            output,
        )
        return
    if data is None or eps is None:
        missing = "--data" if data is None else "--eps"
        raise OptionError(f"{missing} is missing: give samples with -d DATA and a radius with -e EPS, or a PROPERTY")
    check_output(output, read=(model, data, labels, sigma), written=(save,))
    given = o.data_options(
        data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
    )
    chosen = RobustnessOptions(
        eps=parse_eps(eps),
        data=given,
        verdicts=Options(
            methods=None if method is None else parse_methods(method, METHODS, "method"),
            time_limit=time_limit,
            seed=seed,
            record=certificates is not None,
            max_nodes=max_nodes,
        ),
        sigma=sigma,
        save=save,
        certificates=certificates,
        force=force,
        jobs=jobs,
        journal=None if output is None else journal_beside(output),
        resume=resume,
        model=reading,
    )
    _run("certify", model, chosen, format, output, quiet=quiet, verbose=verbose)


def _refuse_beside(property: Path, given: Mapping[str, object]) -> None:
    """Refuse options that speak of samples: a property says itself what is asked."""
    named = [option for option, value in given.items() if value is not None]
    if named:
        raise OptionError(
            f"unexpected {', '.join(named)} beside the property {property}: it says itself what is asked; "
            "leave one or the other out; samples are given with --data"
        )


def _certify_property(
    model: Path, property: Path, options: PropertyOptions, format: o.Format, output: Path | None
) -> None:
    """Print sat, unsat, unknown or timeout, and for sat the witness, as the competition asks for."""
    check_output(output, read=(model, property))
    report = audit_property(model, property, options)
    (found,) = report.properties
    if format is o.Format.JSON or output is not None:
        deliver(report, format=o.Format.JSON, output=output)
    if format is o.Format.TABLE:
        for told in report.diagnostics:
            say(f"{told.level}: {plain(told.message)}")
        typer.echo(found.result if found.witness is None else f"{found.result}\n{found.witness}")
    if found.problem is not None:
        say_error(f"{property} could not be judged: {found.problem}")
    leave(report)


@command
def attack(
    model: o.ModelArgument,
    data: o.DataOption,
    eps: o.EpsOption,
    method: Annotated[
        str,
        typer.Option("--method", help=f"Which attacks to use, a list of: {', '.join(ATTACK_METHODS)}.", metavar="LIST"),
    ] = DEFAULT_ATTACKS,
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="What to look for: margin, a misclassified input; l1, the state with the least l1 norm; state, the "
            "one farthest from the sample's (l2); FILE (.npy, .csv, .npz with c and perhaps w), the largest c.y + w.x.",
            metavar="NAME|FILE",
        ),
    ] = "margin",
    fraction: Annotated[
        str | None,
        typer.Option(
            "--fraction",
            help="Share of the inputs that sensitivity and gradient (0.1 unless given) and random (all) may change.",
            metavar="SHARE",
            show_default=False,
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            "--draws", min=1, help="Points that sensitivity, gradient and random try; 1 is the paper's.", metavar="N"
        ),
    ] = 100,
    target: Annotated[
        int | None,
        typer.Option(
            "--target",
            help="Only this class counts: the network must predict it. Samples of the class itself are left out.",
            metavar="CLASS",
            show_default=False,
        ),
    ] = None,
    sparse: Annotated[
        int | None,
        typer.Option(
            "--sparse",
            help="At most K inputs change at once, each by at most EPS; without it, all of them may.",
            metavar="K",
            show_default=False,
        ),
    ] = None,
    sigma: SigmaOption = None,
    output_name: o.OutputNameOption = None,
    threshold: o.ThresholdOption = None,
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
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Draw sample, change (changed pixels in red) and adversarial input as PNGs in this folder.",
            metavar="DIR",
            show_default=False,
            rich_help_panel=o.OUTPUT,
        ),
    ] = None,
    image_shape: o.ImageShapeOption = None,
    force: o.ForceOption = False,
    quiet: o.QuietOption = False,
    verbose: o.VerboseOption = False,
    time_limit: o.TimeLimitOption = 60.0,
    max_memory: o.MaxMemoryOption = None,
    jobs: JobsOption = 1,
    resume: ResumeOption = False,
    seed: o.SeedOption = 0,
) -> None:
    """Look for inputs within EPS of each sample that the network misclassifies, and let the network confirm them.

    The attack lp is the paper's: the minimiser of an LP relaxation; where
    its bound proves that there is no such input, the sample is certified.
    mip searches all activation patterns of small networks. With --sparse
    every attack changes at most K inputs: those that matter most.

    With --objective other than margin nothing is judged: the table says how
    far the objective moves, and how far it provably cannot. pgd and lp look
    for it; no labels are needed.
    """
    check_output(output, read=(model, data, labels, sigma), written=(save,))
    share = None if fraction is None else parse_number(fraction, option="--fraction")
    if share is not None and not 0 < share <= 1:
        raise OptionError(f"--fraction must lie above 0 and be at most 1, not {fraction}")
    given = o.data_options(
        data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
    )
    reading = o.model_options(
        output_name,
        max_memory,
        arch=arch,
        input_shape=input_shape,
        allow_code_execution=allow_code_execution,
        threshold=threshold,
    )
    if objective != "margin":
        _refuse_beside_objective(
            objective, {"--target": target, "--images": images, "--labels": labels, "--threshold": threshold}
        )
        measured = ObjectiveOptions(
            objective=objective,
            eps=parse_eps(eps),
            data=given,
            searches=SEARCHES
            if method == DEFAULT_ATTACKS
            else parse_methods(method, SEARCHES, "search for an objective"),
            sparse=sparse,
            sigma=sigma,
            time_limit=time_limit,
            seed=seed,
            save=save,
            force=force,
            model=reading,
        )
        _measure(model, measured, format, output, quiet=quiet, verbose=verbose)
        return
    methods = parse_methods(method, ATTACK_METHODS, "attack")
    chosen = RobustnessOptions(
        eps=parse_eps(eps),
        data=given,
        verdicts=Options(
            methods=methods,
            time_limit=time_limit,
            attack=AttackOptions(fraction=share, samples=draws, target=target),
            seed=seed,
        ),
        sparse=sparse,
        sigma=sigma,
        save=save,
        images=images,
        image_shape=o.parse_image_shape(image_shape),
        force=force,
        jobs=jobs,
        journal=None if output is None else journal_beside(output),
        resume=resume,
        model=reading,
    )
    _run("attack", model, chosen, format, output, quiet=quiet, verbose=verbose)


def _refuse_beside_objective(objective: str, given: Mapping[str, object]) -> None:
    named = [option for option, value in given.items() if value is not None]
    if named:
        raise OptionError(f"{', '.join(named)} goes with the objective margin, not with {objective}: leave one out")


def parse_methods(text: str, known: tuple[str, ...], noun: str) -> tuple[str, ...]:
    """Return the names in a list, cheap ones first. Raises OptionError where one is unknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise OptionError(f"--method must name at least one of {', '.join(known)}")
    for name in names:
        if name not in known:
            raise OptionError(f"there is no {noun} '{name}'; known are {', '.join(known)}")
    return in_order_of_cost(names)


def _measure(
    model: Path, chosen: ObjectiveOptions, format: o.Format, output: Path | None, *, quiet: bool, verbose: bool
) -> None:
    with progress_bar("attack", quiet=quiet) as watch:
        report = audit_objectives(model, chosen, watch=watch)
    deliver(report, format=format, output=output, verbose=verbose)
    leave(report)


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
        report = audit_robustness(name, model, chosen, watch=watch, tell=teller(quiet=quiet))
    with kept_journal(chosen.journal):
        report = written(report, output)
    drop_journal(chosen.journal, report)
    show(report, format=format, output=output, verbose=verbose)
    if report.status == "incomplete" and chosen.journal is not None and chosen.journal.is_file():
        tell_resume(report)
    leave(report)
