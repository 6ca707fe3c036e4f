"""Curves that have a domain or slopes without bound: exp, log, roots, powers, circular and hyperbolic functions.

Each answers for any [l, h]: an interval, slopes, and the least v phi(z) - lam z, at the ends, at the turns of phi'
between them and where phi' = lam / v. Outside its domain it refuses itself: the interval is everything, the least
value -inf, also where v = 0. An end is never moved into the domain. Slopes may be infinite (a root at 0), and global
ones are given, never sampled. See docs/mathematics.md, section 6.9.

Errors of library functions are granted relative to the size of values and slopes: 1/z at 1e-12 has slopes of 1e24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.implicit.activations.base import Line
from idl_audit.implicit.activations.curved import Curved, Function, Piece
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma, proved

LIBRARY_ERROR: Final = 2.0**-46
"""Of a value or slope that takes a few library calls: 128 units in the last place."""
CORRECTLY_ROUNDED: Final = 2.0**-50
"""Of one that takes a few additions, products, quotients and square roots."""
UNDERFLOW: Final = 2.0**-1020
"""More than a value or a slope that falls below the range of float64 can lose."""
INNER: Final = 2.0**-20
"""How far from an end of infinite slope, as a share of the interval, a tangent is taken."""
TRIED: Final = 2.0**-8
"""How far from the ends, as a share of the interval, slopes are looked at to tell which are worth a try."""
LARGEST_TRIED: Final = 1e12
"""Steeper lines are not worth a try in float32."""
LARGEST_POWER: Final = 64.0
"""Beyond it rounding of the exponent less 1 would matter, and nobody means it."""
FULL_TURN: Final = 6.283
"""Of a little less than 2 pi: what is wider meets every value of sine and cosine."""
LARGEST: Final = float(np.finfo(np.float64).max)
MORE_THAN_A_TURN: Final = 6.29
LARGEST_ANGLE: Final = 2.0**20
"""Beyond it multiples of pi / 2 are too uncertain."""

Ends = tuple[float, float]
EVERYTHING: Final[Ends] = (-np.inf, np.inf)
POSITIVE: Final[Ends] = (0.0, np.inf)
NEGATIVE: Final[Ends] = (-np.inf, 0.0)


@dataclass(frozen=True)
class Part:
    """One piece of phi over each [l, h]: empty where its ends are equal."""

    bend: IntArray | int
    start: FloatArray
    end: FloatArray
    touch: Function


@dataclass(frozen=True, eq=False)
class Analytic(Curved):
    """A function that bends one way between neighbouring `turns` within its domain."""

    name: str
    function: Function
    slope: Function
    pieces: tuple[Piece, ...]
    turns: tuple[float, ...] = ()
    """Where phi' turns, and the place in the middle of the domain where phi is not defined."""
    lowest: tuple[float, ...] = ()
    """Where phi itself turns."""
    domain: Ends = EVERYTHING
    excluded: tuple[float, ...] = ()
    """Places where phi is not defined: ends of the domain that do not belong to it, and those within."""
    forbidden: str = ""
    values: Ends = EVERYTHING
    """Between these lies every value."""
    steepness: Ends = EVERYTHING
    """Between these lies every slope."""
    relative: float = LIBRARY_ERROR
    absolute: float = UNDERFLOW
    """Errors of a computed value or slope: relative to its size, and beside that."""
    given: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def lipschitz(self) -> float:
        """The largest |slope| anywhere; infinite where there is none."""
        return max(abs(end) for end in self.steepness)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z); NaN or infinity outside the domain."""
        with np.errstate(all="ignore"):
            return np.asarray(self.function(z))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return phi'(z), 0 where it is no finite number."""
        with np.errstate(all="ignore"):
            return _finite(np.asarray(self.slope(z)))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r: infinite slopes times a structural 0 are 0."""
        if np.isfinite(self.lipschitz):
            return r * self.lipschitz
        return np.asarray(np.where(r > 0, np.inf, r))

    def inside(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return where [lo, hi] lies within the domain; NaN does not."""
        within = (lo >= self.domain[0]) & (hi <= self.domain[1]) & (lo <= hi)
        for place in self.excluded:
            within = within & ((hi < place) | (lo > place))
        return np.asarray(within)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest derivative at the ends and at the turns between them, rounded outward."""
        with np.errstate(all="ignore"):
            # 0 is added since slopes at -0 may have the wrong sign
            least, most = self._extremes([self.slope(z + 0.0) for z in self._edges(lo, hi)])
        return self._known(least, most, self.steepness, lo, hi)

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest value at the ends and where phi turns between them, rounded outward."""
        with np.errstate(all="ignore"):
            least, most = self._extremes([self.function(z) for z in (lo, hi, *self._turning(lo, hi))])
        return self._known(least, most, self.values, lo, hi)

    def _extremes(self, found: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
        """Return the least and the greatest of some values, rounded outward."""
        least, most = np.minimum.reduce(found), np.maximum.reduce(found)
        return (
            least - (self.relative * np.abs(least) + self.absolute),
            most + (self.relative * np.abs(most) + self.absolute),
        )

    def _known(
        self, least: FloatArray, most: FloatArray, ends: Ends, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return what is known where [lo, hi] is inside, `ends` where a number is none, and elsewhere everything."""
        inside = self.inside(lo, hi)
        least, most = np.where(np.isnan(least), -np.inf, least), np.where(np.isnan(most), np.inf, most)
        return np.where(inside, np.clip(least, *ends), -np.inf), np.where(inside, np.clip(most, *ends), np.inf)

    def _edges(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        """Return the ends of the parts of [lo, hi]: lo, the turns, hi."""
        return [lo, *(_between(place, lo, hi) for place in self.turns), hi]

    def _turning(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        """Return where phi turns in [lo, hi], or its nearest end."""
        return [_between(place, lo, hi) for place in self.lowest]

    def _parts(self, lo: FloatArray, hi: FloatArray) -> list[Part]:
        edges = self._edges(lo, hi)
        return [
            Part(piece.bend, start, end, piece.touch)
            for piece, start, end in zip(self.pieces, edges, edges[1:], strict=False)
        ]

    def tried_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return finite ends of the slopes that are worth a try: few times as steep as what occurs a little within."""
        with np.errstate(all="ignore"):
            step = TRIED * (hi - lo)
            within = self._chord(lo, hi), _finite(self.slope(lo + step)), _finite(self.slope(hi - step))
            reach = np.minimum(16.0 * (1.0 + np.maximum.reduce(np.abs(within))), LARGEST_TRIED)
            least, most = self.slopes(lo, hi)
        return np.clip(least, -reach, reach), np.clip(most, -reach, reach)

    def _chord(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return the slope of the chord, that of phi in a single point, 0 where there is none."""
        with np.errstate(all="ignore"):
            rise, width = self.function(hi) - self.function(lo), hi - lo
            return _finite(np.asarray(np.where(width > 0, rise / width, self.slope(lo + 0.5 * width))))

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slopes of the line below the graph that is highest in the middle of [lo, hi], and of that above.

        Where phi bends one way they are the middle tangent and the chord. Outside the domain there is no line, and a
        slope of 1 or -1: what goes backwards with it tells a search which inputs to split.
        """
        inside = self.inside(lo, hi)
        with np.errstate(all="ignore"):
            parts = self._parts(lo, hi)
            occurring = [part.start < part.end for part in parts]
            bend = sum((some * part.bend for some, part in zip(occurring, parts, strict=True)), np.zeros(()))
            chord = np.clip(self._chord(lo, hi), *self.slopes(lo, hi))
            middle = _finite(np.asarray(self.slope(lo + 0.5 * (hi - lo))))
            below, above = np.where(bend > 0, middle, chord), np.where(bend < 0, middle, chord)
            bent_twice = inside & (np.sum(occurring, axis=0) > 1)
            if bent_twice.any():
                lo, hi = (np.broadcast_to(end, below.shape)[bent_twice] for end in (lo, hi))
                below[bent_twice], above[bent_twice] = _finite(self._best_slopes(lo, hi, *self.tried_slopes(lo, hi)))
        outside = -1.0 if self.steepness[1] <= 0 else 1.0
        return np.where(inside, below, outside), np.where(inside, above, outside)

    def farthest(self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return about where in [lo, hi] side (phi(z) - k z) is least; used to search, never to prove."""
        with np.errstate(all="ignore"):
            parts = self._parts(lo, hi)
            places = [lo, hi, *(part.start for part in parts[1:])]
            places += [_between(part.touch(k), part.start, part.end) for part in parts]
            best, least = lo + np.zeros_like(k), np.full(np.broadcast_shapes(k.shape, lo.shape), np.inf)
            for z in places:
                value = side * (self.function(z) - k * z)
                best, least = np.where(value < least, z, best), np.fmin(value, least)
        return np.asarray(best)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return lines of slopes that are worth a try, and the one that is best in the middle, on either side."""
        least, most = self.tried_slopes(lo, hi)
        below, above = self.relaxation_slopes(lo, hi)
        one, none = np.ones_like(below), np.zeros_like(below)
        return (
            [(k, self.lower_support(one, none, k, lo, hi)) for k in (least, most, below)],
            [(k, -self.lower_support(-one, none, -k, lo, hi)) for k in (least, most, above)],
        )

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least value of v phi(z) - lam z over [lo, hi], part by part, rounded downward.

        Where v phi is concave on a part, the least value is at an end of it; where it is convex, it lies above each of
        its tangents. What is no finite number proves nothing.
        """
        with np.errstate(all="ignore"):
            parts = self._parts(lo, hi)
            least = np.minimum(self._at(v, lam, lo), self._at(v, lam, hi))
            for part in parts[1:]:
                least = np.minimum(least, self._at(v, lam, part.start))
            for part in parts:
                convex = (v * part.bend > 0) & (part.start < part.end)
                if convex.any():
                    least = np.where(convex, np.minimum(least, self._by_tangent(part, v, lam)), least)
            low, high = self.interval(lo, hi)
            least = least - v_error * np.maximum(np.abs(low), np.abs(high)) * (1 + gamma(8)) - TINY
        return np.where(np.isfinite(least) & self.inside(lo, hi), least, -np.inf)

    def _at(self, v: FloatArray, lam: FloatArray, z: FloatArray) -> FloatArray:
        """Return v phi(z) - lam z, rounded downward: what overflows upward is at least `LARGEST`, all else -inf."""
        value = self.function(z)
        value = np.where(v < 0, np.maximum(value, -LARGEST), np.minimum(value, LARGEST))
        error = ((self.relative + gamma(8)) * np.abs(value) + self.absolute) * (1 + gamma(8))
        moved = lam * z
        least = np.minimum(np.minimum(v * value, LARGEST) - moved, LARGEST)
        return proved(least - (np.abs(v) * error + gamma(8) * np.abs(moved) + TINY))

    def _by_tangent(self, part: Part, v: FloatArray, lam: FloatArray) -> FloatArray:
        """Return the least value over a part of the tangent to v phi, minus lam z; v phi is convex there."""
        start, end = part.start, part.end
        z = _between(part.touch(np.clip(lam / v, *self.steepness)), start, end)
        z = np.where(np.isfinite(self.slope(z)), z, z + INNER * (0.5 * (start + end) - z))
        value, slope, width = self.function(z), self.slope(z), end - start
        tilt = v * slope - lam
        ends = np.minimum(tilt * (start - z), tilt * (end - z))
        size, steep = np.abs(v), np.abs(slope)
        library = size * (
            (self.relative * np.abs(value) + self.absolute) + (self.relative * steep + self.absolute) * width
        )
        rounding = gamma(16) * (size * np.abs(value) + np.abs(lam * z) + (size * steep + np.abs(lam)) * width)
        return proved((v * value - lam * z) + ends - (library + rounding + TINY * (1 + width)) * (1 + gamma(8)))


def _between(place: FloatArray | float, lo: FloatArray, hi: FloatArray) -> FloatArray:
    """Return a place moved into [lo, hi]; lo where it is no number."""
    return np.asarray(np.fmin(np.fmax(place, lo), hi))


def _finite(values: FloatArray) -> FloatArray:
    return np.asarray(np.where(np.isfinite(values), values, 0.0))


@dataclass(frozen=True, eq=False)
class Circular(Analytic):
    """sin(z + shift): every multiple of pi / 2 that may lie in [l, h] is looked at, which finitely many turns are not.

    Places are rounded multiples of pi. What that, or a multiple that is missed beside an end, does to a value or a
    bound is of second order in 2^-32, and paid for by `absolute`. Where [l, h] is wider than a full turn the values are
    [-1, 1], and so are the slopes; v phi(z) - lam z is least within a full turn of the end that -lam z falls towards,
    since z may be moved there by full turns. Beyond `LARGEST_ANGLE` no more than [-1, 1] is known.
    """

    quarters: int = 0
    """shift in multiples of pi / 2."""

    def _is_near(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        return np.asarray((np.abs(lo) < LARGEST_ANGLE) & (np.abs(hi) < LARGEST_ANGLE))

    def _known(
        self, least: FloatArray, most: FloatArray, ends: Ends, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        with np.errstate(invalid="ignore"):
            known = (hi - lo < FULL_TURN) & self._is_near(lo, hi)
        return super()._known(np.where(known, least, -1.0), np.where(known, most, 1.0), ends, lo, hi)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the best slopes in the middle, or 0 where only [-1, 1] is known."""
        below, above = super().relaxation_slopes(lo, hi)
        near = self._is_near(lo, hi)
        return np.where(near, below, 0.0), np.where(near, above, 0.0)

    def _first(self, lo: FloatArray, offset: float) -> FloatArray:
        """Return about the least whole j with (j + offset) pi - shift >= lo."""
        return np.asarray(np.ceil(np.where(np.abs(lo) < LARGEST_ANGLE, lo, 0.0) / np.pi + self.quarters / 2 - offset))

    def _edges(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        first = self._first(lo, 0.0) - self.quarters / 2
        return [lo, *(_between((first + j) * np.pi, lo, hi) for j in range(4)), hi]

    def _turning(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        first = self._first(lo, 0.5) + 0.5 - self.quarters / 2
        return [_between((first + j) * np.pi, lo, hi) for j in range(4)]

    def _parts(self, lo: FloatArray, hi: FloatArray) -> list[Part]:
        """Between j pi and (j + 1) pi the sine is concave where j is even, convex where it is odd."""
        edges, first = self._edges(lo, hi), self._first(lo, 0.0)

        def part(number: int) -> Part:
            j = first + (number - 1)
            side = 1.0 - 2.0 * np.mod(j, 2.0)
            start = (j - self.quarters / 2) * np.pi

            def touch(s: FloatArray) -> FloatArray:
                return np.asarray(start + np.arccos(np.clip(side * s, -1.0, 1.0)))

            return Part((-side).astype(np.int64), edges[number], edges[number + 1], touch)

        return [part(number) for number in range(len(edges) - 1)]

    def farthest(self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return about where in [lo, hi] side (phi(z) - k z) is least; used to search, never to prove."""
        return super().farthest(side, k, *_last_turn(np.asarray(side * k), lo, hi))

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least value of v phi(z) - lam z; far out, -|v| and the least -lam z."""
        least = super().lower_support(v, v_error, lam, *_last_turn(lam, lo, hi))
        with np.errstate(all="ignore"):
            size, far = np.abs(v) + v_error, np.minimum(-lam * lo, -lam * hi)
            anywhere = (far - size) - gamma(8) * (size + np.abs(far)) - TINY
        anywhere = np.where(np.isfinite(anywhere) & (lo <= hi), anywhere, -np.inf)
        return np.where(self._is_near(lo, hi), least, anywhere)


def _last_turn(tilt: FloatArray, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the part of [lo, hi] within a full turn of the end that -tilt z falls towards."""
    rising = tilt >= 0
    with np.errstate(invalid="ignore"):
        return np.where(rising, np.fmax(lo, hi - MORE_THAN_A_TURN), lo), np.where(
            rising, hi, np.fmin(hi, lo + MORE_THAN_A_TURN)
        )


@dataclass(frozen=True, eq=False)
class Tangent(Analytic):
    """tan(z) between two neighbouring poles, concave and then convex."""

    def _middle(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return the multiple of pi nearest to the middle of [l, h], as a count."""
        return np.asarray(np.rint((lo / 2 + hi / 2) / np.pi))

    def inside(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return whether no pole may lie in [l, h]: they are known up to the rounding of multiples of pi."""
        with np.errstate(all="ignore"):
            middle = self._middle(lo, hi)
            off = 2.0**-49 * (np.abs(middle) + 1.0)
            apart = (lo > (middle - 0.5) * np.pi + off) & (hi < (middle + 0.5) * np.pi - off)
        return np.asarray(apart & (lo <= hi) & (np.abs(lo) < LARGEST_ANGLE) & (np.abs(hi) < LARGEST_ANGLE))

    def _edges(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        return [lo, _between(self._middle(lo, hi) * np.pi, lo, hi), hi]

    def _parts(self, lo: FloatArray, hi: FloatArray) -> list[Part]:
        start, turn, end = self._edges(lo, hi)
        centre = self._middle(lo, hi) * np.pi

        def reach(s: FloatArray) -> FloatArray:
            return np.asarray(np.arctan(np.sqrt(np.maximum(s - 1.0, 0.0))))

        return [Part(-1, start, turn, lambda s: centre - reach(s)), Part(1, turn, end, lambda s: centre + reach(s))]


CONVEX_FROM_0: Final = (-1, 1)
CONVEX_TO_0: Final = (1, -1)


def _odd(bends: tuple[int, int], far: Function) -> tuple[Piece, Piece]:
    """Return the pieces of a function with phi'(-z) = phi'(z); far(s) is the place z >= 0 with slope s."""
    return Piece(bends[0], lambda s: -far(s)), Piece(bends[1], far)


def _one(bend: int, touch: Function) -> tuple[Piece]:
    return (Piece(bend, touch),)


def exp() -> Analytic:
    """Return phi(z) = exp(z)."""
    return Analytic("exp", np.exp, np.exp, _one(1, np.log), values=POSITIVE, steepness=POSITIVE)


def log() -> Analytic:
    """Return phi(z) = log(z), z > 0."""
    return Analytic(
        "log",
        np.log,
        np.reciprocal,
        _one(-1, np.reciprocal),
        domain=POSITIVE,
        excluded=(0.0,),
        forbidden="be 0 or less",
        steepness=POSITIVE,
    )


def sqrt() -> Analytic:
    """Return phi(z) = sqrt(z), z >= 0; its slope at 0 is infinite."""
    return Analytic(
        "sqrt",
        np.sqrt,
        lambda z: np.asarray(0.5 / np.sqrt(z)),
        _one(-1, lambda s: np.asarray(0.25 / s**2)),
        domain=POSITIVE,
        forbidden="be negative",
        values=POSITIVE,
        steepness=POSITIVE,
        relative=CORRECTLY_ROUNDED,
    )


def reciprocal() -> Analytic:
    """Return phi(z) = 1 / z, z <> 0."""
    return Analytic(
        "reciprocal",
        lambda z: np.asarray(1.0 / z),
        lambda z: np.asarray(-(1.0 / z) * (1.0 / z)),
        _odd(CONVEX_FROM_0, lambda s: np.asarray(np.sqrt(np.abs(1.0 / s)))),
        turns=(0.0,),
        excluded=(0.0,),
        forbidden="be 0",
        steepness=NEGATIVE,
        relative=CORRECTLY_ROUNDED,
    )


def rsqrt() -> Analytic:
    """Return phi(z) = 1 / sqrt(z), z > 0."""
    return Analytic(
        "rsqrt",
        lambda z: np.asarray(1.0 / np.sqrt(z)),
        lambda z: np.asarray(-0.5 / np.sqrt(z) / z),
        _one(1, lambda s: np.asarray(np.power(-2.0 * s, -2.0 / 3.0))),
        domain=POSITIVE,
        excluded=(0.0,),
        forbidden="be 0 or less",
        values=POSITIVE,
        steepness=NEGATIVE,
        relative=CORRECTLY_ROUNDED,
    )


def square() -> Analytic:
    """Return phi(z) = z z."""
    return Analytic(
        "square",
        lambda z: np.asarray(z * z),
        lambda z: np.asarray(2.0 * z),
        _one(1, lambda s: np.asarray(0.5 * s)),
        lowest=(0.0,),
        values=POSITIVE,
        relative=CORRECTLY_ROUNDED,
    )


def power(exponent: float = 3.0) -> Analytic:
    """Return phi(z) = z^exponent, for z >= 0 (or z > 0) unless the exponent is a whole number.

    The exponent is the number that is given: the one nearest to 1/3 has no values below 0. Rounding of the exponent
    less 1 changes a slope by |log z| units of it.
    """
    if not (isinstance(exponent, float) and 0 < abs(exponent) <= LARGEST_POWER and exponent != 1.0):
        raise ValueError(f"a power needs an exponent other than 0 and 1 up to {LARGEST_POWER:g}, not {exponent}")

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(exponent * np.power(z, exponent - 1.0))

    is_whole, is_even = float(exponent).is_integer(), exponent % 2 == 0
    pieces, steepness = _pieces_of_power(exponent)
    return Analytic(
        "power",
        lambda z: np.asarray(np.power(z, exponent)),
        slope,
        pieces,
        turns=(0.0,) if len(pieces) > 1 else (),
        lowest=(0.0,) if is_even and exponent > 0 else (),
        domain=EVERYTHING if is_whole else POSITIVE,
        excluded=(0.0,) if exponent < 0 else (),
        forbidden=_forbidden(exponent),
        values=POSITIVE if is_even or not is_whole else EVERYTHING,
        steepness=steepness,
        relative=LIBRARY_ERROR + 2.0**-42 * (1.0 + abs(exponent)),
        given=MappingProxyType({"exponent": float(exponent)}),
    )


def _pieces_of_power(exponent: float) -> tuple[tuple[Piece, ...], Ends]:
    """Return how z^exponent bends, on either side of 0 where that differs, and between which ends its slopes lie."""

    def far(s: FloatArray) -> FloatArray:
        return np.asarray(np.power(np.abs(s / exponent), 1.0 / (exponent - 1.0)))

    rising = POSITIVE if exponent > 0 else NEGATIVE
    if not float(exponent).is_integer():
        return _one(-1 if 0 < exponent < 1 else 1, far), rising
    if exponent % 2:
        return _odd(CONVEX_FROM_0, far), rising
    if exponent > 0:
        return _one(1, lambda s: np.asarray(np.sign(s) * far(s))), EVERYTHING
    below, above = Piece(1, lambda s: -far(np.maximum(s, 0.0))), Piece(1, lambda s: far(np.minimum(s, 0.0)))
    return (below, above), EVERYTHING


def _forbidden(exponent: float) -> str:
    if float(exponent).is_integer():
        return "be 0" if exponent < 0 else ""
    return "be 0 or less" if exponent < 0 else "be negative"


def _circular(name: str, function: Function, slope: Function, quarters: int) -> Analytic:
    ends = -1.0, 1.0
    return Circular(name, function, slope, (), values=ends, steepness=ends, absolute=LIBRARY_ERROR, quarters=quarters)


def sin() -> Analytic:
    """Return phi(z) = sin(z); slopes in [-1, 1]."""
    return _circular("sin", np.sin, np.cos, 0)


def cos() -> Analytic:
    """Return phi(z) = cos(z) = sin(z + pi / 2); slopes in [-1, 1]."""
    return _circular("cos", np.cos, lambda z: np.asarray(-np.sin(z)), 1)


def tan() -> Analytic:
    """Return phi(z) = tan(z), between two odd multiples of pi / 2."""
    return Tangent(
        "tan",
        np.tan,
        lambda z: np.asarray(1.0 + np.tan(z) ** 2),
        (),
        forbidden="be an odd multiple of pi / 2",
        steepness=(1.0, np.inf),
        absolute=LIBRARY_ERROR,
    )


def asin() -> Analytic:
    """Return phi(z) = arcsin(z), |z| <= 1; its slopes at the ends are infinite."""
    return Analytic(
        "asin",
        np.arcsin,
        lambda z: np.asarray(1.0 / np.sqrt((1.0 - z) * (1.0 + z))),
        _odd(CONVEX_FROM_0, lambda s: np.asarray(np.sqrt(1.0 - 1.0 / s**2))),
        turns=(0.0,),
        domain=(-1.0, 1.0),
        forbidden="leave [-1, 1]",
        steepness=(1.0, np.inf),
    )


def acos() -> Analytic:
    """Return phi(z) = arccos(z), |z| <= 1; its slopes at the ends are infinite."""
    return Analytic(
        "acos",
        np.arccos,
        lambda z: np.asarray(-1.0 / np.sqrt((1.0 - z) * (1.0 + z))),
        _odd(CONVEX_TO_0, lambda s: np.asarray(np.sqrt(1.0 - 1.0 / s**2))),
        turns=(0.0,),
        domain=(-1.0, 1.0),
        forbidden="leave [-1, 1]",
        values=POSITIVE,
        steepness=(-np.inf, -1.0),
    )


def atan() -> Analytic:
    """Return phi(z) = arctan(z); slopes in [0, 1]."""
    return Analytic(
        "atan",
        np.arctan,
        lambda z: np.asarray(1.0 / (1.0 + z * z)),
        _odd(CONVEX_TO_0, lambda s: np.asarray(np.sqrt(1.0 / s - 1.0))),
        turns=(0.0,),
        steepness=(0.0, 1.0),
    )


def sinh() -> Analytic:
    """Return phi(z) = sinh(z)."""
    pieces = _odd(CONVEX_FROM_0, lambda s: np.asarray(np.arccosh(np.maximum(s, 1.0))))
    return Analytic("sinh", np.sinh, np.cosh, pieces, turns=(0.0,), steepness=(1.0, np.inf))


def cosh() -> Analytic:
    """Return phi(z) = cosh(z)."""
    return Analytic("cosh", np.cosh, np.sinh, _one(1, np.arcsinh), lowest=(0.0,), values=(1.0, np.inf))


def asinh() -> Analytic:
    """Return phi(z) = arsinh(z); slopes in [0, 1]."""
    return Analytic(
        "asinh",
        np.arcsinh,
        lambda z: np.asarray(1.0 / np.hypot(1.0, z)),
        _odd(CONVEX_TO_0, lambda s: np.asarray(np.sqrt(1.0 / s**2 - 1.0))),
        turns=(0.0,),
        steepness=(0.0, 1.0),
    )


def acosh() -> Analytic:
    """Return phi(z) = arcosh(z), z >= 1; its slope at 1 is infinite."""
    return Analytic(
        "acosh",
        np.arccosh,
        lambda z: np.asarray(1.0 / (np.sqrt(z - 1.0) * np.sqrt(z + 1.0))),
        _one(-1, lambda s: np.asarray(np.hypot(1.0, 1.0 / s))),
        domain=(1.0, np.inf),
        forbidden="be below 1",
        values=POSITIVE,
        steepness=POSITIVE,
    )


def atanh() -> Analytic:
    """Return phi(z) = artanh(z), |z| < 1."""
    return Analytic(
        "atanh",
        np.arctanh,
        lambda z: np.asarray(1.0 / ((1.0 - z) * (1.0 + z))),
        _odd(CONVEX_FROM_0, lambda s: np.asarray(np.sqrt(1.0 - 1.0 / s))),
        turns=(0.0,),
        domain=(-1.0, 1.0),
        excluded=(-1.0, 1.0),
        forbidden="leave (-1, 1)",
        steepness=(1.0, np.inf),
    )
