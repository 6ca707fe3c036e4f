"""idl-audit gate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from idl_audit.cli import options as o
from idl_audit.cli.defaults import ConfigOption
from idl_audit.cli.exits import Exit
from idl_audit.cli.show import (
    check_output,
    command,
    console,
    print_document,
    print_sections,
    write_report,
)
from idl_audit.gate.judge import judge, parse_rules
from idl_audit.gate.rules import EXAMPLE, MEANINGS
from idl_audit.report.reading import parse_report, read_bytes, read_report
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.files import check_place, write_whole

METRICS = ", ".join(MEANINGS)


@command
def gate(
    report: Annotated[Path, typer.Argument(help="A report.json of certify, attack, sensitivity or run.")],
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            help=f"A rule that must hold, such as '{EXAMPLE}', or with '90 %'; may be given several times. It is about "
            f"{METRICS}; 'drop <= 0.01' compares every certified accuracy with --baseline.",
            metavar="RULE",
            show_default=False,
        ),
    ] = None,
    warn: Annotated[
        list[str] | None,
        typer.Option("--warn", help="A rule that only warns.", metavar="RULE", show_default=False),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline",
            help="An earlier report on the same data under the same threat model.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Where the gate passes, make the report the new baseline.")
    ] = False,
    config: ConfigOption = None,
    format: o.FormatOption = o.Format.TABLE,
    output: o.OutputOption = None,
    quiet: o.AnswerOption = False,
    verbose: o.VerboseOption = False,
) -> None:
    """Judge a report by rules.

    An incomplete report fails. Counts are compared exactly: 899 of 1000 are
    less than 0.90. drop(clean_accuracy) and drop(certified_accuracy@2/255)
    compare with --baseline.
    """
    rules = parse_rules(require or (), warn or (), has_baseline=baseline is not None)
    if update_baseline and baseline is None:
        raise OptionError("--update-baseline needs the file to update: give it with --baseline FILE")
    if baseline is not None and baseline.resolve() == report.resolve():
        raise OptionError(f"{report} is named as the report and as its baseline; give an earlier report as baseline")
    check_output(output, read=(report, baseline, config))
    content = read_bytes(report)
    found = parse_report(content, report)
    if baseline is None:
        earlier = None
    elif update_baseline and not baseline.exists():
        check_place(baseline)
        earlier = found  # the first baseline
        if found.status != "complete":
            raise DataError(f"{report} is incomplete, and no first baseline can be made of it; complete it first")
    else:
        earlier = read_report(baseline)
    judged = judge(found, rules, baseline=earlier, baseline_path=baseline)
    if output is not None:
        write_report(found.model_copy(update={"gate": judged}), output)
    if update_baseline and baseline is not None and judged.passed:
        write_whole(baseline, lambda file: file.write(content))
    if format is o.Format.JSON:
        if output is None:
            print_document(json.dumps(judged.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
    elif not quiet:
        from idl_audit.report.terminal.gate import gate_sections
        from idl_audit.report.terminal.layout import MAX_ROWS

        held = sum(rule.passed for rule in judged.rules)
        sentence = f"The gate {'passed' if judged.passed else 'failed'}: {held} of {len(judged.rules)} rules hold."
        print_sections(sentence, gate_sections(found, judged, None if verbose else MAX_ROWS), console())
    if not judged.passed:
        raise typer.Exit(Exit.REFUSED)
