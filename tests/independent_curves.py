"""An independent checker of proofs about networks that jump or bend, written from docs/proof-format.md.

    python -m tests.independent_curves MODEL.onnx PROOF.npz

Beside what `tests.independent_checker` knows: Sign, Floor, Ceil, Round, QuantizeLinear with DequantizeLinear (stairs
and steps, in fractions), Exp, Log, Reciprocal, Sigmoid, Softplus, Sqrt, Tanh and squares (in intervals of mpmath), and
Mul of two tensors (pairs of states, exactly). All else is as there: z, trees, lemmas, goals. It shares no code with
idl_audit.
"""

import functools
import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from mpmath import iv, mp

from tests.independent_checker import GRID, Bounds, Exact, Network, Part, Tensor, linear, picked
from tests.independent_files import Array, Arrays, Choices, Proof, demand, read

iv.prec = mp.prec = 140
NEVER: Any = -math.inf  # a bound that proves nothing
MIDDLES = np.linspace(0, 1, 33)
HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Jumps:
    """x = k where k + c - 1/2 <= z/unit <= k + c + 1/2, k within [lowest, highest]; at a threshold both values count.

    Where an end of the bounds is a threshold, a split has put it there: what lies behind it is the other child's.
    """

    c: Fraction = Fraction(0)
    lowest: float = -math.inf
    highest: float = math.inf
    unit: Fraction = Fraction(1)

    def corners(self, lo: Fraction, hi: Fraction) -> list[tuple[Fraction, Fraction]]:
        """Points (z, x) of the closed graph over [lo, hi], at one of which any linear function is least."""
        ends = math.floor(lo / self.unit - self.c + HALF), math.ceil(hi / self.unit - self.c - HALF)
        first, last = (Fraction(min(max(k, self.lowest), self.highest)) for k in (min(ends), max(ends)))
        places = [(k, (k + self.c + HALF) * self.unit) for k in ({first, last - 1} if last > first else ())]
        return [(lo, first), *((t, k + more) for k, t in places for more in (0, 1)), (hi, last)]

    def least(self, v: Fraction, lam: Fraction, lo: Fraction, hi: Fraction) -> int:
        """A lower bound of v x - lam z over [lo, hi], times 2**GRID."""
        return math.floor(min(v * x - lam * z for z, x in self.corners(lo, hi)) * (1 << GRID))

    def points(self, lo: Fraction, hi: Fraction) -> tuple[Array, Array]:
        """Some points of the graph in floating point, which lines are to lie below or above."""
        z, x = zip(*self.corners(lo, hi), strict=True)
        return np.array(z, float), np.array(x, float)


@dataclass(frozen=True)
class Curve:
    """x = phi(z), with a derivative that rises up to `turn` and falls behind it, or rises or falls everywhere."""

    phi: Callable[[Any], Any]
    """Of intervals."""
    slope: Callable[[Any], Any]
    rises: tuple[bool, bool]
    """Whether the derivative does for z < turn, and for z > turn."""
    turn: int = 0
    above: bool = False
    """Whether there is a value for z > 0 alone."""
    apart: bool = False
    """Whether there is none at 0."""
    unit: Fraction = Fraction(1)

    def is_defined(self, lo: Fraction, hi: Fraction) -> bool:
        """Whether every point of an interval has a value."""
        return lo > hi or ((lo > 0 or not self.above) and (lo > 0 or hi < 0 or not self.apart))

    def least(self, v: Fraction, lam: Fraction, lo: Fraction, hi: Fraction) -> int:
        """A lower bound of v phi(z) - lam z over [lo, hi], times 2**GRID."""
        if lo > hi:  # no points: any number is right, as that of an end is
            hi = lo
        if not self.is_defined(lo, hi):
            return NEVER
        ends = [lo, Fraction(self.turn), hi] if lo < self.turn < hi else [lo, hi]
        found = [self._of_part(v, lam, a, b) for a, b in itertools.pairwise(ends)]
        return min(found)

    def _of_part(self, v: Fraction, lam: Fraction, lo: Fraction, hi: Fraction) -> int:
        """The same where the derivative rises or falls alone: at an end, or above a tangent of v phi."""
        convex = self.rises[lo >= self.turn] == (v > 0)
        factor, slope = interval(v), interval(lam)
        if not convex or lo == hi or not v:
            return min(floor(factor * self.phi(interval(z)) - slope * interval(z)) for z in (lo, hi))
        z0 = interval(self._touching(float(lam / v), lo, hi, bool(v > 0)))
        height, tilt = factor * self.phi(z0), factor * self.slope(z0)
        return min(floor(height + tilt * (interval(z) - z0) - slope * interval(z)) for z in (lo, hi))

    def _touching(self, slope: float, lo: Fraction, hi: Fraction, rises: bool) -> Fraction:
        """About where the derivative has a value: any place in [lo, hi] is right."""
        for _ in range(40):
            middle = (lo + hi) / 2
            middle = Fraction(float(middle)) if lo < Fraction(float(middle)) < hi else middle
            below = float(mp.mpf(self.slope(interval(middle)).mid)) < slope
            lo, hi = (middle, hi) if below == rises else (lo, middle)
        return (lo + hi) / 2

    def points(self, lo: Fraction, hi: Fraction) -> tuple[Array, Array]:
        """Some points of the graph in floating point, which lines are to lie below or above."""
        if not self.is_defined(lo, hi):
            return np.array([float(lo), float(hi)]), np.zeros(2)
        z = float(lo) + (float(hi) - float(lo)) * MIDDLES
        z = np.clip(z, max(float(lo), 1e-300) if self.above else float(lo), float(hi))
        return z, np.array([float(mp.mpf(self.phi(iv.mpf(one)).mid)) for one in z.tolist()])


