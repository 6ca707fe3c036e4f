"""The largest radius that is certified around a sample, and the smallest that is falsified, by bisection.

Sets of one shape are nested: what is certified at a radius is so at every smaller one, what is falsified at every
larger one. Only radii that were decided are told; nothing is interpolated.

Elsewhere: certified radius, robustness radius, minimal adversarial perturbation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from idl_audit.decide.ladder import Result
from idl_audit.values.verdicts import Verdict

NEAR: Final = 0.01
"""Two radii this near to each other, as a share of the larger one, are not told apart."""
LEAST: Final = 1e-4
"""No radius below this share of the greatest one is tried."""


@dataclass(eq=False)
class Search:
    """What is known of one sample between 0 and the greatest radius."""

    decide: Callable[[float], Result]
    """The verdict at a radius."""
    reach: Callable[[float, Result], float]
    """(a radius, what is falsified there) -> the radius at which the point that was found already is in the set."""
    greatest: float
    certified: float | None = None
    """The largest radius that is certified; None where none is."""
    falsified: float | None = None
    """The smallest that is falsified."""
    proof: Result | None = None
    """What certifies the largest."""
    nearest: Result | None = None
    """What falsifies the smallest."""
    tried: int = 0
    whole: bool = False
    """Whether inputs move by whole numbers, so that no other radius is another set."""
    _unknown: list[float] = field(default_factory=list)

    def know(self, radius: float, result: Result) -> None:
        """Take the verdict at a radius."""
        self.tried += 1
        if result.verdict is Verdict.CERTIFIED and not radius <= (self.certified or 0.0):
            self.certified, self.proof = radius, result
        elif result.verdict is Verdict.FALSIFIED:
            found = min(radius, self.reach(radius, result))
            found = max(math.floor(found), 1.0) if self.whole and radius >= 1 else found
            if self.falsified is None or found < self.falsified:
                self.falsified, self.nearest = found, result
        elif result.verdict is Verdict.UNKNOWN:
            self._unknown.append(radius)
        self._unknown = [r for r in self._unknown if r > (self.certified or 0.0)]

    def run(self, at_greatest: Result) -> None:
        """Bisect below the greatest radius, whose verdict is known: certified from below, then falsified from above."""
        self.know(self.greatest, at_greatest)
        if at_greatest.verdict in (Verdict.CERTIFIED, Verdict.CLEAN_WRONG):
            return
        while (middle := self._between(self.certified or 0.0, self._ceiling)) is not None:
            self.know(middle, self.decide(middle))
        while self.falsified is not None and (middle := self._between(self._floor, self.falsified)) is not None:
            self.know(middle, self.decide(middle))

    @property
    def _ceiling(self) -> float:
        """The least radius above the certified ones that is known not to be."""
        return min(self._unknown + ([] if self.falsified is None else [self.falsified]))

    @property
    def _floor(self) -> float:
        """The largest radius below the falsified ones that is known not to be: certified, or undecided."""
        below = [r for r in self._unknown if self.falsified is None or r < self.falsified]
        return max([self.certified or 0.0, *below])

    def _between(self, low: float, high: float) -> float | None:
        """Return the middle of two radii; None where they are too near to each other."""
        if self.whole:
            first, last = math.floor(low), math.floor(high)
            return (first + last) // 2 if last - first > 1 else None
        if not high - low > max(NEAR * high, LEAST * self.greatest):
            return None
        return (low + high) / 2
