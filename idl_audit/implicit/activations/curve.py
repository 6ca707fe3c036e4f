"""Curved activations: everything with a derivative that is monotone between a few known points.

On [l, h] the slopes a <= phi' <= g come from the ends and the points between them where phi' turns or jumps. The graph
then lies between the lines of slopes a and g through (l, phi(l)) and (h, phi(h)); where phi' is monotone on [l, h], it
also lies on one side of its chord and on the other side of its tangents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

import numpy as np
import scipy

from idl_audit.implicit.activations.base import Line
from idl_audit.implicit.activations.curved import Curved, Function, Piece
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, gamma, proved

LIBRARY_ERROR = 2.0**-46
"""Error granted to a value or slope, relative to 1 + its size: 128 units in the last place of a few library calls."""

NODES = 2**13
"""Of a table of slopes."""
HALVINGS = 50
"""For the place of one of them."""

LEAST_SLOPE = 1e-30
"""Below this nobody asks where a slope is: float32 has it, too."""

FAR = 1e4
"""Beyond this distance from 0 every slope below is constant in float64; arguments are clipped there."""

STRAIGHT = Piece(0, lambda s: np.zeros_like(s))


@dataclass(frozen=True, eq=False)
class Curve(Curved):
    """A function whose derivative is monotone between neighbouring `turns`."""

    name: str
    function: Function
    slope: Function
    pieces: tuple[Piece, ...] = ()
    turns: tuple[tuple[float, tuple[float, ...]], ...] = ()
    """(z, slopes there): where phi' has an extremum or jumps; both one-sided slopes at a jump."""
    extremes: tuple[tuple[float, float], ...] = ()
    """(z, phi(z)): where phi itself turns."""
    is_monotone: bool = True
    given: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def lipschitz(self) -> float:
        """The largest |slope|: at a turn, or far out."""
        far = np.array([-FAR, FAR])
        slopes = [*np.abs(self.slope(far)), *(abs(value) for _, values in self.turns for value in values)]
        return float(max(slopes)) * (1 + LIBRARY_ERROR)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest derivative at the ends and at the turns between them, rounded outward."""
        at_lo, at_hi = self.slope(lo), self.slope(hi)
        least, most = np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)
        for place, values in self.turns:
            inside = (lo <= place) & (place <= hi)
            least = np.where(inside, np.minimum(least, min(values)), least)
            most = np.where(inside, np.maximum(most, max(values)), most)
        least, most = _rounded(least, -1.0), _rounded(most, 1.0)
        return np.maximum(least, 0.0) if self.is_monotone else least, most

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the least and greatest value at the ends and where phi turns between them, rounded outward."""
        at_lo, at_hi = self.function(lo), self.function(hi)
        least, most = np.minimum(at_lo, at_hi), np.maximum(at_lo, at_hi)
        for place, value in self.extremes:
            inside = (lo <= place) & (place <= hi)
            least = np.where(inside, np.minimum(least, value), least)
            most = np.where(inside, np.maximum(most, value), most)
        return _rounded(least, -1.0), _rounded(most, 1.0)

    def _edges(self, lo: FloatArray, hi: FloatArray) -> list[FloatArray]:
        """Return the ends of the pieces of [lo, hi]: lo, the turns, hi; a piece that lies outside has equal ends."""
        return [lo, *(np.minimum(np.maximum(lo, place), hi) for place, _ in self.turns), hi]

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the slopes of the line below the graph that is highest in the middle of [lo, hi], and of that above.

        Where phi bends one way they are the middle tangent and the chord.
        """
        least, most = self.slopes(lo, hi)
        middle = self.slope(lo + 0.5 * (hi - lo))
        with np.errstate(over="ignore"):
            chord = np.clip((self.function(hi) - self.function(lo)) / np.maximum(hi - lo, TINY), least, most)
        is_convex = self.slope(lo) <= self.slope(hi)
        below, above = np.where(is_convex, middle, chord), np.where(is_convex, chord, middle)
        turning = np.zeros(below.shape, np.bool_)
        for place, _ in self.turns:
            turning |= (lo < place) & (place < hi)
        if turning.any():
            ends = [np.broadcast_to(part, below.shape)[turning] for part in (lo, hi, least, most)]
            below[turning], above[turning] = self._best_slopes(*ends)
        return below, above

    def farthest(self, side: FloatArray | float, k: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return about where in [lo, hi] side (phi(z) - k z) is least; used to search, never to prove."""
        edges, pieces = self._edges(lo, hi), self.pieces
        # between a convex and a concave piece the least value is one of theirs
        kept = [j for j in range(1, len(pieces)) if pieces[j - 1].bend != -pieces[j].bend]
        places = [edges[0], edges[-1], *(edges[j] for j in kept)]
        with np.errstate(all="ignore"):
            places += [np.clip(p.touch(k), edges[j], edges[j + 1]) for j, p in enumerate(pieces) if p.bend]
            best, least = places[0], side * (self.function(places[0]) - k * places[0])
            for z in places[1:]:
                value = side * (self.function(z) - k * z)
                best = best + (value < least) * (z - best)  # faster than a choice
                least = np.minimum(value, least)
        return np.asarray(best)

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines of least and greatest slope through the ends, and the one that is best in the middle."""
        a, g = self.slopes(lo, hi)
        at_lo, at_hi = self.function(lo), self.function(hi)
        from_lo, from_hi = [(k, at_lo - k * lo) for k in (a, g)], [(k, at_hi - k * hi) for k in (a, g)]
        below, above = self.relaxation_slopes(lo, hi)
        one, none = np.ones_like(below), np.zeros_like(below)
        lowest = below, self.lower_support(one, none, below, lo, hi)
        highest = above, -self.lower_support(-one, none, -above, lo, hi)
        return [from_lo[0], from_hi[1], lowest], [from_lo[1], from_hi[0], highest]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least value of v phi(z) - lam z over [lo, hi], piece by piece, rounded downward.

        - Where v phi is concave on a piece, the least value is at an end of it.
        - Where v phi is convex, it lies above each of its tangents: the one with a slope of about lam / v is taken.
        """
        sizes = np.abs(v), np.abs(lam)
        edges = self._edges(lo, hi)
        least = self._at(v, lam, sizes, edges[0])
        for z in edges[1:]:
            least = np.minimum(least, self._at(v, lam, sizes, z))
        for piece, start, end in zip(self.pieces, edges, edges[1:], strict=False):
            some = np.broadcast_to((v * piece.bend > 0) & (start < end), least.shape)
            if some.any():
                own = [np.broadcast_to(part, least.shape)[some] for part in (v, lam, start, end)]
                least[some] = np.minimum(least[some], self._by_tangent(piece, *own))
        low, high = self.interval(lo, hi)
        reach = np.maximum(np.abs(low), np.abs(high))
        return np.asarray(least - v_error * reach * (1 + gamma(8)) - TINY)

    def _at(self, v: FloatArray, lam: FloatArray, sizes: tuple[FloatArray, FloatArray], z: FloatArray) -> FloatArray:
        """Return v phi(z) - lam z, rounded downward; sizes are |v| and |lam|."""
        value = self.function(z)
        error = (LIBRARY_ERROR * (1.0 + np.abs(value)) + gamma(6) * np.abs(value)) * (1 + gamma(8))
        return proved((v * value - lam * z) - (sizes[0] * error + sizes[1] * (gamma(8) * (np.abs(z) + TINY))))

    def _by_tangent(self, piece: Piece, v: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        """Return the least value over [lo, hi] of the tangent to v phi, minus lam z; v phi is convex there."""
        with np.errstate(over="ignore", invalid="ignore"):
            z = np.clip(piece.touch(lam / v), lo, hi)
        value, slope, width = self.function(z), self.slope(z), hi - lo
        tilt = v * slope - lam
        ends = np.minimum(tilt * (lo - z), tilt * (hi - z))
        size, steep = np.abs(v), np.abs(slope)
        library = size * (LIBRARY_ERROR * ((1.0 + np.abs(value)) + (1.0 + steep) * width))
        rounding = gamma(16) * (size * np.abs(value) + np.abs(lam * z) + (size * steep + np.abs(lam)) * width)
        return proved((v * value - lam * z) + ends - (library + rounding + TINY * width) * (1 + gamma(8)))


def _rounded(value: FloatArray, direction: FloatArray | float) -> FloatArray:
    """Return the value moved by what library functions may err: down where direction = -1, up where it is 1."""
    return np.asarray(value + direction * (LIBRARY_ERROR * (1.0 + np.abs(value))))


def _near(z: FloatArray) -> FloatArray:
    return np.clip(z, -FAR, FAR)


def _turns(slope: Function, *places: float) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """Return the smooth turns of phi' with its value at each; an error in a place enters its value squared."""
    return tuple((place, (float(slope(np.array(place))),)) for place in places)


def _bell(far: Function) -> tuple[Piece, Piece]:
    """Return the pieces of an odd S: convex, then concave; far(s) is the place z >= 0 with slope s."""
    return Piece(1, lambda s: -far(s)), Piece(-1, far)


def _swish(slope: Function, turns: tuple[tuple[float, tuple[float, ...]], ...], far: float) -> tuple[Piece, ...]:
    """Return the pieces of a concave, convex, concave function whose slope no longer changes beyond -far and far."""
    (first, _), (second, _) = turns
    ends = (-far, first), (first, second), (second, far)
    return tuple(Piece(bend, _tabulated(slope, *own)) for bend, own in zip((-1, 1, -1), ends, strict=True))


def _tabulated(slope: Function, lo: float, hi: float) -> Function:
    """Return slope -> place out of a table, where phi' is monotone on [lo, hi] and turns at its ends.

    Nodes are even in arccos(1 - 2 share), share the way from the slope at lo to that at hi: near a turn the place is
    a square root of the slope, and smooth in that.
    """

    @lru_cache(maxsize=1)
    def table() -> tuple[float, float, FloatArray, FloatArray]:
        first, last = (float(slope(np.array(end))) for end in (lo, hi))
        wanted = first + (last - first) * (1.0 - np.cos(np.linspace(0.0, np.pi, NODES + 1))) / 2.0
        low, high = np.full(NODES + 1, lo), np.full(NODES + 1, hi)
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            is_short = (slope(middle) < wanted) == (first < last)
            low, high = np.where(is_short, middle, low), np.where(is_short, high, middle)
        return first, last - first, high, np.diff(high, append=high[-1])

    def touch(s: FloatArray) -> FloatArray:
        first, change, places, steps = table()
        with np.errstate(invalid="ignore"):
            at = np.arccos(1.0 - 2.0 * np.clip((s - first) / change, 0.0, 1.0)) * (NODES / np.pi)
            node = at.astype(np.int64)
        return np.asarray(places.take(node, mode="clip") + (at - node) * steps.take(node, mode="clip"))

    return touch


def sigmoid() -> Curve:
    """Return phi(z) = 1 / (1 + exp(-z)); slopes in [0, 1/4]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scipy.special.expit(z) * scipy.special.expit(-z))

    def far(s: FloatArray) -> FloatArray:
        s = np.clip(s, LEAST_SLOPE, 0.25)
        tail = 2.0 * s / (1.0 + np.sqrt(1.0 - 4.0 * s))  # tail (1 - tail) = s
        return np.asarray(np.log((1.0 - tail) / tail))

    return Curve("sigmoid", scipy.special.expit, slope, _bell(far), _turns(slope, 0.0))


def tanh() -> Curve:
    """Return phi(z) = tanh(z); slopes in [0, 1]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(1.0 / np.cosh(np.clip(z, -350.0, 350.0)) ** 2)

    def far(s: FloatArray) -> FloatArray:
        s = np.clip(s, LEAST_SLOPE, 1.0)
        return np.asarray(np.log((1.0 + np.sqrt(1.0 - s)) / np.sqrt(s)))  # tanh^2 = 1 - s

    return Curve("tanh", np.tanh, slope, _bell(far), _turns(slope, 0.0))


def erf() -> Curve:
    """Return phi(z) = erf(z); slopes in [0, 2 / sqrt(pi)]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(2.0 / np.sqrt(np.pi) * np.exp(-(np.clip(z, -30.0, 30.0) ** 2)))

    def far(s: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(-np.log(np.clip(s * (np.sqrt(np.pi) / 2.0), LEAST_SLOPE, 1.0))))

    return Curve("erf", scipy.special.erf, slope, _bell(far), _turns(slope, 0.0))


def softplus() -> Curve:
    """Return phi(z) = log(1 + exp(z)); slopes in [0, 1], convex."""
    pieces = (Piece(1, lambda s: np.asarray(scipy.special.logit(np.clip(s, LEAST_SLOPE, 1.0 - 2.0**-53)))),)
    return Curve("softplus", lambda z: np.asarray(np.logaddexp(0.0, z)), scipy.special.expit, pieces)


def softsign() -> Curve:
    """Return phi(z) = z / (1 + |z|); slopes in [0, 1]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray((1.0 / (1.0 + np.abs(z))) ** 2)

    def far(s: FloatArray) -> FloatArray:
        return np.asarray(1.0 / np.sqrt(np.clip(s, LEAST_SLOPE, 1.0)) - 1.0)

    return Curve("softsign", lambda z: np.asarray(z / (1.0 + np.abs(z))), slope, _bell(far), _turns(slope, 0.0))


def _exponential(name: str, alpha: float, scale: float, parameters: Mapping[str, float]) -> Curve:
    """Return scale * (z for z > 0, alpha (exp(z) - 1) below); alpha >= 0 and scale > 0, so that it is monotone."""

    def function(z: FloatArray) -> FloatArray:
        return np.asarray(scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0))))

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))))

    steepest = max(scale * alpha, LEAST_SLOPE)
    pieces = Piece(1, lambda s: np.log(np.clip(s / steepest, LEAST_SLOPE, 1.0))), STRAIGHT
    return Curve(name, function, slope, pieces, ((0.0, (scale * alpha, scale)),), given=parameters)


