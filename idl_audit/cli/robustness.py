"""idl-audit attack and idl-audit certify.

What answers other questions than those about samples is imported when they are asked.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import typer

from idl_audit.cli.exits import leave
from idl_audit.cli.journaled import deliver_and_leave
from idl_audit.cli.options import Given
from idl_audit.cli.show import check_output, deliver, say, say_error
from idl_audit.cli.watching import telling, watched
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.common import Printing, Watching
from idl_audit.commands.options.everywhere import EverywhereOptions, is_asked
from idl_audit.commands.options.robustness import (
    Attack,
    Certify,
    MonotoneOptions,
    ObjectiveOptions,
    PropertyOptions,
    RobustnessOptions,
)
from idl_audit.commands.shared.journal import journal_beside
from idl_audit.config.finding import find_configuration
from idl_audit.report.wording import plain


def certify(given: Given) -> None:
    """Do `certify`."""
    given = _with_whole(given) if is_asked(given.values) else given
    asked: Certify = given.build(journal=journal_beside(given.values.get("output")))
    if asked.property is not None and asked.rule is not None:
        _certify_property(asked.model, asked.property, asked.rule, asked.printing, asked.watching)
    elif asked.whole is not None:
        _certify_everywhere(asked.model, asked.whole, asked.printing, asked.watching)
    elif asked.way is not None:
        _certify_monotone(asked.model, asked.way, asked.printing, asked.watching)
    elif asked.samples is not None:
        _run("certify", asked.model, asked.samples, asked.printing, asked.watching)


def _with_whole(given: Given) -> Given:
    """Return what is given with the table [everywhere] of the configuration before its other tables."""
    path = find_configuration()
    if path is None:
        return given
    from idl_audit.config.files import WHOLE, read_configuration

    own = read_configuration(path).table(WHOLE)
    others = {name: value for name, value in given.values.items() if name not in given.configured}
    found = {**given.values, **own, **others}
    return replace(given, values=found, configured=given.configured | (own.keys() - others.keys()))


def _certify_monotone(model: Path, chosen: MonotoneOptions, printing: Printing, watching: Watching) -> None:
    from idl_audit.commands.certify_monotone import audit_monotone

    check_output(printing.output, force=printing.force, read=(model, chosen.data.path))
    with watched("certify", quiet=printing.quiet, asked=watching) as watch:
        report = audit_monotone(model, chosen, watch=watch, tell=telling(quiet=printing.quiet, asked=watching))
    deliver(report, printing)
    leave(report)


def _certify_everywhere(model: Path, chosen: EverywhereOptions, printing: Printing, watching: Watching) -> None:
    from idl_audit.commands.certify_everywhere import audit_everywhere

    read, written = (model, chosen.features), (chosen.plot, watching.metrics)
    check_output(printing.output, force=printing.force, read=read, written=written)
    with watched("certify", quiet=printing.quiet, asked=watching) as watch:
        report = audit_everywhere(model, chosen, watch=watch)
    deliver(report, printing)
    leave(report)


def _certify_property(
    model: Path, property: Path, options: PropertyOptions, printing: Printing, watching: Watching
) -> None:
    """Print sat, unsat, unknown or timeout, and for sat the witness, as the competition asks for."""
    from idl_audit.commands.certify_property import audit_property

    check_output(printing.output, force=printing.force, read=(model, property))
    with watched("certify", quiet=printing.quiet, asked=watching):
        report = audit_property(model, property, options)
    (found,) = report.properties
    if printing.format == "json" or printing.output is not None:
        deliver(report, replace(printing, format="json"))
    if printing.format == "table":
        for told in report.diagnostics:
            say(f"{told.level}: {plain(told.message)}")
        typer.echo(found.result if found.witness is None else f"{found.result}\n{found.witness}")
    if found.problem is not None:
        say_error(f"{property} could not be judged: {found.problem}")
    leave(report)


def attack(given: Given) -> None:
    """Do `attack`."""
    asked: Attack = given.build(journal=journal_beside(given.values.get("output")))
    if asked.measured is not None:
        _measure(asked.model, asked.measured, asked.printing, asked.watching)
    elif asked.samples is not None:
        _run("attack", asked.model, asked.samples, asked.printing, asked.watching)


def _measure(model: Path, chosen: ObjectiveOptions, printing: Printing, watching: Watching) -> None:
    from idl_audit.commands.attack_objective import audit_objectives

    check_output(
        printing.output,
        force=printing.force,
        read=(model, chosen.data.path, chosen.sigma),
        written=(chosen.save, watching.metrics),
    )
    with watched("attack", quiet=printing.quiet, asked=watching) as watch:
        report = audit_objectives(model, chosen, watch=watch)
    deliver(report, printing)
    leave(report)


def _run(name: str, model: Path, chosen: RobustnessOptions, printing: Printing, watching: Watching) -> None:
    read = (model, chosen.data.path, chosen.data.labels, chosen.sigma)
    check_output(printing.output, force=printing.force, read=read, written=(chosen.save, watching.metrics))
    with watched(name, quiet=printing.quiet, asked=watching) as watch:
        report = audit_robustness(name, model, chosen, watch=watch, tell=telling(quiet=printing.quiet, asked=watching))
    deliver_and_leave(report, printing, chosen.journal)
