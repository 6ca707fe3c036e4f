"""What changed from one report to the next, and whether the network got worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from idl_audit.gate.comparison import Change, changes, check_comparable
from idl_audit.gate.fingerprints import notes, same_matrix
from idl_audit.report.schema import EpsSummary, Report
from idl_audit.report.wording import eps_text
from idl_audit.values.errors import DataError


@dataclass(frozen=True)
class Difference:
    """Two reports on the same samples.

    clean: (k, n) of the clean accuracy before and after.
    counts: eps as it is written, with the counts before and after, for the radii of both reports.
    norms: ||S||_inf before and after, where both reports have it for the same inputs.
    changed: samples with another verdict.
    regressions: sentences on what got worse; none where nothing did.
    notes: sentences on what else differs, such as another network.
    """

    clean: tuple[tuple[int, int], tuple[int, int]] | None
    counts: tuple[tuple[str, EpsSummary, EpsSummary], ...]
    norms: tuple[float, float] | None
    changed: tuple[Change, ...]
    regressions: tuple[str, ...]
    notes: tuple[str, ...] = ()


def compare(old: Report, new: Report, old_path: Path) -> Difference:
    """Return what changed from the report `old` to the report `new`.

    A regression is: a sample with a worse verdict (certified > unknown > falsified > clean_wrong), a lower clean
    accuracy, or a report that is incomplete, whatever the earlier one was: what was not looked at is no better. A
    larger norm of S is told, but bounds are no verdicts.

    Raises:
        DataError: where the reports are on other data or under another threat model, or have nothing in common.
    """
    check_comparable(new, old, str(old_path), same_radii=False)
    clean, counts, norms = _clean(old, new), _counts(old, new), _norms(old, new)
    if clean is None and not counts and norms is None:
        raise DataError(f"{old_path} cannot be compared with: the two reports have no measurement in common")
    changed = tuple(changes(new, old))
    return Difference(clean, counts, norms, changed, tuple(_regressions(new, clean, changed)), tuple(notes(new, old)))


def _clean(old: Report, new: Report) -> tuple[tuple[int, int], tuple[int, int]] | None:
    before, after = ((report.summary.clean if report.summary else None) for report in (old, new))
    return None if before is None or after is None else ((before.k, before.n), (after.k, after.n))


def _counts(old: Report, new: Report) -> tuple[tuple[str, EpsSummary, EpsSummary], ...]:
    before = {entry.eps: entry for entry in (old.summary.per_eps if old.summary else ())}
    after = new.summary.per_eps if new.summary else ()
    return tuple((eps_text(new, entry.eps), before[entry.eps], entry) for entry in after if entry.eps in before)


def _norms(old: Report, new: Report) -> tuple[float, float] | None:
    before, after = old.sensitivity, new.sensitivity
    if before is None or after is None or not same_matrix(new, old):
        return None
    if before.norm_inf is None or after.norm_inf is None:
        return None
    return before.norm_inf, after.norm_inf


def _regressions(
    new: Report,
    clean: tuple[tuple[int, int], tuple[int, int]] | None,
    changed: tuple[Change, ...],
) -> Iterator[str]:
    if new.status != "complete":
        yield "the new report is incomplete"
    if clean is not None:
        (k, n), (later_k, later_n) = clean
        if later_k * n < k * later_n:
            yield f"clean accuracy went from {k} of {n} to {later_k} of {later_n}"
    worse = sum(change.is_worse for change in changed)
    if worse:
        yield f"{worse} {'verdict is' if worse == 1 else 'verdicts are'} worse than before"
