"""Verdicts by the class of the samples, and which class becomes which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from idl_audit.report.schema import Report, SampleReport, SampleResult, Verdict

MOST_RADII = 3
"""More are told of by the least, one in the middle, and the greatest."""
MOST_CLASSES = 3
"""That samples become, named for each class."""


@dataclass(frozen=True)
class ClassCounts:
    """The samples of one class at one radius."""

    label: int
    counts: Counter[Verdict]
    becomes: Counter[int]
    """The classes that the network gives what attacks found, and samples that it misclassifies to begin with."""

    @property
    def n(self) -> int:
        """How many samples there are."""
        return self.counts.total()

    @property
    def mostly(self) -> str:
        """The classes that samples become most often: `7 (3 times), 2`."""
        named = [f"{label} ({count} times)" if count > 1 else str(label) for label, count in self.becomes.most_common()]
        return ", ".join(named[:MOST_CLASSES]) + (", ..." if len(named) > MOST_CLASSES else "")


def by_class(report: Report, eps: float) -> list[ClassCounts]:
    """Return the counts of each class at a radius, the class with the smallest share of certified samples first."""
    of_class: dict[int, list[tuple[SampleReport, SampleResult]]] = {}
    for sample in report.samples:
        for result in sample.results:
            if result.eps == eps and sample.label is not None:
                of_class.setdefault(sample.label, []).append((sample, result))
    found = [_counted(label, entries) for label, entries in of_class.items()]
    return sorted(found, key=lambda one: (one.counts[Verdict.CERTIFIED] / one.n, one.label))


def _counted(label: int, entries: Sequence[tuple[SampleReport, SampleResult]]) -> ClassCounts:
    becomes: Counter[int] = Counter()
    for sample, result in entries:
        if result.verdict is Verdict.CLEAN_WRONG and sample.predicted is not None:
            becomes[sample.predicted] += 1
        elif result.adversarial is not None and result.adversarial.class_ is not None:
            becomes[result.adversarial.class_] += 1
    return ClassCounts(label, Counter(result.verdict for _, result in entries), becomes)


def told_radii(report: Report) -> list[float]:
    """Return the radii that classes are told of, in rising order; none where there are not several classes."""
    radii = sorted({result.eps for sample in report.samples for result in sample.results})
    if len({sample.label for sample in report.samples if sample.results and sample.label is not None}) < 2:
        return []
    return radii if len(radii) <= MOST_RADII else [radii[0], radii[len(radii) // 2], radii[-1]]