def elu(alpha: float = 1.0) -> Curve:
    """Return phi(z) = z for z > 0, alpha (exp(z) - 1) below; slopes in [0, max(1, alpha)]."""
    return _exponential("elu", alpha, 1.0, {"alpha": alpha})


def selu(alpha: float = 1.67326319217681884765625, gamma: float = 1.05070102214813232421875) -> Curve:
    """Return phi(z) = gamma (z for z > 0, alpha (exp(z) - 1) below); slopes in [0, gamma max(1, alpha)]."""
    return _exponential("selu", alpha, gamma, {"alpha": alpha, "gamma": gamma})


def celu(alpha: float = 1.0) -> Curve:
    """Return phi(z) = z for z > 0, alpha (exp(z / alpha) - 1) below; slopes in [0, 1]."""

    def function(z: FloatArray) -> FloatArray:
        return np.asarray(np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0) / alpha)))

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(np.where(z > 0, 1.0, np.exp(np.minimum(z, 0.0) / alpha)))

    pieces = Piece(1, lambda s: alpha * np.log(np.clip(s, LEAST_SLOPE, 1.0))), STRAIGHT
    return Curve("celu", function, slope, pieces, ((0.0, (1.0,)),), given={"alpha": alpha})


def hard_swish() -> Curve:
    """Return phi(z) = z min(max(z/6 + 1/2, 0), 1); slopes in [-1/2, 3/2], which jump at -3 and at 3."""

    def function(z: FloatArray) -> FloatArray:
        return np.asarray(z * np.clip(_near(z) / 6.0 + 0.5, 0.0, 1.0))

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(np.where(z < -3, 0.0, np.where(z > 3, 1.0, _near(z) / 3.0 + 0.5)))

    turns = ((-3.0, (-0.5, 0.0)), (3.0, (1.0, 1.5)))
    pieces = STRAIGHT, Piece(1, lambda s: 3.0 * s - 1.5), STRAIGHT
    return Curve("hard_swish", function, slope, pieces, turns, ((-1.5, -0.375),), is_monotone=False)


