"""Curves for independent checkers: formulas, whose slopes and bends follow from rules of derivatives in intervals.

Each formula is written once and read with floats, with intervals of mpmath, and with jets of either (value, slope,
bend). Where a curve is convex or concave is found by halving intervals, so that no place of a turn is believed. Nothing
here shares code with idl_audit; the names are those of part 13 of docs/proof-format.md.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from mpmath import iv, mp

from tests.independent_files import Array

GRID = 160
iv.prec = mp.prec = 140
NEVER: Any = -math.inf  # a bound that proves nothing
MIDDLES = np.linspace(0, 1, 33)
HALVINGS = 24
LARGEST_PART = 400
INNER = Fraction(1, 1 << 20)
MARGIN = mp.mpf(2) ** -120


def interval(number: Fraction) -> Any:
    """A number as an interval of mpmath."""
    return iv.mpf(number.numerator) / iv.mpf(number.denominator)


def between(lo: Fraction, hi: Fraction) -> Any:
    """All numbers from one to another as an interval of mpmath."""
    return iv.mpf([interval(lo).a, interval(hi).b])


def floor(number: Any) -> int:
    """The lower end of an interval, times 2**GRID, rounded downward."""
    end = mp.mpf(number.a)
    return int(mp.floor(mp.ldexp(end, GRID))) if mp.isfinite(end) else NEVER


class Floats:
    """The functions that formulas are made of, for floats."""

    exp, log, sqrt, sin, cos, atan, erf = math.exp, math.log, math.sqrt, math.sin, math.cos, math.atan, math.erf

    @staticmethod
    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z)) if z > -700 else math.exp(z)

    @staticmethod
    def power(z: float, p: Fraction) -> float:
        return z ** (int(p) if p.denominator == 1 else float(p))

    pi = math.pi


def _rising(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function that rises everywhere, at both ends of an interval, with more digits than are counted on."""

    def of(z: Any) -> Any:
        ends = []
        for end, side in ((mp.mpf(z.a), -1), (mp.mpf(z.b), 1)):
            value = function(end)
            ends.append(value + side * MARGIN * (1 + abs(value)))
        return iv.mpf(ends)

    return of


class Intervals:
    """The same for intervals."""

    exp, log, sqrt, sin, cos = iv.exp, iv.log, iv.sqrt, iv.sin, iv.cos
    atan, erf = _rising(mp.atan), _rising(mp.erf)
    pi = iv.pi

    @staticmethod
    def sigmoid(z: Any) -> Any:
        return 1 / (1 + iv.exp(-z))

    @staticmethod
    def power(z: Any, p: Fraction) -> Any:
        if p.denominator == 1:
            return z ** int(p) if p > 0 else 1 / z ** int(-p)
        whole = iv.exp(interval(p) * iv.log(iv.mpf(z.b)))  # of z >= 0: monotone
        if mp.mpf(z.a) > 0:
            other = iv.exp(interval(p) * iv.log(iv.mpf(z.a)))
            return iv.mpf([min(whole.a, other.a), max(whole.b, other.b)])
        return iv.mpf([0, whole.b]) if p > 0 else iv.mpf([whole.a, mp.inf])


@dataclass(frozen=True)
class Jet:
    """A value with its first and its second derivative."""

    value: Any
    slope: Any
    bend: Any

    def __add__(self, other: Any) -> "Jet":
        o = _jet(other)
        return Jet(self.value + o.value, self.slope + o.slope, self.bend + o.bend)

    def __mul__(self, other: Any) -> "Jet":
        o = _jet(other)
        slope = _times(self.slope, o.value) + _times(self.value, o.slope)
        bend = _times(self.bend, o.value) + 2 * _times(self.slope, o.slope) + _times(self.value, o.bend)
        return Jet(_times(self.value, o.value), slope, bend)

    def through(self, value: Any, slope: Any, bend: Any) -> "Jet":
        """A function of this one, by its own value and derivatives here."""
        square = _times(self.slope, self.slope)
        return Jet(value, _times(slope, self.slope), _times(bend, square) + _times(slope, self.bend))

    def __neg__(self) -> "Jet":
        return self * -1

    def __sub__(self, other: Any) -> "Jet":
        return self + -_jet(other)

    def __rsub__(self, other: Any) -> "Jet":
        return -self + other

    def __truediv__(self, other: Any) -> "Jet":
        return self * _inverse(_jet(other))

    def __rtruediv__(self, other: Any) -> "Jet":
        return _inverse(self) * other

    __radd__, __rmul__ = __add__, __mul__


