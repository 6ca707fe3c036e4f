"""Whether two reports can be compared, and which samples fare worse in the later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from idl_audit.errors import DataError
from idl_audit.report.schema import Report, SampleReport, SampleResult, ThreatModel, Verdict
from idl_audit.report.wording import plain

RANK = {Verdict.CLEAN_WRONG: 0, Verdict.FALSIFIED: 1, Verdict.UNKNOWN: 2, Verdict.CERTIFIED: 3}
"""The higher, the better for the network."""


@dataclass(frozen=True)
class Change:
    """A sample with another verdict than before."""

    index: int
    eps: float
    before: Verdict
    after: Verdict

    @property
    def is_worse(self) -> bool:
        """Whether the network fares worse on it."""
        return RANK[self.after] < RANK[self.before]


def check_comparable(report: Report, earlier: Report, name: str, *, same_radii: bool) -> None:
    """Refuse to compare reports on other data, or under another threat model; the models may differ.

    Raises:
        DataError: with what differs.
    """
    problem = next(_differences(report, earlier, same_radii=same_radii), None)
    if problem is not None:
        raise DataError(f"{name} cannot be compared with: {problem}; audit the same samples in the same way")


def _differences(report: Report, earlier: Report, *, same_radii: bool) -> Iterator[str]:
    new, old = report.data, earlier.data
    if (new is None) != (old is None):
        yield "only one of the two reports speaks of samples"
    elif new is not None and old is not None:
        if new.sha256 != old.sha256:
            yield f"it was made with other data ({plain(old.source)}, sha256 {old.sha256[:12]}, not {new.sha256[:12]})"
        if sorted(new.indices) != sorted(old.indices):
            yield f"it was made with other samples of the file ({old.n}, not {new.n} of the same positions)"
        labels = {sample.index: sample.label for sample in earlier.samples}
        for sample in report.samples:
            if labels.get(sample.index, sample.label) != sample.label:
                yield f"it was made with other labels (sample {sample.index})"
    yield from _other_threat(report.threat_model, earlier.threat_model, same_radii=same_radii)


def _other_threat(new: ThreatModel | None, old: ThreatModel | None, *, same_radii: bool) -> Iterator[str]:
    if new is None or old is None:
        if new is not old:
            yield "only one of the two reports has a threat model"
        return
    for name in ("set", "norm", "k", "sigma", "target", "clip"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            yield f"it has another threat model ({name} {plain(before)}, not {plain(now)})"
    before_eps, now_eps = ({point.value for point in threat.eps} for threat in (old, new))
    if same_radii and before_eps != now_eps:
        texts = [", ".join(plain(point.text) for point in threat.eps) for threat in (old, new)]
        yield f"it has another threat model (eps {texts[0]}, not {texts[1]})"
    if not before_eps & now_eps:
        yield "the two reports have no radius in common"


def changes(report: Report, earlier: Report) -> Iterator[Change]:
    """Yield the samples and radii, of those in both reports, whose verdicts differ."""
    before = {(sample.index, result.eps): result.verdict for sample, result in _results(earlier)}
    for sample, result in _results(report):
        verdict = before.get((sample.index, result.eps), result.verdict)
        if verdict is not result.verdict:
            yield Change(sample.index, result.eps, verdict, result.verdict)


def _results(report: Report) -> Iterator[tuple[SampleReport, SampleResult]]:
    for sample in report.samples:
        for result in sample.results:
            yield sample, result
