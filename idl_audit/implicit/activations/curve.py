"""Curved activations: everything with a derivative that is monotone between a few known points.

On [l, h] the slopes a <= phi' <= g come from the ends and the points between them where phi' turns or jumps. The graph
then lies between the lines of slopes a and g through (l, phi(l)) and (h, phi(h)); where phi' is monotone on [l, h], it
also lies on one side of its chord and on the other side of its tangents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import scipy

from idl_audit.implicit.activations.base import Activation, Line
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.rounding import TINY, gamma

LIBRARY_ERROR = 2.0**-46
"""Error granted to a value or slope, relative to 1 + its size: 128 units in the last place of a few library calls."""

FAR = 1e4
"""Beyond this distance from 0 every slope below is constant in float64; arguments are clipped there."""

Function = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True, eq=False)
class Curve(Activation):
    """A function whose derivative is monotone between neighbouring `turns`."""

    name: str
    function: Function
    slope: Function
    turns: tuple[tuple[float, tuple[float, ...]], ...] = ()
    """(z, slopes there): where phi' has an extremum or jumps; both one-sided slopes at a jump."""
    extremes: tuple[tuple[float, float], ...] = ()
    """(z, phi(z)): where phi itself turns."""
    is_monotone: bool = True
    given: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    positively_homogeneous: bool = False
    piecewise_linear: bool = False

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """What the constructor was given."""
        return dict(self.given)

    @property
    def lipschitz(self) -> float:
        """The largest |slope|: at a turn, or far out."""
        far = np.array([-FAR, FAR])
        slopes = [*np.abs(self.slope(far)), *(abs(value) for _, values in self.turns for value in values)]
        return float(max(slopes)) * (1 + LIBRARY_ERROR)

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return phi(z)."""
        return np.asarray(self.function(z))

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return phi'(z)."""
        return np.asarray(self.slope(z))

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

    def _bends(self, lo: FloatArray, hi: FloatArray) -> tuple[BoolArray, BoolArray]:
        """Return where phi is surely convex and where it is surely concave on [lo, hi]."""
        turning = np.zeros(np.broadcast_shapes(np.shape(lo), np.shape(hi)), np.bool_)
        for place, _ in self.turns:
            turning |= (lo < place) & (place < hi)
        width = hi - lo
        rise = self.slope(lo + 0.75 * width) - self.slope(lo + 0.25 * width)
        sure = 8 * LIBRARY_ERROR
        return ~turning & (rise > sure), ~turning & (rise < -sure)

    def relaxation_slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return chord and middle tangent where phi bends one way, else the line that is nearer in the middle."""
        convex, concave = self._bends(lo, hi)
        middle = self.slope(lo + 0.5 * (hi - lo))
        chord = self._chord(lo, hi)
        (below_a, below_g), (above_g, above_a) = self._corner_lines(lo, hi)
        centre = lo + 0.5 * (hi - lo)
        steep_below = below_g[0] * centre + below_g[1] > below_a[0] * centre + below_a[1]
        flat_above = above_a[0] * centre + above_a[1] < above_g[0] * centre + above_g[1]
        lower = np.where(steep_below, below_g[0], below_a[0])
        upper = np.where(flat_above, above_a[0], above_g[0])
        return (
            np.where(convex, middle, np.where(concave, chord, lower)),
            np.where(concave, middle, np.where(convex, chord, upper)),
        )

    def _chord(self, lo: FloatArray, hi: FloatArray) -> FloatArray:
        return np.asarray((self.function(hi) - self.function(lo)) / np.maximum(hi - lo, TINY))

    def _corner_lines(self, lo: FloatArray, hi: FloatArray) -> tuple[tuple[Line, Line], tuple[Line, Line]]:
        """Return the lines of slopes (a, g) below the graph and (g, a) above it, through its ends."""
        a, g = self.slopes(lo, hi)
        at_lo, at_hi = self.function(lo), self.function(hi)
        below = (a, at_lo - a * lo), (g, at_hi - g * hi)
        return below, ((g, at_lo - g * lo), (a, at_hi - a * hi))

    def lines(self, lo: FloatArray, hi: FloatArray) -> tuple[list[Line], list[Line]]:
        """Return the lines through both ends and, where phi bends one way, its chord and its middle tangent."""
        convex, concave = self._bends(lo, hi)
        below, above = self._corner_lines(lo, hi)
        chord, centre = self._chord(lo, hi), lo + 0.5 * (hi - lo)
        middle = self.slope(centre)
        chord_line, tangent = (chord, self.function(lo) - chord * lo), (middle, self.function(centre) - middle * centre)

        def third(straight: BoolArray, touching: BoolArray, other: Line) -> Line:
            chosen = [
                np.where(straight, c, np.where(touching, t, o))
                for c, t, o in zip(chord_line, tangent, other, strict=True)
            ]
            return chosen[0], chosen[1]

        return [*below, third(concave, convex, below[0])], [*above, third(convex, concave, above[0])]

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the best of the bounds that the corner lines, the ends and the middle tangent prove.

        - A convex combination of the lines of slopes a and g below the graph (v >= 0) or above it (v < 0).
        - Where v phi is concave, v phi(z) - lam z is least at an end.
        - Where v phi is convex, it lies above its tangent in the middle.
        """
        convex, concave = self._bends(lo, hi)
        rising = v >= 0
        best = self._by_corner_lines(v, lam, lo, hi)
        ends = np.minimum(self._at(v, lam, lo), self._at(v, lam, hi))
        best = np.where(np.where(rising, concave, convex), np.maximum(best, ends), best)
        tangent = self._by_tangent(v, lam, lo, hi)
        best = np.where(np.where(rising, convex, concave), np.maximum(best, tangent), best)
        least, most = self.interval(lo, hi)
        reach = np.maximum(np.abs(least), np.abs(most))
        return np.asarray(best - v_error * reach * (1 + gamma(8)) - TINY)

    def _value(self, v: FloatArray, z: FloatArray) -> FloatArray:
        """Return phi(z), rounded so that v phi(z) becomes smaller: down where v >= 0, up elsewhere."""
        return _rounded(self.function(z), np.where(v >= 0, -1.0, 1.0))

    def _at(self, v: FloatArray, lam: FloatArray, z: FloatArray) -> FloatArray:
        value = self._value(v, z)
        return np.asarray(v * value - lam * z - gamma(6) * (np.abs(v * value) + np.abs(lam * z)))

    def _by_corner_lines(self, v: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        a, g = self.slopes(lo, hi)
        anchor_a, anchor_g = np.where(v >= 0, lo, hi), np.where(v >= 0, hi, lo)
        wanted = np.divide(lam, v, out=np.zeros_like(v + lam), where=np.abs(v) > TINY)
        share = np.clip(np.divide(g - wanted, g - a, out=np.ones_like(wanted), where=(g - a) > TINY), 0.0, 1.0)
        at_a, at_g = self._value(v, anchor_a), self._value(v, anchor_g)

        def line(z: FloatArray) -> FloatArray:
            return np.asarray(share * (at_a + a * (z - anchor_a)) + (1 - share) * (at_g + g * (z - anchor_g)))

        least = np.minimum(v * line(lo) - lam * lo, v * line(hi) - lam * hi)
        steepest = np.maximum(np.abs(a), np.abs(g))
        reach = np.maximum(np.abs(at_a), np.abs(at_g)) + steepest * (np.abs(lo) + np.abs(hi))
        size = np.abs(v) * reach + np.abs(lam) * np.maximum(np.abs(lo), np.abs(hi))
        return np.asarray(least - gamma(64) * size)

    def _by_tangent(self, v: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray) -> FloatArray:
        centre = lo + 0.5 * (hi - lo)
        slope, value = self.slope(centre), self._value(v, centre)
        width = hi - lo
        ends = [v * (value + slope * (z - centre)) - lam * z for z in (lo, hi)]
        slope_error = np.abs(v) * width * LIBRARY_ERROR * (1 + np.abs(slope))
        reach = np.abs(value) + np.abs(slope) * (np.abs(lo) + np.abs(hi))
        size = np.abs(v) * reach + np.abs(lam) * np.maximum(np.abs(lo), np.abs(hi))
        return np.asarray(np.minimum(*ends) - slope_error - gamma(64) * size)


def _rounded(value: FloatArray, direction: FloatArray | float) -> FloatArray:
    """Return the value moved by what library functions may err: down where direction = -1, up where it is 1."""
    return np.asarray(value + direction * (LIBRARY_ERROR * (1.0 + np.abs(value))))


def _near(z: FloatArray) -> FloatArray:
    return np.clip(z, -FAR, FAR)


def _turns(slope: Function, *places: float) -> tuple[tuple[float, tuple[float, ...]], ...]:
    """Return the smooth turns of phi' with its value at each; an error in a place enters its value squared."""
    return tuple((place, (float(slope(np.array(place))),)) for place in places)


def sigmoid() -> Curve:
    """Return phi(z) = 1 / (1 + exp(-z)); slopes in [0, 1/4]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scipy.special.expit(z) * scipy.special.expit(-z))

    return Curve("sigmoid", scipy.special.expit, slope, _turns(slope, 0.0))


def tanh() -> Curve:
    """Return phi(z) = tanh(z); slopes in [0, 1]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(1.0 / np.cosh(np.clip(z, -350.0, 350.0)) ** 2)

    return Curve("tanh", np.tanh, slope, _turns(slope, 0.0))


def erf() -> Curve:
    """Return phi(z) = erf(z); slopes in [0, 2 / sqrt(pi)]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(2.0 / np.sqrt(np.pi) * np.exp(-(np.clip(z, -30.0, 30.0) ** 2)))

    return Curve("erf", scipy.special.erf, slope, _turns(slope, 0.0))


def softplus() -> Curve:
    """Return phi(z) = log(1 + exp(z)); slopes in [0, 1], convex."""
    return Curve("softplus", lambda z: np.asarray(np.logaddexp(0.0, z)), scipy.special.expit)


def softsign() -> Curve:
    """Return phi(z) = z / (1 + |z|); slopes in [0, 1]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray((1.0 / (1.0 + np.abs(z))) ** 2)

    return Curve("softsign", lambda z: np.asarray(z / (1.0 + np.abs(z))), slope, _turns(slope, 0.0))


def _exponential(name: str, alpha: float, scale: float, parameters: Mapping[str, float]) -> Curve:
    """Return scale * (z for z > 0, alpha (exp(z) - 1) below); alpha >= 0 and scale > 0, so that it is monotone."""

    def function(z: FloatArray) -> FloatArray:
        return np.asarray(scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0))))

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scale * np.where(z > 0, 1.0, alpha * np.exp(np.minimum(z, 0.0))))

    return Curve(name, function, slope, ((0.0, (scale * alpha, scale)),), given=parameters)


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

    return Curve("celu", function, slope, ((0.0, (1.0,)),), given={"alpha": alpha})