def _jet(number: Any) -> Jet:
    return number if isinstance(number, Jet) else Jet(number, 0, 0)


def _times(one: Any, other: Any) -> Any:
    """The product; 0 where one factor is the number 0 itself, whatever the other is."""
    return 0 if any(type(each) is int and each == 0 for each in (one, other)) else one * other


def _inverse(z: Jet) -> Jet:
    one = 1 / z.value
    return z.through(one, -one * one, 2 * one * one * one)


class Jets:
    """The functions for jets, by those for their parts."""

    def __init__(self, parts: Any) -> None:
        self.of, self.pi = parts, parts.pi

    def exp(self, z: Jet) -> Jet:
        e = self.of.exp(z.value)
        return z.through(e, e, e)

    def log(self, z: Jet) -> Jet:
        one = 1 / z.value
        return z.through(self.of.log(z.value), one, -one * one)

    def sqrt(self, z: Jet) -> Jet:
        root = self.of.sqrt(z.value)
        return z.through(root, 1 / (2 * root), -1 / (4 * root * z.value))

    def sin(self, z: Jet) -> Jet:
        s, c = self.of.sin(z.value), self.of.cos(z.value)
        return z.through(s, c, -s)

    def cos(self, z: Jet) -> Jet:
        s, c = self.of.sin(z.value), self.of.cos(z.value)
        return z.through(c, -s, -c)

    def atan(self, z: Jet) -> Jet:
        slope = 1 / (1 + z.value * z.value)
        return z.through(self.of.atan(z.value), slope, -2 * z.value * slope * slope)

    def erf(self, z: Jet) -> Jet:
        slope = 2 / self.of.sqrt(self.of.pi) * self.of.exp(-(z.value * z.value))
        return z.through(self.of.erf(z.value), slope, -2 * z.value * slope)

    def sigmoid(self, z: Jet) -> Jet:
        s = self.of.sigmoid(z.value)
        return z.through(s, s * (1 - s), s * (1 - s) * (1 - 2 * s))

    def power(self, z: Jet, p: Fraction) -> Jet:
        rest = self.of.power(z.value, p - 2) * _like(z.value, p * (p - 1)) if p not in (0, 1) else 0 * z.value
        slope = self.of.power(z.value, p - 1) * _like(z.value, p)
        return z.through(self.of.power(z.value, p), slope, rest)


def _like(z: Any, number: Fraction) -> Any:
    return float(number) if isinstance(z, float) else interval(number)


FLOATS, INTERVALS = Jets(Floats), Jets(Intervals)
Formula = Callable[[Any, Any], Any]  # of the functions, and of z


