"""An independent checker of proofs about balls of l2 and l1, written from docs/proof-format.md alone.

The least of w . u over a ball cut with a box is that of docs/mathematics.md, section 14.2: in whole numbers and
fractions, square roots by `math.isqrt`, so that only the parts of w that ball and box are to bound come from floating
point. All else is `independent_checker`'s, with which it shares no code with idl_audit.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests import independent_checker, independent_files
from tests.independent_checker import GRID, Bounds, Exact, Network, least
from tests.independent_files import Array, Arrays, Proof, demand, fraction, members, numbers, take

ONE = 1 << GRID
floor, ceil = (np.frompyfunc(function, 1, 1) for function in (math.floor, math.ceil))


class Ball(NamedTuple):
    """{u : |(u - centre) / sigma| <= eps in a norm, lo <= u <= hi}, in fractions."""

    norm: str
    eps: Fraction
    centre: Array
    sigma: Array
    lo: Array
    hi: Array


class Part(independent_checker.Part):
    """A part whose inputs lie in a ball: in the network's units, x = scale u + shift."""

    def __init__(self, arrays: Arrays, name: str, network: Network, ball: Ball) -> None:
        super().__init__(arrays, name, network, ball.lo, ball.hi)
        at = (ball.centre * network.scale + network.shift) * ONE
        self.centre = np.array([floor(at), -ceil(at)])
        below, above = ((far * network.scale) for far in (ball.centre - ball.lo, ball.hi - ball.centre))
        self.below, self.above = ceil(below * ONE), ceil(above * ONE)
        sigma = ball.sigma * network.scale
        self.sigma, self.eps, self.norm = ceil(sigma * ONE), math.ceil(ball.eps * ONE), ball.norm
        inverse = np.array([1 / s if s else Fraction(0) for s in sigma])
        self.shares = ceil(np.array([below * inverse, above * inverse]) * ONE)

    def rest(self, t: int, w: Exact, b: Bounds) -> Array:
        """The least that what is read of the inputs adds: w . centre less the most of -w . (x - centre)."""
        if t != 1:
            return super().rest(t, w, b)
        most = self.most_l2(w.times(-1)) if self.norm == "l2" else self.most_l1(w.times(-1))
        return least(w, w, self.centre) - most

    def most_l2(self, m: Exact) -> Array:
        """eps |m1 sigma|_2 + the most of m2 . d over the box, m1 + m2 = m: any parts are sound."""
        real, sigma = m.floats(), self.sigma.astype(float) / ONE
        ends = self.shares.astype(float) / ONE
        scaled, eps = real * sigma, self.eps / ONE
        far = np.where(scaled > 0, ends[1], ends[0])
        lam = np.zeros((len(real), 1))
        most = np.linalg.norm(scaled, axis=1, keepdims=True) / eps + 1e-300
        for _ in range(60):  # the step clip(m / lam) is longer than eps while lam is too small
            middle = (lam + most) / 2
            long = (np.minimum(abs(scaled) / middle, far) ** 2).sum(axis=1, keepdims=True) > eps**2
            lam, most = np.where(long, middle, lam), np.where(long, most, middle)
        with np.errstate(all="ignore"):
            part = np.sign(scaled) * np.minimum(abs(scaled), most * far) / sigma
        one = Exact.of(np.where(np.isfinite(part), part, 0.0))
        squares = ((one.ints * self.sigma) ** 2).sum(axis=1)
        lengths = np.array([math.isqrt(square) + 1 for square in squares], object)
        other = m - one
        by_box = np.maximum(other.ints * self.above, -other.ints * self.below).sum(axis=1)
        return -(-(lengths * self.eps) >> one.exp + GRID) - (-by_box >> other.exp)

    def most_l1(self, m: Exact) -> Array:
        """lam eps + sum of max(|m| sigma - lam, 0) c / sigma, c how far an input moves that way: any lam is sound."""
        size, far = abs(m.ints) * self.sigma, np.where(m.ints > 0, self.shares[1], self.shares[0])
        order = np.argsort(-size, axis=1, kind="stable")
        used = np.cumsum(np.take_along_axis(far, order, axis=1), axis=1)
        place = (used < self.eps).sum(axis=1)
        lam = np.array([s[o[k]] if k < len(s) else 0 for s, o, k in zip(size, order, place, strict=True)], object)
        rest = np.maximum(size - lam[:, None], 0)
        return -(-(lam * self.eps + (rest * far).sum(axis=1)) >> m.exp + GRID)


def parts(arrays: Arrays, claim: Any, p: int, q: int) -> Iterator[tuple[Any, ...]]:
    """The part of a claim about a ball, with the ball in place of a box."""
    _, _, label, eps, clip, few, norm = members(claim, "kind index label eps clip cardinality norm")
    demand(claim["kind"] == "sample" and few is None and norm in ("l2", "l1"), "no ball of l2 or l1")
    demand(type(label) is int and 0 <= label < q > 1 and eps > 0, "meta: claim")
    centre = fraction(take(arrays, "centre", "<f8", p))
    sigma = fraction(take(arrays, "sigma", "<f8", p) if "sigma" in arrays else np.ones(p))
    demand((sigma >= 0).all(), "radii below 0")
    radius = numbers([eps])[0]
    lowest, highest = numbers(clip) if clip is not None else (-math.inf, math.inf)
    demand(all(lowest <= u <= highest for u in centre), "a sample outside its range")
    box = np.maximum(centre - radius * sigma, lowest), np.minimum(centre + radius * sigma, highest)
    rows = np.delete(np.eye(q)[label] - np.eye(q), label, axis=0)
    yield "part.0.", Ball(norm, radius, centre, sigma, *box), None, rows, np.zeros(q - 1), np.arange(q - 1)


def prove(network: Network, arrays: Arrays, name: str, ball: Ball, _: None, *alternatives: Array) -> None:
    """Refuse unless a part is proved."""
    Part(arrays, name, network, ball).check(*alternatives)


def check(model: Path, proof: Proof) -> str:
    """The claim of a proof about a ball that is right; Refused otherwise."""
    return independent_files.read(model, proof, "real", independent_checker.load, prove, parts)
