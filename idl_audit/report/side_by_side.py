"""Several reports side by side: of several models, of several data sets, or of one model over time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

from idl_audit.report.schema import EpsSummary, Report
from idl_audit.report.wording import figure, percent

INDEX: Final = "idl_audit_index"
"""The word that an index begins with; its value is the version of its form."""
VERSION: Final = 1


@dataclass(frozen=True)
class Entry:
    """One of several audits: its report, or why there is none."""

    name: str
    file: Path
    """Where the report is."""
    report: Report | None
    problem: str = ""

    @property
    def status(self) -> str:
        """Return complete, incomplete, refused (with a problem), or not run."""
        if self.report is not None:
            return self.report.status
        return "refused" if self.problem else "not run"

    def at(self, eps: float) -> EpsSummary | None:
        """Return the counts at a radius."""
        found = self.report.summary.per_eps if self.report is not None and self.report.summary is not None else ()
        return next((entry for entry in found if entry.eps == eps), None)

    @property
    def clean(self) -> tuple[int, int] | None:
        """Return (right, in all) of the samples as they are."""
        if self.report is None or self.report.summary is None or self.report.summary.clean is None:
            return None
        return self.report.summary.clean.k, self.report.summary.clean.n


@dataclass(frozen=True)
class SideBySide:
    """Entries, and the radii that any of them speaks of: as they are written, with their values, ascending."""

    entries: tuple[Entry, ...]
    radii: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> SideBySide:
        """Return reports side by side."""
        radii: dict[float, str] = {}
        for entry in entries:
            if entry.report is not None and entry.report.threat_model is not None:
                for one in entry.report.threat_model.eps:
                    if entry.at(one.value) is not None:
                        radii.setdefault(one.value, one.text)
        return cls(tuple(entries), tuple((radii[value], value) for value in sorted(radii)))

    def notes(self) -> Iterator[str]:
        """Yield what makes figures of several entries differ beside the models."""
        reports = [entry.report for entry in self.entries if entry.report is not None]
        data = {None if report.data is None else report.data.numbers_sha256 or report.data.sha256 for report in reports}
        if len(data) > 1:
            yield "The samples are not the same in all of them."
        if len({threat_text(report) for report in reports if report.threat_model is not None}) > 1:
            yield "They ask about different perturbations: equal radii do not mean equal sets."
        if len({report.tool.version for report in reports}) > 1:
            yield "Several versions of idl-audit wrote them."

    def sentence(self) -> str:
        """Return what there is, in one sentence."""
        n, done = len(self.entries), sum(entry.status == "complete" for entry in self.entries)
        failed = [entry.name for entry in self.entries if entry.report is not None and gate_text(entry) == "failed"]
        gates = f"; the gate failed for {', '.join(failed)}" if failed else ""
        if done == n:
            return f"{n} audits are complete{gates}."
        left = [f"{entry.name} ({entry.status})" for entry in self.entries if entry.status != "complete"]
        return f"{done} of {n} audits are complete, without {', '.join(left)}{gates}."


def threat_text(report: Report) -> str:
    """Return what an input may become, in a few words."""
    threat = report.threat_model
    if threat is None:
        return "-"
    if threat.perturbation is not None:
        return threat.perturbation
    kind = f"at most {threat.k} inputs" if threat.set == "card" else threat.norm
    return kind if threat.arithmetic == "real" else f"{kind}, {threat.arithmetic}"


def gate_text(entry: Entry) -> str:
    """Return how its rules did; - where there are none."""
    if entry.report is None or entry.report.gate is None:
        return "-"
    return "passed" if entry.report.gate.passed else "failed"


def share_text(counts: tuple[int, int] | None) -> str:
    """Return k of n as a share; - where there are none."""
    return "-" if counts is None or not counts[1] else percent(*counts)


def certified(entry: Entry, eps: float) -> tuple[int, int] | None:
    """Return (certified, in all) at a radius."""
    found = entry.at(eps)
    return None if found is None else (found.certified, found.n)


def seconds_text(entry: Entry) -> str:
    """Return the wall time of an audit."""
    if entry.report is None or entry.report.timing is None:
        return "-"
    return f"{figure(entry.report.timing.total)} s"


def file_name(path: str | None) -> str:
    """Return the last part of a path; - where there is none."""
    return "-" if path is None else PurePath(path).name


def index_of(found: SideBySide, place: Path) -> dict[str, Any]:
    """Return the index as a JSON object; names of reports start at its folder."""
    return {
        INDEX: VERSION,
        "status": "complete" if all(entry.status == "complete" for entry in found.entries) else "incomplete",
        "notes": list(found.notes()),
        "audits": [_audit(entry, place.absolute().parent) for entry in found.entries],
    }


def _audit(entry: Entry, folder: Path) -> dict[str, Any]:
    report = entry.report
    told: dict[str, Any] = {"name": entry.name, "status": entry.status}
    if report is None:
        return {**told, "report": None, "problem": entry.problem or None}
    model, data, summary = report.model, report.data, report.summary
    return {
        **told,
        "report": Path(os.path.relpath(entry.file.absolute(), folder)).as_posix(),
        "problem": entry.problem or None,
        "created": report.created.isoformat(),
        "model": None
        if model is None
        else {"path": model.path, "sha256": model.sha256, "parameters": model.n_parameters},
        "states": None if report.conversion is None else report.conversion.n_states,
        "data": None if data is None else {"source": data.source, "sha256": data.sha256, "n": data.n},
        "threat": threat_text(report),
        "clean": None if entry.clean is None else dict(zip(("k", "n"), entry.clean, strict=True)),
        "per_eps": [] if summary is None else [one.model_dump(mode="json") for one in summary.per_eps],
        "norm_inf": None if report.sensitivity is None else report.sensitivity.norm_inf,
        "gate": None if report.gate is None else report.gate.passed,
        "seconds": None if report.timing is None else report.timing.total,
    }