@dataclass(frozen=True)
class Curve:
    """x = phi(z), by formulas between the breaks; phi has no value outside [least, most], or beyond where it says."""

    formulas: tuple[Formula, ...]
    breaks: tuple[Fraction, ...] = ()
    domain: tuple[float, float] = (-math.inf, math.inf)
    open: bool = False
    """Whether the ends of the domain do not belong to it."""
    hole: bool = False
    """Whether there is no value at 0."""
    range: tuple[float, float] = (-math.inf, math.inf)
    poles: bool = False
    """Whether there is none at odd multiples of pi / 2."""
    unit: Fraction = Fraction(1)

    @property
    def has_domain(self) -> bool:
        """Whether there are places without a value."""
        return self.hole or self.poles or self.domain != (-math.inf, math.inf)

    def is_defined(self, lo: Fraction, hi: Fraction) -> bool:
        """Whether every point of an interval has a value."""
        if lo > hi:
            return True
        first, last = self.domain
        inside = (first < lo and hi < last) if self.open else (first <= lo and hi <= last)
        if self.poles and inside:  # no multiple of pi, moved by half of it, in between
            turns = [between(z, z) / iv.pi + HALF_TURN for z in (lo, hi)]
            inside = abs(lo) < 1 << 20 and mp.floor(mp.mpf(turns[0].a)) == mp.floor(mp.mpf(turns[1].b))
        return bool(inside and (lo > 0 or hi < 0 or not self.hole))

    def least(self, v: Fraction, lam: Fraction, lo: Fraction, hi: Fraction) -> int:
        """A lower bound of v phi(z) - lam z over [lo, hi], times 2**GRID."""
        if lo > hi:  # no points: any number is right, as that of an end is
            hi = lo
        if not self.is_defined(lo, hi):
            return NEVER
        found = min(self._of_part(v, lam, *part) for part in parts(self, lo, hi))
        ends = [Fraction(end) for end in self.range if math.isfinite(end)]
        if lam == 0 and v and (self.range[0] if v > 0 else self.range[1]) in ends:
            known = v * Fraction(self.range[0] if v > 0 else self.range[1])
            found = max(found, math.floor(known * (1 << GRID)))
        return found

    def _of_part(self, v: Fraction, lam: Fraction, k: int, lo: Fraction, hi: Fraction, side: int) -> int:
        """The same where phi is convex (side 1) or concave (-1): above a tangent of v phi, or at an end."""
        phi, factor, slope = self.formulas[k], interval(v), interval(lam)
        places = [lo] if lo == hi else [lo, hi]
        if not v or lo == hi or side * v < 0:
            return min(floor(factor * phi(Intervals, interval(z)) - slope * interval(z)) for z in places)
        if not side:  # a narrow part of which it is not known: the mean value theorem
            middle, jet = (lo + hi) / 2, phi(INTERVALS, Jet(between(lo, hi), 1, 0))
            tilt = factor * jet.slope - slope
            off = tilt * (between(lo, hi) - interval(middle))
            return floor(factor * phi(Intervals, interval(middle)) - slope * interval(middle) + off)
        z0 = self._touching(k, float(lam / v), lo, hi, side > 0)
        best = NEVER
        for place in (z0, z0 + ((lo + hi) / 2 - z0) * INNER):  # at an end the slope may be infinite
            jet = phi(INTERVALS, Jet(interval(place), 1, 0))
            height, tilt, at = factor * jet.value, factor * jet.slope - slope, interval(place)
            best = min(floor(height - slope * at + tilt * (interval(z) - at)) for z in places)
            if best != NEVER:
                break
        return best

    def _touching(self, k: int, slope: float, lo: Fraction, hi: Fraction, rises: bool) -> Fraction:
        """About where the derivative has a value: any place in [lo, hi] is right where it is finite."""
        low, high = float(lo), float(hi)
        for _ in range(50):
            middle = (low + high) / 2
            try:
                below = self.formulas[k](FLOATS, Jet(middle, 1, 0)).slope < slope
            except (ArithmeticError, ValueError):
                break
            low, high = (middle, high) if below == rises else (low, middle)
        return min(max(Fraction((low + high) / 2), lo), hi)

    def points(self, lo: Fraction, hi: Fraction) -> tuple[Array, Array]:
        """Some points of the graph in floating point, which lines are to lie below or above."""
        ends = np.array([float(lo), float(hi)])
        if not self.is_defined(lo, hi):
            return ends, np.zeros(2)
        z = np.clip(ends[0] + (ends[1] - ends[0]) * MIDDLES, *ends)
        x = np.array([self(one) for one in z.tolist()])
        return (z, x) if np.isfinite(x).all() else (ends, np.zeros(2))

    def __call__(self, z: float) -> float:
        """About phi(z)."""
        try:
            return float(self.formulas[sum(z > place for place in self.breaks)](Floats, z))
        except (ArithmeticError, ValueError):
            return math.nan


