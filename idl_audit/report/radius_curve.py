"""Shares of samples over eps, out of the largest certified and the smallest falsified radius of each.

At each radius: the samples that are certified there, since they are at a larger one, and those for which no attack is
known there, since the smallest one lies beyond. Nothing is interpolated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from idl_audit.report.schema import Report, SampleReport, Verdict

STEPS: Final = 20
"""Radii of a curve, evenly spaced up to the greatest."""


@dataclass(frozen=True)
class RadiusPoint:
    """What is known at one radius, as shares of all samples."""

    eps: float
    certified: float
    attacked: float
    """Samples that no attack has toppled."""


def radius_curve(report: Report) -> tuple[RadiusPoint, ...]:
    """Return the curve of a search for the largest radii; empty where there was none."""
    samples = [sample for sample in report.samples if sample.largest is not None]
    if not samples or report.threat_model is None:
        return ()
    greatest = max(point.value for point in report.threat_model.eps)
    radii = [greatest * step / STEPS for step in range(1, STEPS + 1)]
    n = len(samples)
    return tuple(
        RadiusPoint(
            eps,
            sum(_certified(sample) >= eps for sample in samples) / n,
            sum(_falsified(sample) > eps for sample in samples) / n,
        )
        for eps in radii
    )


def _certified(sample: SampleReport) -> float:
    return 0.0 if sample.largest is None or sample.largest.certified is None else sample.largest.certified


def _falsified(sample: SampleReport) -> float:
    """Return the smallest radius with an attack: 0 where the sample itself is wrong, infinite where none is known."""
    if any(result.verdict is Verdict.CLEAN_WRONG for result in sample.results):
        return 0.0
    return math.inf if sample.largest is None or sample.largest.falsified is None else sample.largest.falsified
