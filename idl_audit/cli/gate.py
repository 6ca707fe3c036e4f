"""idl-audit gate."""

from __future__ import annotations

import json

import typer

from idl_audit.cli.console import console, print_sections
from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, print_document, write_report
from idl_audit.commands.options.reports import Gate
from idl_audit.gate.judge import judge, parse_rules
from idl_audit.gate.known import read_known
from idl_audit.report.reading import parse_report, read_bytes, read_report
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.files import check_place, write_whole


def gate(asked: Gate) -> None:
    """Do `gate`."""
    report, baseline, printing, output = asked.report, asked.baseline, asked.printing, asked.printing.output
    rules = parse_rules(asked.require, asked.warn, has_baseline=baseline is not None)
    if asked.update_baseline and baseline is None:
        raise OptionError("--update-baseline needs the file to update: give it with --baseline FILE")
    if baseline is not None and baseline.resolve() == report.resolve():
        raise OptionError(f"{report} is named as the report and as its baseline; give an earlier report as baseline")
    check_output(output, force=printing.force, read=(report, baseline, asked.config, asked.known))
    known = () if asked.known is None else read_known(asked.known)
    content = read_bytes(report)
    found = parse_report(content, report)
    if baseline is None:
        earlier = None
    elif asked.update_baseline and not baseline.exists():
        check_place(baseline)
        earlier = found  # the first baseline
        if found.status != "complete":
            raise DataError(f"{report} is incomplete, and no first baseline can be made of it; complete it first")
    else:
        earlier = read_report(baseline)
    judged = judge(found, rules, baseline=earlier, baseline_path=baseline, known=known)
    if output is not None:
        write_report(found.model_copy(update={"gate": judged}), output)
    if asked.update_baseline and baseline is not None and judged.passed:
        write_whole(baseline, lambda file: file.write(content))
    if printing.format == "json":
        if output is None:
            print_document(json.dumps(judged.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")
    elif not printing.quiet:
        from idl_audit.report.terminal.gate import gate_sections
        from idl_audit.report.terminal.layout import MAX_ROWS

        held = sum(rule.passed for rule in judged.rules)
        sentence = f"The gate {'passed' if judged.passed else 'failed'}: {held} of {len(judged.rules)} rules hold."
        print_sections(sentence, gate_sections(found, judged, None if printing.verbose else MAX_ROWS), console())
    if not judged.passed:
        raise typer.Exit(Exit.REFUSED)