HALF_TURN = iv.mpf(1) / 2


@functools.lru_cache(1 << 12)
def parts(curve: Curve, lo: Fraction, hi: Fraction) -> list[tuple[int, Fraction, Fraction, int]]:
    """Parts of [lo, hi]: the formula, the ends, and 1 where phi is convex, -1 where it is concave, 0 where unknown."""
    edges = [lo, *(place for place in curve.breaks if lo < place < hi), hi]
    found: list[tuple[int, Fraction, Fraction, int]] = []
    for start, end in itertools.pairwise(edges):
        k = sum((start + end) / 2 > place for place in curve.breaks)
        waiting, own = [(start, end, HALVINGS)], list[tuple[int, Fraction, Fraction, int]]()
        while waiting:
            a, b, depth = waiting.pop()
            side = _bent(curve.formulas[k], a, b)
            if not side and depth and a < b and len(own) < LARGEST_PART:
                waiting += [((a + b) / 2, b, depth - 1), (a, (a + b) / 2, depth - 1)]
            elif own and side and own[-1][3] == side:
                own[-1] = k, own[-1][1], b, side
            else:
                own.append((k, a, b, side))
        found += own
    return found


def _bent(formula: Formula, lo: Fraction, hi: Fraction) -> int:
    if lo == hi:
        return 1
    try:
        bend = formula(INTERVALS, Jet(between(lo, hi), 1, 0)).bend
    except (ArithmeticError, ValueError):
        return 0
    bend = iv.convert(bend)
    return 1 if mp.mpf(bend.a) >= 0 else -1 if mp.mpf(bend.b) <= 0 else 0


def _tanh(of: Any, z: Any) -> Any:
    return of.sigmoid(z * 2) * 2 - 1


def _mish(of: Any, z: Any) -> Any:
    e = of.exp(z)  # tanh(log(1 + e)) = 1 - 2 / (1 + (1 + e)^2)
    return z * (1 - 2 / (1 + (1 + e) * (1 + e)))


def _gelu_tanh(of: Any, z: Any) -> Any:
    t = of.sqrt(2 / of.pi) if not isinstance(of, Jets) else of.of.sqrt(2 / of.pi)
    return z * of.sigmoid((z + z * z * z * _same(of, 0.044715)) * (2 * t))


def _same(of: Any, number: float) -> Any:
    """A float of a formula, exactly."""
    return number if of in (Floats, FLOATS) else interval(Fraction(number))


def _root(of: Any, number: Any) -> Any:
    return (of.of if isinstance(of, Jets) else of).sqrt(_same(of, number))


def _whole(formula: Formula, **given: Any) -> Curve:
    return Curve((formula,), **given)


def _exponential(alpha: float, scale: float, stretch: float = 1.0) -> Curve:
    def left(of: Any, z: Any) -> Any:
        return (of.exp(z / _same(of, stretch)) - 1) * _same(of, alpha) * _same(of, scale)

    return Curve((left, lambda of, z: z * _same(of, scale)), (Fraction(0),))


def _power(exponent: float) -> Curve:
    p = Fraction(exponent)
    whole = p.denominator == 1
    even = whole and p % 2 == 0
    return Curve(
        (lambda of, z: of.power(z, p),) * (2 if whole else 1),
        (Fraction(0),) if whole else (),
        domain=(-math.inf, math.inf) if whole else (0.0, math.inf),
        open=not whole and p < 0,
        hole=whole and p < 0,
        range=(0.0, math.inf) if even or not whole else (-math.inf, math.inf),
    )


