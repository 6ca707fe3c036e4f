"""Verdicts by group, of the samples' class or of a column of the data, and which class becomes which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from idl_audit.report.schema import Report, SampleReport, SampleResult, Verdict
from idl_audit.values.columns import CLASS

MOST_RADII = 3
"""More are told of by the least, one in the middle, and the greatest."""
MOST_CLASSES = 3
"""That samples become, named for each group."""


@dataclass(frozen=True)
class GroupCounts:
    """The samples of one group at one radius."""

    value: str
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


def group_of(sample: SampleReport, column: str) -> str | None:
    """Return the group of a sample: its class, or what a column of the data says of it; None where neither does."""
    if column == CLASS:
        return None if sample.label is None else str(sample.label)
    return sample.groups.get(column)


def groupings(report: Report) -> list[str]:
    """Return what samples are told apart by: columns, whatever is in them, and classes where there are several."""
    columns = list(dict.fromkeys(name for sample in report.samples for name in sample.groups))
    classes = {sample.label for sample in report.samples if sample.results and sample.label is not None}
    return [*columns, *([CLASS] if len(classes) > 1 else [])]


def by_group(report: Report, column: str, eps: float) -> list[GroupCounts]:
    """Return the counts of each group at a radius, the group with the smallest share of certified samples first."""
    found: dict[str, list[tuple[SampleReport, SampleResult]]] = {}
    for sample in report.samples:
        group = group_of(sample, column)
        for result in sample.results:
            if result.eps == eps and group is not None:
                found.setdefault(group, []).append((sample, result))
    counted = [_counted(value, entries) for value, entries in found.items()]
    return sorted(counted, key=lambda one: (one.counts[Verdict.CERTIFIED] / one.n, in_order(one.value)))


def in_order(value: str) -> tuple[int, int, str]:
    """Return a key that sorts whole numbers as numbers, before words."""
    return (0, int(value), "") if value.isascii() and value.isdecimal() and len(value) < 20 else (1, 0, value)


def _counted(value: str, entries: Sequence[tuple[SampleReport, SampleResult]]) -> GroupCounts:
    becomes = Counter(after for sample, result in entries if (after := becomes_class(sample, result)) is not None)
    return GroupCounts(value, Counter(result.verdict for _, result in entries), becomes)


def becomes_class(sample: SampleReport, result: SampleResult) -> int | None:
    """Return the class that a sample gets by an attack, or has without one where that is wrong."""
    if result.verdict is Verdict.CLEAN_WRONG:
        return sample.predicted
    return None if result.adversarial is None else result.adversarial.class_


def confusion(report: Report, eps: float) -> Mapping[tuple[int, int], int]:
    """Return how many samples of a class an attack at a radius gives which class: (label, class) -> samples."""
    return Counter(
        (sample.label, result.adversarial.class_)
        for sample in report.samples
        for result in sample.results
        if result.eps == eps
        and sample.label is not None
        and result.adversarial is not None
        and result.adversarial.class_ is not None
    )


def told_radii(report: Report) -> list[float]:
    """Return the radii that groups are told of, in rising order."""
    radii = sorted({result.eps for sample in report.samples for result in sample.results})
    return radii if len(radii) <= MOST_RADII else [radii[0], radii[len(radii) // 2], radii[-1]]
