"""run: sensitivity, bounds and verdicts of one model on the same samples, statements over whole ranges: one report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idl_audit.commands.bounds import audit_bounds
from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.certify_everywhere import audit_everywhere
from idl_audit.commands.options.common import STEPS
from idl_audit.commands.options.everywhere import EverywhereOptions
from idl_audit.commands.options.measures import BoundsOptions, SensitivityOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.sensitivity import audit_sensitivity
from idl_audit.commands.shared.preflight import Teller, tell_nobody
from idl_audit.commands.shared.progress import Watcher
from idl_audit.report.joining import differing, joined
from idl_audit.report.schema import Diagnostic, Report
from idl_audit.values.errors import IncompleteError, OptionError, UnsupportedModelError

Bar = Callable[[str], AbstractContextManager[Watcher]]
"""Shows the progress of the step that is named."""


@dataclass(frozen=True)
class RunOptions:
    """What run does; what is None is left out."""

    sensitivity: SensitivityOptions | None = None
    bounds: BoundsOptions | None = None
    everywhere: EverywhereOptions | None = None
    robustness: RobustnessOptions | None = None
    verdicts: Literal["certify", "attack"] = "certify"

    def __post_init__(self) -> None:
        if self.bounds is None or self.robustness is None:
            return
        bounds, verdicts = self.bounds, self.robustness
        ours = (bounds.sparse, bounds.sigma, bounds.eps, bounds.arithmetic)
        if (
            verdicts.is_perturbed
            or verdicts.norm != "linf"
            or ours
            != (
                verdicts.sparse,
                verdicts.sigma,
                verdicts.eps,
                verdicts.verdicts.arithmetic,
            )
        ):
            raise OptionError(
                "one report has one threat model: give [bounds] the same sparse, sigma and arithmetic as the verdicts "
                "have, which must then be none of norm, perturb and directions, or leave bounds out of the steps"
            )


def audit_all(path: Path, options: RunOptions, *, bar: Bar, tell: Teller = tell_nobody) -> Report:
    """Do every step and return one report; a step that is interrupted is the last, and the report incomplete.

    Verdicts come last: they are what can be resumed after the process was killed.

    Raises:
        InvalidInputError: where a step refuses its input.
        IncompleteError: where model or data changed between two steps.
    """
    reports: list[Report] = []
    told: set[tuple[str, str]] = set()

    def tell_once(found: Diagnostic) -> None:
        if (found.code, found.message) not in told:  # every step looks at the samples
            told.add((found.code, found.message))
            tell(found)

    left_out: list[UnsupportedModelError] = []
    for name, step in _steps(path, options, tell_once):
        try:
            with bar(name) as watch:
                reports.append(step(watch))
        except UnsupportedModelError as error:
            if error.code != "IDL306":
                raise
            left_out.append(error)  # a network that jumps has no S; verdicts and bounds it has
            continue
        if reports[-1].status == "incomplete":
            break
    if left_out and not reports:
        raise left_out[0]
    if not reports:
        raise OptionError(f"there is nothing to do: steps names none of {', '.join(STEPS)}")
    return combined(reports, [Diagnostic(code="IDL306", level="warning", message=str(error)) for error in left_out])


def _steps(path: Path, options: RunOptions, tell: Teller) -> Iterator[tuple[str, Callable[[Watcher], Report]]]:
    sensitivity, bounds, everywhere = options.sensitivity, options.bounds, options.everywhere
    robustness = options.robustness
    if sensitivity is not None:
        yield "sensitivity", lambda watch: audit_sensitivity(path, sensitivity, watch=watch, tell=tell)
    if bounds is not None:
        yield "bounds", lambda watch: audit_bounds(path, bounds, watch=watch, tell=tell)
    if everywhere is not None:
        yield "everywhere", lambda watch: audit_everywhere(path, everywhere, watch=watch)
    if robustness is not None:
        yield (
            options.verdicts,
            lambda watch: audit_robustness(options.verdicts, path, robustness, watch=watch, tell=tell),
        )


def combined(reports: Sequence[Report], noted: Sequence[Diagnostic] = ()) -> Report:
    """Return one report with the sections of all; what they share is taken from the last that has it.

    Raises:
        IncompleteError: where model or data changed between two steps.
    """
    other = differing(reports)
    if other is not None:
        raise IncompleteError(f"the {other} file was changed while it was audited; run it again")
    return joined("run", reports, noted)
