"""Several reports of one model as one: what `run` writes of its steps, and `report` shows on one page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from idl_audit.report.schema import Diagnostic, Report, Timing
from idl_audit.report.wording import plain
from idl_audit.values.errors import OptionError

SHARED: Final = frozenset(
    {
        *("schema_version", "tool", "command", "command_line", "created", "status", "why_incomplete", "environment"),
        *("model", "conversion", "data", "threat_model", "diagnostics", "artifacts", "timing"),
    }
)
"""Sections that several reports may fill; each other one belongs to one of them."""
THREATS: Final = frozenset({"summary", "samples", "bounds", "objectives"})
"""Sections that are about a set of inputs."""


def joined(command: str, reports: Sequence[Report], noted: Sequence[Diagnostic] = ()) -> Report:
    """Return one report with the sections of all; what they share is taken from the last that has it."""
    found = [*noted, *(entry for report in reports for entry in report.diagnostics)]
    diagnostics = {(entry.code, entry.message): entry for entry in found}
    sections: dict[str, Any] = {name: _latest(reports, name) for name in Report.model_fields}
    sections |= {
        "command": command,
        "status": "complete" if all(report.status == "complete" for report in reports) else "incomplete",
        "why_incomplete": next((report.why_incomplete for report in reversed(reports) if report.why_incomplete), None),
        "diagnostics": tuple(diagnostics.values()),
        "artifacts": tuple(dict.fromkeys(name for report in reports for name in report.artifacts)),
        "timing": _timing(reports),
    }
    return Report(**sections)


def one_page(reports: Sequence[Report], names: Sequence[object]) -> Report:
    """Return what several files say of one model as one report; one file alone as it is.

    Args:
        reports: what was read.
        names: the files, for messages.

    Raises:
        OptionError: where they are of several models, samples or sets, or two speak of the same.
    """
    if len(reports) == 1:
        return reports[0]
    told = " and ".join((", ".join(map(plain, names[:-1])), plain(names[-1])))
    other = differing(reports)
    if other is not None:
        raise OptionError(f"{told} are reports of several {_PLURALS[other]}; one page is about one")
    for name in sorted(set(Report.model_fields) - SHARED):
        if sum(bool(getattr(report, name)) for report in reports) > 1:
            raise OptionError(f"two of {told} have {name}; leave one of them out, or compare them with `diff`")
    sets = {
        report.threat_model.model_dump_json()
        for report in reports
        if report.threat_model is not None and any(getattr(report, name) for name in THREATS)
    }
    if len(sets) > 1:
        raise OptionError(f"{told} are about several sets of inputs (eps, bounds, sparse ...); one page is about one")
    made = joined("report", reports)
    threats = [one.threat_model for one in reports if any(getattr(one, name) for name in THREATS)]
    return made.model_copy(update={"threat_model": threats[0]}) if threats else made


_PLURALS: Final = {"model": "models", "data": "sets of samples", "sigma": "radii"}


def differing(reports: Sequence[Report]) -> str | None:
    """Return what two reports have other files of: model, data or sigma; None where all are of the same."""
    known: dict[str, str | None] = {}
    for report in reports:
        for what, sha256 in _hashes(report).items():
            if known.setdefault(what, sha256) != sha256:
                return what
    return None


def _latest(reports: Sequence[Report], name: str) -> Any:
    """Return a section from the last report that filled it."""
    return next((value for report in reversed(reports) if (value := getattr(report, name))), getattr(reports[-1], name))


def _hashes(report: Report) -> dict[str, str | None]:
    """Return what the sections of one report must have in common, of what this one speaks of."""
    found: dict[str, str | None] = {}
    if report.model is not None:
        found["model"] = report.model.sha256
    if report.data is not None:
        found["data"] = report.data.sha256
    if report.threat_model is not None and report.threat_model.sigma is not None:
        found["sigma"] = report.threat_model.sigma_sha256
    return found


def _timing(reports: Sequence[Report]) -> Timing:
    timed = [(report.command, report.timing) for report in reports if report.timing is not None]
    steps = {f"{command}: {name}": seconds for command, timing in timed for name, seconds in timing.steps.items()}
    return Timing(total=sum(timing.total for _, timing in timed), steps=steps)
