"""Which sample comes first: the one that an attack needs least for, that is closest to it, or that moves farthest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from idl_audit.report.schema import ComparedSample, ObjectiveReport, SampleReport, SampleResult, Verdict

WORST_FIRST: Final = (Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.CLEAN_WRONG, Verdict.CERTIFIED)
"""Verdicts in the order in which they are told."""

_AGREEMENT: Final = ("falsified", "unknown", "certified", None)


def worst_first(samples: Iterable[SampleReport]) -> list[SampleReport]:
    """Return the samples that have a verdict, worst first.

    At one radius: by verdict, then by margin. At several: by the smallest radius with an attack, then by the largest
    with a proof, and what is wrong without any change after those.
    """
    tried = [sample for sample in samples if sample.results]
    if has_radii(tried):
        return sorted(tried, key=_frailty)
    return sorted(tried, key=lambda sample: _badness(sample.results[0]))


def has_radii(samples: Iterable[SampleReport]) -> bool:
    """Return whether several radii were tried around a sample."""
    return any(len(sample.results) > 1 or sample.largest is not None for sample in samples)


def deciding_margin(result: SampleResult) -> float | None:
    """Return what the verdict rests on: the margin at the adversarial input, else the proved bound."""
    return result.adversarial.margin if result.adversarial is not None else result.lower_bound


def largest_certified(sample: SampleReport) -> float | None:
    """Return the largest radius with a proof."""
    if sample.largest is not None:
        return sample.largest.certified
    return max((result.eps for result in sample.results if result.verdict is Verdict.CERTIFIED), default=None)


def smallest_falsified(sample: SampleReport) -> float | None:
    """Return the smallest radius with an attack."""
    if sample.largest is not None:
        return sample.largest.falsified
    return min((result.eps for result in sample.results if result.verdict is Verdict.FALSIFIED), default=None)


def farthest_first(entries: Iterable[ObjectiveReport]) -> list[ObjectiveReport]:
    """Return the objectives, those that moved farthest first, those without a value last."""
    return sorted(entries, key=_nearness)


def most_apart_first(samples: Iterable[ComparedSample]) -> list[ComparedSample]:
    """Return the samples of two networks, those with two classes first, then the undecided, farthest apart first."""
    return sorted(samples, key=_apartness)


def _apartness(sample: ComparedSample) -> tuple[int, float]:
    ranks = [_AGREEMENT.index(result.agree) for result in sample.results]
    seen = [result.difference_found or 0.0 for result in sample.results]
    return min(ranks, default=len(_AGREEMENT)), -max(seen, default=0.0)


def _nearness(entry: ObjectiveReport) -> float:
    if entry.reached is None:
        return math.inf
    return -entry.reached if entry.sense == "largest" else entry.reached


def _badness(result: SampleResult) -> tuple[int, float]:
    margin = deciding_margin(result)
    return WORST_FIRST.index(result.verdict), -math.inf if margin is None else margin


def _frailty(sample: SampleReport) -> tuple[float, float]:
    wrong = any(result.verdict is Verdict.CLEAN_WRONG for result in sample.results)
    broken, proved = smallest_falsified(sample), largest_certified(sample)
    return math.inf if broken is None else broken, math.inf if wrong else proved or 0.0