def hard_swish() -> Curve:
    """Return phi(z) = z min(max(z/6 + 1/2, 0), 1); slopes in [-1/2, 3/2], which jump at -3 and at 3."""

    def function(z: FloatArray) -> FloatArray:
        return np.asarray(z * np.clip(_near(z) / 6.0 + 0.5, 0.0, 1.0))

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(np.where(z <= -3, 0.0, np.where(z >= 3, 1.0, _near(z) / 3.0 + 0.5)))

    turns = ((-3.0, (-0.5, 0.0)), (3.0, (1.0, 1.5)))
    return Curve("hard_swish", function, slope, turns, ((-1.5, -0.375),), is_monotone=False)


def gelu() -> Curve:
    """Return phi(z) = z P(Z <= z), Z standard normal; slopes in [-.12891, 1.12891]."""

    def slope(z: FloatArray) -> FloatArray:
        near = np.clip(z, -38.0, 38.0)
        return np.asarray(scipy.special.ndtr(z) + near * np.exp(-(near**2) / 2) / np.sqrt(2 * np.pi))

    turns = _turns(slope, -np.sqrt(2.0), np.sqrt(2.0))
    least = (-0.75179152469356445746, -0.169971207479903662)
    return Curve("gelu", lambda z: np.asarray(z * scipy.special.ndtr(z)), slope, turns, (least,), is_monotone=False)


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
    return Curve("gelu_tanh", function, slope, turns, (least,), is_monotone=False)


def silu() -> Curve:
    """Return phi(z) = z / (1 + exp(-z)); slopes in [-.09984, 1.09984]."""

    def slope(z: FloatArray) -> FloatArray:
        return np.asarray(scipy.special.expit(z) * (1.0 + _near(z) * scipy.special.expit(-z)))

    turns = _turns(slope, -2.3993572805154676678, 2.3993572805154676678)
    least = (-1.2784645427610737951, -0.278464542761073795)
    return Curve("silu", lambda z: np.asarray(z * scipy.special.expit(z)), slope, turns, (least,), is_monotone=False)


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
        turns,
        (least,),
        is_monotone=False,
    )