@dataclass(frozen=True)
class Products:
    """Pairs of states (z1 z2, z2); of a linear function the least value is at a corner of the box of (z1, z2)."""

    unit: Fraction = Fraction(1)

    def least(self, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sums over pairs of lower bounds of v1 z1 z2 + v2 z2 - lam1 z1 - lam2 z2, times 2**GRID."""
        rest = v.times(np.arange(v.ints.shape[1]) % 2) - lam  # of z1 and of z2
        factor = v.ints[:, 0::2] << rest.exp - v.exp
        (la, lb), (ha, hb) = ((end[0::2], end[1::2]) for end in (bounds[0], -bounds[1]))
        values = [
            (factor * a * b >> GRID) + rest.ints[:, 0::2] * a + rest.ints[:, 1::2] * b
            for a in (la, ha)
            for b in (lb, hb)
        ]
        return functools.reduce(np.minimum, values).sum(axis=1) >> rest.exp

    def shares(self, v: Array, lo: Array, hi: Array) -> Array:
        """Of each side's first plane that share for which the least value over the box is greatest; of z1, twice."""
        low, high, la, ha, _ = self._side(v, lo, hi)
        sign = np.where(v[:, 0::2] >= 0, 1.0, -1.0)
        with np.errstate(all="ignore"):
            eta = np.array(np.broadcast_arrays(0 * sign, 0 * sign + 1, high / (high - low), ha / (ha - la)))
            eta = np.clip(np.nan_to_num(eta, nan=0.5), 0, 1)
            first, second = eta * low + (1 - eta) * high, eta * la + (1 - eta) * ha
            sides = [(sign * first, la, ha), (sign * second, low, high)]
            least = sum(np.minimum(slope * a, slope * b) for slope, a, b in sides)
            least = least - sign * (eta * la * low + (1 - eta) * ha * high)
            best = least >= least.max(axis=0) - 1e-12 * abs(least).max(axis=0)
        middle = (np.where(best, eta, -1).max(axis=0) + np.where(best, eta, 2).min(axis=0)) / 2
        return np.repeat(middle, 2, axis=1)

    def planes(self, v: Array, shares: Array, lo: Array, hi: Array) -> Array:
        """The slopes of z1 and z2 of planes below where v1 >= 0, above elsewhere, times v: shares of a side's first."""
        low, high, la, ha, v1 = self._side(v, lo, hi)
        eta, lam = shares[:, 0::2], np.zeros(v.shape)
        lam[:, 0::2] = v1 * (eta * low + (1 - eta) * high)
        lam[:, 1::2] = v1 * (eta * la + (1 - eta) * ha) + v[:, 1::2]
        return lam

    def _side(self, v: Array, lo: Array, hi: Array) -> tuple[Array, ...]:
        (la, lb), (ha, hb), v1 = (lo[0::2], lo[1::2]), (hi[0::2], hi[1::2]), v[:, 0::2]
        return np.where(v1 >= 0, lb, hb), np.where(v1 >= 0, hb, lb), la, ha, v1


def interval(number: Fraction) -> Any:
    """A number as an interval of mpmath."""
    return iv.mpf(number.numerator) / iv.mpf(number.denominator)


def floor(number: Any) -> int:
    """The lower end of an interval, times 2**GRID, rounded downward."""
    end = mp.mpf(number.a)
    return int(mp.floor(mp.ldexp(end, GRID))) if mp.isfinite(end) else NEVER


def _sigmoid(z: Any) -> Any:
    return 1 / (1 + iv.exp(-z))


def _tanh(z: Any) -> Any:
    return 1 - 2 / (1 + iv.exp(2 * z))


CURVES = {
    "Square": Curve(lambda z: z**2, lambda z: 2 * z, (True, True)),
    "Exp": Curve(iv.exp, iv.exp, (True, True)),
    "Log": Curve(iv.log, lambda z: 1 / z, (False, False), above=True),
    "Reciprocal": Curve(lambda z: 1 / z, lambda z: -1 / z**2, (False, True), apart=True),
    "Sigmoid": Curve(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), (True, False)),
    "Softplus": Curve(lambda z: iv.log(1 + iv.exp(z)), _sigmoid, (True, True)),
    "Sqrt": Curve(iv.sqrt, lambda z: 1 / (2 * iv.sqrt(z)), (False, False), above=True),
    "Tanh": Curve(_tanh, lambda z: 1 - _tanh(z) ** 2, (True, False)),
}
STEP = Jumps(-HALF, 0, 1)
ROUNDING = {"Round": Jumps(), "Floor": Jumps(HALF), "Ceil": Jumps(-HALF)}