POSITIVE = (0.0, math.inf)
CURVES: dict[str, Callable[..., Curve]] = {
    "acos": lambda: _whole(lambda of, z: -_asin(of, z) + of.pi / 2, domain=(-1.0, 1.0), range=(0.0, math.inf)),
    "acosh": lambda: _whole(lambda of, z: of.log(z + of.sqrt(z - 1) * of.sqrt(z + 1)), domain=(1.0, math.inf)),
    "asin": lambda: _whole(lambda of, z: _asin(of, z), domain=(-1.0, 1.0)),
    "asinh": lambda: _whole(_asinh),
    "atan": lambda: _whole(lambda of, z: of.atan(z)),
    "atanh": lambda: _whole(lambda of, z: of.log((1 + z) / (1 - z)) / 2, domain=(-1.0, 1.0), open=True),
    "celu": lambda alpha=1.0: _exponential(alpha, 1.0, alpha),
    "cos": lambda: _whole(lambda of, z: of.cos(z), range=(-1.0, 1.0)),
    "cosh": lambda: _whole(lambda of, z: (of.exp(z) + of.exp(-z)) / 2, range=(1.0, math.inf)),
    "elu": lambda alpha=1.0: _exponential(alpha, 1.0),
    "erf": lambda: _whole(lambda of, z: of.erf(z), range=(-1.0, 1.0)),
    "exp": lambda: _whole(lambda of, z: of.exp(z), range=POSITIVE),
    "gelu": lambda: _whole(lambda of, z: z * (1 + of.erf(z / _root(of, 2.0))) / 2),
    "gelu_tanh": lambda: _whole(_gelu_tanh),
    "hard_swish": lambda: Curve(
        (lambda of, z: 0 * z, lambda of, z: z * (z / 6 + _same(of, 0.5)), lambda of, z: z),
        (Fraction(-3), Fraction(3)),
    ),
    "log": lambda: _whole(lambda of, z: of.log(z), domain=POSITIVE, open=True),
    "mish": lambda: _whole(_mish),
    "power": _power,
    "reciprocal": lambda: Curve((lambda of, z: 1 / z,) * 2, (Fraction(0),), hole=True),
    "rsqrt": lambda: _whole(lambda of, z: 1 / of.sqrt(z), domain=POSITIVE, open=True, range=POSITIVE),
    "selu": lambda alpha=1.67326319217681884765625, gamma=1.05070102214813232421875: _exponential(alpha, gamma),
    "sigmoid": lambda: _whole(lambda of, z: of.sigmoid(z), range=(0.0, 1.0)),
    "silu": lambda: _whole(lambda of, z: z * of.sigmoid(z)),
    "sin": lambda: _whole(lambda of, z: of.sin(z), range=(-1.0, 1.0)),
    "sinh": lambda: _whole(lambda of, z: (of.exp(z) - of.exp(-z)) / 2),
    "softplus": lambda: _whole(lambda of, z: of.log(1 + of.exp(z)), range=POSITIVE),
    "softsign": lambda: Curve((lambda of, z: z / (1 - z), lambda of, z: z / (1 + z)), (Fraction(0),)),
    "sqrt": lambda: _whole(lambda of, z: of.sqrt(z), domain=POSITIVE, range=POSITIVE),
    "square": lambda: _whole(lambda of, z: of.power(z, Fraction(2)), range=POSITIVE),
    "tan": lambda: _whole(lambda of, z: of.sin(z) / of.cos(z), poles=True),
    "tanh": lambda: _whole(_tanh, range=(-1.0, 1.0)),
}


def _asinh(of: Any, z: Any) -> Any:
    return of.log(z + of.sqrt(z * z + 1))


def _asin(of: Any, z: Any) -> Any:
    """By the sum of two angles, each of which is known at its end."""
    return 2 * of.atan(z / (1 + of.sqrt((1 - z) * (1 + z))))
