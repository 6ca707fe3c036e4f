"""What can be asked about a network without an implicit form, and what a report says of it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from idl_audit.commands.options.common import USUAL_ATTACKS
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.no_form import NoForm
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.decide.opaque import ATTACKS
from idl_audit.report.schema import Diagnostic
from idl_audit.values.errors import InvalidInputError, UnsupportedModelError

_LISTED: Final = ", ".join(ATTACKS[:-1]) + f" and {ATTACKS[-1]}"
MOST_TOLD: Final = 3
"""Parts without an implicit form that one sentence names; the report's `model.unsupported` has all."""


def attacked_alone(form: NoForm, options: RobustnessOptions) -> RobustnessOptions:
    """Return the options for a network without an implicit form, whose methods are attacks that need the network alone.

    Raises:
        UnsupportedModelError: with what the network lacks, where something is asked that needs its implicit form.
    """
    needs = {
        "--certificates": options.certificates is not None,
        "--features": options.features is not None,
        "--largest and --minimal": options.largest or options.is_minimal,
        "--perturb and --directions": options.is_perturbed,
        "--task, --top and limits": options.demanded.beside_class,
        "--arithmetic": options.verdicts.arithmetic != "real",
        "--scheduler": options.scheduler is not None,
    }
    asked = [name for name, there in needs.items() if there]
    if asked:
        raise UnsupportedModelError([*form.problems, f"without an implicit form, nothing can be asked with {asked[0]}"])
    methods = options.verdicts.methods
    if methods == USUAL_ATTACKS:  # lp, one of them, is left out
        methods = None
    if methods is not None:
        others = [name for name in methods if name not in ATTACKS]
        if others:
            why = f"the method {others[0]} needs an implicit form, and {_LISTED} do without; name these with --method"
            raise UnsupportedModelError([*form.problems, why])
    return replace(options, verdicts=replace(options.verdicts, methods=methods or ATTACKS))


def opened_for(path: Path, options: RobustnessOptions) -> Subject:
    """Return the subject; where it is refused and might be attacked, the refusal says so.

    Raises as `open_subject` does.
    """
    whole, may_lack = options.demanded.of_values, options.may_lack_form
    try:
        return open_subject(path, options.model, whole=whole, may_lack_form=may_lack)
    except UnsupportedModelError as error:
        if may_lack:
            raise
        problems = [*error.problems]
        with suppress(InvalidInputError):  # it cannot be run either
            open_subject(path, options.model, whole=whole, may_lack_form=True)
            problems.append(ATTACKABLE)
        raise UnsupportedModelError(problems, code=error.code) from error


ATTACKABLE: Final = (
    "attack, and certify with --best-effort, can look for inputs that the network misclassifies all the same"
)


def told_no_form(form: NoForm, judge: str) -> Diagnostic:
    """Return what a report says first of such a network."""
    named = "; ".join(form.problems[:MOST_TOLD])
    more = len(form.problems) - MOST_TOLD
    named += f"; and {more} more" if more > 0 else ""
    return Diagnostic(
        code="IDL225",
        level="warning",
        message=f"no implicit form ({named}): {_LISTED} ask {judge} alone, as it runs, and nothing can be certified",
        hint="docs/operators.md lists what can be read",
    )
