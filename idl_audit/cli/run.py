"""idl-audit run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from idl_audit.cli import options as o
from idl_audit.cli.defaults import ConfigOption
from idl_audit.cli.exits import Exit, leave
from idl_audit.cli.robustness import (
    ATTACK_METHODS,
    DEFAULT_ATTACKS,
    JobsOption,
    ResumeOption,
    parse_methods,
)
from idl_audit.cli.show import (
    check_output,
    command,
    progress_bar,
    say,
    show,
    tell_resume,
    teller,
    written,
)
from idl_audit.commands.bounds import BoundsOptions
from idl_audit.commands.certify import RobustnessOptions
from idl_audit.commands.run import RunOptions, audit_all
from idl_audit.commands.shared.journal import drop_journal, journal_beside, kept_journal
from idl_audit.commands.shared.samples import DataOptions
from idl_audit.commands.shared.sensitivity_options import LocalOptions, SensitivityOptions
from idl_audit.commands.shared.subject import ModelOptions
from idl_audit.config.files import Configuration, read_configuration
from idl_audit.config.finding import FILE, find_configuration
from idl_audit.config.settings import STEPS
from idl_audit.data.numbers import Eps, parse_eps, parse_number
from idl_audit.data.preprocessing import Preprocessing, parse_preprocessing
from idl_audit.decide.ladder import METHODS, Options
from idl_audit.gate.judge import check_measured, judge, parse_rules
from idl_audit.gate.rules import Rule
from idl_audit.measure.state_bounds import METHODS as BOUNDS_METHODS
from idl_audit.report.extra_files import find_extras
from idl_audit.report.reading import read_report
from idl_audit.report.render import Format, render
from idl_audit.report.schema import Report
from idl_audit.report.wording import plain
from idl_audit.search.attacks import AttackOptions
from idl_audit.values.errors import InvalidInputError, OptionError
from idl_audit.values.files import check_distinct, check_place, write_whole

FORMATS: Final = {".html": Format.HTML, ".md": Format.MARKDOWN, ".xml": Format.JUNIT}
"""Ending of a file in `reports` -> format it is written in."""

DEFAULT_STEPS: Final = "sensitivity,certify"


@command
def run(
    model: Annotated[
        Path | None, typer.Argument(help="The model file, where the configuration has none.", show_default=False)
    ] = None,
    config: ConfigOption = None,
    data: o.OptionalDataOption = None,
    eps: Annotated[
        str | None,
        typer.Option(
            "-e",
            "--eps",
            help=o.EPS_HELP,
            metavar="EPS",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        str, typer.Option("--steps", help=f"What to do, a list of: {', '.join(STEPS)}.", metavar="LIST")
    ] = DEFAULT_STEPS,
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
    """Do everything in the configuration and write one report: for CI.

    `idl-audit init MODEL DATA` writes a configuration. Options given here
    replace what it says.
    """
    found = _configuration(config)
    if model is None:
        raise OptionError(f"{found.path} names no model; write model = 'model.onnx' under [defaults]")
    chosen = _steps(steps)
    given = None
    if data is not None:
        given = o.data_options(
            data, labels=labels, limit=limit, index=index, layout=layout, scale=scale, mean=mean, std=std, bounds=bounds
        )
    shared = _Shared(
        given,
        given.preprocessing if given is not None else parse_preprocessing(scale=scale, mean=mean, std=std),
        () if eps is None else parse_eps(eps),
        o.model_options(
            output_name,
            max_memory,
            arch=arch,
            input_shape=input_shape,
            allow_code_execution=allow_code_execution,
            threshold=threshold,
        ),
        force=force,
        time_limit=time_limit,
        max_nodes=max_nodes,
        seed=seed,
        table=found.table,
    )
    if resume and output is None:
        raise OptionError("--resume goes on beside a report; name it with -o REPORT")
    options = RunOptions(
        sensitivity=shared.sensitivity() if "sensitivity" in chosen else None,
        bounds=shared.bounds() if "bounds" in chosen else None,
        robustness=shared.robustness(chosen, output, resume=resume, jobs=jobs),
        verdicts="attack" if "attack" in chosen else "certify",
    )
    further = _further(found)
    check_output(output, read=(model, data, labels, found.path), written=_written(options))
    gate = _gate(found, options, shared.eps)
    check_distinct((model, data, labels, found.path, output, None if gate is None else gate[2]), further)
    report = audit_all(model, options, bar=lambda name: progress_bar(name, quiet=quiet), tell=teller(quiet=quiet))
    if gate is not None:
        rules, baseline, path = gate
        try:
            report = report.model_copy(update={"gate": judge(report, rules, baseline=baseline, baseline_path=path)})
        except InvalidInputError:
            if output is not None:  # hours of work are not thrown away because the baseline does not fit
                _drop_journal(options, written(report, output))
            raise
    with kept_journal(None if options.robustness is None else options.robustness.journal):
        report = written(report, output)
    _drop_journal(options, report)
    for file, text_format in further.items():
        folder = (Path() if output is None else output.parent).absolute()
        extras, _ = find_extras(report, folder=folder, adversarial=None, matrix=None, image_shape=None)
        _write_rendered(render(report, text_format, extras=extras), file)
    show(report, format=format, output=output, verbose=verbose)
    if not quiet and output is not None:
        say(f"written: {', '.join(plain(file) for file in (output, *further))}")
    if report.status == "incomplete" and options.robustness is not None and options.robustness.journal is not None:
        tell_resume(report)
    leave(report)
    if report.gate is not None and not report.gate.passed:
        raise typer.Exit(Exit.REFUSED)


def _configuration(given: Path | None) -> Configuration:
    path = given or find_configuration()
    if path is None:
        raise OptionError(
            f"there is no {FILE} here, and no [tool.idl-audit] in pyproject.toml; write one with "
            "`idl-audit init MODEL DATA`, or name one with -c"
        )
    return read_configuration(path)


def _steps(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if name not in STEPS:
            raise OptionError(f"there is no step '{name}'; known are {', '.join(STEPS)}")
    if not names:
        raise OptionError(f"--steps must name at least one of {', '.join(STEPS)}")
    if {"certify", "attack"} <= set(names):
        raise OptionError(
            "one report has one set of verdicts: certify attacks as well, by the attacks in its method; "
            "leave certify or attack out of the steps"
        )
    return names


class _Shared:
    """What the steps have in common; every method makes the options of one step from its table in the file."""

    def __init__(
        self,
        data: DataOptions | None,
        preprocessing: Preprocessing,
        eps: tuple[Eps, ...],
        model: ModelOptions,
        *,
        force: bool,
        time_limit: float,
        max_nodes: int | None,
        seed: int,
        table: Callable[[str], dict[str, Any]],
    ) -> None:
        self.eps = eps
        self._data, self._preprocessing, self._model = data, preprocessing, model
        self._force, self._seed, self._table = force, seed, table
        self._time_limit, self._max_nodes = time_limit, max_nodes

    def _needed(self, step: str) -> DataOptions:
        if self._data is None:
            raise OptionError(f"{step} needs samples: write data = 'data.npz' under [defaults], or give -d DATA")
        if not self.eps:
            raise OptionError(f"{step} needs a radius: write eps = '8/255' under [defaults], or give -e EPS")
        return self._data

    def sensitivity(self) -> SensitivityOptions:
        table = self._table("sensitivity")
        local = None
        if "eps" in table:
            radii = parse_eps(table["eps"])
            if self._data is None or len(radii) != 1:
                raise OptionError("[sensitivity] eps is one radius of boxes around samples; give data as well")
            local = LocalOptions(self._data, radii[0], table.get("state-bounds", "interval"))
        elif "state-bounds" in table:
            raise OptionError("[sensitivity] state-bounds speaks of boxes around samples; give eps as well")
        return SensitivityOptions(
            method=table.get("method", "best"),
            top=table.get("top", 5),
            label=table.get("class"),
            sparse=table.get("sparse"),
            groups=table.get("groups"),
            local=local,
            image_shape=o.parse_image_shape(table.get("image-shape")),
            **_paths(table, "save", "witness", "images"),
            force=self._force,
            preprocessing=self._preprocessing,
            model=self._model,
            seed=self._seed,
        )

    def bounds(self) -> BoundsOptions:
        data, table = self._needed("bounds"), self._table("bounds")
        methods = table.get("method")
        return BoundsOptions(
            eps=self.eps,
            data=data,
            methods=BOUNDS_METHODS if methods is None else tuple(name.strip() for name in methods.split(",")),
            sparse=table.get("sparse"),
            **_paths(table, "sigma", "save"),
            time_limit=self._time_limit,
            force=self._force,
            model=self._model,
        )

    def robustness(
        self, steps: tuple[str, ...], output: Path | None, *, resume: bool, jobs: int
    ) -> RobustnessOptions | None:
        if "attack" in steps:
            return self._attack(_workers(output, resume=resume, jobs=jobs))
        return self._certify(_workers(output, resume=resume, jobs=jobs)) if "certify" in steps else None

    def _certify(self, workers: dict[str, Any]) -> RobustnessOptions:
        data, table = self._needed("certify"), self._table("certify")
        verdicts = Options(
            methods=parse_methods(table["method"], METHODS, "method") if "method" in table else None,
            time_limit=self._time_limit,
            seed=self._seed,
            record="certificates" in table,
            max_nodes=self._max_nodes,
        )
        return RobustnessOptions(
            eps=self.eps,
            data=data,
            verdicts=verdicts,
            **_paths(table, "sigma", "save", "certificates"),
            force=self._force,
            model=self._model,
            **workers,
        )

    def _attack(self, workers: dict[str, Any]) -> RobustnessOptions:
        data, table = self._needed("attack"), self._table("attack")
        share = parse_number(table["fraction"], option="fraction") if "fraction" in table else None
        if share is not None and not 0 < share <= 1:
            raise OptionError(f"[attack] fraction must lie above 0 and be at most 1, not {share:g}")
        verdicts = Options(
            methods=parse_methods(table.get("method", DEFAULT_ATTACKS), ATTACK_METHODS, "attack"),
            time_limit=self._time_limit,
            attack=AttackOptions(fraction=share, target=table.get("target")),
            seed=self._seed,
            max_nodes=self._max_nodes,
        )
        return RobustnessOptions(
            eps=self.eps,
            data=data,
            verdicts=verdicts,
            sparse=table.get("sparse"),
            image_shape=o.parse_image_shape(table.get("image-shape")),
            **_paths(table, "sigma", "save", "images"),
            force=self._force,
            model=self._model,
            **workers,
        )


def _paths(table: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: Path(table[name]) for name in names if name in table}


def _written(options: RunOptions) -> list[Path | None]:
    steps = (options.sensitivity, options.bounds, options.robustness)
    names = ("save", "witness", "images", "certificates")
    return [getattr(step, name, None) for step in steps if step is not None for name in names]


def _further(found: Configuration) -> dict[Path, Format]:
    """Return the further reports that the file asks for, each with its format."""
    files = {Path(name): Path(name).suffix.lower() for name in found.table("run").get("reports", ())}
    for file, suffix in files.items():
        if suffix not in FORMATS:
            raise OptionError(f"reports has {file}; the ending must be one of {', '.join(FORMATS)}")
        check_place(file)
    return {file: FORMATS[suffix] for file, suffix in files.items()}


def _workers(output: Path | None, *, resume: bool, jobs: int) -> dict[str, Any]:
    """Return the options on processes, and on the journal that a killed run is resumed from."""
    return {"journal": None if output is None else journal_beside(output), "resume": resume, "jobs": jobs}


def _drop_journal(options: RunOptions, report: Report) -> None:
    """Remove the journal of a report that is written."""
    if options.robustness is not None and options.robustness.journal is not None:
        drop_journal(options.robustness.journal, report)


def _write_rendered(text: str, file: Path) -> None:
    write_whole(file, lambda stream: stream.write(text.encode("utf-8")))


def _gate(
    found: Configuration, options: RunOptions, eps: tuple[Eps, ...]
) -> tuple[tuple[Rule, ...], Report | None, Path | None] | None:
    """Return the rules and the baseline, read before any work is done; None where the file has neither.

    Raises:
        OptionError: where it has a baseline and no rule: nothing would be compared.
    """
    table = found.table("gate")
    if not any(table.get(name) for name in ("require", "warn", "baseline")):
        return None
    path = Path(table["baseline"]) if "baseline" in table else None
    rules = parse_rules(table.get("require", ()), table.get("warn", ()), has_baseline=path is not None)
    radii = () if options.robustness is None else tuple(eps)
    check_measured(rules, radii=radii, sensitivity=options.sensitivity is not None)
    return rules, None if path is None else read_report(path), path