@lru_cache(maxsize=1)  # its tables are made once
def gelu() -> Curve:
    """Return phi(z) = z P(Z <= z), Z standard normal; slopes in [-.12891, 1.12891]."""

    def slope(z: FloatArray) -> FloatArray:
        near = np.clip(z, -38.0, 38.0)
        return np.asarray(scipy.special.ndtr(z) + near * np.exp(-(near**2) / 2) / np.sqrt(2 * np.pi))

    turns = _turns(slope, -np.sqrt(2.0), np.sqrt(2.0))
    least = (-0.75179152469356445746, -0.169971207479903662)
    pieces = _swish(slope, turns, 9.0)
    return Curve(
        "gelu", lambda z: np.asarray(z * scipy.special.ndtr(z)), slope, pieces, turns, (least,), is_monotone=False
    )


@lru_cache(maxsize=1)  # its tables are made once
def gelu_tanh() -> Curve:
    """Return phi(z) = z/2 (1 + tanh(sqrt(2/pi) (z + .044715 z^3))); slopes in [-.12900, 1.12900]."""
    c, d = np.sqrt(2 / np.pi), 0.044715

    def function(z: FloatArray) -> FloatArray:
        near = _near(z)  # 1 + tanh(t) = 2 sigmoid(2 t) keeps the left tail's digits
        return np.asarray(z * scipy.special.expit(2 * c * (near + d * near**3)))

    def slope(z: FloatArray) -> FloatArray:
        near = np.clip(z, -50.0, 50.0)
        t = 2 * c * (near + d * near**3)
        bell = scipy.special.expit(t) * scipy.special.expit(-t)
        return np.asarray(scipy.special.expit(t) + near * bell * 2 * c * (1 + 3 * d * near**2))

    turns = _turns(slope, -1.4185040087908283555, 1.4185040087908283555)
    least = (-0.75246142207101625849, -0.170040750571254051)
    pieces = _swish(slope, turns, 9.0)
    return Curve("gelu_tanh", function, slope, pieces, turns, (least,), is_monotone=False)


