"""idl-audit verify."""

from __future__ import annotations

import typer

from idl_audit.cli.exits import Exit
from idl_audit.cli.show import check_output, show, written
from idl_audit.commands.options.models import Verify
from idl_audit.commands.verify import verify as run
from idl_audit.commands.verify_many import Asked, verify_many
from idl_audit.values.errors import OptionError


def verify(asked: Verify) -> None:
    """Do `verify`."""
    printing = asked.printing
    if asked.query is not None and asked.property is not None:
        raise OptionError(f"--query {asked.query}: {asked.property} is given as well; give one of them")
    about, networks = asked.query or asked.property, {one.name: one.path for one in asked.network}
    if len(networks) < len(asked.network):
        raise OptionError("--network names a network twice; give each its model once")
    read = (asked.file, *asked.also, asked.model, asked.second, about, *networks.values())
    check_output(printing.output, force=printing.force, read=read)
    if asked.also or asked.file.is_dir():
        many = Asked(asked.model, asked.reading, about, asked.second, networks)
        report = verify_many((asked.file, *asked.also), many, jobs=asked.jobs)
    else:
        report = run(asked.file, asked.model, asked.reading, about, asked.second, networks)
    report = written(report, printing.output)
    if printing.format == "json" or not printing.quiet:
        show(report, printing)
    if report.verification is not None and not report.verification.accepted:
        raise typer.Exit(Exit.REFUSED)
