"""Jumping activations: stairs of a regular grid (rounding, quantisation) and single steps (Sign, comparisons).

The graph is closed: at a threshold both neighbouring values belong to it, whichever of them a rounding rule picks. What
lies over [l, h] are the pieces that meet it, and their ends are taken a hair further: so [t, h] and [l, t] without the
other side's value at t are [the next number above t, h] and [l, the next below], and together they have all of the
graph (`sides`). The convex hull has few vertices, the `corners`, and a linear function of (z, x) is least at one of
them.

No number bounds the slope of a jump, so that S is infinite. Slopes over an interval are finite where no threshold lies
in it; where one does, they are infinite, and nothing multiplies by them (`ImplicitModel.refuse_jumps`).

Elsewhere: quantised network, QDQ, int8, binarised network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, down, gamma, up

LARGEST: Final = 2.0**50
"""Stairs beyond this are not told from each other in float64: nothing is known there."""

STEEPEST: Final = 8.0
"""Lines that the search tries rise by no more than this many heights of the graph in the width of the interval."""


HAIR: Final = 2.0**-900
"""Next to 0, numbers are taken to be so far from each other: they still are when they are scaled."""


def sides(cut: FloatArray, exponent: int | IntArray = 0) -> tuple[FloatArray, FloatArray]:
    """Return the next number below a cut and the next above it, for the two sides that share the graph there.

    What `_further` takes from the one above, and adds to the one below, reaches the cut: numbers next to each other, or
    HAIR and at most half of it again by rounding, against twice as much. With a kept scale z stands for 2^exponent z;
    where that, or the way back, leaves the range of float64, both sides have the cut and what lies there.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        whole = np.ldexp(cut, exponent)
        below, above = np.minimum(down(whole), whole - HAIR), np.maximum(up(whole), whole + HAIR)
        known = np.ldexp(whole, -np.asarray(exponent)) == cut
        back = [np.ldexp(side, -np.asarray(exponent)) for side in (below, above)]
        for end, side in zip((below, above), back, strict=True):
            known &= np.isfinite(end) & (np.ldexp(side, exponent) == end)
    return np.where(known, back[0], cut), np.where(known, back[1], cut)