@lru_cache(maxsize=1)  # its tables are made once
def silu() -> Curve:
    """Return phi(z) = z / (1 + exp(-z)); slopes in [-.09984, 1.09984]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scipy.special.expit(z) * (1.0 + _near(z) * scipy.special.expit(-z)))

    turns = _turns(slope, -2.3993572805154676678, 2.3993572805154676678)
    least = (-1.2784645427610737951, -0.278464542761073795)
    pieces = _swish(slope, turns, 40.0)
    return Curve(
        "silu", lambda z: np.asarray(z * scipy.special.expit(z)), slope, pieces, turns, (least,), is_monotone=False
    )


@lru_cache(maxsize=1)  # its tables are made once
def mish() -> Curve:
    """Return phi(z) = z tanh(log(1 + exp(z))); slopes in [-.11253, 1.08850]."""

    def slope(z: FloatArray) -> FloatArray:
        bell = 1.0 / np.cosh(np.minimum(np.logaddexp(0.0, z), 350.0)) ** 2
        return np.asarray(np.tanh(np.logaddexp(0.0, z)) + _near(z) * bell * scipy.special.expit(z))

    turns = _turns(slope, -2.25637639636079312, 1.4905711794854284593)
    least = (-1.1924312145154952121, -0.308843413017250407)
    return Curve(
        "mish",
        lambda z: np.asarray(z * np.tanh(np.logaddexp(0.0, z))),
        slope,
        _swish(slope, turns, 40.0),
        turns,
        (least,),
        is_monotone=False,
    )