class CurvedNetwork(Network):
    """Blocks of other activations as well: `phis` has these, by the number of their block."""

    def __init__(self, *given: Any) -> None:
        self.phis: dict[int, Jumps | Curve | Products] = {}
        self.grids: dict[str, tuple[Array, Array]] = {}
        super().__init__(*given)

    def apply(self, node: onnx.NodeProto, x: Any, *more: Any) -> Any:
        """What a node makes of a tensor, and of constants."""
        kind = node.op_type
        if not isinstance(x, Tensor) and not any(isinstance(one, Tensor) for one in more):
            return self.run(node, x, *more)
        if kind in ("Identity", "DequantizeLinear", "QuantizeLinear"):
            demand(isinstance(x, Tensor) and not node.domain, f"operator {kind}")
            return {"Identity": lambda *_: x, "QuantizeLinear": self.stairs}.get(kind, self.levels)(node, x, *more)
        if kind == "Mul" and isinstance(x, Tensor) and isinstance(more[0], Tensor):
            return self.states(x, CURVES["Square"]) if node.input[0] == node.input[1] else self.products(x, more[0])
        if kind in CURVES or kind in ROUNDING:
            return self.states(x, CURVES.get(kind) or ROUNDING[kind])
        if kind == "Sign":  # a step of z less one of -z: both are 0 at 0
            negative = Tensor(x.shape, {t: m.times(-1) for t, m in self.full(x).items()})
            return self.plus(self.states(x, STEP), self.states(negative, STEP), -1)
        return super().apply(node, x, *more)

    def states(self, x: Tensor, phi: Jumps | Curve | Products) -> Tensor:
        """Make states of the entries of a tensor."""
        made = self.block(x, 0)
        self.phis[len(self.maps) - 1] = phi
        return made

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Pairs of states, one for each entry; a factor that reads more than two numbers an entry is a block first."""
        demand(x.shape == y.shape, "a product of tensors of several shapes")
        x, y = (one if self.reads(one) <= 2 * math.prod(one.shape) else self.block(one, 1) for one in (x, y))
        n = math.prod(x.shape)
        even, odd = np.repeat(np.eye(n), 2, axis=0), np.repeat(np.eye(n), 2, axis=0)
        even[1::2], odd[0::2] = 0, 0
        pairs = self.plus(linear(even, x), linear(odd, y))
        demand(sum((m.ints != 0).any(axis=1) for m in self.full(pairs).values()).all(), "a factor that is always 0")
        return Tensor(x.shape, linear(np.eye(2 * n)[0::2], self.states(pairs, Products())).maps)

    def reads(self, x: Tensor) -> int:
        """How many numbers the entries of a tensor read, constants aside."""
        return sum(np.count_nonzero(m.ints) if m else self.sizes[t] for t, m in x.maps.items() if t)

    def stairs(self, node: onnx.NodeProto, x: Tensor, scale: Array, zero: Any = None) -> Tensor:
        """The levels less the zero point, per tensor: round(x / scale) between the ends of the type."""
        zero = np.uint8(0) if zero is None else zero
        demand(np.size(scale) == np.size(zero) == 1 and np.all(scale > 0), "a grid for each axis")
        ends, own = np.iinfo(np.asarray(zero).dtype), int(np.reshape(zero, ()))
        self.grids[node.output[0]] = np.reshape(scale, ()), np.reshape(zero, ())
        unit = Fraction(float(np.reshape(scale, ())))
        return self.states(x, Jumps(Fraction(0), ends.min - own, ends.max - own, unit))

    def levels(self, node: onnx.NodeProto, x: Tensor, scale: Array, zero: Any = None) -> Tensor:
        """(q - zero) scale, of what was made with the same zero point."""
        zero = np.uint8(0) if zero is None else zero
        demand(node.input[0] in self.grids and np.size(scale) == 1, "levels of no grid")
        demand(np.reshape(zero, ()) == self.grids[node.input[0]][1], "levels of another zero point")
        factor = Exact.of(np.reshape(scale, (1,)))
        own = {t: Exact(m.ints * factor.ints[0], m.exp + factor.exp) for t, m in self.full(x).items()}
        return Tensor(x.shape, own)


class CurvedPart(Part):
    """A part of a proof about such a network."""

    network: CurvedNetwork

    def states(self, t: int, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z, times 2**GRID."""
        if t not in self.network.phis:
            return super().states(t, v, lam, bounds)
        phi, each = self.network.phis[t], ends(bounds)
        if isinstance(phi, Products):
            return phi.least(v, lam, bounds)
        if isinstance(phi, Curve) and not all(phi.is_defined(*end) for end in each):
            return np.full(len(v.ints), NEVER, object)
        down = [1 << v.exp, 1 << lam.exp]
        found = np.zeros(len(v.ints), object)
        for r, rows in enumerate(zip(v.ints, lam.ints, strict=True)):
            for factor, slope, end in zip(*rows, each, strict=True):
                if factor or slope:
                    found[r] += phi.least(Fraction(factor, down[0]), Fraction(slope, down[1]), *end)
        return found

    def bends(self, t: int, b: Bounds) -> Array:
        """Which states are still worth a line."""
        return np.full(b[t].shape[1], True) if t in self.network.phis else super().bends(t, b)

    def place(self, t: int, j: int, cut: Fraction) -> Fraction:
        """Where an input or a state is cut: of stairs in numbers of steps."""
        return cut * self.network.phis[t].unit if t in self.network.phis else super().place(t, j, cut)

    def multipliers(self, t: int, v: Exact, lo: Array, hi: Array, lines: str, chosen: Choices) -> Array:
        """The multipliers lam that the format tells, in floating point: any numbers are sound."""
        if t not in self.network.phis:
            return super().multipliers(t, v, lo, hi, lines, chosen)
        phi, pick = self.network.phis[t], functools.partial(picked, chosen, t, v.ints.shape)
        if isinstance(phi, Products):
            low, high = Exact(lo, GRID).floats(), Exact(hi, GRID).floats()
            lam = phi.planes(v.floats(), pick("slopes", phi.shares(v.floats(), low, high)), low, high)
            return np.asarray(pick("duals", lam - pick("multipliers", 0.0)))
        graphs = [phi.points(*end) for end in ends(np.stack([lo, -hi]))]
        unit, real = float(phi.unit), v.floats()
        below, above = (np.array([sign * side(z, sign * x) for z, x in graphs]) for sign in (1, -1))
        s, u = (pick("slopes", slope * unit) for slope in (below, above))
        lam = np.where(real >= 0, s, u) * real
        return np.asarray(pick("duals", lam - pick("multipliers", 0.0)) / unit)


def ends(bounds: Array) -> list[tuple[Fraction, Fraction]]:
    """The bounds of each state."""
    return [(Fraction(lo, 1 << GRID), Fraction(-up, 1 << GRID)) for lo, up in bounds.T.tolist()]


def side(z: Array, x: Array) -> float:
    """The slope of the side of the lower hull of points that their middle lies over."""
    middle = (z[0] + z[-1]) / 2
    first, second = np.nonzero((z[:, None] <= middle) & (z > middle))
    if not len(first):
        return 0.0
    slopes = (x[second] - x[first]) / (z[second] - z[first])
    return float(slopes[np.argmin(x[first] + slopes * (middle - z[first]))])


load = functools.lru_cache(CurvedNetwork)


def prove(network: CurvedNetwork, arrays: Arrays, name: str, lo: Array, hi: Array, *alternatives: Array) -> None:
    """Refuse unless a part is proved."""
    CurvedPart(arrays, name, network, lo, hi).check(*alternatives)


def check(model: Path, proof: Proof) -> str:
    """The claim of a proof file that is right about a model; Refused otherwise, whatever the file holds."""
    return read(model, proof, "real", load, prove)


if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
