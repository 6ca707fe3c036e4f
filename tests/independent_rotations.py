"""An independent checker of proofs about rotated pictures, written from docs/proof-format.md alone.

What a rotation is stands in docs/mathematics.md, section 14.5. It shares no code with idl_audit. Sine, cosine, places
and slopes of pixels are enclosed in rational numbers; what is left is a network of (t, e), which the checker of
`independent_checker` proves.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from tests import independent_checker, independent_files
from tests.independent_checker import Exact, Network
from tests.independent_files import Array, Arrays, Proof, demand, fraction, members, numbers, take

Interval = tuple[Fraction, Fraction]
FINE = 2**70
PI = Fraction(31415926535897932384626433832795, 10**31), Fraction(31415926535897932384626433832796, 10**31)


def coarse(lo: Fraction, hi: Fraction) -> Interval:
    """The interval with ends that have few digits, rounded outward."""
    return Fraction(math.floor(lo * FINE), FINE), Fraction(math.ceil(hi * FINE), FINE)


def plus(a: Interval, b: Interval) -> Interval:
    return a[0] + b[0], a[1] + b[1]


def times(a: Interval, b: Interval) -> Interval:
    ends = [x * y for x in a for y in b]
    return min(ends), max(ends)


def hull(intervals: list[Interval]) -> Interval:
    return min(lo for lo, _ in intervals), max(hi for _, hi in intervals)


def exactly(number: Fraction | int) -> Interval:
    return Fraction(number), Fraction(number)


def sine_and_cosine(degrees: Fraction) -> tuple[Interval, Interval]:
    """Enclosures by 30 terms of exp(i x): what follows is below |x|^30 / 30! * 2 for |x| < 1."""
    x = coarse(*times(PI, exactly(degrees / 180)))
    found, power = [exactly(0), exactly(0)], exactly(1)
    for k in range(30):
        sign = 1 if k % 4 < 2 else -1
        term = times(power, exactly(Fraction(sign, math.factorial(k))))
        found[(k + 1) % 2] = coarse(*plus(found[(k + 1) % 2], term))
        power = coarse(*times(power, x))
    rest = Fraction(2, math.factorial(30))
    return plus(found[0], (-rest, rest)), plus(found[1], (-rest, rest))


def over(lo: Fraction, hi: Fraction) -> tuple[Interval, Interval]:
    """Sine and cosine over an interval within 45 degrees of 0."""
    ends = [sine_and_cosine(lo), sine_and_cosine(hi)]
    sine, cosine = hull([ends[0][0], ends[1][0]]), hull([ends[0][1], ends[1][1]])
    return sine, (cosine[0], Fraction(1)) if lo <= 0 <= hi else cosine


class Picture:
    """One picture of one channel: what its pixels are when it is turned."""

    def __init__(self, planes: Array) -> None:
        self.pixels = planes
        self.height, self.width = planes.shape
        self.cy, self.cx = Fraction(self.height - 1, 2), Fraction(self.width - 1, 2)

    def at(self, i: int, j: int) -> Fraction:
        return self.pixels[min(max(i, 0), self.height - 1), min(max(j, 0), self.width - 1)]

    def place(self, r: int, c: int, sine: Interval, cosine: Interval) -> tuple[Interval, Interval]:
        down, right = exactly(r - self.cy), exactly(c - self.cx)
        y = plus(exactly(self.cy), plus(times(cosine, down), times(sine, right)))
        x = plus(exactly(self.cx), plus(times(cosine, right), times(sine, exactly(-down[0]))))
        return y, x

    def value(self, y: Fraction, x: Fraction) -> Fraction:
        i, j = math.floor(y), math.floor(x)
        rows = [(1 - x + j) * self.at(k, j) + (x - j) * self.at(k, j + 1) for k in (i, i + 1)]
        return (1 - y + i) * rows[0] + (y - i) * rows[1]

    def slopes(self, y: Interval, x: Interval) -> tuple[Interval, Interval]:
        """Of dI/dy and dI/dx, over all cells that a place may be in: both are linear in the other one."""
        by_row, by_column = list[Interval](), list[Interval]()
        rows, columns = (range(math.floor(lo), math.floor(hi) + 1) for lo, hi in (y, x))
        for i, j in itertools.product(rows, columns):
            for share in (min(max(end - j, 0), 1) for end in x):
                steps = [self.at(i + 1, j + k) - self.at(i, j + k) for k in (0, 1)]
                by_row.append(exactly((1 - share) * steps[0] + share * steps[1]))
            for share in (min(max(end - i, 0), 1) for end in y):
                steps = [self.at(i + k, j + 1) - self.at(i + k, j) for k in (0, 1)]
                by_column.append(exactly((1 - share) * steps[0] + share * steps[1]))
        return hull(by_row), hull(by_column)

    def family(self, r: int, c: int, lo: Fraction, hi: Fraction) -> tuple[Fraction, Fraction, Fraction]:
        """(u, m, r) with u + m t within r of the pixel at the angle (lo + hi) / 2 + t (hi - lo) / 2."""
        middle, half = (lo + hi) / 2, (hi - lo) / 2
        y, x = self.place(r, c, *sine_and_cosine(middle))
        near = (y[0] + y[1]) / 2, (x[0] + x[1]) / 2
        by_row, by_column = self.slopes(y, x)
        far = sum(max(map(abs, d)) * (b - a) for d, (a, b) in ((by_row, y), (by_column, x)))
        sine, cosine = over(lo, hi)
        by_row, by_column = self.slopes(*self.place(r, c, sine, cosine))
        degree = PI[0] / 180, PI[1] / 180
        down, right = exactly(r - self.cy), exactly(c - self.cx)
        dy = times(degree, plus(times(sine, exactly(-down[0])), times(cosine, right)))
        dx = times(degree, plus(times(cosine, exactly(-down[0])), times(sine, exactly(-right[0]))))
        least, most = plus(times(by_row, dy), times(by_column, dx))
        return self.value(*near), (least + most) / 2 * half, (most - least) / 2 * half + far + Fraction(1, FINE)


def grid(value: Fraction) -> Fraction:
    return Fraction(round(value * 2**60), 2**60)


def behind(network: Network, centre: Array, lo: Fraction, hi: Fraction) -> Network:
    """The network of (t, e) where the picture turns by lo to hi degrees."""
    side = math.isqrt(len(centre))
    demand(side**2 == len(centre), "pictures that are not square")
    picture, p = Picture(centre.reshape(side, side)), len(centre)
    offset, matrix = np.zeros((p, 1), object), np.zeros((p, 1 + p), object)
    for k, (r, c) in enumerate(itertools.product(range(side), range(side))):
        u, m, spread = picture.family(r, c, lo, hi)
        offset[k, 0], matrix[k, 0] = grid(u), grid(m)  # what is moved to the grid is far below the grid's 2**-60, twice
        matrix[k, 1 + k] = Fraction(math.ceil((spread + Fraction(2, 2**60)) * 2**60), 2**60)
    offset = offset * network.scale[:, None] + network.shift[:, None]
    matrix = matrix * network.scale[:, None]
    found = copy.copy(network)
    demand({network.scale[0].denominator, network.shift[0].denominator} == {1}, "data units that are no whole numbers")
    start, moves = (Exact(np.frompyfunc(lambda f: int(f * 2**60), 1, 1)(a), 60) for a in (offset, matrix))

    def through(maps: Any) -> Any:
        if 1 not in maps:
            return maps
        return {**maps, 0: maps[0] + maps[1] @ start, 1: maps[1] @ moves}

    found.maps = [through(one) for one in network.maps]
    demand(not any(network.windows), "maxima")
    found.output = network.output._replace(maps=through(network.full(network.output)))
    found.sizes = [1, 1 + p, *network.sizes[2:]]
    found.scale, found.shift = np.full(1 + p, Fraction(1)), np.full(1 + p, Fraction(0))
    return found


def parts(arrays: Arrays, claim: Any, p: int, q: int) -> Iterator[tuple[Any, ...]]:
    """The parts of a claim about rotations, each with its angles in place of a box."""
    _, _, label, factor, clip, shape, terms, rotate = members(claim, "kind index label factor clip shape terms rotate")
    demand(claim["kind"] == "perturbed" and terms == [], "no rotations alone")
    demand(type(label) is int and 0 <= label < q > 1, "meta: claim")
    centre, angles = fraction(take(arrays, "centre", "<f8", p)), fraction(take(arrays, "angles", "<f8", None))
    demand([n for n in shape if n > 1] == [math.isqrt(p)] * 2, "pictures that are not square, or have channels")
    least, most = numbers(clip) if clip is not None else (-math.inf, math.inf)
    demand(all(least <= u <= most for u in centre), "a sample outside its range")
    largest = numbers([factor])[0] * numbers([rotate])[0]
    demand(0 < numbers([rotate])[0] <= 45 and 0 < largest <= 45, "angles beyond 45 degrees")
    demand(len(angles) > 1 and (np.diff(angles) > 0).all() and max(abs(angles)) <= 45, "angles that do not ascend")
    demand(angles[0] <= -largest and largest <= angles[-1], "angles that are left out")
    rows = np.delete(np.eye(q)[label] - np.eye(q), label, axis=0)
    for k, ends in enumerate(itertools.pairwise(angles)):
        yield f"part.{k}.", (centre, *ends), None, rows, np.zeros(q - 1), np.arange(q - 1)


def prove(network: Network, arrays: Arrays, name: str, turned: Any, _: None, *alternatives: Array) -> None:
    """Refuse unless a part is proved."""
    there = behind(network, *turned)
    ends = fraction(np.ones(there.sizes[1]))
    independent_checker.prove(there, arrays, name, -ends, ends, *alternatives)


def check(model: Path, proof: Proof) -> str:
    """The claim of a proof about rotations that is right; Refused otherwise."""
    return independent_files.read(model, proof, "real", independent_checker.load, prove, parts)