def _further(lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.minimum(down(lo), lo - 2 * HAIR), np.maximum(up(hi), hi + 2 * HAIR)


class Corner(NamedTuple):
    """A point (z, x) of the closed graph; |x - what is exact| <= error."""

    z: FloatArray
    x: FloatArray
    error: FloatArray | float


class Jumping(Activation):
    """An activation that jumps, told by the corners of its closed graph."""

    positively_homogeneous = False
    piecewise_linear = False

    @abstractmethod
    def corners(self, lo: FloatArray, hi: FloatArray) -> tuple[Corner, ...]:
        """Return points whose convex hull holds the pieces that meet [lo, hi], by rising z."""

    @abstractmethod
    def cut(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return the threshold within [lo, hi] that is next to its middle, where there is one; else any number."""

    @abstractmethod
    def jumped(self, e: FloatArray) -> FloatArray:
        """Return how far phi moves at most where z does by e > 0, whatever z is."""

    @abstractmethod
    def of_states(self, states: IntArray) -> Jumping:
        """Return the activation of some states."""

    @abstractmethod
    def exactly(self, z: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return phi(z), and where that is the exact value."""

    @property
    def lipschitz(self) -> float:
        """No number: infinite."""
        return np.inf

    def spread(self, r: FloatArray) -> FloatArray:
        """Return what r |dz| may become: 0 where r is 0, and anything elsewhere."""
        return np.where(r > 0, np.inf, 0.0)

    def touched(
        self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the point (z, x) of the graph where side (x - k z) is least; used to search, never to prove."""
        first, *others = self.corners(lo, hi)
        z, x = np.asarray(first.z + 0.0 * k), np.asarray(first.x + 0.0 * k)
        least = side * (x - k * z)
        for corner in others:
            value = side * (corner.x - k * corner.z)
            better = value < least
            z, x = np.where(better, corner.z, z), np.where(better, corner.x, x)
            least = np.minimum(value, least)
        return z, x

    def line_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest slope that a line around the graph is worth trying with."""
        corners = self.corners(lo, hi)
        with np.errstate(all="ignore"):
            height = np.max([c.x for c in corners], axis=0) - np.min([c.x for c in corners], axis=0)
            most = STEEPEST * height / np.maximum(hi - lo, TINY)
            slopes = [_slope(a, b) for i, a in enumerate(corners) for b in corners[i + 1 :]]
        found = [np.where(np.isfinite(slope), np.clip(slope, -most, most), 0.0) for slope in slopes]
        return np.min(found, axis=0), np.max(found, axis=0)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slopes of the hull's sides above and below the middle of [lo, hi]."""
        corners, middle = self.corners(lo, hi), lo + 0.5 * (hi - lo)
        least, most = np.full(np.shape(middle), np.inf), np.full(np.shape(middle), -np.inf)
        below, above = np.zeros(np.shape(middle)), np.zeros(np.shape(middle))
        with np.errstate(all="ignore"):
            for i, a in enumerate(corners):
                for b in corners[i + 1 :]:
                    slope = _slope(a, b)
                    height = a.x + slope * (middle - a.z)
                    spans = (a.z <= middle) & (middle <= b.z) & np.isfinite(height)
                    lower, upper = spans & (height < least), spans & (height > most)
                    least, below = np.where(lower, height, least), np.where(lower, slope, below)
                    most, above = np.where(upper, height, most), np.where(upper, slope, above)
        return below, above

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return lines along sides of the hull: the first, the last, and the one at the middle."""
        corners = self.corners(lo, hi)
        middle = self.relaxation_slopes(lo, hi)
        first, last = corners[1], corners[-2]
        with np.errstate(all="ignore"):
            ends = [_slope(corners[0], first), _slope(last, corners[-1])]
        found: tuple[list[Line], list[Line]] = [], []
        for side, lines, own in zip((1.0, -1.0), found, middle, strict=True):
            for slope in (*ends, own):
                k = np.where(np.isfinite(slope), slope, 0.0)
                one = np.full(k.shape, side)
                lines.append((k, side * self.lower_support(one, np.zeros(k.shape), side * k, lo, hi)))
        return found

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least of v x - lam z at the corners, rounded downward; minus infinity where they are too far."""
        least: FloatArray | None = None
        size, reach = np.abs(v), np.abs(v) + v_error
        for corner in self.corners(lo, hi):
            down, along = v * corner.x, lam * corner.z
            doubt = v_error * np.abs(corner.x) * (1 + gamma(6)) + reach * corner.error * (1 + gamma(6))
            value = down - along - (doubt + gamma(6) * (size * np.abs(corner.x) + np.abs(along)) + TINY)
            least = value if least is None else np.minimum(least, value)
        assert least is not None
        known = np.maximum(np.abs(lo), np.abs(hi)) <= LARGEST
        return np.where(known, least, -np.inf)


def _slope(a: Corner, b: Corner) -> FloatArray:
    """Return the slope from one corner to the next; of corners at one place, 0."""
    width = b.z - a.z
    return np.asarray(np.where(width > 0, (b.x - a.x) / np.where(width > 0, width, 1.0), 0.0))


@dataclass(frozen=True)
class Rule:
    """How a grid of whole numbers is laid over the axis: x = k on [k + centre - 1/2, k + centre + 1/2]."""

    centre: float
    round: Callable[[FloatArray], FloatArray]
    """Which of the two neighbours a threshold itself belongs to when the network runs."""


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {"round": Rule(0.0, np.rint), "floor": Rule(0.5, np.floor), "ceil": Rule(-0.5, np.ceil)}
)


@dataclass(frozen=True, eq=False)
class Stairs(Jumping):
    """x = the whole number of z by a rule, kept within [lowest, highest].

    With k the first and m the last piece that meets [l, h] (closed: a threshold belongs to both its neighbours), the
    pieces in between end in (t, j) and (t, j + 1), t = j + centre + 1/2, j = k, ..., m - 1: points on two parallel
    segments, from (t_k, k) to (t_(m-1), m - 1) and from (t_k, k + 1) to (t_(m-1), m). Together with (l, k) and (h, m)
    the ends of these segments are corners of all that lies over [l, h]: six points, however many stairs there are.

    Thresholds are halves or whole numbers, hence exact below `LARGEST`. Rounding in l - 1/2 may take one piece too many
    (whole numbers are float64 numbers, and rounding is monotone), never one too few; a piece that ends before l, or
    begins behind h, is then left out.
    """

    name: str
    lowest: float | FloatArray = -np.inf
    highest: float | FloatArray = np.inf
    reach: float | FloatArray = np.inf
    """Nothing is known of x where |z| is not below this: a type of whole numbers ends there."""

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The bounds that there are."""
        ends = {"lowest": self.lowest, "highest": self.highest, "reach": self.reach}
        return {key: value for key, value in ends.items() if np.isfinite(value).all()}

    @property
    def forbidden(self) -> str:  # type: ignore[override]
        """Where a type of whole numbers ends."""
        return f"reach {np.min(self.reach):.10g} or more in size" if np.isfinite(self.reach).all() else ""

    def inside(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return whether [lo, hi] lies within the reach; NaN does not."""
        return np.asarray((-np.asarray(self.reach) < lo) & (hi < self.reach) | np.isposinf(self.reach))

    @property
    def _rule(self) -> Rule:
        return RULES[self.name]

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return np.asarray(np.clip(self._rule.round(z), self.lowest, self.highest))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return 1 where the stairs rise and 0 beyond: of the line through their middles."""
        place = z - self._rule.centre
        rises = (place >= np.asarray(self.lowest) - 0.5) & (place <= np.asarray(self.highest) + 0.5)
        return rises.astype(np.float64)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return 0 and 0 within a piece, 0 and infinity where a threshold lies in [lo, hi]."""
        first, last = self.interval(lo, hi)
        return np.zeros(first.shape), np.where(first < last, np.inf, 0.0)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the numbers of the first and the last piece that meet [lo, hi]; beyond the reach, everything."""
        first, last = self._ends(lo, hi)
        inside = self.inside(lo, hi)
        return np.where(inside, first, -np.inf), np.where(inside, last, np.inf)

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least of v x - lam z at the corners, rounded downward; minus infinity beyond the reach."""
        return np.where(self.inside(lo, hi), super().lower_support(v, v_error, lam, lo, hi), -np.inf)

    def _ends(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        half, centre = 0.5, self._rule.centre
        first, last = np.ceil(lo - (centre + half)), np.floor(hi + (half - centre))
        first, last = first + (first + (centre + half) < lo), last - (last + (centre - half) > hi)
        return np.clip(first, self.lowest, self.highest), np.clip(last, self.lowest, self.highest)

    def corners(self, lo: FloatArray, hi: FloatArray) -> tuple[Corner, ...]:
        """Return the six corners; where one piece is all there is, its two ends, the right one five times."""
        first, last = self._ends(lo, hi)
        jumps = first < last
        to_next = self._rule.centre + 0.5
        lo, hi = (np.broadcast_to(side, jumps.shape) for side in _further(lo, hi))
        start, end = np.where(jumps, first + to_next, hi), np.where(jumps, last - 1.0 + to_next, hi)
        one = jumps.astype(np.float64)
        return (
            Corner(lo, first, 0.0),
            Corner(start, first, 0.0),
            Corner(start, first + one, 0.0),
            Corner(end, last - one, 0.0),
            Corner(end, last, 0.0),
            Corner(hi, last, 0.0),
        )

    def cut(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return the threshold within [lo, hi] that is next to its middle."""
        first, last = self._ends(lo, hi)
        with np.errstate(over="ignore", invalid="ignore"):
            middle = np.floor(lo + 0.5 * (hi - lo) - self._rule.centre)
            cut = np.clip(middle, first, np.maximum(first, last - 1.0)) + (self._rule.centre + 0.5)
        return np.asarray(np.where(np.isfinite(cut), cut, 0.0))

    def exactly(self, z: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return phi(z), a whole number, where z is one that stairs are told apart for."""
        return self(z), np.asarray((np.abs(z) <= LARGEST) & self.inside(z, z))

    def jumped(self, e: FloatArray) -> FloatArray:
        """Return one more than the whole steps in e."""
        return np.asarray(np.floor(up(e)) + 1.0)

    def of_states(self, states: IntArray) -> Stairs:
        """Return the activation of some states."""
        return Stairs(self.name, *(_of(end, states) for end in (self.lowest, self.highest, self.reach)))


def rounding(
    lowest: float | FloatArray = -np.inf, highest: float | FloatArray = np.inf, reach: float | FloatArray = np.inf
) -> Stairs:
    """Return phi(z) = z rounded to the next whole number, halves to even, within [lowest, highest]."""
    return Stairs("round", lowest, highest, reach)


def floor(
    lowest: float | FloatArray = -np.inf, highest: float | FloatArray = np.inf, reach: float | FloatArray = np.inf
) -> Stairs:
    """Return phi(z) = the largest whole number that is not above z, within [lowest, highest]."""
    return Stairs("floor", lowest, highest, reach)


def ceil(
    lowest: float | FloatArray = -np.inf, highest: float | FloatArray = np.inf, reach: float | FloatArray = np.inf
) -> Stairs:
    """Return phi(z) = the smallest whole number that is not below z, within [lowest, highest]."""
    return Stairs("ceil", lowest, highest, reach)


@dataclass(frozen=True, eq=False)
class Step(Jumping):
    """phi(z) = below z for z < 0 and above z + jump for z > 0; share of the jump at 0, which is 0 or 1.

    The closed graph is two segments that end in (0, 0) and in (0, jump). Another share would be a point on neither
    side of a cut at 0, and proofs by cases would leave it out.
    """

    below: float | FloatArray
    above: float | FloatArray
    jump: float | FloatArray
    share: float | FloatArray
    name: str = "step"

    def __post_init__(self) -> None:
        """Refuse a point between the two ends."""
        share = np.asarray(self.share)
        if not ((share == 0) | (share == 1)).all():
            raise ValueError("the share of a step is 0 or 1: at 0 it has one of its two ends")

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """Both slopes, the jump, and the share of it at 0."""
        return {"below": self.below, "above": self.above, "jump": self.jump, "share": self.share}

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        right, left = self.above * z + self.jump, self.below * z
        return np.asarray(np.where(z > 0, right, np.where(z < 0, left, np.asarray(self.share) * self.jump)))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the slope at z, and of the jump that of jump z / (2 + 2 |z|), which never ends."""
        near = 1.0 / (1.0 + np.abs(z))
        return np.asarray(np.where(z >= 0, self.above, self.below) + 0.5 * np.asarray(self.jump) * near * near)

    def _jumps(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        return np.asarray((lo <= 0) & (hi >= 0))

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slopes that occur, with infinity on the side of the jump where 0 lies in [lo, hi]."""
        at_lo, at_hi = np.where(lo > 0, self.above, self.below), np.where(hi < 0, self.below, self.above)
        jumps, jump = self._jumps(lo, hi), np.asarray(self.jump)
        least, most = np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)
        return np.where(jumps & (jump < 0), -np.inf, least), np.where(jumps & (jump > 0), np.inf, most)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and the greatest x of the corners, rounded outward."""
        corners = self.corners(lo, hi)
        return (
            np.min([corner.x - corner.error for corner in corners], axis=0),
            np.max([corner.x + corner.error for corner in corners], axis=0),
        )

    def corners(self, lo: FloatArray, hi: FloatArray) -> tuple[Corner, ...]:
        """Return both ends and, where 0 lies in [lo, hi], (0, 0) and (0, jump) between them."""
        jumps = self._jumps(lo, hi)
        start, end = _further(lo, hi)
        left, right = self._end(start, lo > 0), self._end(end, ~(hi < 0))
        zero = np.where(jumps, 0.0, left.z)
        error = np.where(jumps, 0.0, left.error)
        return (
            left,
            Corner(zero, np.where(jumps, 0.0, left.x), error),
            Corner(zero, np.where(jumps, self.jump, left.x), error),
            right,
        )

    def _end(self, z: FloatArray, is_right: BoolArray) -> Corner:
        slope = np.where(is_right, self.above, self.below)
        jump = np.where(is_right, self.jump, 0.0)
        along = slope * z
        error = np.where(slope == 0, 0.0, gamma(4) * (np.abs(along) + np.abs(jump)) + TINY)
        return Corner(np.broadcast_to(z, along.shape), along + jump, error)

    def cut(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return 0."""
        return np.zeros(np.broadcast_shapes(np.shape(lo), np.shape(hi)))

    def exactly(self, z: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return phi(z): one end of the jump where both sides are level, which is known exactly."""
        level = (np.asarray(self.below) == 0) & (np.asarray(self.above) == 0)
        return self(z), np.asarray(np.isfinite(z) & level)

    def jumped(self, e: FloatArray) -> FloatArray:
        """Return the jump, and the steeper slope times e."""
        return up(np.abs(self.jump) + np.maximum(np.abs(self.below), np.abs(self.above)) * e)

    def of_states(self, states: IntArray) -> Step:
        """Return the activation of some states."""
        below, above, jump, share = (_of(value, states) for value in self.parameters.values())
        return Step(below, above, jump, share)


def step(
    below: float | FloatArray = 0.0,
    above: float | FloatArray = 0.0,
    jump: float | FloatArray = 1.0,
    share: float | FloatArray = 0.0,
) -> Step:
    """Return phi(z) = below z for z < 0, above z + jump for z > 0, and share * jump at 0, share 0 or 1."""
    return Step(below, above, jump, share)


def _of(value: float | FloatArray, states: IntArray) -> float | FloatArray:
    return value[states] if isinstance(value, np.ndarray) and value.ndim else value
