"""idl-audit run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import typer

from idl_audit.cli.exits import Exit, leave
from idl_audit.cli.options import Given
from idl_audit.cli.show import check_output, say, show, tell_resume, written
from idl_audit.cli.watching import telling, watched
from idl_audit.commands.options.everywhere import EverywhereOptions
from idl_audit.commands.options.many import Run
from idl_audit.commands.options.measures import BoundsOptions, SensitivityOptions
from idl_audit.commands.options.robustness import AttackedOptions, RobustnessOptions
from idl_audit.commands.run import RunOptions, audit_all
from idl_audit.commands.shared.journal import drop_journal, journal_beside, kept_journal
from idl_audit.config.files import Configuration, read_configuration
from idl_audit.config.finding import FILE, find_configuration
from idl_audit.data.numbers import Eps
from idl_audit.gate.judge import check_measured, judge, parse_rules
from idl_audit.gate.known import Known, read_known
from idl_audit.gate.rules import Rule
from idl_audit.report.extra_files import find_extras
from idl_audit.report.reading import read_report
from idl_audit.report.render import Format, render
from idl_audit.report.schema import Gate, Report
from idl_audit.report.wording import plain
from idl_audit.values.errors import InvalidInputError, OptionError
from idl_audit.values.files import check_distinct, check_place, write_whole
from idl_audit.values.options import build, options_of

FORMATS: Final = {".html": Format.HTML, ".md": Format.MARKDOWN, ".xml": Format.JUNIT, ".sarif": Format.SARIF}
"""Ending of a file in `reports` -> format it is written in."""

_ASKED: Final[dict[str, type[Any]]] = {
    "sensitivity": SensitivityOptions,
    "bounds": BoundsOptions,
    "everywhere": EverywhereOptions,
    "certify": RobustnessOptions,
    "attack": AttackedOptions,
}
"""Step -> its options."""


@dataclass(frozen=True)
class Job:
    """One audit, ready to be done: everything that can be refused before any work has been looked at."""

    model: Path
    asked: Run
    options: RunOptions
    further: Mapping[Path, Format]
    """Reports beside the JSON."""
    gate: _Gate | None

    @property
    def journal(self) -> Path | None:
        """Return where decided samples are kept; None where nothing keeps them."""
        return None if self.options.robustness is None else self.options.robustness.journal

    @property
    def written(self) -> list[Path]:
        """Return every file and folder that it writes, its report apart."""
        return [*(one for one in _written(self.options) if one is not None), *self.further]


def run(given: Given) -> None:
    """Do `run`."""
    found = _configuration(given.values.get("config"))
    only = tuple(given.values.get("only") or ())
    if found.audits:
        from idl_audit.cli.run_several import run_several

        run_several(given, found, only)
        return
    if only:
        raise OptionError(f"{found.path} has no tables [[audit]], of which --only chooses; leave it out")
    job = prepared(given, found)
    report = carried_out(job)
    asked, printing = job.asked, job.asked.printing
    show(report, replace(printing, output=asked.output))
    if not printing.quiet and asked.output is not None:
        say(f"written: {', '.join(plain(file) for file in (asked.output, *job.further))}")
    if report.status == "incomplete" and job.journal is not None:
        tell_resume(report)
    leave(report)
    if report.gate is not None and not report.gate.passed:
        raise typer.Exit(Exit.REFUSED)


def prepared(given: Given, found: Configuration, *, force: bool = False, **more: Any) -> Job:
    """Return what is to be done.

    Args:
        given: what the command was given.
        found: the configuration.
        force: whether an earlier report may be lost though nobody gave --force.
        more: options in place of those given.

    Raises:
        InvalidInputError: where something is missing, makes no sense, or would destroy another file.
    """
    asked: Run = given.build(reports=found.table("run").get("reports"), **more)
    model, output = asked.model, asked.output
    data, labels = (None, None) if asked.data is None else (asked.data.path, asked.data.labels)
    if model is None:
        raise OptionError(f"{found.path} names no model; write model = 'model.onnx' under [defaults]")
    if asked.resume and output is None:
        raise OptionError("--resume goes on beside a report; name it with -o REPORT")
    given = replace(given, values={**given.values, **more})
    verdicts: Literal["attack", "certify"] = "attack" if "attack" in asked.steps else "certify"
    options = RunOptions(
        sensitivity=_step("sensitivity", asked, given, found),
        bounds=_step("bounds", asked, given, found),
        everywhere=_step("everywhere", asked, given, found),
        robustness=_step(verdicts, asked, given, found),
        verdicts=verdicts,
    )
    further = _further(asked)
    read = (model, data, labels, found.path)
    check_output(output, force=asked.force or force, read=read, written=_written(options))
    gate = _gate(found, options, asked.eps or ())
    check_distinct((*read, output, None if gate is None else gate.path), further)
    return Job(model, asked, options, further, gate)


def carried_out(job: Job, *, title: str = "", keep: bool = False) -> Report:
    """Do the work, write the report and those beside it, and return it.

    Args:
        job: what is to be done.
        title: stands before what progress says of each step.
        keep: whether the journal stays when the report is complete.

    Raises:
        InvalidInputError: where an input is refused.
        IncompleteError: where model or data changed meanwhile.
    """
    options, output = job.options, job.asked.output
    quiet, watching = job.asked.printing.quiet, job.asked.watching
    tell = telling(quiet=quiet, asked=watching)
    report = audit_all(
        job.model, options, bar=lambda name: watched(f"{title}{name}", quiet=quiet, asked=watching), tell=tell
    )
    if job.gate is not None:
        try:
            report = report.model_copy(update={"gate": job.gate.judged(report)})
        except InvalidInputError:
            if output is not None:  # hours of work are not thrown away because the baseline does not fit
                drop_journal(job.journal, written(report, output))
            raise
    with kept_journal(job.journal):
        report = written(report, output)
    if not keep:
        drop_journal(job.journal, report)
    for file, text_format in job.further.items():
        folder = (Path() if output is None else output.parent).absolute()
        extras, _ = find_extras(report, folder=folder, adversarial=None, matrix=None, image_shape=None)
        _write_rendered(render(report, text_format, extras=extras), file)
    return report


def _step(name: str, asked: Run, given: Given, found: Configuration) -> Any:
    """Return the options of a step, from its table and what all steps have in common; None where it is left out."""
    if name not in asked.steps:
        return None
    own, kind = found.table(name), _ASKED[name]
    if own.get("objective", "margin") != "margin":
        raise OptionError("[attack] objective is for the command attack: run judges samples; leave it out")
    common = {one: value for one, value in given.values.items() if one in options_of(kind) and one != "output"}
    if name == "sensitivity" and "eps" not in own:
        if "state_bounds" in own:
            raise OptionError("[sensitivity] state-bounds speaks of boxes around samples; give eps as well")
        common.pop("data", None)
    if name == "everywhere":
        common.pop("arithmetic", None)  # statements are about real numbers, whatever verdicts on samples are about
        common["everywhere"] = True
    for needed, why in (("data", "samples: write data = 'data.npz'"), ("eps", "a radius: write eps = '8/255'")):
        if (
            needed in options_of(kind)
            and needed not in common
            and (options_of(kind)[needed].required or _needs_radius(name, needed, {**common, **own}))
        ):
            raise OptionError(f"{name} needs {why} under [defaults], or give it with --{needed}")
    own.pop("objective", None)
    return build(kind, {**common, "journal": journal_beside(asked.output), **own}, typed=own)


def _needs_radius(name: str, needed: str, given: Mapping[str, Any]) -> bool:
    """Whether a step that goes without a radius where there is a perturbation has neither."""
    return needed == "eps" and name in ("certify", "attack") and not {"eps", "perturb", "directions"} & set(given)


def _configuration(given: Path | None) -> Configuration:
    path = given or find_configuration()
    if path is None:
        raise OptionError(
            f"there is no {FILE} here, and no [tool.idl-audit] in pyproject.toml; write one with "
            "`idl-audit init MODEL DATA`, or name one with -c"
        )
    return read_configuration(path)


def _written(options: RunOptions) -> list[Path | None]:
    steps = (options.sensitivity, options.bounds, options.everywhere, options.robustness)
    names = ("save", "witness", "images", "certificates")
    return [getattr(step, name, None) for step in steps if step is not None for name in names]


def _further(asked: Run) -> dict[Path, Format]:
    """Return the further reports that the file asks for, each with its format."""
    files = {file: file.suffix.lower() for file in asked.reports}
    for file, suffix in files.items():
        if suffix not in FORMATS:
            raise OptionError(f"reports has {file}; the ending must be one of {', '.join(FORMATS)}")
        check_place(file)
    return {file: FORMATS[suffix] for file, suffix in files.items()}


def _write_rendered(text: str, file: Path) -> None:
    write_whole(file, lambda stream: stream.write(text.encode("utf-8")))


@dataclass(frozen=True)
class _Gate:
    """What the report is judged by."""

    rules: tuple[Rule, ...]
    baseline: Report | None
    path: Path | None
    """Of the baseline."""
    known: tuple[Known, ...]

    def judged(self, report: Report) -> Gate:
        return judge(report, self.rules, baseline=self.baseline, baseline_path=self.path, known=self.known)


def _gate(found: Configuration, options: RunOptions, eps: tuple[Eps, ...]) -> _Gate | None:
    """Return the rules, the baseline and known samples, read before any work is done; None where there is nothing.

    Raises:
        OptionError: where it has a baseline and no rule: nothing would be compared.
    """
    table = found.table("gate")
    if not any(table.get(name) for name in ("require", "warn", "baseline")):
        return None
    path = table.get("baseline")
    rules = parse_rules(table.get("require", ()), table.get("warn", ()), has_baseline=path is not None)
    radii = () if options.robustness is None else tuple(eps or options.robustness.eps)
    columns = () if options.robustness is None else tuple(one.name for one in options.robustness.group_by)
    asked = {"sensitivity": options.sensitivity is not None, "everywhere": options.everywhere is not None}
    check_measured(rules, radii=radii, columns=columns, **asked)
    known = () if table.get("known") is None else read_known(table["known"])
    return _Gate(rules, None if path is None else read_report(path), path, known)
